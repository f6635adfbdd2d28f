"""References as Ray tasks: trained each once, then scored on every problem they serve.

Data and weights travel once per node through the object store, as numpy arrays.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from mu.problem import Problem, Role
from sweeps.errors import SweepError
from sweeps.plan import Plan
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.workers.slots import ray_options
from sweeps.workers.tasks import (
    CHECKPOINT,
    RETRIES,
    Scored,
    Weights,
    WorkerSetup,
    rank_task,
    score_task,
    train_task,
)

SAVE_SECONDS = 60.0
"""How often a training is saved, at the end of an epoch: the most that is lost with a worker that gets no notice."""


class Trainers:
    """The tasks that train and score the references of one plan on the running cluster.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.data = ray.put(plan.data)
        plan.use_data(
            ray.get(self.data)
        )  # the arrays of the object store, so that the driver's own can go
        for name in plan.study.model.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # workers do not have them
        self.model = ray.put(plan.study.model)
        self.weights: dict[str, ray.ObjectRef] = {}
        resources = plan.study.resources
        self.inputs = self.data, self.model, WorkerSetup(resources.references, resources.launch)
        options = ray_options(resources.references)
        self._train = train_task.options(**options)
        self._score = score_task.options(**options)
        self._rank = rank_task.options(**options)
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
