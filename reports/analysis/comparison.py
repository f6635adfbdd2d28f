"""Which methods can be told apart over the requests; doing nothing is one of them.

A method's value on a request is its recovery with tuned knobs, over all seeds: the seeds of a request share its knobs and its
forgotten samples, so they are no further evidence on how a method does on other requests.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.analysis.summaries import TOLERANCE, cell_summary, recovered
from reports.load import RecordedStudy
from reports.statistics.intervals import Estimate, resamples
from reports.statistics.rankings import holm, signed_rank

ALPHA = 0.05
"""Below this, a corrected p says that two methods differ."""
ENOUGH = 8
"""Requests from which on a test is printed: of fewer, signs alone decide, and hardly ever all agree by chance or not."""
NOTHING = "original"
"""Doing nothing, which is compared like a method."""


@dataclass(frozen=True)
class Pair:
    """Two methods on the requests that both have finished.

    Args:
        first, second: Their names.
        difference: Recovery of the first minus that of the second, the mean over those requests. Requests are drawn
            first, then seeds.
        requests: Number of those requests.
        p: Of Wilcoxon's signed-rank test over the requests, after Holm's correction for all pairs; None where there are
            fewer than ``ENOUGH``.
    """

    first: str
    second: str
    difference: Estimate
    requests: int
    p: float | None

    @property
    def told_apart(self) -> bool:
        if self.p is not None:
            return self.p < ALPHA
        interval = self.difference.interval
        return interval is not None and (interval.low > TOLERANCE or interval.high < -TOLERANCE)

    @property
    def closer(self) -> str:
        """That of the two which recovers more; empty when they cannot be told apart."""
        better = self.first if self.difference.value > 0 else self.second
        return better if self.told_apart else ""


def pairs(study: RecordedStudy) -> tuple[Pair, ...]:
    """Every two methods that have a request in common, in the order of the study; doing nothing comes last."""
    return study.once("pairs", lambda: _pairs(study))


def _pairs(study: RecordedStudy) -> tuple[Pair, ...]:
    values, compared = _recoveries(study), []
    for first, second in itertools.combinations(values, 2):
        each = [
            values[first][request].minus(values[second][request])
            for request in values[first]
            if request in values[second]
        ]
        if each:
            p = signed_rank([one.value for one in each]) if len(each) >= ENOUGH else None
            compared.append(Pair(first, second, _difference(study, each), len(each), p))
    corrected = iter(holm([pair.p for pair in compared if pair.p is not None]))
    return tuple(
        pair if pair.p is None else dataclasses.replace(pair, p=next(corrected))
        for pair in compared
    )


def _difference(study: RecordedStudy, each: Sequence[Estimate]) -> Estimate:
    """Return the mean difference over requests. Its bootstrap draws requests, and seeds within them."""
    count = len(each)
    if count == 1:
        return each[0]
    drawn = resamples(count, study.name, "requests")
    replicas = (drawn * np.array([one.replicas for one in each]).T).sum(axis=1) / count
    return Estimate(sum(one.value for one in each) / count, replicas, count)


def _recoveries(study: RecordedStudy) -> dict[str, dict[str, Estimate]]:
    """Return method to request to recovery, of methods that have any; doing nothing has 0 everywhere, and comes last."""
    values: dict[str, dict[str, Estimate]] = {}
    for name in [*(method.name for method in study.methods), NOTHING]:
        phase = "reference" if name == NOTHING else "confirm"
        for request in study.requests:
            result = cell_summary(study, request, name, phase)
            if (share := recovered(study, request, result)) is not None:
                values.setdefault(name, {})[request.name] = share
    return values if set(values) - {NOTHING} else {}
