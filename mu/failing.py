"""Cells whose first trials all failed: a method that cannot run must not use up a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from mu.record import REFERENCE_ROLES, TrialRecord

Cell = tuple[str, str]
"""Forget request and method."""


def failing_cells(records: Iterable[TrialRecord], limit: int | None) -> dict[Cell, TrialRecord]:
    """Return each cell whose first `limit` trials all failed, with the last of these; none without a limit.

    Trials of all phases count, in the order of the records. Diverged and stopped ones have run, and are no failures.
    """
    if limit is None:
        return {}
    first: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for record in records:
        trials = first[record.forget, record.method]
        if record.method not in REFERENCE_ROLES and len(trials) < limit:
            trials.append(record)
    return {
        cell: trials[-1]
        for cell, trials in first.items()
        if len(trials) == limit and all(each.status == "failed" for each in trials)
    }


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
