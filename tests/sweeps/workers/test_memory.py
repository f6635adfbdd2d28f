"""Peaks of memory, and the advice when there is not enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sweeps.workers import memory


def test_a_peak_is_that_since_the_watch_began() -> None:
    memory.watch("cpu")
    before = memory.peak()
    ones = np.ones(2**26)  # half a GiB
    del ones
    assert memory.peak() >= before + 0.45
    memory.watch("cpu")
    assert memory.peak() < before + 0.4


@pytest.mark.parametrize(
    ("allocate", "gib"),
    [
        (lambda: np.ones(10**15), 10**15 * 8 / 2**30),
        (lambda: torch.empty(10**15), 10**15 * 4 / 2**30),
    ],
)
def test_a_lack_of_memory_says_how_much_was_asked_for(allocate: object, gib: float) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        allocate()  # type: ignore[operator]
    assert memory.ran_out(raised.value)
    assert memory._asked(str(raised.value)) == pytest.approx(gib, rel=0.01)
    assert "not even one like it fits" in memory.advice(raised.value, "cpu")


def test_how_many_fit_follows_from_peak_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak", lambda: 3.0)
    monkeypatch.setattr(memory, "host_memory", lambda: 16.0)
    error = MemoryError("Unable to allocate 1.00 GiB for an array")
    assert memory.advice(error, "cpu") == (
        "out of memory: needed 4.0 of the machine's 16.0 GiB; at most 4 like it fit at once\n"
    )


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not memory.ran_out(ValueError("out of memory of names"))
    assert not memory.ran_out(RuntimeError("shapes do not fit"))
