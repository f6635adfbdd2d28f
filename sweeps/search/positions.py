"""Ranges in Optuna's words, and the positions of their values in [0, 1]."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeps.study.space import Range


def distribution(span: Range) -> BaseDistribution:
    """Return the values of a knob in Optuna's words."""
    if span.choices:
        return CategoricalDistribution(span.choices)
    if span.whole:
        step = int(span.step or 1)
        return IntDistribution(int(span.low), int(span.high), log=span.log, step=step)
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def value_at(distribution: BaseDistribution, position: float) -> Any:
    """Return the value at a position in [0, 1] of a range. Values that are a step apart have shares of equal width."""
    if isinstance(distribution, CategoricalDistribution):
        count = len(distribution.choices)
        return distribution.choices[min(int(position * count), count - 1)]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = _ends(distribution)
    value = low + position * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step:
        steps = round((value - distribution.low) / distribution.step)
        value = round(distribution.low + distribution.step * steps, 12)
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else value


def position_of(distribution: BaseDistribution, value: float) -> float:
    """Return where in [0, 1] a number of a range lies."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = _ends(distribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Return the ends of the positions: half a step beyond those of the values, on the scale of the range."""
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)
