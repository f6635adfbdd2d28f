"""Which methods can be told apart: paired tests over the same problems, and rankings.

A problem is a forget request with a seed, and a method's value on it is the AvgGap of its run with tuned knobs.
Methods are paired by problem, since problems differ far more than methods do.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reports.load import RecordedStudy
from reports.ranks import cliques, friedman, holm, ranks, signed_rank, smallest_p
from reports.stats import Spread, spread
from reports.summaries import cell_summary

ALPHA = 0.05
"""Below this, a corrected p says that two methods differ."""

Problem = tuple[str, int]


@dataclass(frozen=True)
class Pair:
    """Two methods on the problems that both have finished.

    Args:
        first, second: Their names.
        difference: AvgGap of the first minus that of the second, over those problems.
        requests: Number of forget requests among them.
        p: Of Wilcoxon's signed-rank test, two-sided and exact.
        p_holm: The same, corrected for all pairs of the study.
        closer: Of the two, that with the smaller AvgGap by the test's ranks; empty when neither has.
    """

    first: str
    second: str
    difference: Spread
    requests: int
    p: float
    p_holm: float
    closer: str

    @property
    def told_apart(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on each problem, 1 for the smallest AvgGap.

    Args:
        ranks: Method to mean rank, best first.
        left_out: Methods that lack some of the problems.
        problems: Number of problems.
        p: Of Friedman's test; None for a single problem.
        cliques: Runs of methods within which no two are told apart.
    """

    ranks: Mapping[str, float]
    left_out: tuple[str, ...]
    problems: int
    p: float | None
    cliques: tuple[tuple[str, ...], ...]


def pairs(study: RecordedStudy) -> tuple[Pair, ...]:
    """Every two methods that have a problem in common, in the order of the study."""
    return study.once("pairs", lambda: _pairs(study))


def smallest_corrected(study: RecordedStudy) -> tuple[int, float, float]:
    """Most problems of any pair, the smallest p these can give, and the same after correction for all pairs."""
    found = pairs(study)
    n = max((pair.difference.n for pair in found), default=0)
    return n, smallest_p(n), min(1.0, len(found) * smallest_p(n))


def ranking(study: RecordedStudy) -> Ranking | None:
    """The methods by mean rank; None when fewer than two share a problem.

    Methods are ranked on the problems that any has finished, without those methods that lack one. When that
    leaves fewer than two, on the problems that all have finished.
    """
    values = _values(study)
    every = set().union(*values.values())
    listed = [name for name, found in values.items() if set(found) == every]
    if len(listed) < 2:
        listed = list(values)
        every = set.intersection(*map(set, values.values())) if values else set()
    if len(listed) < 2 or not every:
        return None
    table = np.array([[values[name][problem] for name in listed] for problem in sorted(every)])
    means = np.mean([ranks(row) for row in table], axis=0)
    order = sorted(range(len(listed)), key=lambda index: (means[index], index))
    apart = [frozenset((pair.first, pair.second)) for pair in pairs(study) if pair.told_apart]
    return Ranking(
        {listed[index]: float(means[index]) for index in order},
        tuple(method.name for method in study.methods if method.name not in listed),
        len(every),
        friedman(table),
        tuple(cliques([listed[index] for index in order], apart)),
    )


def _pairs(study: RecordedStudy) -> tuple[Pair, ...]:
    values = _values(study)
    found: list[Pair] = []
    for first, second in itertools.combinations(values, 2):
        shared = sorted(set(values[first]) & set(values[second]))
        differences = [values[first][problem] - values[second][problem] for problem in shared]
        summary = spread(differences)
        if summary is not None:
            requests = len({request for request, _ in shared})
            p, sign = signed_rank(differences)
            closer = {-1: first, 0: "", 1: second}[sign]
            found.append(Pair(first, second, summary, requests, p, p, closer))
    corrected = holm([pair.p for pair in found])
    return tuple(dataclasses.replace(pair, p_holm=p) for pair, p in zip(found, corrected))


def _values(study: RecordedStudy) -> dict[str, dict[Problem, float]]:
    """Method to problem to AvgGap, of methods that have any."""
    values: dict[str, dict[Problem, float]] = {}
    for method in study.methods:
        for request in study.requests:
            for seed, gap in cell_summary(study, request, method.name).by_seed.items():
                values.setdefault(method.name, {})[request.name, seed] = gap
    return values
