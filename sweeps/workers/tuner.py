"""Tune runs over a stream of jobs: trials on actors that live on from one to the next.

Data and original weights travel once per node through the object store, as numpy arrays; actors keep the data
of recent problems on their device. Only the driver talks to Optuna, to MLflow and to the disk.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from mu.data import Dataset
from mu.device import prepare
from mu.launch import set_launch
from mu.methods import Method
from mu.models import Model
from mu.problem import Problem, ProblemSpec
from mu.record import TrialRecord
from mu.split import Split
from sweeps.plan import Job, Plan
from sweeps.state.store import pack, unpack
from sweeps.study.resources import Slot
from sweeps.workers.cluster import Cluster
from sweeps.workers.save_timer import SaveTimer
from sweeps.workers.trainers import RETRIES, Trainers, Weights
from sweeps.workers.trial import CurvePoint, ReferenceScores, RunningTrial, environment, run_trial

REPORT_SECONDS = 2.0
"""How often at most a running trial reports; shorter epochs are reported together."""
SAVE_SECONDS = 180.0
"""How often a running trial is saved, at the end of an epoch; shorter ones are only when their node is drained."""
KEPT_PROBLEMS = 4
"""Problems whose data an actor keeps on its device."""


class Workers:
    """References and trials of one plan, on a running cluster."""

    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan = plan
        self.cluster = cluster
        self.trainers = Trainers(plan)

    def run(
        self,
        jobs: JobSource,
        references: Mapping[tuple[str, int], ReferenceScores],
        early_stop: str,
    ) -> None:
        """One Tune run: draws jobs from the source until it has no more, and returns when all have ended.

        Raises:
            Exception: What the source raised; the trials that were running then are not recorded.
        """
        for tuned in self.plan.study.methods:
            module = sys.modules[tuned.method.unlearn.__module__]
            if not module.__name__.startswith("mu.methods."):
                ray.cloudpickle.register_pickle_by_value(module)  # workers do not have its file
        operation = self.plan.study.settings
        share = operation.resources.trial
        shared = Shared(
            data=self.trainers.data,
            model=self.trainers.model,
            problems={name: self.plan.problem(*name).spec for name in references},
            originals=self.trainers.refs("original", references),
            retrained=self.trainers.refs("retrain", references),
            references=dict(references),
            methods={tuned.name: tuned.method for tuned in self.plan.study.methods},
            share=share,
            launch=operation.resources.launch,
            early_stop=early_stop,
            own_list=self.plan.study.search.mean_gap,
            save_seconds=SAVE_SECONDS,
        )
        trainable = tune.with_resources(
            tune.with_parameters(UnlearningTrial, shared=shared),
            {"cpu": share.cpus, "gpu": share.gpus, **share.custom},
        )
        feed = JobSearcher(jobs, self.cluster.wanted, share, operation.trial_timeout)
        # Threads of Tune may still write to it when Ctrl-C ends the run.
        with tempfile.TemporaryDirectory(prefix="musweep-", ignore_cleanup_errors=True) as folder:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=feed,
                    scheduler=_Scheduler(feed),
                    num_samples=-1,  # until the feed has no more
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=folder,
                    verbose=0,
                    callbacks=[TimeoutCallback(feed)],
                    stop=_Broken(feed),
                    failure_config=tune.FailureConfig(max_failures=0),  # the feed starts them again
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
        if feed.error is not None:
            raise feed.error


class JobSource(Protocol):
    """Where a Tune run gets its jobs, and where their records go."""

    study: str

    def next(self) -> Job | None:
        """The next job; None when there are no more."""

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job that ended."""

    def load_checkpoint(self, job: Job) -> Weights | None:
        """Where an earlier run of the study left a job."""

    def save_checkpoint(self, job: Job, arrays: Weights) -> None:
        """Take where a running job is."""

    def save_outputs(self, job: Job, arrays: Weights) -> None:
        """Take the outputs of a job that ended, before its record."""

    def behind(self, job: Job, point: CurvePoint) -> bool:
        """Whether a running job should be stopped."""


@dataclass(frozen=True)
class Shared:
    """What every trial of a Tune run needs; sent to each actor once."""

    data: ray.ObjectRef
    model: ray.ObjectRef
    problems: dict[tuple[str, int], ProblemSpec]
    originals: dict[tuple[str, int], ray.ObjectRef]
    retrained: dict[tuple[str, int], ray.ObjectRef]
    references: dict[tuple[str, int], ReferenceScores]
    methods: dict[str, Method]
    share: Slot
    launch: str
    early_stop: str
    own_list: tuple[str, ...]
    save_seconds: float


class UnlearningTrial(tune.Trainable):
    """A job as a Tune trainable. Its actor lives on and takes the next job."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        assert shared is not None
        self.shared = shared
        set_launch(shared.launch)
        self.device = prepare(shared.share.cpus, shared.share.gpus)
        self.data: Dataset = ray.get(shared.data)
        self.model: Model = ray.get(shared.model)
        self.problems: OrderedDict[tuple[str, int], tuple[Problem, Split]] = OrderedDict()
        self.broken = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if self.broken:
            os._exit(1)  # the next trial starts in a fresh process
        self.job: Job = new_config["job"]
        self.started = time.time()
        self.timer = SaveTimer(self.shared.save_seconds)
        left = new_config["begun"]
        self.begun = RunningTrial(None if left is None else ray.get(left))
        self.running: Any = None
        return True

    def _problem(self, name: tuple[str, int]) -> tuple[Problem, Split]:
        if name not in self.problems:
            problem = self.shared.problems[name].on(self.data, self.model)
            self.problems[name] = problem, problem.split(self.device)
            while len(self.problems) > KEPT_PROBLEMS:
                self.problems.popitem(last=False)
        self.problems.move_to_end(name)
        return self.problems[name]

    def step(self) -> dict[str, Any]:
        name = (self.job.forget, self.job.seed)
        if self.running is None:
            problem, split = self._problem(name)
            self.running = run_trial(
                problem,
                split,
                self.shared.methods[self.job.method],
                self.job,
                ray.get(self.shared.originals[name]),
                self.shared.references[name],
                self.shared.early_stop,
                self.device,
                self.shared.own_list,
                lambda: ray.get(self.shared.retrained[name]),
                self.begun,
            )
        until = time.monotonic() + REPORT_SECONDS
        try:
            while True:
                next(self.running)
                if time.monotonic() >= until or self.timer.due():
                    return self._result(done=False)
        except StopIteration:
            return self._result(done=True)

    def _result(self, done: bool) -> dict[str, Any]:
        outcome, draft = self.begun.outcome, {}
        if not done:
            outcome = replace(outcome, status="stopped", reason="behind others")
            if self.timer.due():
                draft = self.begun.save()
                self.timer.saved()
        self.broken = outcome.status == "failed" and not _usable(self.device)
        ended = time.time()
        kept, outcome.kept = outcome.kept, {}
        ending = {
            **asdict(outcome),
            "time_total": ended - self.started,
            "environment": environment(self.device),
            "started": self.started,
            "ended": ended,
        }
        del ending["kept"]
        # Tune flattens nested results: each part travels as one value.
        arrays = {"kept": pack(kept) if kept else b"", "begun": pack(draft) if draft else b""}
        return {"done": done, "ending": json.dumps(ending), **arrays}


def _usable(device: str) -> bool:
    """Whether a device still works; after some errors of CUDA it does not, in the process that made them."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


class _ActorManager(RayActorManager):
    """Tune's, for which a worker that Ray ended, such as for its memory, is a lost worker and not the end."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, (RayActorError, RayTaskError))
        if isinstance(exception, RayError) and not known:
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        super()._actor_task_failed(tracked_actor_task, exception)


class _Controller(tune_controller.TuneController):
    """Tune's, which does not look at every trial there ever was to see that it is not finished."""

    def is_finished(self) -> bool:
        return bool(self._search_alg.is_finished() and super().is_finished())


tune_controller.RayActorManager = _ActorManager
ray.tune.tune.TuneController = _Controller


class JobSearcher(Searcher):
    """Hands jobs to Tune as if they were suggestions, and turns their results into records.

    Args:
        jobs: The jobs.
        wanted: How many should run or wait at this moment.
        share: What each occupies.
        timeout_seconds: How long each may run; None is for ever.
    """

    def __init__(
        self,
        jobs: JobSource,
        wanted: Callable[[], int],
        share: Slot,
        timeout_seconds: float | None,
    ):
        super().__init__()
        self.jobs = jobs
        self.wanted = wanted
        self.occupied = {name: amount for name, amount in share.amounts.items() if amount}
        self.timeout_seconds = timeout_seconds
        self.running: dict[str, Job] = {}
        self.again: deque[Job] = deque()
        self.losses: Counter[str] = Counter()
        self.begun: dict[str, ray.ObjectRef] = {}
        self.began: dict[str, float] = {}
        self.overdue: set[str] = set()
        self.last_words: dict[str, str] = {}
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        if len(self.running) >= self.wanted():
            return None
        job = self._next()
        if job is not None:
            self.running[trial_id] = job
            return {"job": job, "begun": self._begun(job)}
        # One that runs may be lost and start again: only the last one's end is the end.
        return None if self.running and self.error is None else Searcher.FINISHED

    def _next(self) -> Job | None:
        if self.error is not None:
            return None
        if self.again:
            return self.again.popleft()
        try:
            return self.jobs.next()
        except Exception as error:  # Tune would take it for a failure of the trial
            self.error = error
            return None

    def _begun(self, job: Job) -> ray.ObjectRef | None:
        """Where a job was left: by a worker that was lost, or in an earlier run of the study."""
        if job.key not in self.begun:
            left = self.jobs.load_checkpoint(job)
            if left is not None:
                self.begun[job.key] = ray.put(left)
        return self.begun.get(job.key)

    def keep(self, trial_id: str, draft: bytes) -> None:
        """Take where a running trial is. What gets on may be lost again: a long one outlives many a spot node."""
        job, arrays = self.running[trial_id], unpack(draft)
        self.losses[job.key] = 0
        self.begun[job.key] = ray.put(arrays)
        self.jobs.save_checkpoint(job, arrays)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        job = self.running.pop(trial_id)
        began = self.began.pop(trial_id, time.time())
        if self.error is not None:
            return  # it is run again when the study is
        if error or not result or "ending" not in result:
            ending = self._lost(trial_id, job, began)
            if ending is None:
                self.again.append(job)
                return
        else:
            ending = json.loads(result["ending"])
        self.begun.pop(job.key, None)
        try:
            if result and result.get("kept"):
                self.jobs.save_outputs(job, unpack(result["kept"]))
            self.jobs.ended(to_record(self.jobs.study, job, ending, self.occupied))
        except Exception as trouble:
            self.error = trouble

    def _lost(self, trial_id: str, job: Job, began: float) -> dict[str, Any] | None:
        """How a trial ended that could not say so itself; None when it is to start again."""
        words = self.last_words.pop(trial_id, "")
        self.losses[job.key] += 1
        times = self.losses[job.key]
        if trial_id in self.overdue:
            cause, reason = "timeout", f"timeout: it had not ended after {self.timeout_seconds:g} s"
        elif times <= RETRIES:
            return None
        elif "OutOfMemory" in words:
            cause, reason = "memory", f"out of memory, {times} times: {words}"
        else:
            cause, reason = "infrastructure", f"its worker was lost {times} times: {words}"
        ended = time.time()
        return {
            "status": "failed",
            "cause": cause,
            "reason": reason,
            "started": began,
            "ended": ended,
            "time_total": ended - began,
        }

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state of a search lives in the records and in Optuna's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see ``save``."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing; see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Scheduler(FIFOScheduler):
    """Stops the trials that their source calls behind; decides nothing itself."""

    def __init__(self, feed: JobSearcher):
        super().__init__()
        self.feed = feed

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if not result.get("done") and "ending" in result:
            curve = json.loads(result["ending"])["curve"]
            if curve and self.feed.jobs.behind(trial.config["job"], curve[-1]):
                return self.STOP
        return self.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None in particular, which is the order they come in; FIFO's own search for it looks at all there ever were."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note why a worker was lost, before the feed hears that it was."""
        path = trial.error_file and Path(trial.error_file)
        lines = path.read_text(errors="replace").strip().splitlines() if path else []
        name = next((line for line in lines[::-1] if "OutOfMemory" in line), None)
        self.feed.last_words[trial.trial_id] = name or (lines[-1] if lines else "")

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TimeoutCallback(tune.Callback):
    """Ends trials that take too long, hung ones too: their process is killed, and Tune sees a lost worker."""

    def __init__(self, feed: JobSearcher):
        self.feed = feed
        self.trials: dict[str, tuple[float, Any]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.feed.began[trial.trial_id] = time.time()
        self.trials[trial.trial_id] = time.monotonic(), trial

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        limit = self.feed.timeout_seconds
        if limit is None:
            return
        for name, (began, trial) in list(self.trials.items()):
            if time.monotonic() - began < limit:
                break  # they are in the order in which they started
            del self.trials[name]
            self.feed.overdue.add(name)
            ray.kill(trial.temporary_state.ray_actor)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Take a trial's draft out of its result, of which Tune keeps the last."""
        draft = result.pop("begun", b"")
        if draft:
            self.feed.keep(trial.trial_id, draft)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.trials.pop(trial.trial_id, None)
        trial.config["begun"] = None  # Tune keeps the configuration, and with it what it refers to

    on_trial_error = on_trial_complete


class _Broken(tune.Stopper):
    """Ends a run whose source cannot go on."""

    def __init__(self, feed: JobSearcher):
        self.feed = feed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.feed.error is not None


def to_record(
    study: str, job: Job, ending: Mapping[str, Any], occupied: Mapping[str, float]
) -> TrialRecord:
    """The record of a job from how it ended and what it occupied."""
    return TrialRecord(
        key=job.key,
        study=study,
        phase=job.phase,
        forget=job.forget,
        method=job.method,
        seed=job.seed,
        knobs=dict(job.knobs),
        number=job.number,
        source=job.source,
        resources=dict(occupied),
        **ending,
    )
