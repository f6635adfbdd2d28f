"""The scores of reference models on one problem, as a worker sends them and the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.evaluate import Outputs
from mu.problem import Evaluation, Role
from sweeps.workers.scores import sparse

Arrays = dict[str, NDArray[Any]]
VERSION = 2
"""Raise when a change of a metric changes the scores that the same models get."""


@dataclass(frozen=True)
class Facts:
    """What is known of a reference model besides arrays.

    Args:
        metrics: View to the metrics that need no retrained model.
        unavailable: ``view/metric`` to the reason why it is absent.
        confusions: As in a record.
        accuracy: Mean accuracy over the classes that are not forgotten, on held-out data, in [0, 1].
        environment: Where it was scored.
    """

    metrics: dict[str, dict[str, float]]
    unavailable: dict[str, str]
    confusions: dict[str, list[list[int]]]
    accuracy: float
    environment: dict[str, str]


@dataclass(frozen=True)
class Scored:
    """A reference model on one problem.

    Args:
        facts: What is known of it besides arrays.
        forget: Its outputs on D_f.
        untrained: Logits on D_f of the network with initial weights, float32 [N, K].
        held_out: Its logits on the test samples, which an audit attacks; None without one.
        class_means: View to its mean prediction on held-out samples of each class, [K, K].
    """

    facts: Facts
    forget: Outputs
    untrained: NDArray[np.float32]
    held_out: NDArray[np.float32] | None
    class_means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def describe(evaluation: Evaluation, environment: dict[str, str]) -> Facts:
    """Return what is kept of an evaluation besides arrays."""
    held_out = evaluation.held_out.get("test", evaluation.held_out.get("val"))
    assert held_out is not None
    return Facts(
        evaluation.scores,
        evaluation.unavailable,
        sparse(evaluation.confusions),
        mean_class_accuracy(held_out.without_forgotten()),
        environment,
    )


def mean_class_accuracy(outputs: Outputs) -> float:
    """Return the mean over the classes that occur of the accuracy on each, in [0, 1]."""
    right = outputs.logits.argmax(1) == outputs.labels
    classes = set(outputs.labels)
    return float(np.mean([right[outputs.labels == label].mean() for label in classes]))


def to_arrays(scored: Mapping[Role, Scored]) -> Arrays:
    """Return the scores of some references on one problem as named arrays."""
    arrays: Arrays = {}
    for role, one in scored.items():
        arrays[f"{role}.facts"] = np.frombuffer(json.dumps(asdict(one.facts)).encode(), np.uint8)
        arrays[f"{role}.logits"] = one.forget.logits
        if one.held_out is not None:
            arrays[f"{role}.held_out"] = one.held_out
        arrays |= {f"{role}.means.{view}": means for view, means in one.class_means.items()}
        arrays["labels"], arrays["untrained"] = one.forget.labels, one.untrained
    return arrays


def from_arrays(arrays: Arrays) -> dict[Role, Scored]:
    """Return the scores that ``to_arrays`` turned into arrays."""
    roles: tuple[Role, Role] = ("original", "retrain")
    return {
        role: Scored(
            Facts(**json.loads(arrays[f"{role}.facts"].tobytes())),
            Outputs(arrays[f"{role}.logits"], arrays["labels"]),
            arrays["untrained"],
            arrays.get(f"{role}.held_out"),
            {
                name.removeprefix(f"{role}.means."): means
                for name, means in arrays.items()
                if name.startswith(f"{role}.means.")
            },
        )
        for role in roles
        if f"{role}.facts" in arrays
    }
