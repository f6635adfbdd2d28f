"""The jobs of a study as a search algorithm of Ray Tune: jobs are its suggestions, and results become records."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.tune.search import Searcher

from mu.record import TrialRecord, from_content
from sweeps.plan import Job
from sweeps.state.store import unpack
from sweeps.workers.curve import CurvePoint
from sweeps.workers.result import new_record
from sweeps.workers.tasks import RETRIES, Weights


class JobSource(Protocol):
    """Where a Tune run gets its jobs, and where their records go."""

    study: str

    def next(self) -> Job | None:
        """Return the next job, or None when there are no more."""

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job that has ended."""

    def load_checkpoint(self, job: Job) -> Weights | None:
        """Return the checkpoint of a job that an earlier run of the study has saved, if there is one."""

    def save_checkpoint(self, job: Job, arrays: Weights) -> None:
        """Save a checkpoint of a running job."""

    def save_outputs(self, job: Job, arrays: Weights) -> None:
        """Save the outputs of a job that has ended; called before its record comes."""

    def behind(self, job: Job, point: CurvePoint) -> bool:
        """Return whether a running job is to be stopped at this point of its curve."""


@dataclass
class RunningJob:
    """A job that Tune has taken.

    Args:
        job: The job.
        started: When its worker started with it, in seconds since the epoch; None while it waits for one.
        actor: Ray's identifier of that worker, if it is known.
    """

    job: Job
    started: float | None = None
    actor: str = ""


class JobSearcher(Searcher):
    """A searcher that hands out the jobs of a source, and starts a job again when its worker is lost.

    All that it knows outlives a Tune run: the next one goes on with the same searcher.

    Args:
        jobs: The jobs.
        wanted: Returns how many jobs should run or wait at this moment.
        resources: What each occupies.
        timeout_seconds: How long each may run; None is for ever.

    Attributes:
        running: What Tune has taken, by its trial's identifier.
        overdue: Trials whose workers were killed because they took too long.
        last_words: What is known of the loss of a trial's worker.
        error: What the source raised; the run then ends.
    """

    def __init__(
        self,
        jobs: JobSource,
        wanted: Callable[[], int],
        resources: Mapping[str, float],
        timeout_seconds: float | None,
    ):
        super().__init__()
        self.jobs = jobs
        self.wanted = wanted
        self.resources = resources
        self.timeout_seconds = timeout_seconds
        self.running: dict[str, RunningJob] = {}
        self.overdue: set[str] = set()
        self.last_words: dict[str, str] = {}
        self.error: Exception | None = None
        self._again: deque[Job] = deque()
        self._losses: Counter[str] = Counter()
        self._checkpoints: dict[str, ray.ObjectRef] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return a job and its checkpoint; None when enough run, and FINISHED when there are no more."""
        if len(self.running) >= self.wanted():
            return None
        job = self._next()
        if job is not None:
            self.running[trial_id] = RunningJob(job)
            return {"job": job, "checkpoint": self._checkpoint(job)}
        # A running job may be lost and start again, so that only the end of the last one is the end of the run.
        return None if self.running and self.error is None else Searcher.FINISHED

    def _next(self) -> Job | None:
        if self.error is not None:
            return None
        if self._again:
            return self._again.popleft()
        try:
            return self.jobs.next()
        except Exception as error:  # Tune would take it for a failure of the trial
            self.error = error
            return None

    def _checkpoint(self, job: Job) -> ray.ObjectRef | None:
        """Return the last checkpoint of a job, of this run or of an earlier run of the study."""
        if job.key not in self._checkpoints:
            arrays = self.jobs.load_checkpoint(job)
            if arrays is not None:
                self._checkpoints[job.key] = ray.put(arrays)
        return self._checkpoints.get(job.key)

    def save_checkpoint(self, trial_id: str, content: bytes) -> None:
        """Keep a checkpoint of a running job.

        Its losses are counted anew, since it gets on: a long job may outlive many a spot node.
        """
        job, arrays = self.running[trial_id].job, unpack(content)
        self._losses[job.key] = 0
        self._checkpoints[job.key] = ray.put(arrays)
        self.jobs.save_checkpoint(job, arrays)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only the end of a trial counts here."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand the record of an ended trial to the source, or queue the job again when its worker was lost."""
        if self.error is not None:
            del self.running[trial_id]  # the next run of the study runs it again
        elif error or not result or "record" not in result:
            words = self.last_words.get(trial_id, "")
            self._lose(trial_id, "memory" if out_of_memory(words) else "infrastructure", words)
        else:
            record = from_content(json.loads(result["record"]))
            self._end(self.running.pop(trial_id).job, record, result.get("outputs"))

    def requeue(self, words: str, lost: Collection[str] = ()) -> int:
        """Queue every running job again, because Tune itself ended when a worker was lost.

        A loss is counted for the jobs whose workers were lost. Where nobody knows these, it is counted for all that
        had started, so that a job which kills its worker each time comes to an end; none of them is then said to
        have been short of memory.

        Args:
            words: What Ray said of the loss.
            lost: Identifiers of the trials whose workers were lost, as far as they are known.

        Returns:
            The number of losses that were counted.
        """
        cause = "memory" if lost and out_of_memory(words) else "infrastructure"
        counted = 0
        for trial_id, running in list(self.running.items()):
            if self.error is not None:
                break  # what is left is run again by the next run of the study
            if trial_id in lost or trial_id in self.overdue or (not lost and running.started):
                self._lose(trial_id, cause, words)
                counted += 1
            else:
                del self.running[trial_id]
                self._again.append(running.job)
        return counted

    def _lose(self, trial_id: str, cause: str, words: str) -> None:
        """Count a loss, and queue the job again unless it was lost too often or took too long."""
        running = self.running.pop(trial_id)
        job, ended = running.job, time.time()
        started = running.started or ended
        self.last_words.pop(trial_id, None)
        self._losses[job.key] += 1
        times = self._losses[job.key]
        if trial_id in self.overdue:
            cause, reason = "timeout", f"timeout: it had not ended after {self.timeout_seconds:g} s"
        elif times <= RETRIES:
            self._again.append(job)
            return
        elif cause == "memory":
            reason = f"out of memory, {times} times: {words}"
        else:
            reason = f"its worker was lost {times} times: {words}"
        record = new_record(
            job,
            self.jobs.study,
            self.resources,
            status="failed",
            cause=cause,
            reason=reason,
            started=started,
            ended=ended,
            time_total=ended - started,
        )
        self._end(job, record)

    def _end(self, job: Job, record: TrialRecord, outputs: bytes | None = None) -> None:
        self._checkpoints.pop(job.key, None)
        try:
            if outputs:
                self.jobs.save_outputs(job, unpack(outputs))
            self.jobs.ended(record)
        except Exception as error:
            self.error = error

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state of a search lives in the records and in Optuna's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see ``save``."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing; see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def out_of_memory(words: str) -> bool:
    """Return whether Ray says that it ended a worker for its memory."""
    return "OutOfMemory" in words
