"""The actor that runs trials: a Tune trainable that lives on from one trial to the next.

Data and original weights travel once per node through the object store, as numpy arrays. The actor keeps the data of
recent problems on its device. It talks to neither Optuna nor MLflow, and writes no files: the driver does.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import ray
import torch
from ray import tune

from mu.data import Dataset
from mu.methods import Method
from mu.models import Model
from mu.problem import Problem, ProblemSpec
from mu.record import TrialRecord, trial_line
from mu.split import Split
from sweeps.plan import Job
from sweeps.state.store import pack
from sweeps.workers.result import RunningTrial, TrialResult, environment, new_record
from sweeps.workers.save_timer import SaveTimer
from sweeps.workers.scores import ReferenceScores
from sweeps.workers.tasks import WorkerSetup
from sweeps.workers.trial import TrialContext, run_trial

REPORT_SECONDS = 2.0
"""How often at most a running trial reports; shorter epochs are reported together."""
KEPT_PROBLEMS = 4
"""Problems whose data an actor keeps on its device."""

ProblemName = tuple[str, int]
"""Forget request and seed."""


@dataclass(frozen=True)
class TrialInputs:
    """What the trials of a Tune run share. It is sent to each actor once.

    Args:
        study: Name of the study.
        data, model: The data set and the network, in the object store.
        problems, references: The problems, and the scores that trials on them are compared with.
        originals, retrained: Weights of the reference models, in the object store.
        methods: The methods by name.
        setup: What an actor is fitted to.
        resources: What a trial occupies, as its record says it.
        early_stop, mean_gap_metrics: See ``trial.TrialContext``.
        save_seconds: How often a running trial is saved.
    """

    study: str
    data: ray.ObjectRef
    model: ray.ObjectRef
    problems: Mapping[ProblemName, ProblemSpec]
    references: Mapping[ProblemName, ReferenceScores]
    originals: Mapping[ProblemName, ray.ObjectRef]
    retrained: Mapping[ProblemName, ray.ObjectRef]
    methods: Mapping[str, Method]
    setup: WorkerSetup
    resources: Mapping[str, float]
    early_stop: str
    mean_gap_metrics: tuple[str, ...]
    save_seconds: float


class UnlearningTrial(tune.Trainable):
    """A job as a Tune trainable. Tune gives its actor the next job when one has ended."""

    def setup(self, config: dict[str, Any], inputs: TrialInputs | None = None) -> None:
        """Prepare the process, once, and take the first job."""
        assert inputs is not None
        self.inputs = inputs
        self.device = inputs.setup.apply()
        self.data: Dataset = ray.get(inputs.data)
        self.model: Model = ray.get(inputs.model)
        self.problems: OrderedDict[ProblemName, tuple[Problem, Split]] = OrderedDict()
        self.device_is_broken = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        if self.device_is_broken:
            os._exit(1)  # Tune sees a lost worker, and the trial starts in a new process
        self.job: Job = new_config["job"]
        self.started = time.time()
        self.timer = SaveTimer(self.inputs.save_seconds)
        checkpoint = new_config["checkpoint"]
        self.running = RunningTrial(None if checkpoint is None else ray.get(checkpoint))
        self.steps: Iterator[RunningTrial] | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial for a few seconds, or to its end; returns what the driver gets to know of it."""
        if self.steps is None:
            self.steps = self._start()
        until = time.monotonic() + REPORT_SECONDS
        try:
            while True:
                next(self.steps)
                if time.monotonic() >= until or self.timer.due():
                    return self._report(done=False)
        except StopIteration:
            return self._report(done=True)

    def _start(self) -> Iterator[RunningTrial]:
        inputs, name = self.inputs, (self.job.forget, self.job.seed)
        problem, split = self._problem(name)
        context = TrialContext(
            problem,
            split,
            inputs.methods[self.job.method],
            inputs.references[name],
            inputs.early_stop,
            self.device,
            inputs.mean_gap_metrics,
            lambda: ray.get(inputs.retrained[name]),
        )
        return run_trial(context, self.job, ray.get(inputs.originals[name]), self.running)

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
        """Return the trial's record so far, and beside it what is stored: outputs at the end, or a checkpoint.

        Tune flattens nested results, so each part is one string or bytes.
        """
        result, checkpoint = self.running.result, {}
        if not done:
            # This is what the record is to say if the driver stops the trial here.
            result = replace(result, status="stopped", reason="behind others")
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
            self.inputs.resources,
            **known,
            environment=environment(self.device),
            started=self.started,
            ended=ended,
            time_total=ended - self.started,
        )


def _works(device: str) -> bool:
    """Return whether a device still works; after some errors of CUDA it does not, in the process that made them."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
