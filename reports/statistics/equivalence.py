"""Same, different or undecided: whether runs end where retrained models end, by two one-sided t tests.

The tests pool the variance of both groups. With a margin of two standard deviations of the retrained models, *same* says
that the runs' mean is within what retraining itself varies by; see Schuirmann 1987 for the test. Arrays may have leading
axes: every function works along the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from reports.statistics.intervals import Interval, student

SAME, DIFFERENT, UNDECIDED = "same", "different", "undecided"
ALPHA = 0.05
"""Chance of a wrong *same* at the margin, and of a wrong *different* where there is no difference."""
DEVIATIONS = 2.0
"""The margin in standard deviations of the retrained models."""
HALF_A_POINT = 0.005
"""The least margin of a fraction: a smaller difference matters to nobody."""
DIGITS = 12
"""Numbers that agree in so many decimals are equal: standard deviations of equal numbers are not always 0."""

Array = NDArray[np.float64]


class PValues(NamedTuple):
    """p of the two hypotheses that can be rejected.

    Args:
        apart: Of the means being further apart than the margin; a small one says *same*.
        equal: Of the means being equal; a small one says *different*.
    """

    apart: Array
    equal: Array


def margin(retrained: ArrayLike, least: ArrayLike = 0.0) -> Array:
    """Return ``DEVIATIONS`` sample standard deviations of the retrained models, at least `least`."""
    return np.maximum(DEVIATIONS * np.std(np.asarray(retrained, np.float64), -1, ddof=1), least)


def compare(runs: ArrayLike, retrained: ArrayLike, limit: ArrayLike) -> PValues:
    """Test the mean of some runs against that of retrained models.

    Args:
        runs: [..., n], n at least 1.
        retrained: [..., m], m at least 2.
        limit: How far apart the means may be to count as the same [...].
    """
    ours, theirs = (np.asarray(values, np.float64) for values in (runs, retrained))
    free, error = _error(ours, theirs)
    distance = np.round(np.abs(ours.mean(-1) - theirs.mean(-1)), DIGITS)
    with np.errstate(divide="ignore", invalid="ignore"):  # no spread at all
        beyond = special.stdtr(free, (distance - limit) / error)
        equal = 2 * special.stdtr(free, -distance / error)
    return PValues(np.nan_to_num(beyond, nan=1.0), np.nan_to_num(equal, nan=1.0))


def interval(runs: ArrayLike, retrained: ArrayLike) -> Interval:
    """Return the interval of the difference of the means, runs minus retrained models; *different* ones leave out 0."""
    ours, theirs = (np.asarray(values, np.float64) for values in (runs, retrained))
    free, error = _error(ours, theirs)
    difference: Any = ours.mean(-1) - theirs.mean(-1)
    return student(difference, error, free + 1)


def _error(ours: Array, theirs: Array) -> tuple[int, Any]:
    """Return the degrees of freedom of the pooled variance, and the standard error of the difference of the means."""
    n, m = ours.shape[-1], theirs.shape[-1]
    squares = ours.var(-1) * n + theirs.var(-1) * m
    free = n + m - 2
    return free, np.round(np.sqrt(squares / free * (1 / n + 1 / m)), DIGITS)


def word(apart: float, equal: float) -> str:
    """Return the word for two p: *same* goes first, as a difference within the margin is none that counts."""
    if apart < ALPHA:
        return SAME
    return DIFFERENT if equal < ALPHA else UNDECIDED


def verdict(runs: ArrayLike, retrained: ArrayLike, limit: float) -> str:
    """Return the word for one metric."""
    return word(*map(float, compare(runs, retrained, limit)))


def together(tests: Iterable[PValues]) -> str:
    """Return the word for several metrics at once: *same* where all are, *different* where one is beyond doubt.

    A wrong *different* has the chance ``ALPHA`` over all of them, by Bonferroni's correction.
    """
    every = list(tests)
    apart = max(float(test.apart) for test in every)
    return word(apart, len(every) * min(float(test.equal) for test in every))
