"""``build``: the report of a study as one page, with its tables and figures as files beside it."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

from reports import figures, findings, formats, load, markup, sections, tables
from reports.load import Study

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


def _write(study: Study, folder: Path) -> None:
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    made = tables.all_tables(study)
    formats.write(folder / "tables", study, made)
    drawn = figures.all_figures(study)
    saved = {name: figures.save(drawing, folder / "figures") for name, drawing in drawn.items()}
    text = _page(study, {table.name: table for table in made}, drawn, saved)
    (folder / "index.html").write_text(text, encoding="utf-8")


def _page(
    study: Study,
    made: dict[str, tables.Table],
    drawn: dict[str, figures.Drawing],
    saved: dict[str, Path],
) -> str:
    """The page. A part is the name of a table or figure, markup, or what to say when neither is there."""
    numbers = {"table": 0, "figure": 0}

    def table(name: str, otherwise: str = "") -> str:
        if name not in made:
            return markup.paragraph(otherwise)
        numbers["table"] += 1
        return markup.table(made[name], numbers["table"])

    def figure(name: str, otherwise: str = "") -> str:
        if name not in drawn:
            return markup.paragraph(otherwise) if otherwise else ""
        numbers["figure"] += 1
        return markup.figure(drawn[name], saved[name], numbers["figure"])

    parts = (
        ("setting", "What was run", sections.what_was_run(study)),
        ("reading", "How to read the tables", markup.facts(sections.HOW_TO_READ)),
        (
            "results",
            "Results with tuned knobs",
            table("main") + figure("gaps", "No method has a gap to retraining yet."),
        ),
        (
            "sufficient",
            "Sufficient training",
            figure("over_forgetting", "No run of a method has finished yet.")
            + table("sufficient", "The study asks for no sufficient training."),
        ),
        (
            "transfer",
            "Transfer of knobs",
            table("transfer", "The study asks for no transfer.") + figure("transfer"),
        ),
        ("cost", "Cost", table("cost") + figure("cost")),
        (
            "search",
            "Search and chosen knobs",
            table("knobs") + figure("progress", "No search trial has finished yet."),
        ),
        ("unfinished", "Trials without a result", sections.unfinished(study)),
        ("glossary", "Glossary of metrics", sections.glossary()),
    )
    links = "".join(
        f'<a href="#{anchor}">{number}. {markup.escape(title)}</a> '
        for number, (anchor, title, _) in enumerate(parts, start=1)
    )
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = (
        f"<header><h1>{markup.escape(study.name)}: machine unlearning report</h1>"
        f'<p class="byline">{markup.escape(f"{len(study.records):,} trials, written {written}")}. '
        'All results in full precision: <a href="tables/results.csv">results.csv</a>.</p>'
        f'<div class="abstract">{markup.paragraph(" ".join(findings.sentences(study)))}</div>'
        f"<nav>{links}</nav></header>"
    )
    body = [
        markup.section(anchor, f"{number}. {title}", content)
        for number, (anchor, title, content) in enumerate(parts, start=1)
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
