"""The page of a report: its sections in order, with every table and figure put in one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reports import findings, markup, sections
from reports.canvas import Drawing
from reports.load import RecordedStudy
from reports.tables.cells import Table
from reports.text import ORACLE

UNFOLDED = ("main", "published", "sufficient", "transfer", "robustness", "choice", "rules")
"""Tables that are shown whole however long they are."""
NO_TRANSFER = "The study asks for no transfer."


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Args:
        kind: Its line in the table of contents.
        anchor: Its address within the page.
        title: Its heading, without the number.
        body: Its content as HTML.
    """

    kind: str
    anchor: str
    title: str
    body: str


class Placement:
    """The tables and figures of a study, numbered in the order in which the page takes them.

    Args:
        tables: Name to table.
        figures: Name to figure.
        files: Name of a figure to its SVG file.
    """

    def __init__(
        self, tables: Mapping[str, Table], figures: Mapping[str, Drawing], files: Mapping[str, Path]
    ):
        self.tables, self.figures, self.files = tables, figures, files
        self._placed_tables: list[str] = []
        self._placed_figures: list[str] = []

    def table(self, name: str, otherwise: str = "") -> str:
        """Return a table as HTML, or a paragraph with `otherwise` where the study has no such table."""
        if name not in self.tables:
            return markup.paragraph(otherwise) if otherwise else ""
        self._placed_tables.append(name)
        number = len(self._placed_tables)
        return markup.table(self.tables[name], number, fold=name not in UNFOLDED)

    def figure(self, name: str, otherwise: str = "") -> str:
        """Return a figure as HTML, or a paragraph with `otherwise` where the study has no such figure."""
        if name not in self.figures:
            return markup.paragraph(otherwise) if otherwise else ""
        self._placed_figures.append(name)
        return markup.figure(self.figures[name], self.files[name], len(self._placed_figures))

    def folded_figures(self, *prefixes: str) -> str:
        """Return every figure whose name starts with one of `prefixes`, each folded under its title."""
        return "".join(
            markup.details(drawing.title, self.figure(name))
            for name, drawing in self.figures.items()
            if name.startswith(prefixes)
        )

    def check_complete(self) -> None:
        """Raise a RuntimeError that names every table and figure which no section has taken."""
        missing = [
            *(f"table `{name}`" for name in self.tables if name not in self._placed_tables),
            *(f"figure `{name}`" for name in self.figures if name not in self._placed_figures),
        ]
        if missing:
            raise RuntimeError(
                f"reports/layout.py: no section of the page takes {', '.join(missing)}; every table and "
                "figure of reports/contents.py needs a place in a section"
            )


def page_html(study: RecordedStudy, placement: Placement) -> str:
    """Return the page: results first, then how sure they are, then everything else.

    Raises:
        RuntimeError: A table or figure of the study has no place on the page.
    """
    parts = [
        *_results(placement),
        *_statistics(placement),
        *_appendix(study, placement),
    ]
    placement.check_complete()
    body = [
        markup.section(part.anchor, f"{number}. {part.title}", part.body)
        for number, part in enumerate(parts, start=1)
    ]
    heading = f"{study.name}: machine unlearning report"
    return markup.page(heading, "\n".join([_header(study, heading, parts), *body]))


def _results(placement: Placement) -> list[Section]:
    table, figure = placement.table, placement.figure
    results = table("main") + figure("gaps", "No method has a gap to retraining yet.")
    parts = [Section("Results", "results", "Results with tuned knobs", results)]
    if "published" in placement.tables:
        title = placement.tables["published"].title
        parts.append(Section("Results", "published", title, table("published")))
    sufficient = (
        figure("over_forgetting", "No run of a method has finished yet.")
        + table("sufficient", "The study asks for no sufficient training.")
        + table("overforgetting")
    )
    transfer = table("transfer", NO_TRANSFER)
    robustness = table(
        "robustness", "The study asks for neither sufficient training nor transfer."
    ) + "".join(map(table, ("choice", "choice_cells", "rules")))
    return [
        *parts,
        Section("Results", "sufficient", "Sufficient training", sufficient),
        Section("Results", "transfer", "Transfer of knobs", transfer),
        Section("Results", "robustness", "Robustness to knobs", robustness),
    ]


def _statistics(placement: Placement) -> list[Section]:
    table, figure = placement.table, placement.figure
    certainty = table(
        "noise_floor", "The noise floor is unknown with fewer than two retrained models."
    ) + table("comparison", "Methods cannot be compared: none has a recovery yet.")
    search = table("knobs") + figure("expected_best", "No cell has two finished search trials yet.")
    title = "Chosen knobs, and whether they were tuned enough"
    return [
        Section("Statistics", "certainty", "How sure the numbers are", certainty),
        Section("Statistics", "search", title, search),
        Section("Statistics", "cost", "Cost", table("cost") + figure("cost")),
    ]


def _appendix(study: RecordedStudy, placement: Placement) -> list[Section]:
    table, figure = placement.table, placement.figure
    matrix = figure("transfer_matrix") + table("transfer_matrix", NO_TRANSFER)
    classes = figure("taken_for", "No run with tuned knobs has finished yet.") + table("classes")
    metrics = table("metrics")
    knobs = (
        table("importance", "No knob was searched.")
        + table("grid")
        + placement.folded_figures("response_", "grid_")
    )
    choices = figure("progress", "No search trial has finished yet.") + table("selection")
    contents = (
        ("setting", "What was run", sections.what_was_run(study)),
        ("matrix", "Transfer matrix", matrix),
        ("classes", "Class by class", classes),
        ("metrics", "Every recorded metric", metrics),
        ("knobs", "What the knobs do", knobs),
        ("choices", "Search trials and other choices among them", choices),
        ("unfinished", "Trials without a result", sections.unfinished(study)),
        ("glossary", "Glossary of metrics", sections.glossary()),
    )
    return [Section("Appendix", *content) for content in contents]


def _header(study: RecordedStudy, heading: str, parts: list[Section]) -> str:
    """Return what stands above the sections: title, summary, table of contents and how to read tables."""
    links = ""
    for kind in dict.fromkeys(part.kind for part in parts):
        anchors = "".join(
            f'<a href="#{part.anchor}">{number}. {markup.escape(part.title)}</a> '
            for number, part in enumerate(parts, start=1)
            if part.kind == kind
        )
        links += f"<p><b>{kind}</b> {anchors}</p>"
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    oracle = markup.paragraph(ORACLE) if study.oracle else ""
    return (
        f"<header><h1>{markup.escape(heading)}</h1>"
        f'<p class="byline">{markup.escape(sections.byline(study, written))} '
        'All results in full precision: <a href="tables/results.csv">results.csv</a> by run, '
        '<a href="tables/cells.csv">cells.csv</a> with intervals.</p>'
        f'<div class="abstract">{markup.paragraph(" ".join(findings.sentences(study)))}{oracle}</div>'
        f"<nav>{links}</nav>"
        f"{markup.details('How to read the tables', markup.facts(sections.how_to_read(study)))}</header>"
    )
