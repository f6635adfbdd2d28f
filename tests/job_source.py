"""A source of three jobs in memory, and how a test lets a searcher's trials end."""

from __future__ import annotations

from typing import Any

from mu.record import TrialRecord, trial_line
from sweeps.plan import Job
from sweeps.workers.job_searcher import JobSearcher
from sweeps.workers.result import new_record


class Source:
    """Three jobs, and what became of them."""

    study = "tiny"

    def __init__(self) -> None:
        self.waiting = [Job(f"k{n}", "search", "some", "jit", 0, {}, n) for n in range(3)]
        self.records: list[TrialRecord] = []
        self.broken = False

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def ended(self, record: TrialRecord) -> None:
        if self.broken:
            raise OSError("no space left")
        self.records.append(record)

    def save_outputs(self, job: Job, arrays: Any) -> None:
        raise AssertionError("there are no outputs")

    def load_checkpoint(self, job: Job) -> None:
        return None

    def save_checkpoint(self, job: Job, arrays: Any) -> None:
        raise AssertionError("there is no checkpoint")

    def behind(self, job: Job, point: Any) -> bool:
        return False


def report(searcher: JobSearcher, trial: str) -> None:
    """Let a trial finish, as its actor reports it."""
    job, resources = searcher.running[trial].job, searcher.resources
    record = new_record(job, "tiny", resources, status="finished", time_total=1.5)
    searcher.on_trial_complete(trial, {"record": trial_line(record), "outputs": b""})


def lost_worker(searcher: JobSearcher, trial: str, words: str) -> None:
    """Let a trial end as Tune says it when the trial's actor has died."""
    searcher.last_words[trial] = words
    searcher.on_trial_complete(trial, error=True)
