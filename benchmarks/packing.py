"""How full the slots are: ``python benchmarks/packing.py [--slots 16] [--save]``.

A study of eight cells of very unequal length runs on a simulated cluster, in a loop over events: jobs come from the
driver's own source, and each takes a time that is made up for its method. Compared with the ideal packing, all work
divided by the slots, are the source as it is, and the same with a barrier after each phase, as before version 0.2.
"""

from __future__ import annotations

import argparse
import heapq
import io
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures
from benchmarks.figures import Figure
from mu.keys import derive_seed
from mu.record import TrialRecord
from sweeps import preflight
from sweeps.flow.changes import open_results
from sweeps.flow.job_sources import StudySource
from sweeps.flow.ledger import Ledger
from sweeps.phases import PHASES
from sweeps.plan import Job, Plan
from sweeps.search.cells import Cells
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.workers.result import new_record

SECONDS = {"finetune": 240.0, "natmu": 60.0, "jit": 8.0, "ssd": 2.0}
"""What a trial of each method takes, give or take a third; a reference takes REFERENCE_SECONDS to train, a tenth to score."""
REFERENCE_SECONDS = 300.0
STUDY: dict[str, Any] = {
    "study": "packing",
    "data": {"name": "digits", "subset": 300},
    "forget": {
        "some": {"kind": "random", "fraction": 0.1},
        "three": {"kind": "full_class", "class": 3},
    },
    "methods": list(SECONDS),
    "seeds": {"search": [0], "report": [1, 2, 3], "retrain": 3},
    "search": {"sampler": "random"},
    "experiments": {"sufficient": {"epochs": 20}, "transfer": "all"},
}


def seconds(job: Job) -> float:
    """Return what a job takes on this made-up cluster: the same in every run."""
    share = derive_seed("packing", job.key) % 1000 / 1000
    if job.work == "trial":
        return SECONDS[job.method] * (2 / 3 + 2 / 3 * share)
    return REFERENCE_SECONDS * (1.0 if job.work == "train" else 0.1)


class MadeUpReferences:
    """The jobs of references as ``sweeps.flow.references`` orders them, without their results."""

    def __init__(self, plan: Plan):
        self.plan = plan
        names = [(forget, seed) for seed in plan.every_seed for forget in plan.study.forget]
        originals = {seed: self._job("train", "original", *names[0][:1], seed) for seed in plan.trial_seeds}  # fmt: skip
        self._needs = {
            name: {originals[name[1]].key, self._job("train", "retrain", *name).key}
            for name in names
        }
        self._waiting = deque(originals.values())
        self._waiting += [self._job("train", "retrain", *name) for name in names]
        self._scored: set[tuple[str, int]] = set()

    def _job(self, work: Any, method: str, forget: str, seed: int) -> Job:
        key = f"{work} {method} {'' if method == 'original' else forget} {seed}"
        return Job(key, "reference", forget, method, seed, knobs={}, work=work)

    def next(self) -> Job | None:
        return self._waiting.popleft() if self._waiting else None

    def left(self) -> int:
        return len(self._waiting)

    def objects(self, job: Job) -> dict[str, Any]:
        return {}

    def ended(self, job: Job, record: TrialRecord, outputs: Any) -> None:
        if job.work == "score":
            self._scored.add((job.forget, job.seed))
            return
        for name, needs in self._needs.items():
            if job.key in needs:
                needs.discard(job.key)
                if not needs:
                    self._waiting.appendleft(self._job("score", "both", *name))

    def ready(self, role: str, forget: str) -> bool:
        return all((forget, seed) in self._scored for seed in self.plan.seeds[role])


def stage(job: Job) -> int:
    """Return which of the phases with a barrier between them a job is of."""
    if job.phase in ("reference", "search", "finalist"):
        return ("reference", "search", "finalist").index(job.phase)
    return 3


def run(source: StudySource, slots: int, barriers: bool) -> tuple[float, float]:
    """Run all jobs of a source; return when the last has ended, and the sum of what they took."""
    now = work = 0.0
    running: list[tuple[float, int, Job]] = []
    held: Job | None = None
    count = 0
    while True:
        while len(running) < slots:
            job, held = held or source.next(), None
            if job is None:
                break
            if barriers and any(stage(other) != stage(job) for _, _, other in running):
                held = job  # it waits for the phase before
                break
            count += 1
            work += seconds(job)
            heapq.heappush(running, (now + seconds(job), count, job))
        if not running:
            return now, work
        now, _, job = heapq.heappop(running)
        score = derive_seed("score", job.key) % 1000 / 1000
        values = {"avg_gap_natmu": score, "acc_test": 0.9}
        views = dict.fromkeys(job.views, values)
        record = new_record(
            job,
            "packing",
            {"cpus": 1.0},
            status="finished",
            metrics=views,
            time_total=seconds(job),
        )
        source.ended(job, record, {})


def simulate(slots: int, barriers: bool, **changes: Any) -> tuple[float, float, dict[str, int]]:
    """Run the made-up study.

    Returns:
        Its length and the ideal one in seconds, and how many records of each phase there are.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = study.parse({**STUDY, **changes}, "packing")
        plan = Plan(wanted, preflight.load_data(wanted, "packing"))
        results, _ = open_results(plan, Path(folder) / "packing")
        ledger = Ledger(plan, results, Console(file=io.StringIO()))
        cells = Cells(plan, str(Path(folder) / "journal"))
        checkpoints = CheckpointStore(f"{folder}/storage")
        references: Any = MadeUpReferences(plan)
        source = StudySource(
            plan, ledger, Store(f"{folder}/storage"), checkpoints, cells, references
        )
        length, work = run(source, slots, barriers)
        checkpoints.close()
        results.close()
        counts = {
            phase: sum(record.phase == phase for record in results.records.values())
            for phase in PHASES
        }
        return length, work / slots, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slots", type=int, default=16, help="slots of the simulated cluster")
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    slots, measured = given.slots, []
    for name, barriers in (("with barriers", True), ("as it is", False)):
        length, ideal, _ = simulate(slots, barriers)
        print(f"{name}: {length:.0f} s on {slots} slots, ideal {ideal:.0f} s: {length / ideal:.3f}")
        figure = f"eight cells on {slots} slots, {name}: length"
        times = f"{length / ideal:.2f}"
        measured.append(Figure("packing", figure, f"{length:.0f} s", times, "the ideal length"))
    if given.save:
        figures.save(measured, "simulated")


if __name__ == "__main__":
    main()
