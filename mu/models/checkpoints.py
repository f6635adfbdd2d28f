"""Weights from files: pretrained ones to begin with, and models that someone has trained already.

A file is what ``torch.save`` wrote of a `state_dict`, alone or in a dictionary under one of ``WRAPPERS``. It is read
with ``weights_only=True``: nothing in it is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mu.vision import models as torchvision_models

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Names under which training programs put a state dict beside other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before the name of every weight."""
State = Mapping[str, Tensor]
Arrays = Mapping[str, NDArray[Any]]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits.

    Raises:
        ValueError: It cannot be read.
    """
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha256.update(block)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    return sha256.hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file, onto the CPU, without ``PREFIXES``.

    Raises:
        ValueError: The file cannot be read, is no checkpoint, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a state dict of tensors ({type(error).__name__}); write it with "
            "torch.save(model.state_dict(), path)"
        ) from error
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: holds no state dict, but {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: holds no state dict: `{name}` is {type(value).__name__}; a state dict may lie "
                f"in it under {', '.join(WRAPPERS)}"
            )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name[len(prefix) :]: value for name, value in content.items()}
    return content


def fit(state: State, network: nn.Module, where: str) -> dict[str, Tensor]:
    """Return a state dict that `network` can load, of its dtypes.

    Raises:
        ValueError: A name or shape differs, or a value is not finite; the message names the first.
    """
    wanted = network.state_dict()
    left_over = [name for name in state if name not in wanted]
    fitted = {}
    for name, value in wanted.items():
        if name not in state:
            other = f"; it has {_describe(left_over[0], state)}" if left_over else ""
            raise ValueError(f"{where}: lacks {_describe(name, wanted)} of the model{other}")
        if state[name].shape != value.shape:
            raise ValueError(
                f"{where}: `{name}` has the shape {list(state[name].shape)}, but the model's has "
                f"{list(value.shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"{where}: `{name}` holds values that are not finite")
        fitted[name] = state[name].to(value.dtype)
    if left_over:
        raise ValueError(f"{where}: has {_describe(left_over[0], state)}, which the model lacks")
    return fitted


def _describe(name: str, state: State) -> str:
    return f"`{name}` {list(state[name].shape)}"


def adopt(network: nn.Module, state: State, head: nn.Module, where: str) -> None:
    """Load pretrained weights into a network.

    Its `head` stays as drawn where the file has none, or one for another number of classes. Position embeddings of
    a torchvision transformer are interpolated from another image size.

    Raises:
        ValueError: Another name or shape differs; the message names the first.
    """
    given, drawn = dict(state), network.state_dict()
    transformer = isinstance(network, torchvision_models().VisionTransformer)
    if transformer and "encoder.pos_embedding" in given:
        given = torchvision_models().vision_transformer.interpolate_embeddings(
            network.image_size, network.patch_size, given
        )
    name = next(name for name, module in network.named_modules() if module is head)
    ours = {key: drawn[key] for key in drawn if key.rpartition(".")[0] == name}
    if any(key not in given or given[key].shape != value.shape for key, value in ours.items()):
        given |= ours
    network.load_state_dict(fit(given, network, where))


def to_arrays(state: State) -> dict[str, NDArray[Any]]:
    """Return weights as arrays, which every process can read without a copy; half precision becomes float32."""
    return {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in state.items()
    }


def from_arrays(arrays: Arrays) -> dict[str, Tensor]:
    """Return copies of arrays as tensors."""
    return {name: torch.tensor(value) for name, value in arrays.items()}
