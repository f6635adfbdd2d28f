"""Rankings and tests over several requests, as pure functions of numbers. The tests are SciPy's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
DIGITS = 12
"""Numbers that agree in so many decimals are equal."""


def signed_rank(differences: ArrayLike) -> float:
    """Return p of Wilcoxon's signed-rank test, two-sided; differences of 0 are dropped.

    It is exact for at most 50 different values, and for at most 13 with ties.
    """
    from scipy import stats

    values = np.round(np.asarray(differences, np.float64), DIGITS)
    values = values[values != 0]
    return float(stats.wilcoxon(values).pvalue) if len(values) else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's correction, which keeps the chance of any false finding below their level."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [0.0] * len(values), 0.0
    for position, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - position) * values[index]))
        adjusted[index] = highest
    return adjusted


def ranks(values: ArrayLike) -> Array:
    """Return the rank of each value along the last axis, 1 for the lowest; equals share the mean of theirs."""
    from scipy import stats

    return stats.rankdata(np.round(np.asarray(values, np.float64), DIGITS), axis=-1)


def kendall(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return Kendall's tau-b of two rankings of the same things: 1 the same order, -1 the reverse, 0 unrelated.

    None when fewer than two things, or when all are equal in one of the rankings.
    """
    from scipy import stats

    x, y = (np.round(np.asarray(values, np.float64), DIGITS) for values in (first, second))
    tau = float(stats.kendalltau(x, y).statistic) if len(x) > 1 else math.nan
    return tau if math.isfinite(tau) else None
