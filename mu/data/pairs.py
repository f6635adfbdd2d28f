"""Samples as users hold them (tensors, a ``Dataset``, a ``DataLoader``) as ``Examples``, with checks of sets that belong together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mu.data.dataset import Examples

BATCH_SIZE = 256
MOST_COPIES = 0.1
"""Share of D_f with exact copies in D_r from which the two overlap; data sets have a few copies of their own."""

Samples = tuple[Any, Any] | TorchDataset[Any] | DataLoader[Any] | Examples


def examples_of(given: Samples, name: str, device: torch.device | str = "cpu") -> Examples:
    """Return samples as tensors on a device.

    Args:
        given: Inputs [N, ...] and labels [N], as a pair of tensors or arrays; or a ``Dataset`` or ``DataLoader`` of such
            pairs, which is read once from its first sample to its last, so that its random transforms are drawn once.
        name: What messages call them.

    Raises:
        ValueError: There are no samples, they are no pairs, or labels are no whole numbers.
    """
    if isinstance(given, Examples):
        return Examples(given.inputs.to(device), given.labels.to(device))
    if isinstance(given, DataLoader):
        if given.drop_last:
            raise ValueError(f"{name}: drop_last leaves samples out; give a DataLoader without it")
        pairs = [_pair(batch, name) for batch in given]
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        pairs = [(torch.as_tensor(given[0]), torch.as_tensor(given[1]))]
    elif isinstance(given, TorchDataset) and hasattr(given, "__len__"):
        loader: DataLoader[Any] = DataLoader(given, batch_size=BATCH_SIZE)
        pairs = [_pair(batch, name) for batch in loader] if len(given) else []
    else:
        raise ValueError(
            f"{name}: must be (inputs, labels), a Dataset or a DataLoader, but is {type(given).__name__}"
        )
    if sum(len(labels) for _, labels in pairs) == 0:
        raise ValueError(f"{name}: is empty")
    inputs, labels = (torch.cat(tensors) for tensors in zip(*pairs))
    return _checked(inputs, labels, name, device)


def _pair(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, labels = batch
        if isinstance(inputs, Tensor):
            return inputs, torch.as_tensor(labels)
    raise ValueError(f"{name}: must give pairs (inputs, label), but gives {type(batch).__name__}")


def _checked(inputs: Tensor, labels: Tensor, name: str, device: torch.device | str) -> Examples:
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"{name}: labels must be whole numbers [N], but are {labels.dtype} {list(labels.shape)}"
        )
    if inputs.ndim == 0 or len(inputs) != len(labels):
        raise ValueError(
            f"{name}: {len(labels)} labels, but the inputs have the shape {list(inputs.shape)}"
        )
    if labels.min() < 0:
        raise ValueError(f"{name}: labels must not be negative, but one is {int(labels.min())}")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise ValueError(f"{name}: inputs hold values that are not finite")
    return Examples(inputs.detach().to(device), labels.detach().long().to(device))


def check_apart(retain: Examples, forget: Examples) -> None:
    """Raise ValueError when D_f and D_r overlap, or warn of a few exact copies, which many data sets have.

    Samples are compared by their inputs and labels.
    """
    if retain.inputs.shape[1:] != forget.inputs.shape[1:]:
        raise ValueError(
            f"retain and forget: inputs differ in shape, {list(retain.input_shape)} and "
            f"{list(forget.input_shape)}"
        )
    both = _digests(retain) & set(own := _digest_list(forget))
    copies = [position for position, digest in enumerate(own) if digest in both]
    if not copies:
        return
    text = f"{len(copies)} of the {len(own)} samples of forget, such as number {copies[0]}, are in retain as well"
    if len(copies) > MOST_COPIES * len(own):
        raise ValueError(f"{text}; retain must hold the other samples only")
    warnings.warn(f"{text}: what they teach stays in the model", stacklevel=3)


def _digests(examples: Examples) -> set[bytes]:
    return set(_digest_list(examples))


def _digest_list(examples: Examples) -> list[bytes]:
    labels: NDArray[np.int64] = examples.labels.cpu().numpy()
    tensor = examples.inputs.cpu()
    if tensor.dtype == torch.bfloat16:  # which numpy does not know
        tensor = tensor.float()
    inputs = np.ascontiguousarray(tensor.numpy())
    return [
        blake2b(row.tobytes() + label.tobytes(), digest_size=16).digest()
        for row, label in zip(inputs, labels)
    ]


def check_labels(
    sets: Mapping[str, Examples] | Iterable[tuple[str, Examples]], outputs: int
) -> None:
    """Raise ValueError when a label has no output of the model: `outputs` is the number of them."""
    for name, examples in dict(sets).items():
        largest = int(examples.labels.max())
        if largest >= outputs:
            raise ValueError(
                f"{name}: the model gives {outputs} outputs, but there are labels up to {largest}"
            )
