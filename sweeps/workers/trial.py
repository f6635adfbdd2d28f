"""One trial: a method runs on a problem, is timed, evaluated and scored. No Ray: tests call it directly."""

from __future__ import annotations

import json
import math
import platform
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu.device import peak_memory, place
from mu.evaluate import diagnostics_score
from mu.methods import Method
from mu.problem import Problem, Weights
from mu.record import TrialRecord
from mu.rng import generator, seed_process
from mu.snapshot import Snapshot
from mu.split import Split
from mu.training import count_samples
from sweeps.plan import Job
from sweeps.workers import memory
from sweeps.workers.curve import CurveEvaluator, CurvePoint, collapsed, kept_accuracy
from sweeps.workers.scores import ReferenceScores, add_diagnostics, answers, complete, sparse

PROGRESS = ("curve", "time_unlearn", "samples_seen")
"""What is known of a result between epochs, and saved with a checkpoint."""


@dataclass(frozen=True)
class TrialContext:
    """All that a trial needs beside its job and its weights; the trials of a cell share it.

    Args:
        problem: The problem.
        split: Its split on `device`, shared so that trials use each other's ``cached`` results.
        method: The method.
        reference: Scores that the trial is compared with.
        early_stop: `none` lets a model that has collapsed go on; see ``curve.collapsed``.
        device: `cpu` or `cuda`.
        mean_gap_metrics: Metrics of the objective `mean_gap`, if that is the study's.
        retrained: Fetches the retrained model, for the diagnostics of a finalist; None leaves them out.
    """

    problem: Problem
    split: Split
    method: Method
    reference: ReferenceScores
    early_stop: str = "collapse"
    device: str = "cpu"
    mean_gap_metrics: tuple[str, ...] = ()
    retrained: Callable[[], Weights] | None = None


@dataclass
class TrialResult:
    """How a trial ended: the fields of a record that follow from running it, and its outputs."""

    status: str = "finished"
    reason: str = ""
    cause: str = ""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    time_unlearn: float = 0.0
    samples_seen: int = 0
    confusions: dict[str, list[list[int]]] = field(default_factory=dict)
    device_memory: float = 0.0
    host_memory: float = 0.0
    outputs: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Logits on D_f and on the test samples, for the audit; no part of the record."""


class RunningTrial:
    """A trial between two epochs.

    Args:
        checkpoint: What ``save`` returned; None starts at the beginning.

    Attributes:
        result: What is known so far of the result: curve, time, samples.
        snapshot: State of the method.
    """

    def __init__(self, checkpoint: Mapping[str, NDArray[np.uint8]] | None = None):
        method = progress = b""
        if checkpoint:
            method, progress = (checkpoint[name].tobytes() for name in ("method", "progress"))
        self.result = TrialResult(**json.loads(progress)) if progress else TrialResult()
        self.snapshot = Snapshot(method)

    def save(self) -> dict[str, NDArray[np.uint8]]:
        """Return a checkpoint for another process; it is empty when the method is in no loop that can be resumed."""
        method = self.snapshot.save()
        if not method:
            return {}
        progress = json.dumps({name: getattr(self.result, name) for name in PROGRESS}).encode()
        parts = {"method": method, "progress": progress}
        return {name: np.frombuffer(content, np.uint8) for name, content in parts.items()}


def run_trial(
    context: TrialContext, job: Job, weights: Weights, running: RunningTrial | None = None
) -> Generator[RunningTrial, None, TrialResult]:
    """Run a job. Yields the running trial after each epoch, and returns its result.

    An exception makes the trial `failed`: it is a result, and is not retried. The method's randomness depends on
    problem and method alone, so that the trials of a cell differ by their knobs only.

    Args:
        context: What the trial runs on.
        job: The job.
        weights: The original model.
        running: State to go on from; None starts at the beginning.
    """
    running = running or RunningTrial()
    result, device = running.result, context.device
    memory.watch(device)
    try:
        yield from _steps(context, job, weights, running)
    except Exception as error:
        result.status, result.cause, result.reason = "failed", "exception", _traceback(error)
        if memory.ran_out(error):
            result.cause = "memory"
            result.reason += memory.advice(error, device)
    result.device_memory, result.host_memory = peak_memory(device), memory.peak()
    return result


def _steps(
    context: TrialContext, job: Job, weights: Weights, running: RunningTrial
) -> Iterator[RunningTrial]:
    """Run the method epoch by epoch and score its model, noting both in ``running.result``."""
    problem, split, method = context.problem, context.split, context.method
    result = running.result
    seed_process("trial", problem.key, method.name)
    draws = generator("method", problem.key, method.name)
    model = place(problem.load(weights), context.device)
    counter = count_samples(model)
    split.memo.start(counter)
    evaluator = CurveEvaluator(problem, split, context.reference, context.device)
    if not result.curve:
        result.curve.append(evaluator.start())
    steps = method.unlearn(model, split.only(method.data), draws, **job.knobs)
    followed = running.snapshot.follow(steps)
    for _ in _billed(followed, context, running, counter):
        result.curve.append(evaluator.point(model, len(result.curve), result.time_unlearn))
        if _is_over(context, result):
            break
        yield running
    followed.close()
    if result.status == "finished":
        _score(context, job, model, result)


def _billed(
    steps: Iterator[None], context: TrialContext, running: RunningTrial, counter: list[int]
) -> Iterator[None]:
    """Run the steps of a method, and bill the time and the samples of these alone.

    Args:
        counter: The number of samples that have passed through the model, which ``count_samples`` keeps.
    """
    result, memo = running.result, context.split.memo
    seconds = started = 0.0

    def resume() -> None:
        """Bill what the checkpoint says: the work up to here was billed when it was done first."""
        nonlocal seconds, started
        seconds = result.time_unlearn - memo.seconds
        counter[0] = result.samples_seen - memo.samples
        started = time.perf_counter()

    running.snapshot.resumed = resume
    while True:
        started = time.perf_counter()
        try:
            next(steps)
        except StopIteration:
            return
        finally:
            # A GPU works on after the call has returned, and this work is the method's too.
            _synchronize(context.device)
            seconds += time.perf_counter() - started
            # Results that an earlier trial cached cost this one as much as they did that one.
            result.time_unlearn = seconds + memo.seconds
            result.samples_seen = counter[0] + memo.samples
        yield


def _is_over(context: TrialContext, result: TrialResult) -> bool:
    """Return whether the last point of the curve ends the trial; its status and reason then say why."""
    point = result.curve[-1]
    if not math.isfinite(point["acc_test"]):
        result.status = "diverged"
        result.reason = f"outputs are not finite after epoch {int(point['epoch'])}"
    elif (
        context.early_stop != "none"
        and not context.method.impairs_first
        and collapsed(result.curve, context.split.num_classes)
    ):
        result.status = "stopped"
        result.reason = f"collapsed: held-out accuracy {kept_accuracy(point):.3f} is near chance"
    return result.status != "finished"


def _score(context: TrialContext, job: Job, model: torch.nn.Module, result: TrialResult) -> None:
    """Evaluate the unlearned model on the job's views."""
    problem, split, device = context.problem, context.split, context.device
    evaluation = problem.evaluate(model, split, job.views, device, job.attacks)
    parts = (evaluation.retain, evaluation.forget, *evaluation.held_out.values())
    if not all(np.isfinite(part.logits).all() for part in parts):
        result.status, result.reason = "diverged", "outputs are not finite"
        return
    whole_class = problem.request.whole_class
    result.metrics = complete(evaluation, context.reference, whole_class, context.mean_gap_metrics)
    result.unavailable = dict(evaluation.unavailable)
    if "test" in job.views:
        result.confusions = sparse(evaluation.confusions)
    if job.attacks and context.retrained is not None:
        gold = place(problem.load(context.retrained()), device)
        diagnostics = diagnostics_score(
            model,
            gold,
            split.memo.diagnostics,
            evaluation.forget,
            context.reference.retrain_logits,
        )
        add_diagnostics(result.metrics, result.unavailable, diagnostics)
    if job.keep:
        result.outputs = answers(evaluation)


def new_record(job: Job, study: str, resources: Mapping[str, float], **ended: Any) -> TrialRecord:
    """Return the record of a job.

    Args:
        resources: What the trial occupied.
        ended: The fields that say how it ended.
    """
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
        resources=dict(resources),
        **ended,
    )


def environment(device: str) -> dict[str, str]:
    """Return where a trial runs: host, device and versions."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "host": platform.node(),
        "device": f"{device} ({name})",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
