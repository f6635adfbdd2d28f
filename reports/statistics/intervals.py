"""Numbers about runs: spread, 95 % intervals, and how far retrained models are from each other.

Intervals are Student's over the seeds, which is right for a mean of few normal values: with three seeds it is
4.3 standard errors wide, with two 12.7, with one there is none. A bootstrap of three seeds has ten different
samples and an interval of its percentiles is far too short, so where the statistic is not a mean the bootstrap
gives the standard error only, and the interval is Student's: for a mean both are the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mu.keys import derive_seed

LEVEL = 0.95
"""Confidence of every interval."""
RESAMPLES = 2000
"""Bootstrap samples: the standard error is then known to about 2 percent."""

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Where a value lies, with the confidence of ``LEVEL``."""

    low: float
    high: float

    @property
    def size(self) -> Interval:
        """Where its absolute value lies."""
        low, high = sorted((abs(self.low), abs(self.high)))
        return Interval(0.0 if self.low < 0 < self.high else low, high)

    def within(self, low: float, high: float) -> Interval:
        """Without what cannot be."""
        return Interval(min(max(self.low, low), high), min(max(self.high, low), high))


@dataclass(frozen=True)
class Spread:
    """Some runs of one thing.

    Args:
        mean: Their mean.
        std: Sample standard deviation (n - 1); None for a single run.
        n: Number of runs.
    """

    mean: float
    std: float | None
    n: int

    @property
    def interval(self) -> Interval | None:
        """Student's interval of the mean; None for a single run."""
        if self.std is None:
            return None
        return student(self.mean, self.std / math.sqrt(self.n), self.n)


@dataclass(frozen=True)
class Estimate:
    """A statistic of the runs of several seeds that is not a mean of one number each.

    Args:
        value: The statistic.
        replicas: The same for every bootstrap sample of the seeds; NaN where a sample lacks runs.
        n: Number of seeds.
    """

    value: float
    replicas: Array
    n: int

    @property
    def interval(self) -> Interval | None:
        """Student's, with the bootstrap's standard error corrected for resampling `n` seeds; None for one."""
        finite = self.replicas[np.isfinite(self.replicas)]
        if self.n < 2 or len(finite) < 2:
            return None
        error = float(finite.std()) * math.sqrt(self.n / (self.n - 1))
        return student(self.value, error, self.n)

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference to an estimate over the same bootstrap samples."""
        replicas = self.replicas - other.replicas
        return Estimate(self.value - other.value, replicas, min(self.n, other.n))


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate | None:
    """Return the mean of estimates that share their bootstrap samples; None of none."""
    if not estimates:
        return None
    value = math.fsum(e.value for e in estimates) / len(estimates)
    replicas = np.mean([e.replicas for e in estimates], axis=0)
    return Estimate(value, replicas, min(e.n for e in estimates))


def nested_mean(groups: Mapping[str, Sequence[float]]) -> Estimate | None:
    """Return the mean over groups of the mean within each, with bootstrap samples of groups and of values within them.

    Of a single group only the values are resampled. None without any value.

    Args:
        groups: Name of each group, such as a request, to its values, such as one for each method.
    """
    names = [name for name, values in groups.items() if values]
    if not names:
        return None
    mean = statistics.fmean(statistics.fmean(groups[name]) for name in names)
    drawn = np.zeros((RESAMPLES, len(names)))
    for place, name in enumerate(names):
        values = np.array(groups[name])
        drawn[:, place] = resamples(len(values), "methods", name) @ values / len(values)
    if len(names) == 1:
        return Estimate(mean, drawn[:, 0], len(groups[names[0]]))
    weights = resamples(len(names), "requests", *names)
    return Estimate(mean, (weights * drawn).sum(1) / len(names), len(names))


def student(value: float, error: float, n: int) -> Interval:
    """`value` plus and minus its standard error times Student's quantile with n - 1 degrees of freedom."""
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    return Interval(value - half, value + half)


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and sample standard deviation of the finite values; None when there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    n, mean = len(finite), statistics.fmean(finite)
    squares = math.fsum((value - mean) ** 2 for value in finite)
    return Spread(mean, math.sqrt(squares / (n - 1)) if n > 1 else None, n)


def resamples(n: int, *parts: object) -> Array:
    """Bootstrap samples of `n` seeds: how often each is drawn [``RESAMPLES``, n].

    Args:
        parts: What they are for; the same parts give the same samples.
    """
    generator = np.random.default_rng(derive_seed("bootstrap", *parts))
    return generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def weighted_means(values: Array, weights: Array) -> Array:
    """Mean of each column over the rows that have it, for each row of weights.

    Args:
        values: [seeds, columns], NaN where a run is missing.
        weights: [samples, seeds].

    Returns:
        [samples, columns], NaN where no row that has the column is drawn.
    """
    there = np.isfinite(values)
    counts = weights @ there
    with np.errstate(invalid="ignore"):  # 0 / 0 where no such row is drawn
        return (weights @ np.where(there, values, 0.0)) / counts


def leave_one_out(values: Iterable[float]) -> list[float]:
    """Distance of each value to the mean of the others: what one more model would show. Empty for fewer than two."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return []
    total = math.fsum(finite)
    return [abs(value - (total - value) / (len(finite) - 1)) for value in finite]


def median(values: Iterable[float]) -> float | None:
    """Median of the finite values; None when there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else None
