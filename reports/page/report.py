"""``build``: the report of a study as one page, with its tables and figures as files beside it."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from reports import contents, load
from reports.charts.figure import Figure, looks
from reports.load import RecordedStudy
from reports.page import cards, embedded, methods, words
from reports.tables import files
from reports.tables.cells import SIGNS, Table, TableCell
from reports.text import ORACLE

OURS = ("figures", "index.html", "tables")
"""What a report's folder holds; a folder with anything else is not replaced."""
FIGURES = ("main", "all", "none")
"""What figures are written as files: those of a single method, of which there are many, only where all are asked for."""
HERE = Path(__file__).parent
SECTIONS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("results", "Results", ("main", "published"), ("recoveries",)),
    ("longer", "More epochs", ("sufficient", "overforgetting"), ("over_forgetting",)),
    (
        *("transfer", "Knobs of others"),
        ("transfer", "transfer_matrix", "robustness", "choice", "choice_cells", "rules"),
        ("transfer_matrix", "choice"),
    ),
    ("certainty", "How sure", ("noise_floor", "comparison"), ()),
    (
        *("search", "Search and knobs"),
        ("knobs", "selection", "importance", "grid"),
        ("progress", "expected_best"),
    ),
    ("classes", "Class by class", ("classes",), ("taken_for",)),
    ("cost", "Cost", ("cost",), ()),
    ("metrics", "Every metric", ("metrics",), ()),
    ("trials", "Trials", (), ()),
    ("run", "What was run", (), ()),
    ("glossary", "Glossary", (), ()),
)
"""Anchor, title, tables and figures (or how their names begin) of each section; what is named nowhere is in the results."""
FIRST = ("tradeoff", "choice")
"""Figures for the place beside the first table, the first that there is: a study of menus alone has no tuned methods."""
OPEN = ("main", "robustness")
"""Tables that are unfolded at first."""


def build(
    study_dir: Path,
    out: Path | None = None,
    figures: str = "main",
    study: RecordedStudy | None = None,
) -> Path:
    """Write the report of a study, either the whole report or nothing.

    Args:
        study_dir: Folder with ``trials.jsonl``, of a study that may still be running.
        out: Folder to write, ``report`` in the study's folder by default. An earlier report is replaced.
        figures: Which of ``FIGURES`` to write as files; the page has all, and needs none of the files.
        study: The study of that folder, where it has been read.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: ``trials.jsonl`` is missing, empty or of another schema; or `out` holds files that are
            not a report's.
    """
    study = load.read(study_dir) if study is None else study
    out = (study_dir / "report" if out is None else out).resolve()
    with draft_of(out) as draft:
        write(study, draft, figures)
    return out / "index.html"


def write(study: RecordedStudy, folder: Path, figures: str = "main") -> None:
    """Write page, tables and figures into a folder that has none."""
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    tables = contents.all_tables(study)
    files.write(folder / "tables", study, tables)
    drawn = contents.all_figures(study)
    saved = [f for f in drawn if figures == "all" or (figures == "main" and not f.method)]
    for figure in saved:
        figure.save(folder / "figures")
    text = page_html(study, tables, drawn, {figure.name for figure in saved})
    (folder / "index.html").write_text(text, encoding="utf-8")


def page_html(
    study: RecordedStudy, tables: Sequence[Table], figures: Sequence[Figure], saved: Set[str]
) -> str:
    """Return the page: the result in words, the methods, time against recovery; then everything else.

    Args:
        saved: Names of the figures that are files, too.
    """
    shown, rest = cards.cards(study)
    first = next((figure for name in FIRST for figure in figures if figure.name == name), None)
    heads, groups = methods.summary(study)
    return _template("page.html").render(
        title=f"{study.name}: machine unlearning report",
        byline=words.byline(study, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        notes=notes(study),
        cards=shown,
        findings=rest,
        looks=looks(study)[: len(study.methods)],
        names={method.name for method in study.methods},
        requests=[request.name for request in study.requests],
        heads=heads,
        groups=groups,
        signs=", ".join(f"{sign} {word}" for word, sign in SIGNS.items()),
        margin=words.margin(study),
        oracle=study.oracle,
        first=first,
        saved=saved,
        sections=_sections(study, tables, [f for f in figures if f is not first]),
        open=OPEN,
        data=embedded.embedded(study, figures),
        vega=_vega(),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        js=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def comparison_html(names: Sequence[str], tables: Sequence[Table]) -> str:
    """Return the page over several studies."""
    css = (HERE / "page.css").read_text(encoding="utf-8")
    return _template("compare.html").render(names=names, tables=tables, css=css)


def notes(study: RecordedStudy) -> list[str]:
    """Return what a reader must know before any number."""
    left, ended = cards.to_run(study), len(study.records)
    state = study.summary.get("state")
    alone = ", ".join(
        r.name for r in study.requests if not study.cell("reference", r.name, "retrain").finished
    )
    said = {
        f"This study is not complete: {ended:,} trials have ended, {left:,} have not run yet.": (
            state == "running" or (state is None and left)
        ),
        "No trial of a method has finished yet.": not any(
            r.finished for r in study.records if r.phase != "reference"
        ),
        "There is a single report seed, so no number has an interval.": len(study.report_seeds)
        == 1,
        f"There is no retrained model of {alone}: no gap and no recovery there.": alone,
        ORACLE: study.oracle,
        contents.COMPARED: not study.oracle and contents.compared(study),
    }
    return [text for text, holds in said.items() if holds]


def _sections(
    study: RecordedStudy, tables: Sequence[Table], figures: Sequence[Figure]
) -> list[dict[str, Any]]:
    """Return the sections below the first screen that have something to show."""
    placed = {name for _, _, names, _ in SECTIONS for name in names}
    by_name = {table.name: table for table in tables}
    by_method = {f.method: [g for g in figures if g.method == f.method] for f in figures}
    by_method.pop("", None)
    run = {"facts": words.setting(study), "listings": words.listings(study)}
    extra: dict[str, dict[str, Any]] = {
        "search": {"by_method": by_method},
        "trials": {},
        "run": {**run, "reasons": words.unfinished(study)},
        "glossary": {"listings": [words.glossary(), words.concordance()]},
    }
    nothing: dict[str, Any] = {"facts": (), "listings": (), "reasons": None, "by_method": {}}
    sections = []
    for anchor, title, names, starts in SECTIONS:
        more = [name for name in by_name if name not in placed] if anchor == "results" else []
        section = {
            **{"anchor": anchor, "title": title, **nothing, **extra.get(anchor, {})},
            "tables": [by_name[name] for name in (*names, *more) if name in by_name],
            "figures": [f for start in starts for f in figures if f.name.startswith(start)],
        }
        if section["tables"] or section["figures"] or anchor in ("trials", "run", "glossary"):
            sections.append(section)
    return sections


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["hint"] = _hint
    return environment.get_template(name)


def _hint(cell: TableCell) -> str:
    """Return the intervals, for when one points at the cell."""
    parts = (("", cell.interval), ("gap ", cell.gap_interval))
    texts = [f"{what}{ends[0]} to {ends[1]}" for what, ends in parts if ends]
    intervals = [f"95 % interval: {', '.join(texts)}"] if texts else []
    return "; ".join([*intervals, *filter(None, [cell.verdict])])


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that fetches nothing."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


@contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """Have a report written into a draft, which takes the place of an earlier report once it is complete.

    Raises:
        ValueError: `out` is neither new, nor empty, nor a report.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; a report is a folder")
    others = sorted(e.name for e in out.iterdir() if e.name not in OURS) if out.exists() else []
    if others:
        raise ValueError(
            f"{out}: is not replaced by a report, as it holds {others[0]!r}; give a folder that is "
            "new, empty or a report"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".{out.name}-{uuid.uuid4().hex}"
    earlier = draft.with_name(draft.name + "-earlier")
    try:
        yield draft
        if out.exists():
            os.replace(out, earlier)
        try:
            os.replace(draft, out)
        except OSError:
            if earlier.exists():
                os.replace(earlier, out)
            raise
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
