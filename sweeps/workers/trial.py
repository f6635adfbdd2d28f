"""One trial: a method runs on a problem, is timed, evaluated and scored. No Ray: tests call it directly."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mu.device import peak_memory, place
from mu.evaluate import Outputs, diagnostics_score
from mu.methods import Method
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator, seed_process
from mu.selection import kept_accuracy
from mu.split import Split
from mu.training import count_samples
from sweeps.plan import Job
from sweeps.state import kept
from sweeps.workers import memory
from sweeps.workers.curve import CurveEvaluator, CurveObjective, collapsed
from sweeps.workers.result import RunningTrial, TrialResult
from sweeps.workers.scores import ReferenceScores, add_diagnostics, answers, complete, sparse


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
        retrained: Fetches the retrained model, for the diagnostics of a finalist; None leaves them out.
        objective: What the curve shows beside its own metrics, for ``asha``.
    """

    problem: Problem
    split: Split
    method: Method
    reference: ReferenceScores
    early_stop: str = "collapse"
    device: str = "cpu"
    retrained: Callable[[], Weights] | None = None
    objective: CurveObjective | None = None


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
    yield from noting_failure(trial_steps(context, job, weights, running), running, context.device)
    return running.result


def noting_failure(
    steps: Iterator[RunningTrial], running: RunningTrial, device: str
) -> Iterator[RunningTrial]:
    """Run the steps of any work. An exception becomes its result, and the memory that it needed is noted."""
    result = running.result
    memory.watch(device)
    try:
        yield from steps
    except Exception as error:
        result.status, result.cause, result.reason = "failed", "exception", _traceback(error)
        if memory.ran_out(error):
            result.cause = "memory"
            result.reason += memory.advice(error, device)
    result.device_memory, result.host_memory = peak_memory(device), memory.peak()


def trial_steps(
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
    result.warnings = split.diagnostics.warnings
    evaluator = CurveEvaluator(problem, split, context.reference, context.device, context.objective)
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
    if result.status == "finished" and not _is_over(context, result, ended=True):
        _score(context, job, model, result, evaluator.known(model))


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


def _is_over(context: TrialContext, result: TrialResult, ended: bool = False) -> bool:
    """Return whether the last point of the curve ends the trial; its status and reason then say why.

    Args:
        ended: Whether the method has ended, so that this point is the final one.
    """
    point = result.curve[-1]
    if not math.isfinite(point["acc_test"]):
        result.status = "diverged"
        result.reason = f"outputs are not finite after epoch {int(point['epoch'])}"
    elif (
        context.early_stop != "none"
        and not context.method.impairs_first
        and collapsed(result.curve, context.split.num_classes, ended)
    ):
        result.status = "stopped"
        result.reason = f"collapsed: held-out accuracy {kept_accuracy(point):.3f} is near chance"
    return result.status != "finished"


def _score(
    context: TrialContext,
    job: Job,
    model: torch.nn.Module,
    result: TrialResult,
    known: Mapping[str, Outputs],
) -> None:
    """Evaluate the unlearned model on the job's views.

    Args:
        known: As in ``Problem.evaluate``.
    """
    problem, split, device = context.problem, context.split, context.device
    evaluation = problem.evaluate(model, split, job.views, device, job.attacks, known)
    parts = (evaluation.retain, evaluation.forget, *evaluation.held_out.values())
    if not all(np.isfinite(part.logits).all() for part in parts):
        result.status, result.reason = "diverged", "outputs are not finite"
        return
    result.metrics = complete(evaluation.scores, evaluation.forget, context.reference)
    result.unavailable = dict(evaluation.unavailable)
    if "test" in job.views:
        result.confusions = sparse(evaluation.confusions)
    logits = context.reference.retrain_logits
    if job.attacks and context.retrained is not None and logits is not None:
        gold = place(problem.load(context.retrained()), device)
        diagnostics = diagnostics_score(
            model,
            gold,
            split.memo.diagnostics,
            evaluation.forget,
            logits,
        )
        add_diagnostics(result.metrics, result.unavailable, diagnostics)
    if job.keep:
        result.outputs |= answers(evaluation)
    if job.keep_model:
        result.outputs |= kept.to_arrays(_bare(problem, model))


def _bare(problem: Problem, model: torch.nn.Module) -> kept.KeptModel:
    """Return the network of a problem's model, without the normalisation before it."""
    assert isinstance(model, torch.nn.Sequential)
    tokens = len(model) == 1
    given = problem.normalization
    mean, std = ((), ()) if tokens else (given.mean, given.std)
    data = problem.data
    return kept.KeptModel(weights_of(model[-1]), mean, std, data.network_shape, len(data.classes))


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
