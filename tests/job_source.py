"""Sources in memory, and how a test lets a searcher's trials end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu.problem import Problem
from mu.record import TrialRecord, trial_line
from sweeps.errors import SweepError
from sweeps.flow.references import failure, training_job
from sweeps.plan import Job
from sweeps.state.unbilled import Unbilled
from sweeps.study.resources import Slot
from sweeps.workers.job_searcher import JobSearcher
from sweeps.workers.result import new_record


class Source:
    """Three jobs, and what became of them."""

    study = "tiny"

    def __init__(self, unbilled: Path | None = None) -> None:
        self.unbilled = Unbilled(unbilled)
        self.waiting = [Job(f"k{n}", "search", "some", "jit", 0, {}, n) for n in range(3)]
        self.records: list[TrialRecord] = []
        self.broken = False

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def left(self) -> int:
        return len(self.waiting)

    def objects(self, job: Job) -> dict[str, Any]:
        return {"scores": f"scores of {job.key}"}

    def ended(self, job: Job, record: TrialRecord, outputs: Any) -> None:
        if self.broken:
            raise OSError("no space left")
        assert (job.key, outputs) == (record.key, {})
        self.records.append(record)

    def load_checkpoint(self, job: Job) -> None:
        return None

    def save_checkpoint(self, job: Job, arrays: Any) -> None:
        raise AssertionError("there is no checkpoint")

    def behind(self, job: Job, curve: Any) -> bool:
        return False


SLOT = Slot(cpus=1, gpus=0.25)


@dataclass
class TwoSlots:
    """Room for two trials; work for references takes the place of `size` of them."""

    size: float = 1.0
    noted: list[tuple[str, str]] = field(default_factory=list)

    def wanted(self) -> float:
        return 2

    def slot(self, job: Job) -> Slot:
        return SLOT

    def load(self, job: Job) -> float:
        return 1.0 if job.work == "trial" else self.size

    def note_left(self, left: Callable[[], int]) -> None:
        self.known_left = left()

    def placement(self, job: Job) -> dict[str, Any]:
        return {"strategy": "PACK"}

    def worked(self, actor: str) -> None:
        self.noted.append((actor, "worked"))

    def lost(self, actor: str, job: Job) -> None:
        self.noted.append((actor, job.key))


def report(searcher: JobSearcher, trial: str) -> None:
    """Let a trial finish, as its actor reports it."""
    job = searcher.running[trial].job
    resources = {"cpus": 1.0, "gpus": 0.25}
    record = new_record(job, "tiny", resources, status="finished", time_total=1.5)
    searcher.on_trial_complete(trial, {"record": trial_line(record)})


def lost_worker(searcher: JobSearcher, trial: str, words: str) -> None:
    """Let a trial end as Tune says it when the trial's actor has died."""
    searcher.last_words[trial] = words
    searcher.on_trial_complete(trial, error=True)


class OneTraining:
    """The training of one reference; `saved` is called with every checkpoint."""

    study = "tiny"

    def __init__(self, problem: Problem, saved: Callable[[Any], None]):
        self.unbilled = Unbilled(None)
        self.waiting = [training_job(problem, "some", "retrain")]
        self.saved = saved
        self.record: TrialRecord | None = None
        self.weights: Any = {}

    def next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None

    def left(self) -> int:
        return len(self.waiting)

    def objects(self, job: Job) -> dict[str, Any]:
        return {}

    def ended(self, job: Job, record: TrialRecord, outputs: Any) -> None:
        self.record, self.weights = record, outputs
        if not record.finished:
            raise SweepError(failure(job, record))

    def load_checkpoint(self, job: Job) -> None:
        return None

    def save_checkpoint(self, job: Job, arrays: Any) -> None:
        self.saved(arrays)

    def behind(self, job: Job, curve: Any) -> bool:
        return False
