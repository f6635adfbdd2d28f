"""Mean and spread over seeds, and the noise floor: how far retrained models are from each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and sample standard deviation of the finite values; None when there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    std = statistics.stdev(finite) if len(finite) > 1 else None
    return Spread(statistics.fmean(finite), std, len(finite))


def noise_floor(values: Sequence[float]) -> float | None:
    """Mean over values of the distance to the mean of the others; None for fewer than two.

    What one more retrained model would show as its gap to the retrained models: a smaller gap means nothing.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    total = math.fsum(finite)
    return statistics.fmean(abs(value - (total - value) / (len(finite) - 1)) for value in finite)


def median(values: Iterable[float]) -> float | None:
    """Median of the finite values; None when there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else None
