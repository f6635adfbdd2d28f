"""Which search trial stands for a cell: small named rules that read the `val` view only. Needs no torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mu.record import TrialRecord


@dataclass(frozen=True)
class Candidate:
    """One configuration of a cell, tried on every search seed.

    Args:
        number: Its number within the cell.
        knobs: Every knob with its value.
        value: Mean of the objective over the search seeds; lower is better.
    """

    number: int
    knobs: dict[str, Any]
    value: float


def candidates(
    records: Iterable[TrialRecord], forget: str, method: str, objective: str, seeds: Sequence[int]
) -> list[Candidate]:
    """Configurations of a cell that finished, with a finite value, on all search seeds, by number."""
    values: dict[int, dict[int, float]] = defaultdict(dict)
    knobs: dict[int, dict[str, Any]] = {}
    for record in records:
        if (record.phase, record.forget, record.method) != ("search", forget, method):
            continue
        if record.finished and record.number is not None and record.seed in seeds:
            values[record.number][record.seed] = objective_value(record, objective)
            knobs[record.number] = record.knobs
    means = {
        number: sum(by_seed.values()) / len(by_seed)
        for number, by_seed in sorted(values.items())
        if set(by_seed) == set(seeds)
    }
    return [
        Candidate(number, knobs[number], value)
        for number, value in means.items()
        if math.isfinite(value)
    ]


def best_objective(found: Sequence[Candidate]) -> Candidate | None:
    """The candidate with the lowest value; the earliest of equals; None when there is none."""
    return min(found, key=lambda candidate: (candidate.value, candidate.number), default=None)


def objective_value(record: TrialRecord, objective: str) -> float:
    """The objective of a finished search trial: its cost, or a metric of its `val` view."""
    if objective in ("time_unlearn", "samples_seen"):
        return float(getattr(record, objective))
    return record.metrics.get("val", {}).get(objective, math.nan)
