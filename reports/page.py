"""``build``: the report of a study as one page, with its tables and figures as files beside it."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

from reports import canvas, contents, findings, formats, load, markup, sections
from reports.canvas import Drawing
from reports.load import RecordedStudy
from reports.table_cells import ORACLE, Table

UNFOLDED = ("main", "published", "sufficient", "transfer", "robustness", "defaults", "rules")
"""Tables that are shown whole however long they are."""
OURS = ("figures", "index.html", "tables")
"""What a report's folder holds; a folder with anything else is not replaced."""


def build(study_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a study, whole or not at all.

    Args:
        study_dir: Folder with ``trials.jsonl``, of a study that may still be running.
        out: Folder to write, ``report`` in the study's folder by default. An earlier report is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: ``trials.jsonl`` is missing, empty or of another schema; or `out` holds files that are
            not a report's.
    """
    study = load.read(study_dir)
    out = (study_dir / "report" if out is None else out).resolve()
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".{out.name}-{uuid.uuid4().hex}"
    try:
        _write(study, draft)
        _replace(out, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out / "index.html"


def _write(study: RecordedStudy, folder: Path) -> None:
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    made = contents.all_tables(study)
    formats.write(folder / "tables", study, made)
    drawn = contents.all_figures(study)
    saved = {name: canvas.save(drawing, folder / "figures") for name, drawing in drawn.items()}
    text = _page(study, {table.name: table for table in made}, drawn, saved)
    (folder / "index.html").write_text(text, encoding="utf-8")


def _page(
    study: RecordedStudy, made: dict[str, Table], drawn: dict[str, Drawing], saved: dict[str, Path]
) -> str:
    """The page: the story first, then how sure it is, then everything else."""
    numbers = {"table": 0, "figure": 0}

    def table(name: str, otherwise: str = "") -> str:
        """A table, or what to say when there is none."""
        if name not in made:
            return markup.paragraph(otherwise) if otherwise else ""
        numbers["table"] += 1
        return markup.table(made[name], numbers["table"], fold=name not in UNFOLDED)

    def figure(name: str, otherwise: str = "") -> str:
        if name not in drawn:
            return markup.paragraph(otherwise) if otherwise else ""
        numbers["figure"] += 1
        return markup.figure(drawn[name], saved[name], numbers["figure"])

    no_transfer = "The study asks for no transfer."
    parts = (
        (
            "Results",
            "results",
            "Results with tuned knobs",
            table("main") + figure("gaps", "No method has a gap to retraining yet."),
        ),
        *(
            [("Results", "published", made["published"].title, table("published"))]
            if "published" in made
            else []
        ),
        (
            "Results",
            "sufficient",
            "Sufficient training",
            figure("over_forgetting", "No run of a method has finished yet.")
            + table("sufficient", "The study asks for no sufficient training.")
            + table("overforgetting"),
        ),
        (
            "Results",
            "transfer",
            "Transfer of knobs",
            table("transfer", no_transfer) + figure("transfer"),
        ),
        (
            "Results",
            "robustness",
            "Robustness to knobs",
            table("robustness", "The study asks for neither sufficient training nor transfer.")
            + table("defaults")
            + table("rules"),
        ),
        (
            "Statistics",
            "certainty",
            "How sure the numbers are",
            table("noise_floor", "The noise floor is unknown with fewer than two retrained models.")
            + figure("ranks", "Methods cannot be ranked: no two have finished the same problem.")
            + table("comparison"),
        ),
        (
            "Statistics",
            "search",
            "Chosen knobs, and whether they were tuned enough",
            table("knobs") + figure("expected_best", "No cell has two finished search trials yet."),
        ),
        ("Statistics", "cost", "Cost", table("cost") + figure("cost")),
        ("Appendix", "setting", "What was run", sections.what_was_run(study)),
        (
            "Appendix",
            "matrix",
            "Transfer matrix",
            figure("transfer_matrix") + table("transfer_matrix", no_transfer),
        ),
        (
            "Appendix",
            "classes",
            "Class by class",
            figure("taken_for", "No run with tuned knobs has finished yet.") + table("classes"),
        ),
        ("Appendix", "metrics", "Every recorded metric", table("metrics")),
        (
            "Appendix",
            "knobs",
            "What the knobs do",
            table("importance", "No knob was searched.")
            + table("grid")
            + "".join(
                markup.details(drawing.title, figure(name))
                for name, drawing in drawn.items()
                if name.startswith(("response_", "grid_"))
            ),
        ),
        (
            "Appendix",
            "choices",
            "Search trials and other choices among them",
            figure("progress", "No search trial has finished yet.") + table("selection"),
        ),
        ("Appendix", "unfinished", "Trials without a result", sections.unfinished(study)),
        ("Appendix", "glossary", "Glossary of metrics", sections.glossary()),
    )
    links = ""
    for kind in dict.fromkeys(kind for kind, *_ in parts):
        anchors = "".join(
            f'<a href="#{anchor}">{number}. {markup.escape(title)}</a> '
            for number, (other, anchor, title, _) in enumerate(parts, start=1)
            if other == kind
        )
        links += f"<p><b>{kind}</b> {anchors}</p>"
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    oracle = markup.paragraph(ORACLE) if study.oracle else ""
    head = (
        f"<header><h1>{markup.escape(study.name)}: machine unlearning report</h1>"
        f'<p class="byline">{markup.escape(sections.byline(study, written))} '
        'All results in full precision: <a href="tables/results.csv">results.csv</a> by run, '
        '<a href="tables/cells.csv">cells.csv</a> with intervals.</p>'
        f'<div class="abstract">{markup.paragraph(" ".join(findings.sentences(study)))}{oracle}</div>'
        f"<nav>{links}</nav>"
        f"{markup.details('How to read the tables', markup.facts(sections.how_to_read(study)))}</header>"
    )
    body = [
        markup.section(anchor, f"{number}. {title}", content)
        for number, (_, anchor, title, content) in enumerate(parts, start=1)
    ]
    return markup.page(f"{study.name}: machine unlearning report", "\n".join([head, *body]))


def _check_replaceable(out: Path) -> None:
    if out.is_dir():
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in OURS)
        if others:
            raise ValueError(
                f"{out}: is not replaced by a report, as it holds {others[0]!r}; give a folder that is "
                "new, empty or a report"
            )
    elif out.exists():
        raise ValueError(f"{out}: is a file; a report is a folder")


def _replace(out: Path, draft: Path) -> None:
    """Put a finished draft in the place of an earlier report."""
    earlier = draft.with_name(draft.name + "-earlier")
    if out.exists():
        os.replace(out, earlier)
    try:
        os.replace(draft, out)
    except OSError:
        if earlier.exists():
            os.replace(earlier, out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
