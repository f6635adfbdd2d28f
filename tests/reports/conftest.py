"""Figures are specified, and drawn as files only where a test looks at the files: drawing is most of a report's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.charts.figure import Figure

DRAWN = ("built", "drawn_figures")
"""Fixtures of tests that need the files of figures."""


@pytest.fixture
def drawn_figures() -> None:
    """Have the test draw its figures."""


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(name in request.fixturenames for name in DRAWN):
        return

    def save(figure: Figure, folder: Path) -> None:
        for suffix in ("svg", "png", "pdf"):
            (folder / f"{figure.name}.{suffix}").write_text("<svg/>")

    monkeypatch.setattr(Figure, "save", save)
