"""Golden vectors: inputs and expected outputs of the published formulas and code, one .npz per topic."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def golden(name: str) -> np.lib.npyio.NpzFile:
    """Return the arrays of one topic; ``$MU_GOLDEN_DIR`` names a folder of the same files with other inputs."""
    folder = Path(os.environ.get("MU_GOLDEN_DIR", Path(__file__).parent / "golden"))
    return np.load(folder / f"{name}.npz", allow_pickle=False)


def tanh_mlp(arrays: Mapping[str, NDArray[np.float64]], prefix: str = "") -> nn.Sequential:
    """Return the golden files' network in float64: fc2(tanh(fc1(flatten(x)))), from `<prefix>fc1_weight` and so on."""
    weights = mlp_weights(arrays, prefix)
    hidden, inputs = weights["fc1.weight"].shape
    layers = [
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(inputs, hidden)),
        ("tanh", nn.Tanh()),
        ("fc2", nn.Linear(hidden, len(weights["fc2.bias"]))),
    ]
    model = nn.Sequential(OrderedDict(layers)).double()
    model.load_state_dict(weights)
    return model


def mlp_weights(
    arrays: Mapping[str, NDArray[np.float64]], prefix: str = "", row: int | None = None
) -> dict[str, Tensor]:
    """Return the state of a `tanh_mlp`, or row `row` of arrays that hold several states along their first axis."""
    state = {}
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        array = arrays[prefix + name.replace(".", "_")]
        state[name] = torch.from_numpy(np.array(array if row is None else array[row]))
    return state
