"""Unlearned models that a study keeps: in its store, each under a key that follows from that of its trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.keys import content_key
from sweeps.state.store import Arrays, Store

PREFIX = "unlearned:"
"""Begins the names of these arrays among all that a trial puts out."""


@dataclass(frozen=True)
class KeptModel:
    """A network without its normalisation, and what its inputs are.

    Args:
        weights: Its state, by name.
        mean, std: Of each channel, in [0, 1] pixel units, which the network's inputs are normalised by; empty for tokens.
        shape: Shape of one input that the network is built for.
        classes: Number of outputs.
    """

    weights: Mapping[str, NDArray[Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, ...]
    classes: int


def kept_key(trial: str) -> str:
    """Return the key of the model of a trial, given the trial's."""
    return content_key("unlearned model", trial)


def to_arrays(model: KeptModel) -> dict[str, NDArray[Any]]:
    """Return a model as arrays that go with the other outputs of its trial."""
    facts = {
        "mean": np.array(model.mean, np.float64),
        "std": np.array(model.std, np.float64),
        "shape": np.array(model.shape, np.int64),
        "classes": np.array(model.classes, np.int64),
    }
    named = {f"{PREFIX}fact:{name}": value for name, value in facts.items()}
    return named | {f"{PREFIX}weight:{name}": value for name, value in model.weights.items()}


def put(store: Store, trial: str, outputs: Arrays) -> dict[str, NDArray[Any]]:
    """Store the model among the outputs of a trial, if there is one; return the other outputs. Raises OSError."""
    arrays = {n: value for n, value in outputs.items() if n.startswith(PREFIX)}
    if arrays:
        store.put(kept_key(trial), arrays)
    return {name: value for name, value in outputs.items() if name not in arrays}


def get(store: Store, trial: str) -> KeptModel | None:
    """Return the model of a trial; None where none was kept, or its file is damaged. Raises OSError."""
    arrays = store.get(kept_key(trial))
    if arrays is None:
        return None
    facts, weight = f"{PREFIX}fact:", f"{PREFIX}weight:"
    return KeptModel(
        {n.removeprefix(weight): value for n, value in arrays.items() if n.startswith(weight)},
        tuple(arrays[f"{facts}mean"].tolist()),
        tuple(arrays[f"{facts}std"].tolist()),
        tuple(arrays[f"{facts}shape"].tolist()),
        int(arrays[f"{facts}classes"]),
    )
