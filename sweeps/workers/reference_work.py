"""What a worker does for references: train one, score those of a problem, rank the samples of a request. No Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mu.device import place
from mu.evaluate import predict
from mu.metrics.closeness import class_means
from mu.problem import Problem, Role, weights_of
from mu.ranking import rank
from mu.snapshot import Snapshot
from mu.stand_ins import TunedTwin, Twin, state_after
from sweeps.plan import Job
from sweeps.workers.result import RunningTrial, environment
from sweeps.workers.scored import Scored, describe, to_arrays

Get = Callable[[str], Any]
"""Fetches what a job needs by name, such as the weights of `original`; None where there is nothing."""


def reference_steps(
    job: Job, problem: Problem, get: Get, running: RunningTrial, device: str
) -> Iterator[RunningTrial]:
    """Do the work of a job for references. Yields between epochs; its outputs are in ``running.result`` at the end."""
    if job.work == "train":
        yield from _train(job, problem, get, running, device)
    elif job.work == "score":
        yield from _score(job, problem, get, running, device)
    else:
        yield running
        running.result.outputs = {"scores": rank(problem, get("original"), device)}


def _train(
    job: Job, problem: Problem, get: Get, running: RunningTrial, device: str
) -> Iterator[RunningTrial]:
    """Train one reference; the outputs are its weights, the `seconds` that it took, and the state that twins go back to.

    Of one that trains until it is good enough, they also have the number of `samples` that it saw.
    """
    result, role = running.result, job.roles[0]
    started = time.perf_counter() - result.time_unlearn  # of what was done before a checkpoint
    state = None
    tuned = isinstance(problem, TunedTwin)
    if isinstance(problem, Twin) and not tuned and not running.snapshot.pending:
        state = get("rewind")
        if state is None:
            state = np.frombuffer(state_after(problem.real, device), np.uint8)
        running.snapshot = Snapshot(state.tobytes())
    model = place(problem.load(get("original")) if tuned else problem.build(), device)
    for _ in running.snapshot.follow(problem.train(role, model, device)):
        result.time_unlearn = time.perf_counter() - started
        if running.snapshot.epochs == job.rewind:
            state = np.frombuffer(running.snapshot.save(), np.uint8)
        yield running
    seconds = time.perf_counter() - started
    result.outputs = {**weights_of(model), "seconds": np.array(seconds)}
    if isinstance(problem, TunedTwin):
        epochs = running.snapshot.epochs - 1  # the last one that began has trained on nothing
        result.outputs["samples"] = np.array(epochs * problem.samples_an_epoch)
    if state is not None:
        result.outputs["rewind"] = state


def _score(
    job: Job, problem: Problem, get: Get, running: RunningTrial, device: str
) -> Iterator[RunningTrial]:
    """Score references on one problem, each view once; the outputs are the arrays of ``scored``."""
    split = problem.split(device)
    untrained = predict(place(problem.build(), device), split.forget)
    scored: dict[Role, Scored] = {}
    for role in job.roles:
        model = place(problem.load(get(role)), device)
        evaluation = problem.evaluate(model, split, job.views, device, job.attacks)
        scored[role] = Scored(
            describe(evaluation, environment(device)),
            evaluation.forget,
            untrained,
            evaluation.held_out["test"].logits if job.keep else None,
            {
                view: class_means(part.logits, part.labels)
                for view, part in evaluation.held_out.items()
            },
        )
        yield running
    running.result.outputs = to_arrays(scored)
