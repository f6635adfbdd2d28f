"""Costs of a study from its records, so far and expected. Needs neither torch nor Ray."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mu.record import TrialRecord
from sweeps.phases import final_phases

if TYPE_CHECKING:
    from sweeps.study.resources import Budget

Planned = Mapping[str, Mapping[str, float]]
"""Phase to its number of `trials` and, roughly, of `samples` that they train on."""


def used(records: Iterable[TrialRecord]) -> Counter[str]:
    """Sum the seconds of every resource, such as CPU-seconds of `cpus`, and of `slots`."""
    total: Counter[str] = Counter()
    for record in records:
        total["slots"] += record.time_total  # type: ignore[assignment]
        for name in record.resources:
            total[name] += record.cost(name)  # type: ignore[assignment]
    return total


def busy_seconds(records: Iterable[TrialRecord]) -> float:
    """Return the seconds in which at least one trial or training ran, over all runs of a study."""
    total = end = 0.0
    for record in sorted(records, key=lambda record: record.started):
        total += max(0.0, record.ended - max(record.started, end))
        end = max(end, record.ended)
    return total


def by_method(records: Iterable[TrialRecord]) -> dict[str, dict[str, float]]:
    """Sum the seconds of every resource by method; references stand under their own names."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.method, []).append(record)
    return {method: dict(used(group)) for method, group in groups.items()}


def seconds_per_sample(records: Iterable[TrialRecord], planned: Planned) -> float | None:
    """Return the slot-seconds for each sample that a trial of the search trains on, or without a search one of the menu.

    It is None before one has ended.
    """
    first = "search" if planned["search"]["samples"] else "menu"
    taken = [record.time_total for record in records if record.phase == first]
    asked = planned.get(first, {})
    if not taken or not asked.get("samples"):
        return None
    return sum(taken) / len(taken) * asked["trials"] / asked["samples"]


def remaining_seconds(
    records: Iterable[TrialRecord], planned: Planned, search_ended: bool
) -> float | None:
    """Estimate the slot-seconds of planned trials that have no record; None before a first trial has ended."""
    records = list(records)
    rate = seconds_per_sample(records, planned)
    if rate is None:
        return None
    left = 0.0
    for phase in ("search", *final_phases()):
        if phase not in planned:  # it came with a later version than the study
            continue
        took = [record.time_total for record in records if record.phase == phase]
        count, samples = planned[phase]["trials"], planned[phase]["samples"]
        missing = 0 if phase == "search" and search_ended else max(0.0, count - len(took))
        if missing:
            left += missing * (sum(took) / len(took) if took else rate * samples / count)
    return left


class Meter:
    """Tells when a search has to end, so that the study and all that follows the search stay within its budget.

    It counts references and search trials only, and estimates the phases after the search from them, so that a decision
    does not change while those phases run.

    Args:
        budget: The limits.
        planned: What follows the search.
        occupied: What a trial occupies, by resource.
        records: Of earlier runs of the study.
    """

    def __init__(
        self,
        budget: Budget,
        planned: Planned,
        occupied: Mapping[str, float],
        records: Iterable[TrialRecord],
    ):
        self.budget = budget
        self.planned = planned
        self.occupied = occupied
        records = list(records)
        self._began = time.monotonic() - busy_seconds(records)
        self._used: Counter[str] = Counter()
        self._searched = self._seconds = 0.0
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Count a record."""
        if record.phase in ("reference", "search"):
            self._used += used([record])
        if record.phase == "search":
            self._searched += 1
            self._seconds += record.time_total

    def exceeded(self, running: int, slots: int) -> str:
        """Return the limit that asking for another trial would break; empty while there is none.

        Args:
            running: Trials that run or wait.
            slots: How many run at once.
        """
        expected = 0.0
        if self._searched:
            mean = self._seconds / self._searched
            search = self.planned["search"]
            phases = [phase for phase in final_phases() if phase in self.planned]
            samples = sum(self.planned[phase]["samples"] for phase in phases)
            expected = mean * (running + 1 + samples * search["trials"] / search["samples"])
        seconds = {
            "gpu_hours": self._used["gpus"] + expected * self.occupied.get("gpus", 0.0),
            "cpu_hours": self._used["cpus"] + expected * self.occupied.get("cpus", 0.0),
            "wall_minutes": time.monotonic() - self._began + expected / max(1, slots),
        }
        for name, limit in self.budget.model_dump().items():
            unit = 3600 if name.endswith("hours") else 60
            if limit is not None and seconds[name] > limit * unit:
                return name
        return ""
