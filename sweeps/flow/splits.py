"""The samples that each request selects: workers rank them once ever, and files hold them for use elsewhere."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.data.index_files import MEANING
from mu.problem import Problem
from mu.ranking import ranking_key
from mu.record import TrialRecord
from sweeps.errors import StudyError, SweepError
from sweeps.flow.references import failure, load_reference, training_job, without_facts
from sweeps.plan import Job, Plan
from sweeps.state.store import Store, write_atomically
from sweeps.state.unbilled import Unbilled

Run = Callable[["Ranking"], None]
"""Opens a cluster, and runs the jobs of a ranking."""


def resolve_ranked_requests(plan: Plan, store: Store, run: Run) -> None:
    """Find the samples of every ranked request of a plan.

    Args:
        run: Runs the jobs that make missing scores; called only when some are missing.

    Raises:
        StudyError: A request leaves a class without samples.
        SweepError: A model cannot be trained.
    """
    ranking = Ranking(plan, store)
    if ranking.missing:
        run(ranking)
    for name, problem in plan.rankings.items():
        try:
            plan.choose(name, ranking.scores[ranking_key(problem)])
        except ValueError as error:
            raise StudyError(
                f"forget: {name}: {error}; or rank after other `epochs` or with another `draw`"
            ) from error


class Ranking:
    """The jobs that rank the samples of a plan's requests, as ``sweeps.workers`` draws them (see its ``JobSource``).

    Attributes:
        scores: The scores that are there, by key.
        missing: Name of a request to the problem whose scores are not there; requests may share one.
        put: Makes weights available to workers; set before the jobs run.
    """

    def __init__(self, plan: Plan, store: Store):
        self.study, self.plan, self.store = plan.study.name, plan, store
        self.unbilled = Unbilled(None)
        self.put: Callable[[Any], Any] = lambda content: content
        self.scores: dict[str, NDArray[np.float64]] = {}
        self.missing: dict[str, Problem] = {}
        lacking: dict[str, Problem] = {}
        for name, problem in plan.rankings.items():
            key = ranking_key(problem)
            kept = store.get(key)
            if kept is not None:
                self.scores[key] = kept["scores"]
            elif key not in lacking:
                lacking[key] = self.missing[name] = problem
        self._weights: dict[str, Any] = {}
        self._waiting: deque[Job] = deque()
        self._attacking: dict[str, str] = {}

    def start(self, put: Callable[[Any], Any]) -> None:
        """Queue the jobs, once there are workers: the original models that rankings attack, and the rankings."""
        self.put = put
        for name, problem in self.missing.items():
            if problem.request.kind == "hardest":
                self._waiting.append(self._job(name))
                continue
            key = problem.reference_key("original")
            supplied = self.plan.study.supplied
            arrays = load_reference(problem, "original", supplied, self.store)
            if arrays is not None:
                self._publish(key, arrays)
            elif key not in self._attacking.values():
                self._waiting.append(training_job(problem, name, "original"))
            self._attacking[name] = key
        self._queue_attacks()

    def _job(self, name: str) -> Job:
        problem = self.missing[name]
        key = ranking_key(problem)
        return Job(key, "reference", name, "ranking", problem.seed, knobs={}, work="rank")

    def _publish(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._weights[key] = self.put(without_facts(arrays))

    def _queue_attacks(self) -> None:
        """Queue the rankings whose original models are there; new ones serve as references as well."""
        for name, key in list(self._attacking.items()):
            if key in self._weights:
                del self._attacking[name]
                self._waiting.append(self._job(name))

    def next(self) -> Job | None:
        """Return the next job that can start."""
        return self._waiting.popleft() if self._waiting else None

    def left(self) -> int:
        """Return how many jobs can start now."""
        return len(self._waiting)

    def objects(self, job: Job) -> dict[str, Any]:
        """Return where workers find the model that a ranking attacks."""
        key = self.missing[job.forget].reference_key("original")
        attacks = job.work == "rank" and key in self._weights
        return {"original": self._weights[key]} if attacks else {}

    def ended(self, job: Job, record: TrialRecord, outputs: dict[str, NDArray[Any]]) -> None:
        """Keep what a job has put out. Raises SweepError when it failed."""
        if not record.finished:
            raise SweepError(failure(job, record))
        self.store.put(job.key, outputs)
        if job.work == "rank":
            self.scores[job.key] = outputs["scores"]
        else:
            self._publish(job.key, outputs)
            self._queue_attacks()

    def load_checkpoint(self, job: Job) -> None:
        """Return None: a ranking begins anew."""

    def save_checkpoint(self, job: Job, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing; a lost worker begins from its last checkpoint all the same."""

    def behind(self, job: Job, curve: Any) -> bool:
        """Return False: no ranking is stopped."""
        return False


def write(plan: Plan, folder: Path) -> None:
    """Write what every request selects as `folder`/<request>.npy (int64 [N], sorted), with a .json that explains it.

    Such a file is a request of kind `indices` of another study on the same data.
    """
    definition = plan.study.definition
    for name in plan.study.forget:
        positions = plan.data.all_positions(plan.chosen(name))
        buffer = io.BytesIO()
        np.save(buffer, positions)
        facts = {
            "study": plan.study.name,
            "request": {"name": name, **definition["forget"][name]},
            "positions": MEANING,
            "count": len(positions),
            "training_samples": plan.data.total,
            "data": definition["data"],
            "fingerprint": plan.data.fingerprint,
        }
        write_atomically(folder / f"{name}.json", json.dumps(facts, indent=2).encode())
        write_atomically(folder / f"{name}.npy", buffer.getvalue())
