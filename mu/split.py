"""``Split``: what a method is handed besides the model. Never validation, test or reference data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from mu.data import Examples
from mu.data.augment import Augment
from mu.memo import Diagnostics, Memo

T = TypeVar("T")
DATA = ("retain", "forget", "twin")


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

    def warn(self, text: str) -> None:
        """Tell the user, once, of something that spoils a method's result but does not prevent it.

        A method's `check` warns before the study starts; what its `unlearn` warns of stands in the trial's record.
        """
        if text not in self.diagnostics.warnings:
            self.diagnostics.warnings.append(text)

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
