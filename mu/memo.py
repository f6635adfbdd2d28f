"""``Memo``: results that trials of a problem share, and what a method shows of its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from mu.data import Examples
from mu.rng import generator
from mu.snapshot import unfollowed

T = TypeVar("T")


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
        warnings: What the user should know of a trial that runs all the same; see ``Split.warn``.
    """

    instances: Examples | None = None
    partial: Callable[[], Examples] | None = None
    predicted_hard: Tensor | None = None
    label_weights: tuple[float, float, float] | None = None
    warnings: list[str] = field(default_factory=list)


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
