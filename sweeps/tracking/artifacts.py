"""The files of a results folder that MLflow stores: which of them belong to the study, and which to one of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sweeps.tracking.run_content import Cell

PICTURES = (".png", ".svg")
"""Kinds of files of a figure; of the first that is there, the run has a copy."""


def study_files(folder: Path) -> list[tuple[Path, str]]:
    """Return the files of a study, each with the folder that it has among a run's artifacts."""
    listed = [(folder / "study.yaml", "")] if (folder / "study.yaml").is_file() else []
    for part in ("report", "splits"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                listed.append((path, path.parent.relative_to(folder).as_posix()))
    return listed


def cell_files(folder: Path, cells: Iterable[Cell]) -> dict[Cell, list[Path]]:
    """Return the figures of the report that show one method, or one method on one request, by cell.

    Their names end in the method, such as ``response_natmu``, or in the request and the method.
    """
    figures: dict[str, Path] = {}
    for kind in PICTURES:
        for path in sorted((folder / "report" / "figures").glob(f"*{kind}")):
            figures.setdefault(path.stem, path)
    found: dict[Cell, list[Path]] = {}
    for forget, method in cells:
        request, name = re.escape(forget), re.escape(method)
        pattern = re.compile(rf"[a-z]+_(?:{request}_{name}|{name}_{request}|{name})")
        found[forget, method] = [path for stem, path in figures.items() if pattern.fullmatch(stem)]
    return found
