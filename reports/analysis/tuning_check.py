"""Whether a cell was searched long enough, from the objective values of its finished trials.

Had the trials come in another order, the best after n of them would have been another. Its expectation is the
"expected validation performance" of Dodge et al. (Show Your Work, EMNLP 2019), for a value that is better when
lower: n of the N trials are drawn with replacement, so the minimum exceeds a value with the n-th power of the
share of trials that do. The same law gives its interval.

It takes trials for independent draws, which they are for random search. A sampler that learns has its better
trials late, so that the true curve falls later than this one, and what more trials would bring is understated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.analysis.spaces import spans
from reports.load import RecordedStudy
from reports.statistics.intervals import LEVEL

LAST = 0.25
"""Share of the budget whose gain is looked at."""
EDGE = 0.1
"""Share of a range that is near its end."""
ENOUGH = 4
"""Trials below which that share is less than one of them."""


@dataclass(frozen=True)
class Best:
    """The best of n trials, over the orders in which trials may come.

    Args:
        expected: Mean.
        low, high: Ends of the central interval.
    """

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class TuningCheck:
    """Whether more trials of a cell could change the ranking of the methods on a request.

    Args:
        gain: By how much the expected best fell over the last quarter of the trials.
        margin: Distance of its best objective to that of the method ranked before it; None for the first.
        trials: Number of configurations that may be chosen.
        at_edge: The searched knobs whose chosen value is near an end of its range: better ones may lie beyond.
    """

    gain: float
    margin: float | None
    trials: int
    at_edge: tuple[str, ...] = ()

    @property
    def enough(self) -> bool | None:
        """Whether as much gain again would leave the ranking as it is; None when too few trials can tell.

        Never where a knob is at the edge: how much lies beyond, no number of trials can say.
        """
        if self.at_edge:
            return False
        if self.trials < ENOUGH:
            return None
        return self.margin is None or self.gain < self.margin


def best_of(values: Sequence[float], n: int) -> Best:
    """The lowest of `n` values drawn with replacement from `values`, in closed form."""
    ordered = np.sort(np.asarray(values, np.float64))
    total = len(ordered)
    above = (np.arange(total, -1, -1) / total) ** n  # chance that the lowest is after the i-th
    expected = float((ordered * (above[:-1] - above[1:])).sum())
    reached = 1 - above[1:]
    low, high = (
        float(ordered[min(int(np.searchsorted(reached, share - 1e-12)), total - 1)])
        for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    return Best(expected, low, high)


def values_of(study: RecordedStudy, forget: str, method: str) -> list[float]:
    """Objective of each configuration of a cell that may be chosen, in the order of the trials."""
    return [candidate.value for candidate in study.eligible(forget, method)]


def check_tuning(study: RecordedStudy, forget: str, method: str) -> TuningCheck | None:
    """Whether a cell was searched long enough; None when no trial has finished."""
    values = values_of(study, forget, method)
    if not values:
        return None
    others = [
        min(found)
        for other in study.methods
        if other.name != method and (found := values_of(study, forget, other.name))
    ]
    best = min(values)
    better = [value for value in others if value < best]
    before = math.ceil((1 - LAST) * len(values))
    gain = best_of(values, before).expected - best_of(values, len(values)).expected
    margin = best - max(better) if better else None
    return TuningCheck(gain, margin, len(values), at_edge(study, forget, method))


def at_edge(study: RecordedStudy, forget: str, method: str) -> tuple[str, ...]:
    """The searched knobs whose chosen value is within a tenth of its range of an end, by decades where it is log."""
    chosen, listed = study.chosen(forget, method), {m.name: m for m in study.methods}
    if chosen is None or method not in listed or not listed[method].space:
        return ()  # of a study that records no ranges, they are guessed from the trials
    ranges = [
        span for span in spans(study, listed[method]) if not span.choices and span.high > span.low
    ]
    shares = {span.knob: span.share(chosen.knobs.get(span.knob)) for span in ranges}
    return tuple(knob for knob, share in shares.items() if min(share, 1 - share) <= EDGE + 1e-12)
