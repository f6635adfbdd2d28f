"""The methods table at the end of a run and in ``musweep status``."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from studies import ROOT

from mu.current import read_current
from sweeps import launch
from sweeps.tracking import status


@pytest.fixture
def ended(tmp_path: Path) -> tuple[Path, dict[str, Any], list[Any]]:
    """The results folder of an ended study, its study line and its records."""
    shutil.copy(ROOT / "tests" / "data" / "trials.jsonl", tmp_path)
    line, records = read_current(tmp_path / "trials.jsonl")
    line["definition"].setdefault("max_failures", None)
    return tmp_path, line, records


def printed(text: str) -> list[str]:
    lines = text.splitlines()
    at = next(n for n, said in enumerate(lines) if said.startswith("random10: recovery and time"))
    assert lines[at + 1].split()[:3] == ["method", "recovery", "longer"]
    assert any(said.split()[:2] == ["alpha", "79.5"] for said in lines[at:])
    return lines[at : at + 8]


def test_a_run_ends_with_the_methods_table_80_columns_wide(
    ended: tuple[Path, dict[str, Any], list[Any]],
) -> None:
    folder, line, records = ended
    said = io.StringIO()
    locations = SimpleNamespace(folder=folder, tracking_uri=None)
    results = SimpleNamespace(records={r.key: r for r in records}, study=line)
    launch._report(locations, results, Console(file=said, width=80), None)  # type: ignore[arg-type]
    assert max(map(len, printed(said.getvalue()))) <= 80
    assert "| ---" not in said.getvalue(), "no Markdown"
    assert "\x1b" not in said.getvalue(), "no colours in a file"
    assert f"Report: {folder / 'report' / 'index.html'}" in said.getvalue()


def test_status_shows_the_same_as_soon_as_a_method_has_its_runs(
    ended: tuple[Path, dict[str, Any], list[Any]],
) -> None:
    folder, line, records = ended
    texts = []
    for known in (records, [r for r in records if r.phase in ("reference", "search")]):
        said = io.StringIO()
        status.show(folder, line, known, Console(file=said, width=80))
        texts.append(said.getvalue())
    assert max(map(len, printed(texts[0]))) <= 80
    assert "recovery and time" not in texts[1]
