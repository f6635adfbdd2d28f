"""``Split``: what a method is handed besides the model. Never validation, test or reference data."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mu.data import Examples
from mu.data.augment import Augment
from mu.rng import generator
from mu.snapshot import unfollowed

T = TypeVar("T")
DATA = ("retain", "forget", "twin")


@dataclass
class Diagnostics:
    """What a method may show of its work, for metrics that outputs alone cannot give. Showing costs nothing.

    Args:
        instances: What it trains in place of D_f: inputs [N, ...] with labels int64 [N] or soft ones float [N, K].
        partial: Makes the bare parts of forgotten inputs with the labels their instances were given; called
            by the evaluation only, so that it is not billed.
        predicted_hard: bool [|D_f|], which forgotten samples it expects a retrained model to get wrong.
        label_weights: Weight of descent gamma1, of ascent gamma2, and smoothing rate alpha of UGradSL's
            Theorem 3.
    """

    instances: Examples | None = None
    partial: Callable[[], Examples] | None = None
    predicted_hard: Tensor | None = None
    label_weights: tuple[float, float, float] | None = None


class Memo:
    """Results that no knob changes, computed once per problem and kept for the trials that follow.

    A kept result is billed as if it were computed again: `seconds` and `samples` grow by what its computation
    took, so that a method's cost never depends on which trial ran first.

    Args:
        seed: Names the problem, so that randomness in a computation is the same whoever runs it.
        limit_bytes: Results are kept until tensors worth this much memory are held.
    """

    def __init__(self, seed: str = "", limit_bytes: int = 2**30):
        self.seed = seed
        self.limit_bytes = limit_bytes
        self.seconds = 0.0
        self.samples = 0
        self.counter = [0]
        self.diagnostics = Diagnostics()
        self._held = 0
        self._results: dict[Hashable, tuple[Any, float, int]] = {}

    def start(self, counter: list[int]) -> None:
        """Begin a trial: bill from zero, count samples with `counter` (see ``count_samples``), forget what was shown."""
        self.seconds, self.samples, self.counter = 0.0, 0, counter
        self.diagnostics = Diagnostics()

    def cached(self, name: Hashable, compute: Callable[[torch.Generator], T]) -> T:
        """Return the kept result of a name, or compute and keep it; bill its time and samples either way."""
        if name in self._results:
            value, seconds, samples = self._results[name]
            self.seconds += seconds
            self.samples += samples
            return value
        began, seen = time.perf_counter(), self.counter[0]
        draws = generator("once", self.seed, repr(name))  # the word is part of the seed
        value = unfollowed(lambda: compute(draws))
        size = _tensor_bytes(value)
        if self._held + size <= self.limit_bytes:
            self._held += size
            spent = time.perf_counter() - began
            self._results[name] = (value, spent, self.counter[0] - seen)
        return value


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.element_size() * value.nelement()
    if isinstance(value, torch.nn.Module):
        return sum(map(_tensor_bytes, value.state_dict().values()))
    if isinstance(value, Mapping):
        return sum(map(_tensor_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_tensor_bytes, value))
    return sum(map(_tensor_bytes, vars(value).values())) if hasattr(value, "__dict__") else 0


@dataclass(frozen=True)
class Split:
    """Retain and forget sets of a problem, and facts about its data.

    Args:
        parts: `retain` (D_r), `forget` (D_f) and `twin` (held-out labelled data), as far as the method
            declared that it needs them.
        num_classes: Number of outputs K of the model.
        forget_class: Label of the class that goes as a whole; None for other requests. For `sub_class` it is
            the superclass, which other sub-classes share.
        input_mean: Per-channel mean of the training inputs in [0, 1] units.
        input_std: Per-channel standard deviation, likewise.
        augment: The augmentation of the training recipe.
        memo: Where ``cached`` keeps its results.
    """

    parts: Mapping[str, Examples]
    num_classes: int
    forget_class: int | None = None
    input_mean: tuple[float, ...] = (0.0,)
    input_std: tuple[float, ...] = (1.0,)
    augment: Augment = field(default_factory=Augment)
    memo: Memo = field(default_factory=Memo)

    def _part(self, name: str) -> Examples:
        if name not in self.parts:
            raise LookupError(f"no {name} data here: the method's NEEDS does not list {name!r}")
        return self.parts[name]

    def _any_part(self) -> Examples:
        for examples in self.parts.values():
            return examples
        raise LookupError("no data here at all: the method's NEEDS lists no part")

    @property
    def retain(self) -> Examples:
        """D_r; raises LookupError for a method that does not declare it."""
        return self._part("retain")

    @property
    def forget(self) -> Examples:
        """D_f; raises LookupError for a method that does not declare it."""
        return self._part("forget")

    @property
    def twin(self) -> Examples:
        """Held-out labelled data; raises LookupError for a method that does not declare it."""
        return self._part("twin")

    @property
    def diagnostics(self) -> Diagnostics:
        """Where a method shows its work; the same for every view of a split."""
        return self.memo.diagnostics

    @property
    def device(self) -> torch.device:
        """Device of the data."""
        return self._any_part().device

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, such as [C, H, W]."""
        return self._any_part().input_shape

    def need_images(self, why: str) -> None:
        """Raise ValueError, for a method's `check`, unless inputs are images [C, H, W]; `why` follows "it"."""
        if len(self.input_shape) != 3:
            raise ValueError(f"needs images, because it {why}; inputs here are tokens")

    def only(self, needs: tuple[str, ...]) -> Split:
        """Return this split with no other data than `needs`; zero-shot methods get no retain data at all."""
        parts = {name: self.parts[name] for name in needs if name in self.parts}
        if "retain" not in parts:  # not even as the larger set that rows point into
            parts = {name: Examples(part.inputs, part.labels) for name, part in parts.items()}
        return replace(self, parts=parts)

    def cached(self, name: Hashable, compute: Callable[[torch.Generator], T]) -> T:
        """Return `compute(generator)`, or its result from an earlier trial on this problem.

        Args:
            name: Holds every knob that the result depends on.
            compute: Draws from the generator it is given alone.
        """
        return self.memo.cached(name, compute)
