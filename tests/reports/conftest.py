"""Figures are drawn, and rendered only where a test looks at their files: rendering is most of a report's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import canvas

RENDERED = ("built", "rendered_figures")
"""Fixtures of tests that need the files of figures."""


@pytest.fixture
def rendered_figures() -> None:
    """Have the test render its figures."""


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(name in request.fixturenames for name in RENDERED):
        return

    def save(drawing: canvas.Drawing, folder: Path) -> Path:
        for suffix in ("png", "svg"):
            (folder / f"{drawing.name}.{suffix}").write_text("<svg/>")
        return folder / f"{drawing.name}.svg"

    monkeypatch.setattr(canvas, "save", save)
