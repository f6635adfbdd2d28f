"""A search on simulated slots: trials take their epochs in an order of their own, and report as workers do."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from mu.record import TrialRecord
from sweeps.plan import Job, Plan
from sweeps.search.cells import Cells
from sweeps.study.rungs import BEHIND

Pace = Callable[[Job], float]
"""Job to the seconds that its next epoch takes."""


def toy_curve(job: Job, epoch: int) -> float:
    """A made-up objective that falls with the epochs, towards a floor that depends on the knobs, and differs by seed."""
    floor = abs(math.log10(job.knobs["lr"]) + 2)
    noise = random.Random(f"{job.key}-{epoch}").uniform(0, 0.2)
    return floor + noise + 3 * math.exp(-epoch * 100 * job.knobs["lr"] / (1 + epoch))


@dataclass
class Cluster:
    """Slots that take the jobs of a search.

    Args:
        plan: The study.
        path: Of Optuna's journal.
        slots: How many jobs run at once.
        pace: How long epochs take.
        rarely: Chance that a trial says nothing of an epoch that is no rung.
        records: What has ended.
        epochs: How many epochs have been run.
    """

    plan: Plan
    path: Path
    slots: int = 1
    pace: Pace = lambda job: 1.0
    rarely: float = 1.0
    records: list[TrialRecord] = field(default_factory=list)
    epochs: int = 0

    def run(self, most_epochs: float = math.inf) -> bool:
        """Run the search, or so many epochs of it; then the driver is killed. Returns whether it came to its end."""
        cells = Cells(self.plan, str(self.path), self.records)
        draw = random.Random(f"{self.slots} {self.rarely}")
        running: list[tuple[float, int, Job, list[dict[str, float]]]] = []
        now, started = 0.0, 0
        while True:
            while len(running) < self.slots and (job := cells.next()) is not None:
                started += 1
                curve = [{"epoch": 0, "avg_gap_natmu": 4.0}]
                heapq.heappush(running, (now + self.pace(job), started, job, curve))
            if not running:
                return True
            if most_epochs <= 0:
                return False
            now, order, job, curve = heapq.heappop(running)
            most_epochs -= 1
            self.epochs += 1
            curve.append({"epoch": len(curve), "avg_gap_natmu": toy_curve(job, len(curve))})
            if len(curve) > job.knobs["epochs"]:
                self._end(cells, job, curve, "finished", "")
                continue
            reports = curve[-1]["epoch"] in job.rungs or draw.random() >= self.rarely
            if reports and cells.behind(job, curve):
                self._end(cells, job, curve, "stopped", BEHIND)
            else:
                heapq.heappush(running, (now + self.pace(job), order, job, curve))

    def _end(
        self, cells: Cells, job: Job, curve: list[dict[str, float]], status: str, reason: str
    ) -> None:
        scores = {"val": {"avg_gap_natmu": curve[-1]["avg_gap_natmu"]}}
        record = TrialRecord(
            job.key, "tiny", "search", job.forget, job.method, job.seed, status, dict(job.knobs), job.number,
            reason=reason, curve=curve, metrics=scores if status == "finished" else {},
        )  # fmt: skip
        self.records.append(record)
        cells.ended(record)

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """What Optuna has been told of the only cell."""
        backend = optuna.storages.journal.JournalFileBackend(str(self.path))
        storage = optuna.storages.JournalStorage(backend)
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).trials

    def told(self) -> list[object]:
        """Every configuration, its state, its value and its values at rungs, as Optuna knows them."""
        return [
            (trial.number, trial.params, trial.state, trial.value, trial.intermediate_values)
            for trial in self.trials()
        ]

    def stops(self) -> dict[int, int]:
        """Number of each configuration that was judged to be behind to its rung."""
        pruned = optuna.trial.TrialState.PRUNED
        return {t.number: t.last_step for t in self.trials() if t.state is pruned and t.last_step}
