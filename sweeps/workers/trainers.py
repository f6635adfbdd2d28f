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
BEGUN = "begun"
SAVE_SECONDS = 60.0
"""How often a training is saved, at the end of an epoch: what a worker costs that is lost without notice."""
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


@ray.remote(max_retries=0, num_returns="streaming")
def _train(
    data: Dataset,
    network: Model,
    spec: ProblemSpec,
    role: Role,
    share: Slot,
    launch: str,
    begun: Weights | None,
    every_seconds: float,
) -> Iterator[Weights]:
    """Train one reference; yields what was `begun` from time to time, and last its weights with `seconds`."""
    set_launch(launch)
    device = prepare(share.cpus, share.gpus)
    with memory.advised(device):
        problem = spec.on(data, network)
        model = place(problem.build(), device)
        snapshot = Snapshot(begun[BEGUN].tobytes() if begun else b"")
        timer, began = SaveTimer(every_seconds), time.perf_counter()
        if begun:
            began -= float(begun["seconds"])
        for _ in snapshot.follow(problem.train(role, model, device)):
            if timer.due() and snapshot.epochs < problem.recipe.epochs:
                seconds = np.array(time.perf_counter() - began)
                yield {BEGUN: np.frombuffer(snapshot.save(), np.uint8), "seconds": seconds}
                timer.saved()
        yield {**weights_of(model), "seconds": np.array(time.perf_counter() - began)}


@ray.remote(max_retries=RETRIES)
def _score(
    data: Dataset,
    network: Model,
    spec: ProblemSpec,
    weights: Sequence[ray.ObjectRef],
    views: tuple[str, ...],
    attacks: tuple[str, ...],
    share: Slot,
    launch: str,
) -> list[Scored]:
    """Score references on one problem, each view once."""
    set_launch(launch)
    device = prepare(share.cpus, share.gpus)
    with memory.advised(device):
        problem = spec.on(data, network)
        split = problem.split(device)
        untrained = predict(place(problem.build(), device), split.forget)
        scored = []
        for arrays in ray.get(list(weights)):
            model = place(problem.load(arrays), device)
            found = problem.evaluate(model, split, views, device, attacks)
            scored.append(Scored(found, untrained, environment(device)))
    return scored


@ray.remote(max_retries=RETRIES)
def _rank(
    data: Dataset,
    network: Model,
    spec: ProblemSpec,
    original: Weights | None,
    share: Slot,
    launch: str,
) -> NDArray[np.float64]:
    """Score the training samples of a problem with a ranked request."""
    set_launch(launch)
    device = prepare(share.cpus, share.gpus)
    with memory.advised(device):
        return rank(spec.on(data, network), original, device)


class Trainers:
    """Trains and scores the references of one plan on the running cluster.

    Args:
        plan: What to train and score.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.data = ray.put(plan.data)
        plan.use_data(ray.get(self.data))  # the arrays of the object store
        for name in plan.study.model.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # workers do not have them
        self.model = ray.put(plan.study.model)
        self.weights: dict[str, ray.ObjectRef] = {}
        resources = plan.study.resources
        self.place = resources.reference, resources.launch
        options = ray_options(resources.reference)
        self._train = _train.options(**options)
        self._score = _score.options(**options)
        self._rank = _rank.options(**options)
        self.save_seconds = SAVE_SECONDS

    def publish(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put the weights of a reference into the object store."""
        self.weights[key] = ray.put({k: v for k, v in arrays.items() if k != "seconds"})

    def train(
        self, wanted: Mapping[str, tuple[Problem, Role]], drafts: CheckpointStore | None = None
    ) -> Iterator[tuple[str, Weights]]:
        """Train references in parallel; yields (key, arrays) as each ends.

        One whose worker is lost goes on from its last snapshot. It is given up after RETRIES losses in a row
        without a new one.

        Args:
            drafts: Where what has begun is kept for another run of the study; None keeps it here only.

        Raises:
            SweepError: One cannot be trained; the message names its role, seed and the reason.
        """
        begun: dict[str, Weights | None] = {}
        for key in wanted:
            begun[key] = drafts.get(key) if drafts else None
        losses: Counter[str] = Counter()
        running = {self._start(*wanted[key], begun[key]): key for key in wanted}
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
                        f"the {role} model of seed {problem.seed} cannot be trained: "
                        f"{str(error).strip().splitlines()[-1]}"
                    ) from error
                running[self._start(*wanted[key], begun[key])] = key
                continue
            if BEGUN in arrays:
                begun[key], losses[key] = arrays, 0
                if drafts:
                    drafts.put(key, arrays)
                continue
            del running[steps], begun[key]
            yield key, arrays
            if drafts:
                drafts.drop(key)

    def _start(self, problem: Problem, role: Role, begun: Weights | None) -> Any:
        content = None if begun is None else ray.put(begun)
        return self._train.remote(
            self.data,
            self.model,
            problem.spec,
            role,
            *self.place,
            content,
            self.save_seconds,
        )

    def rank(self, wanted: Mapping[str, Problem]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Score training samples in parallel; yields (key, scores). Originals are taken as far as they are shared.

        Raises:
            SweepError: A model cannot be trained; the message says why.
        """
        running = {
            self._rank.remote(
                self.data,
                self.model,
                problem.spec,
                self.weights.get(problem.reference_key("original")),
                *self.place,
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
                    raise SweepError(
                        f"the {wanted[key].request.kind} samples cannot be found: "
                        f"{str(error).strip().splitlines()[-1]}"
                    ) from error
                yield key, scores

    def score(
        self,
        wanted: Mapping[tuple[str, int], tuple[Problem, tuple[str, ...], tuple[str, ...]]],
        roles: Sequence[Role] = ("original", "retrain"),
    ) -> dict[tuple[str, int], dict[Role, Scored]]:
        """Score references on every wanted problem; their weights must be shared.

        Args:
            wanted: Problem, views, and the costly attacks to run, by name.

        Raises:
            SweepError: A model cannot be scored; the message says which and why.
        """
        futures = {
            name: self._score.remote(
                self.data,
                self.model,
                problem.spec,
                [self.weights[problem.reference_key(role)] for role in roles],
                views,
                attacks,
                *self.place,
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
                    f"{str(error).strip().splitlines()[-1]}"
                ) from error
        return scored

    def refs(
        self, role: Role, names: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], ray.ObjectRef]:
        """Where the weights of references are, by forget request and seed."""
        return {name: self.weights[self.plan.problem(*name).reference_key(role)] for name in names}
