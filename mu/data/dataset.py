"""Data sets as arrays, and ``Examples``: tensors on a device. No workers, no per-sample Python.

A ``Dataset`` has four disjoint parts: `train` (what models are trained on and forget requests choose
from), `val` (what the search may look at), `twin` (held-out data for methods that declare it, empty by
default) and `test` (what only the report looks at). `val` and `twin` are cut from the training images,
stratified, in the same way for every seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mu.data.index_files import read_positions
from mu.data.loaders import LOADERS
from mu.data.sampling import stratified_cut
from mu.data.spec import DataSpec, Raw
from mu.device import upload

PARTS = ("train", "val", "twin", "test")


@dataclass(frozen=True)
class Examples:
    """The inputs and labels of some samples, on one device.

    Args:
        inputs: uint8 [N, C, H, W] (pixels 0..255), or float [N, ...] or int32 [N, L] used as they are.
        labels: int64 [N].
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Examples:
        """Return the examples at `index` (int64 [M]), in that order."""
        return Examples(self.inputs.index_select(0, index), self.labels.index_select(0, index))

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the model inputs (pixels as float in [0, 1]) and labels of the examples at `index`."""
        if isinstance(index, slice):
            return as_float(self.inputs[index]), self.labels[index]
        chosen = self.take(index)
        return as_float(chosen.inputs), chosen.labels

    def rows(self, index: Tensor) -> Examples:
        """Return the examples at `index` without a copy of the inputs, for large parts of a set that are read in batches."""
        return Rows(self.inputs, index, self.labels.index_select(0, index))

    def relabelled(self, labels: Tensor) -> Examples:
        """Return the same inputs with other labels, or whatever else a loss compares outputs with: [N, ...]."""
        return Examples(self.inputs, labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, such as [C, H, W]."""
        return tuple(self.inputs.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the inputs as they are kept."""
        return self.inputs.dtype

    @property
    def device(self) -> torch.device:
        """Device of inputs and labels."""
        return self.labels.device


class Rows(Examples):
    """Some of a larger set's examples, without a copy of their inputs; ``inputs`` makes one.

    Args:
        everything: Inputs of the larger set, [M, ...].
        rows: int64 [N], positions in it.
        labels: int64 [N], of those.
    """

    def __init__(self, everything: Tensor, rows: Tensor, labels: Tensor):
        for name, value in (("_everything", everything), ("_rows", rows), ("labels", labels)):
            object.__setattr__(self, name, value)

    _everything: Tensor
    _rows: Tensor

    @property
    def inputs(self) -> Tensor:
        return self._everything.index_select(0, self._rows)

    def take(self, index: Tensor) -> Examples:
        inputs = self._everything.index_select(0, self._rows.index_select(0, index))
        return Examples(inputs, self.labels.index_select(0, index))

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        inputs = self._everything.index_select(0, self._rows[index])
        return as_float(inputs), self.labels[index]

    def rows(self, index: Tensor) -> Examples:
        return Rows(
            self._everything,
            self._rows.index_select(0, index),
            self.labels.index_select(0, index),
        )

    def relabelled(self, labels: Tensor) -> Examples:
        return Rows(self._everything, self._rows, labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self._everything.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self._everything.dtype


def as_float(inputs: Tensor) -> Tensor:
    """Return pixels 0..255 as float32 in [0, 1]; leave inputs that are not uint8 as they are."""
    return inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs


def concat(*sets: Examples) -> Examples:
    """Return several sets as one, in their order; make no copy of rows of one larger set."""
    views = [s for s in sets if isinstance(s, Rows)]
    if len(views) == len(sets) and all(v._everything is views[0]._everything for v in views):
        rows = torch.cat([view._rows for view in views])
        return Rows(views[0]._everything, rows, torch.cat([s.labels for s in sets]))
    return Examples(torch.cat([s.inputs for s in sets]), torch.cat([s.labels for s in sets]))


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Args:
        inputs: uint8 [N, C, H, W] images, or int32 [N, L] tokens.
        labels: int64 [N], the class a model predicts.
        fine: int64 [N], the sub-class; equal to `labels` where the data has no superclasses.
        groups: int64 [N], who or what a sample belongs to, such as the identity of a face; None where nobody
            says.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    fine: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Part:
        """Return the samples at `index` (int64 [M]), in that order."""
        groups = None if self.groups is None else self.groups[index]
        return Part(self.inputs[index], self.labels[index], self.fine[index], groups)

    def examples(self, device: torch.device | str = "cpu") -> Examples:
        """Return this part as tensors on `device`. They are put there once; on the CPU they share the arrays' memory.

        Nobody may write to them.
        """
        name = str(torch.device(device))
        if name not in self._placed:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*not writable.*")
                both = (torch.from_numpy(self.inputs), torch.from_numpy(self.labels))
            self._placed[name] = Examples(*(tensor.to(device) for tensor in both))
        return self._placed[name]

    @cached_property
    def _placed(self) -> dict[str, Examples]:
        """Tensors by device."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_placed"}


@dataclass(frozen=True)
class Dataset:
    """A data set, split into its four parts.

    Args:
        name: Where it came from, for reports.
        parts: The four parts of ``PARTS``.
        classes: Names of the classes a model predicts.
        fine_classes: Names of the sub-classes; the same as `classes` without superclasses.
        positions: int64 [N], where each sample of `train` stands among all training samples, before `val` and
            `twin` were cut from them; None where nothing was cut.
        all_samples: Number of all training samples; None where nothing was cut.
        vocabulary: What each token stands for; empty for images.
    """

    name: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    fine_classes: tuple[str, ...] = field(default=())
    positions: NDArray[np.int64] | None = None
    all_samples: int | None = None
    vocabulary: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, such as [C, H, W]."""
        return self.parts["train"].inputs.shape[1:]

    @property
    def images(self) -> bool:
        """Whether inputs are images, [C, H, W]; else they are tokens or other vectors."""
        return len(self.input_shape) == 3

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape that a network is built for: [C, H, W] of images, [L, V] of tokens (see ``mu.models.architectures``)."""
        return (*self.input_shape, len(self.vocabulary)) if self.vocabulary else self.input_shape

    @property
    def total(self) -> int:
        """Number of all training samples, before anything was cut."""
        return self.all_samples or len(self.parts["train"])

    def all_positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return positions in `train` as positions among all training samples; see `positions`."""
        return index if self.positions is None else self.positions[index]

    def train_positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return positions among all training samples as positions in `train`; -1 for samples that are not trained on."""
        if self.positions is None:
            return index
        where = np.full(self.total, -1)
        where[self.positions] = np.arange(len(self.positions))
        return where[index]

    @cached_property
    def channel_stats(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the training images, in [0, 1] pixel units.

        For other inputs they are 0 and 1, which change nothing.
        """
        images = self.parts["train"].inputs
        if not self.images or images.dtype != np.uint8:
            return (0.0,), (1.0,)
        counts = np.zeros((images.shape[1], 256))
        for first in range(0, len(images), 1000):  # counting takes eight bytes a pixel
            for channel, pixels in enumerate(images[first : first + 1000].swapaxes(0, 1)):
                counts[channel] += np.bincount(pixels.ravel(), minlength=256)
        values = np.arange(256) / 255
        weights = counts / counts.sum(1, keepdims=True)
        mean = weights @ values
        std = np.sqrt(np.maximum(weights @ values**2 - mean**2, 1e-12))
        return tuple(mean.tolist()), tuple(std.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """Content key of all inputs, labels and class names: 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.classes, self.fine_classes]).encode())
        for name in PARTS:
            part = self.parts[name]
            digest.update(f"{name}{part.inputs.shape}".encode())
            for array in (part.inputs, part.labels, part.fine):
                digest.update(np.ascontiguousarray(array).data)
            if part.groups is not None:
                digest.update(np.ascontiguousarray(part.groups).data)
        if self.vocabulary:
            digest.update(json.dumps(self.vocabulary).encode())
        return digest.hexdigest()


def load(spec: DataSpec, cache: Path | None = None, *, cut_val: bool = True) -> Dataset:
    """Load a data set and cut it into its parts.

    Args:
        cache: Folder for decoded data; ``$MUSWEEP_CACHE`` or ``~/.cache/musweep`` when None.
        cut_val: Whether `val` is cut from the training images; else it is empty, whatever the spec says.

    Raises:
        ValueError: The spec names an unknown data set, class, folder, or leaves a part empty.
    """
    if spec.name not in LOADERS:
        raise ValueError(f"data.name must be one of {', '.join(LOADERS)}, but got {spec.name!r}")
    for key, share in (("val", spec.val), ("twin", spec.twin)):
        if not 0 <= share < 1:
            raise ValueError(f"data.{key} must be in [0, 1), but got {share}")
    LOADERS[spec.name].check(spec)
    raw = LOADERS[spec.name].read(spec, cache or default_cache())
    labels, classes = _superclass_labels(spec, raw)
    groups = raw.groups or (None, None)
    train, test = (
        Part(inputs, labels[fine], fine.astype(np.int64), group)
        for (inputs, fine), group in zip((raw.train, raw.test), groups)
    )
    keep, reserved = np.arange(len(train)), _reserved(spec, len(train))
    if spec.subset is not None:
        keep, _ = stratified_cut(train.fine, keep, spec.kept("subset", len(train)), "subset")
    if spec.test_subset is not None:
        count = spec.kept("test_subset", len(test))
        test = test.take(stratified_cut(test.fine, np.arange(len(test)), count, "test")[0])
    held_out = {}
    total = len(keep)
    keep = np.setdiff1d(keep, reserved)
    for name, share in (("val", spec.val if cut_val else 0.0), ("twin", spec.twin)):
        count = min(round(share * total), len(keep))
        held_out[name], keep = stratified_cut(train.fine, keep, count, name)
    keep = np.union1d(keep, reserved)
    lacks_val = cut_val and len(held_out["val"]) == 0
    if lacks_val or len(keep) == 0 or len(test) == 0:
        raise ValueError(
            f"data: {total} training images with val={spec.val}, twin={spec.twin} leave "
            f"{len(keep)} to train on, {len(held_out['val'])} for val, {len(test)} for test; "
            "each must be at least 1"
        )
    parts = {
        "train": train.take(keep),
        "val": train.take(held_out["val"]),
        "twin": train.take(held_out["twin"]),
        "test": test,
    }
    missing = np.setdiff1d(np.arange(len(classes)), parts["train"].labels)
    if len(missing):
        raise ValueError(
            f"data: no training image is left of class {classes[missing[0]]!r}; raise data.subset"
        )
    return Dataset(spec.name, parts, classes, raw.classes, keep, len(train), raw.vocabulary)


def _reserved(spec: DataSpec, total: int) -> NDArray[np.int64]:
    """Return the sorted positions of the training images that may not be held out."""
    if spec.reserve and spec.subset is not None:
        raise ValueError("data.reserve and data.subset cannot be used together")
    files = [read_positions(path, total, "data.reserve") for path in spec.reserve]
    return np.unique(np.concatenate([np.empty(0, np.int64), *files]))


def _superclass_labels(spec: DataSpec, raw: Raw) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the label of each sub-class, int64 [sub-classes], and the names of the labels."""
    if raw.superclasses is not None and spec.superclasses is not None:
        raise ValueError(f"data.superclasses: {spec.name} has its own; leave them out")
    fine, superclasses = raw.classes, raw.superclasses or spec.superclasses
    if superclasses is None:
        return np.arange(len(fine)), fine
    members = [name for names in superclasses.values() for name in names]
    unknown = sorted(set(members) - set(fine))
    absent = sorted(set(fine) - set(members))
    repeated = sorted({name for name in members if members.count(name) > 1})
    for problem, names in (
        ("unknown class", unknown),
        ("no superclass for", absent),
        ("more than one superclass for", repeated),
    ):
        if names:
            raise ValueError(
                f"data.superclasses: {problem} {names[0]!r}; {spec.name} has {', '.join(fine)}"
            )
    owner = {name: i for i, names in enumerate(superclasses.values()) for name in names}
    return np.array([owner[name] for name in fine]), tuple(superclasses)


def default_cache() -> Path:
    """Return the folder for decoded data: ``$MUSWEEP_CACHE`` or ``~/.cache/musweep``."""
    return Path(os.environ.get("MUSWEEP_CACHE") or Path.home() / ".cache" / "musweep")


def batches(
    count: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Yield index batches (int64) on `device` over `count` examples, shuffled when a generator is given.

    A last batch of one example joins the batch before it, because batch normalisation cannot train on one.
    """
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    order = upload(order, device)
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        yield order[start : starts[i + 1] if i + 1 < len(starts) else count]
