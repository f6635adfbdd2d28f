"""The Ray tasks for references: train one, score some on a problem, rank the samples of a problem."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from mu.data import Dataset
from mu.device import place, prepare
from mu.evaluate import predict
from mu.launch import set_launch
from mu.models import Model
from mu.problem import Evaluation, ProblemSpec, Role, weights_of
from mu.ranking import rank
from mu.snapshot import Snapshot
from sweeps.study.resources import Slot
from sweeps.workers import memory
from sweeps.workers.result import environment
from sweeps.workers.save_timer import SaveTimer

Weights = dict[str, NDArray[Any]]
CHECKPOINT = "checkpoint"
"""Name of the saved state among the arrays that a training yields before its weights."""
RETRIES = 3
"""How often a piece of work is started again after its worker or node was lost."""


@dataclass(frozen=True)
class Scored:
    """A reference on one problem.

    Args:
        evaluation: Its outputs, and the metrics that need no retrained model.
        untrained: Logits on D_f of the network with initial weights, float32 [N, K].
        environment: Where it was scored.
    """

    evaluation: Evaluation
    untrained: NDArray[np.float32]
    environment: dict[str, str]


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker process is fitted to before it trains or scores anything.

    Args:
        slot: The resources that its work occupies.
        launch: How training steps reach a GPU; see ``mu.launch``.
    """

    slot: Slot
    launch: str

    def apply(self) -> str:
        """Fit this process; returns its device, `cuda` or `cpu`."""
        set_launch(self.launch)
        return prepare(self.slot.cpus, self.slot.gpus)


@ray.remote(max_retries=0, num_returns="streaming")
def train_task(
    data: Dataset,
    network: Model,
    setup: WorkerSetup,
    spec: ProblemSpec,
    role: Role,
    checkpoint: Weights | None,
    every_seconds: float,
) -> Iterator[Weights]:
    """Train one reference. Yields a checkpoint from time to time, and at the end its weights with `seconds`."""
    device = setup.apply()
    with memory.advised(device):
        problem = spec.on(data, network)
        model = place(problem.build(), device)
        snapshot = Snapshot(checkpoint[CHECKPOINT].tobytes() if checkpoint else b"")
        timer, started = SaveTimer(every_seconds), time.perf_counter()
        if checkpoint:
            started -= float(checkpoint["seconds"])
        for _ in snapshot.follow(problem.train(role, model, device)):
            if timer.due() and snapshot.epochs < problem.recipe.epochs:
                seconds = np.array(time.perf_counter() - started)
                yield {CHECKPOINT: np.frombuffer(snapshot.save(), np.uint8), "seconds": seconds}
                timer.saved()
        yield {**weights_of(model), "seconds": np.array(time.perf_counter() - started)}


@ray.remote(max_retries=RETRIES)
def score_task(
    data: Dataset,
    network: Model,
    setup: WorkerSetup,
    spec: ProblemSpec,
    weights: Sequence[ray.ObjectRef],
    views: tuple[str, ...],
    attacks: tuple[str, ...],
) -> list[Scored]:
    """Score references on one problem, each view once."""
    device = setup.apply()
    with memory.advised(device):
        problem = spec.on(data, network)
        split = problem.split(device)
        untrained = predict(place(problem.build(), device), split.forget)
        scored = []
        for arrays in ray.get(list(weights)):
            model = place(problem.load(arrays), device)
            evaluation = problem.evaluate(model, split, views, device, attacks)
            scored.append(Scored(evaluation, untrained, environment(device)))
    return scored


@ray.remote(max_retries=RETRIES)
def rank_task(
    data: Dataset,
    network: Model,
    setup: WorkerSetup,
    spec: ProblemSpec,
    original: Weights | None,
) -> NDArray[np.float64]:
    """Score the training samples of a problem with a ranked request."""
    device = setup.apply()
    with memory.advised(device):
        return rank(spec.on(data, network), original, device)
