"""No phase waits for another: what a study's source hands out, on a simulated cluster."""

from __future__ import annotations

import pytest

from benchmarks import packing
from sweeps.flow.ledger import Ledger


def test_slots_are_nearly_always_full_without_barriers() -> None:
    """Cells of very unequal length: a phase that waited for another would leave slots empty."""
    length, ideal, counts = packing.simulate(4, barriers=False)
    before, _, same = packing.simulate(4, barriers=True)
    assert counts == same
    assert counts["search"] == 2 * 4 * 30
    assert length < 1.03 * ideal < before


def test_every_configuration_is_chosen_after_its_search_and_finalists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Ledger] = []

    class Noted(Ledger):
        def __init__(self, *parts: object) -> None:
            super().__init__(*parts)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(packing, "Ledger", Noted)
    counts = packing.simulate(16, barriers=False, search={"trials": 4, "sampler": "random"})[2]
    cells, seeds = 2 * 4, 3
    assert counts["confirm"] == counts["default"] == cells * seeds
    assert counts["finalist"] == cells * 3 * 2
    assert counts["transfer"] == cells * seeds
    progress = made[0].progress  # it expects what ran already when the last search was settled, too
    assert progress.done["final"] == progress.expected["final"]
