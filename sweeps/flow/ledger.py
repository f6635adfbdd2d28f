"""The ledger of a running study: every record goes to its results file first, then to all that follows it."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mu.record import TrialRecord
from sweeps.phases import final_phases
from sweeps.plan import Plan
from sweeps.state import results
from sweeps.state.costs import Meter, by_method, remaining_seconds, used
from sweeps.state.results import Results
from sweeps.tracking.progress import Progress

if TYPE_CHECKING:
    from sweeps.tracking.mlflow import Tracking
    from sweeps.workers.slots import Slots

logger = logging.getLogger(__name__)
FEW = 3
"""Trials of search or menu that end before there is an estimate of what is left."""
SUMMARY_SECONDS = 10.0
"""How often ``summary.json`` is written while a study runs."""


class Ledger:
    """Results, costs, progress and MLflow of one study.

    Args:
        plan: What the study runs.
        study_results: Its results so far.
        console: Where progress is shown.

    Attributes:
        tracking: MLflow, once it is connected.
        slots: How much fits on the cluster, once it is there.
        compute: Phase to the seconds that trials and trainings of this run kept their slots.
    """

    def __init__(self, plan: Plan, study_results: Results, console: Console):
        study, records = plan.study, study_results.records.values()
        self.plan = plan
        self.study = study.name
        self.results = study_results
        self.progress = Progress(study.name, study.search.objective[0], study.search_view, console)
        for record in records:
            self.progress.note(record)
        slot = study.resources.trial.amounts
        self.meter = Meter(study.budget, plan.planned, slot, records)
        self.tracking: Tracking | None = None
        self.slots: Slots | None = None
        self.compute: dict[str, float] = defaultdict(float)
        self._began = self._summarized = time.monotonic()

    def open(self, slots: Slots) -> None:
        """Begin to count slots and time: the cluster is there."""
        self.slots = slots
        self.progress.capacity = lambda: slots.now
        self.progress.left = self._left
        self.progress.lack = lambda: slots.lack
        slots.looked = self.progress.looked
        self._began = time.monotonic()

    def record_trial(self, record: TrialRecord) -> None:
        """Record a trial that ended."""
        if self.record_other(record):
            record = self.results.records[record.key]
            self.compute[record.phase] += record.time_total
            self.progress.ended("search" if record.phase == "search" else "final", record)
            if time.monotonic() - self._summarized > SUMMARY_SECONDS:
                self.summarize("running")

    def record_other(self, record: TrialRecord) -> bool:
        """Record what no Tune run gave: a reference, or an audit. Return False when it is there already."""
        if not self.results.append(record):
            return False
        logger.info("%s", in_one_line(record))
        self.meter.add(record)
        if self.tracking is not None:
            self.tracking.put(self.results.records[record.key])
        return True

    @property
    def search_ended(self) -> bool:
        """Whether the budget has ended the search."""
        return bool(self.results.study.get("search_ended"))

    def _left(self) -> float | None:
        """Estimate the seconds that are left; None before a few trials have ended."""
        records = self.results.records.values()
        if self.slots is None or sum(r.phase in ("search", "menu") for r in records) < FEW:
            return None
        left = remaining_seconds(records, self.plan.planned, self.search_ended)
        return None if left is None else left / max(1, self.slots.now)

    def may_search(self, trials: int, running: int) -> bool:
        """Return whether the budget leaves room for another trial of the search; if not, note that it has ended.

        Args:
            trials: Configurations that every cell has been asked for. Each gets at least one.
            running: Trials of the search that run or wait.
        """
        if self.search_ended or not self.meter.budget or not trials:
            return not self.search_ended
        slots = self.slots.now if self.slots is not None else 1
        exceeded = self.meter.exceeded(running, slots)
        if exceeded:
            limit = getattr(self.meter.budget, exceeded)
            ended = {"by": exceeded, "limit": limit, "trials": trials}
            self.results.begin({**self.results.study, "search_ended": ended})
            self.progress.say(
                f"the budget of {limit:g} {exceeded} ends the search after {trials} trials a cell"
            )
        return not exceeded

    def expect(self, **counts: int) -> None:
        """Note how many jobs of each stage are to be done: `reference`, `search`."""
        phases = final_phases()
        there = sum(record.phase in phases for record in self.results.records.values())
        finals = sum(self.plan.counts[phase] for phase in phases) - there
        for stage, count in {**counts, "final": max(0, finals)}.items():
            self.progress.expect(stage, count)
        self.summarize("running")

    def summarize(self, state: str) -> None:
        """Write ``summary.json``; `state` is `running` or `ended`."""
        if self.slots is not None:
            progress = self.progress
            now = {"state": state, "written": time.time()}
            running = {"running": progress.running} if state == "running" else {}
            results.write_summary(self.results.folder, {**self._summary(), **now, **running})
        self._summarized = time.monotonic()

    def _summary(self) -> dict[str, Any]:
        """Counts and costs of all runs of the study; times and efficiency of this one.

        `efficiency` is the time trials and trainings kept their slots, divided by slots x wall time while the
        cluster grew and shrank; `slots` is the most there were.
        """
        compute = sum(self.compute.values())
        assert self.slots is not None
        return {
            "study": self.study,
            **{key: v for key, v in self.results.study.items() if key == "search_ended"},
            **({"mlflow": runs} if (runs := self.tracking and self.tracking.runs_address) else {}),
            "counts": results.counts(self.results.records),
            "wall_seconds": time.monotonic() - self._began,
            "slots": self.slots.most,
            "slot_seconds": self.slots.seconds,
            "compute_seconds": compute,
            "compute_seconds_by_phase": dict(self.compute),
            "cost_seconds": dict(used(self.results.records.values())),
            "cost_seconds_by_method": by_method(self.results.records.values()),
            "efficiency": compute
            / (max(compute, self.slots.seconds) or 1.0),  # before there are slots
        }


def in_one_line(record: TrialRecord) -> str:
    """Return what a trial was, how it ended and where, in one line."""
    number = "" if record.number is None else f" number {record.number}"
    trial = f"{record.phase} {record.forget}/{record.method} seed {record.seed}{number}"
    host = f" on {record.environment['host']}" if "host" in record.environment else ""
    ended = f"{trial}: {record.status} after {record.time_total:.1f} s{host}"
    reason = (record.reason.strip().splitlines() or [""])[-1]
    return f"{ended}: {reason}" if reason else ended
