"""Cells whose first trials all failed: a method that cannot run must not use up a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mu.record import REFERENCE_ROLES, TrialRecord

Cell = tuple[str, str]
"""Forget request and method."""


class FirstTrials:
    """The first trials of every cell, as their records arrive.

    Trials of all phases count, in the order of the records. Diverged and stopped ones have run, and are no failures.

    Args:
        limit: How many of them must fail for a cell to be failing; None: none ever is.
        records: Those that are there already.

    Attributes:
        failing: Each cell whose first `limit` trials all failed, with the last of these.
    """

    def __init__(self, limit: int | None, records: Iterable[TrialRecord] = ()):
        self._limit = limit
        self._failed: dict[Cell, int] = {}
        self._able: set[Cell] = set()  # one of their first trials did not fail
        self.failing: dict[Cell, TrialRecord] = {}
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take the record of a trial."""
        cell = record.forget, record.method
        if record.method in REFERENCE_ROLES or cell in self._able or cell in self.failing:
            return
        if record.status != "failed":
            self._able.add(cell)
            return
        self._failed[cell] = self._failed.get(cell, 0) + 1
        if self._failed[cell] == self._limit:
            self.failing[cell] = record


def failing_cells(records: Iterable[TrialRecord], limit: int | None) -> dict[Cell, TrialRecord]:
    """Return each cell whose first `limit` trials all failed, with the last of these; none without a limit."""
    return FirstTrials(limit, records).failing


def say_failing(failing: Mapping[Cell, TrialRecord], limit: int | None) -> str:
    """Return which cells were ended and why, in one line; empty where none was."""
    if not failing:
        return ""
    listed = "; ".join(
        f"{method} on {forget} ({(record.reason.strip().splitlines() or [record.cause])[-1]})"
        for (forget, method), record in failing.items()
    )
    trials = "first trial" if limit == 1 else f"first {limit} trials all"
    return f"ended because the {trials} failed: {listed}"
