"""``build``: the report of a study as one page, with its tables and figures as files beside it."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from reports import canvas, contents, load
from reports.layout import Placement, page_html
from reports.load import RecordedStudy
from reports.tables import files

OURS = ("figures", "index.html", "tables")
"""What a report's folder holds; a folder with anything else is not replaced."""


def build(study_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a study, either the whole report or nothing.

    Args:
        study_dir: Folder with ``trials.jsonl``, of a study that may still be running.
        out: Folder to write, ``report`` in the study's folder by default. An earlier report is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: ``trials.jsonl`` is missing, empty or of another schema; or `out` holds files that are
            not a report's.
        RuntimeError: A table or figure has no place on the page.
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
    files.write(folder / "tables", study, made)
    drawn = contents.all_figures(study)
    saved = {name: canvas.save(drawing, folder / "figures") for name, drawing in drawn.items()}
    placement = Placement({table.name: table for table in made}, drawn, saved)
    text = page_html(study, placement)
    (folder / "index.html").write_text(text, encoding="utf-8")


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
