"""The actor that does all work of a study, trials and references: a Tune trainable that lives from the first to the last.

Data and weights travel once per node through the object store, as numpy arrays. The actor keeps the data of
recent problems on its device. It talks to neither Optuna nor MLflow, and writes no files: the driver does.
"""

from __future__ import annotations

import os
import platform
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import ray
import torch
from ray import tune

from mu.data import Dataset
from mu.device import prepare
from mu.launch import set_launch
from mu.methods import Method
from mu.models import Model
from mu.problem import Problem, ProblemSpec
from mu.record import TrialRecord, trial_line
from mu.split import Split
from sweeps.plan import Job
from sweeps.state import code
from sweeps.state.store import pack
from sweeps.study.resources import Slot
from sweeps.study.rungs import BEHIND
from sweeps.workers.curve import CurveObjective
from sweeps.workers.job_searcher import REFUSAL
from sweeps.workers.reference_work import reference_steps
from sweeps.workers.result import RunningTrial, TrialResult, environment, new_record
from sweeps.workers.save_timer import SaveTimer
from sweeps.workers.trial import TrialContext, noting_failure, trial_steps

REPORT_SECONDS = 2.0
"""How often at most a running trial reports; shorter epochs are reported together, but for rungs, which are reported at once."""
KEPT_PROBLEMS = 4
"""Problems whose data an actor keeps on its device."""


ProblemName = tuple[str, int]
"""Forget request and seed."""


@dataclass(frozen=True)
class WorkerSetup:
    """What an actor is fitted to before it works.

    Args:
        slot: The resources that its work occupies.
        launch: How training steps reach a GPU; see ``mu.launch``.
        save_seconds: How often long work is saved, at the end of an epoch.
    """

    slot: Slot
    launch: str
    save_seconds: float

    def apply(self) -> str:
        """Fit this process; returns its device, `cuda` or `cpu`."""
        set_launch(self.launch)
        return prepare(self.slot.cpus, self.slot.gpus)


@dataclass(frozen=True)
class WorkInputs:
    """What the jobs of a Tune run share. It is sent to each actor once.

    Args:
        study: Name of the study.
        data, model: The data set and the network, in the object store.
        problems: The problems.
        methods: The methods by name.
        trial, reference: What an actor for trials is fitted to, and one for references.
        early_stop, objective: See ``trial.TrialContext``.
        code: What the driver runs. Workers must run the same.
    """

    study: str
    data: ray.ObjectRef
    model: ray.ObjectRef
    problems: Mapping[ProblemName, ProblemSpec]
    methods: Mapping[str, Method]
    trial: WorkerSetup
    reference: WorkerSetup
    early_stop: str
    code: code.Code
    objective: CurveObjective | None = None

    def setup(self, job: Job) -> WorkerSetup:
        """Return what the actor of a job is fitted to."""
        return self.trial if job.work == "trial" else self.reference


class StudyActor(tune.Trainable):
    """A job as a Tune trainable. Tune gives its actor the next job when one has ended."""

    def setup(self, config: dict[str, Any], inputs: WorkInputs | None = None) -> None:
        """Prepare the process, once, and take the first job."""
        assert inputs is not None
        self.refusal = other_code(inputs.code)
        if self.refusal:
            return
        self.inputs = inputs
        self.device = inputs.setup(config["job"]).apply()  # later jobs here occupy the same
        self.data: Dataset = ray.get(inputs.data)
        self.model: Model = ray.get(inputs.model)
        self.problems: OrderedDict[ProblemName, tuple[Problem, Split]] = OrderedDict()
        self.device_is_broken = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        if self.device_is_broken:
            os._exit(1)  # Tune sees a lost worker, and the job starts in a new process
        self.job: Job = new_config["job"]
        self.objects: Mapping[str, Any] = new_config["objects"]
        self.started = time.time()
        self.timer = SaveTimer(self.inputs.setup(self.job).save_seconds)
        checkpoint = new_config["checkpoint"]
        self.running = RunningTrial(None if checkpoint is None else ray.get(checkpoint))
        self.steps: Iterator[RunningTrial] | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Work for a few seconds, or to the end of the job; returns what the driver gets to know of it."""
        if self.refusal:
            return {"done": True, REFUSAL: self.refusal}
        if self.steps is None:
            self.steps = self._start()
        until = time.monotonic() + REPORT_SECONDS
        try:
            while True:
                next(self.steps)
                if self._at_rung() or time.monotonic() >= until or self.timer.due():
                    return self._report(done=False)
        except StopIteration:
            return self._report(done=True)

    def _at_rung(self) -> bool:
        """Return whether the driver decides now whether the trial goes on."""
        curve = self.running.result.curve
        return bool(self.job.rungs) and curve[-1]["epoch"] in self.job.rungs

    def _start(self) -> Iterator[RunningTrial]:
        return noting_failure(self._work(), self.running, self.device)

    def _work(self) -> Iterator[RunningTrial]:
        """Yield from the job's own steps; what it needs is fetched here, so that a failure is the job's."""
        job, running, device = self.job, self.running, self.device
        name = job.forget, job.seed
        if job.work != "trial":
            problem = self.inputs.problems[name].on(self.data, self.model)
            yield from reference_steps(job, problem, self._get, running, device)
            return
        context = TrialContext(
            *self._problem(name),
            self.inputs.methods[job.method],
            self._get("scores"),
            self.inputs.early_stop,
            device,
            lambda: self._get("retrain"),
            self.inputs.objective,
        )
        yield from trial_steps(context, job, self._get("original"), running)

    def _get(self, name: str) -> Any:
        """Fetch what the driver put into the object store for this job; None where it put nothing."""
        return ray.get(self.objects[name]) if name in self.objects else None

    def _problem(self, name: ProblemName) -> tuple[Problem, Split]:
        """Return a problem and its split, of which the actor keeps those used last."""
        if name not in self.problems:
            problem = self.inputs.problems[name].on(self.data, self.model)
            self.problems[name] = problem, problem.split(self.device)
            while len(self.problems) > KEPT_PROBLEMS:
                self.problems.popitem(last=False)
        self.problems.move_to_end(name)
        return self.problems[name]

    def _report(self, done: bool) -> dict[str, Any]:
        """Return the record of the job so far, and beside it what is stored: outputs at the end, or a checkpoint.

        Tune flattens nested results, so each part is one string or bytes.
        """
        result, checkpoint = self.running.result, {}
        if not done:
            # This is what the record is to say if the driver stops the trial here.
            result = replace(result, status="stopped", reason=BEHIND)
            if self.timer.due():
                checkpoint = self.running.save()
                self.timer.saved()
        self.device_is_broken = result.status == "failed" and not _works(self.device)
        return {
            "done": done,
            "record": trial_line(self._record(result)),
            "outputs": pack(result.outputs) if result.outputs else b"",
            "checkpoint": pack(checkpoint) if checkpoint else b"",
        }

    def _record(self, result: TrialResult) -> TrialRecord:
        ended = time.time()
        known = {each.name: getattr(result, each.name) for each in fields(result)}
        del known["outputs"]
        return new_record(
            self.job,
            self.inputs.study,
            self.inputs.setup(self.job).slot.occupied,
            **known,
            environment=environment(self.device),
            started=self.started,
            ended=ended,
            time_total=ended - self.started,
        )


def other_code(drivers: code.Code) -> str:
    """Return in one line how this process's code differs from the driver's; empty when it is the same."""
    own = code.running()
    if own.digest == drivers.digest:
        return ""
    return (
        f"workers on {platform.node()} run musweep {own}, but the driver runs {drivers}: all "
        "nodes need the same, and it may not change while a study runs"
    )


def _works(device: str) -> bool:
    """Return whether a device still works; after some errors of CUDA it does not, in the process that made them."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
