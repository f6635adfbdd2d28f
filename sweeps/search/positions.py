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

from sweeps.study.space import Range, ends, number_at


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
    span = distribution
    value = number_at(position, span.low, span.high, span.log, span.step)
    return int(value) if isinstance(span, IntDistribution) else value


def position_of(distribution: BaseDistribution, value: float) -> float:
    """Return where in [0, 1] a number of a range lies."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = ends(distribution.low, distribution.high, distribution.log, distribution.step)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)
