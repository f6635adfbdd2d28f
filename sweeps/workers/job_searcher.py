"""The jobs of a study as a search algorithm of Ray Tune: jobs are its suggestions, and results become records."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from numpy.typing import NDArray
from ray.tune.search import Searcher

from mu.record import TrialRecord, from_line
from sweeps.errors import SweepError
from sweeps.plan import Job
from sweeps.state.store import unpack
from sweeps.state.unbilled import Unbilled
from sweeps.study.resources import Slot
from sweeps.workers.curve import CurvePoint
from sweeps.workers.result import new_record

Arrays = dict[str, NDArray[Any]]
REFUSAL = "refusal"
"""Key of the result of a worker that takes no job at all, with its reason, which ends the run."""
RETRIES = 3
"""How often a job is started again after its worker or node was lost."""


class JobSource(Protocol):
    """Where a Tune run gets its jobs, and where their records go."""

    study: str
    unbilled: Unbilled

    def next(self) -> Job | None:
        """Return the next job that can start; None when there is none before a running one has ended."""

    def left(self) -> int:
        """Return how many jobs are to be handed out, as far as this is known."""

    def objects(self, job: Job) -> Mapping[str, Any]:
        """Return what a job needs of the object store, by name: weights of references and their scores."""

    def ended(self, job: Job, record: TrialRecord, outputs: Arrays) -> None:
        """Take the record of a job that has ended, and its outputs."""

    def load_checkpoint(self, job: Job) -> Arrays | None:
        """Return the checkpoint of a job that an earlier run of the study has saved, if there is one."""

    def save_checkpoint(self, job: Job, arrays: Arrays) -> None:
        """Save a checkpoint of a running job."""

    def behind(self, job: Job, curve: Sequence[CurvePoint]) -> bool:
        """Return whether a running job with this curve, all of its epochs so far, is to be stopped."""


class Room(Protocol):
    """How much work there is room for."""

    def wanted(self) -> float:
        """Return how many trials should run or wait at this moment."""

    def slot(self, job: Job) -> Slot:
        """Return what a job occupies."""

    def load(self, job: Job) -> float:
        """Return the number of trials that would fit in the place of a job."""

    def note_left(self, left: Callable[[], int]) -> None:
        """Take notice of how many jobs run or are left; `left` counts them, which takes a while with many cells."""

    def placement(self, job: Job) -> Mapping[str, Any]:
        """Return the options of a job's placement group, beside its size."""

    def worked(self, actor: str) -> None:
        """Note that an actor has ended a job."""

    def lost(self, actor: str, job: Job) -> None:
        """Note that an actor was lost with a job, and not for the memory or the time that the job took."""


@dataclass
class RunningJob:
    """A job that Tune has taken.

    Args:
        job: The job.
        load: The number of trials that would fit in its place.
        started: When its worker started with it, in seconds since the epoch; None while it waits for one.
        actor: Ray's identifier of that worker, if it is known.
        outputs: What the job has put out, once it has ended.
    """

    job: Job
    load: float = 1.0
    started: float | None = None
    actor: str = ""
    outputs: bytes = b""

    @property
    def seconds(self) -> float:
        """How long its worker has been at it."""
        return time.time() - self.started if self.started else 0.0


class JobSearcher(Searcher):
    """A searcher that hands out the jobs of a source, and starts a job again when its worker is lost.

    All that it knows outlives a Tune run: the next one goes on with the same searcher.

    Args:
        jobs: The jobs.
        room: How much work there is room for.
        timeout_seconds: How long a trial may run; None is for ever.

    Attributes:
        running: What Tune has taken, by its trial's identifier.
        overdue: Trials whose workers were killed because they took too long.
        last_words: What is known of the loss of a trial's worker.
        error: What the source raised; the run then ends.
    """

    def __init__(
        self,
        jobs: JobSource,
        room: Room,
        timeout_seconds: float | None,
    ):
        super().__init__()
        self.jobs = jobs
        self.room = room
        self.timeout_seconds = timeout_seconds
        self.running: dict[str, RunningJob] = {}
        self.overdue: set[str] = set()
        self.last_words: dict[str, str] = {}
        self.error: Exception | None = None
        self._again: deque[Job] = deque()
        self._losses: Counter[str] = Counter()
        self._checkpoints: dict[str, ray.ObjectRef] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return a job and what it needs; None when enough run, and FINISHED when there are no more."""
        self.room.note_left(lambda: len(self.running) + self.jobs.left())
        if sum(running.load for running in self.running.values()) >= self.room.wanted():
            return None
        job = self._next()
        if job is not None:
            self.running[trial_id] = RunningJob(job, self.room.load(job))
            checkpoint, objects = self._checkpoint(job), dict(self.jobs.objects(job))
            taken = {"job": job, "checkpoint": checkpoint, "objects": objects}
            return {**taken, "placement": dict(self.room.placement(job))}
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
        try:
            self.jobs.save_checkpoint(job, arrays)
        except Exception as error:
            self.error = error

    def note_running(self, *, now: bool = False) -> None:
        """Write down how long running jobs have run, so that they are billed even if the driver is killed."""
        seconds = {running.job.key: running.seconds for running in self.running.values()}
        self.jobs.unbilled.note(seconds, now=now)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only the end of a trial counts here."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand the record of an ended trial to the source, or queue the job again when its worker was lost."""
        if self.error is not None:
            running = self.running.pop(trial_id)  # the next run of the study runs it again
            self.jobs.unbilled.add(running.job.key, running.seconds)
        elif result and REFUSAL in result:
            del self.running[trial_id]
            self.error = SweepError(result[REFUSAL])
        elif error or not result or "record" not in result:
            words = self.last_words.get(trial_id, "")
            self._lose(trial_id, "memory" if out_of_memory(words) else "infrastructure", words)
        else:
            running = self.running.pop(trial_id)
            self.room.worked(running.actor)
            record = from_line(result["record"])
            self._end(running.job, record, running.outputs)

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
                self.jobs.unbilled.add(running.job.key, running.seconds)
        return counted

    def _lose(self, trial_id: str, cause: str, words: str) -> None:
        """Count a loss, and queue the job again unless it was lost too often or took too long."""
        running = self.running.pop(trial_id)
        job, ended = running.job, time.time()
        started = running.started or ended
        self.jobs.unbilled.add(job.key, ended - started)
        self.last_words.pop(trial_id, None)
        self._losses[job.key] += 1
        times = self._losses[job.key]
        if cause == "infrastructure" and trial_id not in self.overdue:
            self.room.lost(running.actor, job)
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
            self.room.slot(job).occupied,
            status="failed",
            cause=cause,
            reason=reason,
            started=started,
            ended=ended,
        )
        self._end(job, record)

    def _end(self, job: Job, record: TrialRecord, outputs: bytes = b"") -> None:
        """Hand a record to the source; the slot is billed for the attempts that were lost as well."""
        self._checkpoints.pop(job.key, None)
        billed = record.time_total + self.jobs.unbilled.bill(job.key)
        try:
            ended = replace(record, time_total=billed)
            self.jobs.ended(job, ended, unpack(outputs) if outputs else {})
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
