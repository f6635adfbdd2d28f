"""References as Ray tasks: trained each once, then scored on every problem they serve.

Data and weights travel once per node through the object store, as numpy arrays.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from mu.problem import Evaluation, Problem, ProblemSpec, Role, weights_of
from mu.ranking import rank
from mu.snapshot import Snapshot
from sweeps.errors import SweepError
from sweeps.plan import Plan
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.study.resources import Slot
from sweeps.workers import memory
from sweeps.workers.cluster import ray_options
from sweeps.workers.save_timer import SaveTimer
from sweeps.workers.trial import environment

Weights = dict[str, NDArray[Any]]
CHECKPOINT = "checkpoint"
"""Name of the saved state among the arrays that a training yields before its weights."""
SAVE_SECONDS = 60.0
"""How often a training is saved, at the end of an epoch: the most that is lost with a worker that gets no notice."""
RETRIES = 3
"""How often a piece of work is started again after its worker or node was lost."""


@dataclass(frozen=True)
class Scored:
    """A reference on one problem.

    Args:
        found: Its outputs, and the metrics that need no retrained model.
        untrained: Logits on D_f of the network with initial weights, float32 [N, K].
        environment: Where it was scored.
    """

    found: Evaluation
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
def _train(
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
def _score(
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
def _rank(
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


class Trainers:
    """The tasks that train and score the references of one plan on the running cluster.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.data = ray.put(plan.data)
        plan.share(
            ray.get(self.data)
        )  # the arrays of the object store, so that the driver's own can go
        for name in plan.study.model.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # workers do not have them
        self.model = ray.put(plan.study.model)
        self.weights: dict[str, ray.ObjectRef] = {}
        resources = plan.study.resources
        self.inputs = self.data, self.model, WorkerSetup(resources.reference, resources.launch)
        options = ray_options(resources.reference)
        self._train = _train.options(**options)
        self._score = _score.options(**options)
        self._rank = _rank.options(**options)
        self.save_seconds = SAVE_SECONDS

    def publish(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put the weights of a reference into the object store, where the workers find them."""
        self.weights[key] = ray.put({k: v for k, v in arrays.items() if k != "seconds"})

    def train(
        self, wanted: Mapping[str, tuple[Problem, Role]], store: CheckpointStore | None = None
    ) -> Iterator[tuple[str, Weights]]:
        """Train references in parallel; yields (key, arrays) as each ends.

        A training whose worker is lost goes on from its last checkpoint. It is given up after RETRIES losses in a
        row without a new one.

        Args:
            wanted: Problem and role of each reference, by key.
            store: Keeps checkpoints for another run of the study; None keeps them in this run only.

        Raises:
            SweepError: A reference cannot be trained; the message names its role, seed and the reason.
        """
        checkpoints: dict[str, Weights | None] = {}
        for key in wanted:
            checkpoints[key] = store.get(key) if store else None
        losses: Counter[str] = Counter()
        running = {self._start(*wanted[key], checkpoints[key]): key for key in wanted}
        while running:
            (steps, *_), _ = ray.wait(list(running), fetch_local=False)
            key = running[steps]
            try:
                arrays = ray.get(next(steps))
            except ray.exceptions.RayError as error:
                del running[steps]
                losses[key] += 1
                if isinstance(error, ray.exceptions.RayTaskError) or losses[key] > RETRIES:
                    problem, role = wanted[key]
                    raise SweepError(
                        f"the {role} model of seed {problem.seed} cannot be trained: {_last_line(error)}"
                    ) from error
                running[self._start(*wanted[key], checkpoints[key])] = key
                continue
            if CHECKPOINT in arrays:
                checkpoints[key], losses[key] = arrays, 0
                if store:
                    store.put(key, arrays)
                continue
            del running[steps], checkpoints[key]
            yield key, arrays
            if store:
                store.drop(key)

    def _start(self, problem: Problem, role: Role, checkpoint: Weights | None) -> Any:
        content = None if checkpoint is None else ray.put(checkpoint)
        return self._train.remote(*self.inputs, problem.spec, role, content, self.save_seconds)

    def rank(self, wanted: Mapping[str, Problem]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Score training samples in parallel; yields (key, scores). Uses the originals that have been published.

        Raises:
            SweepError: A model cannot be trained; the message says why.
        """
        running = {
            self._rank.remote(
                *self.inputs, problem.spec, self.weights.get(problem.reference_key("original"))
            ): key
            for key, problem in wanted.items()
        }
        while running:
            done, _ = ray.wait(list(running))
            for future in done:
                key = running.pop(future)
                try:
                    scores = ray.get(future)
                except ray.exceptions.RayError as error:
                    kind = wanted[key].request.kind
                    raise SweepError(
                        f"the {kind} samples cannot be found: {_last_line(error)}"
                    ) from error
                yield key, scores

    def score(
        self,
        wanted: Mapping[tuple[str, int], tuple[Problem, tuple[str, ...], tuple[str, ...]]],
        roles: Sequence[Role] = ("original", "retrain"),
    ) -> dict[tuple[str, int], dict[Role, Scored]]:
        """Score references on every wanted problem; their weights must have been published.

        Args:
            wanted: Problem, views, and the costly attacks to run, by name.

        Raises:
            SweepError: A model cannot be scored; the message says which and why.
        """
        futures = {
            name: self._score.remote(
                *self.inputs,
                problem.spec,
                [self.weights[problem.reference_key(role)] for role in roles],
                views,
                attacks,
            )
            for name, (problem, views, attacks) in wanted.items()
        }
        scored: dict[tuple[str, int], dict[Role, Scored]] = {}
        for (forget, seed), future in futures.items():
            try:
                scored[forget, seed] = dict(zip(roles, ray.get(future)))
            except ray.exceptions.RayError as error:
                raise SweepError(
                    f"the {' and '.join(roles)} models of seed {seed} cannot be scored on {forget}: "
                    f"{_last_line(error)}"
                ) from error
        return scored

    def refs(
        self, role: Role, names: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], ray.ObjectRef]:
        """Return where the weights of references are, by forget request and seed."""
        return {name: self.weights[self.plan.problem(*name).reference_key(role)] for name in names}


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
