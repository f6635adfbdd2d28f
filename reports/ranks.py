"""Rankings and paired tests, as pure functions of numbers.

The test is Wilcoxon's signed-rank test in its exact form: under the null hypothesis each difference is as
likely to have either sign, so the distribution over all 2^n signs of the observed ranks is counted out, ties and
all. No approximation is used for any n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
DIGITS = 12
"""Numbers that agree in so many decimals are equal."""


def signed_rank(differences: ArrayLike) -> tuple[float, int]:
    """Wilcoxon's signed-rank test, two-sided and exact also with ties; differences of 0 are dropped.

    Returns:
        p, at best ``smallest_p(n)`` for n differences; and the sign that has the larger sum of ranks, or 0.
    """
    values = np.round(np.asarray(differences, np.float64), DIGITS)
    values = values[values != 0]
    if len(values) == 0:
        return 1.0, 0
    doubled = np.round(2 * ranks(np.abs(values))).astype(int)  # ties have halves
    total = int(doubled.sum())
    chances = np.zeros(total + 1)  # of each sum of positive ranks
    chances[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[: total + 1 - rank]
        chances = (chances + shifted) / 2
    positive = int(doubled[values > 0].sum())
    tail = chances[: min(positive, total - positive) + 1].sum()
    return float(min(1.0, 2 * tail)), int(np.sign(2 * positive - total))


def smallest_p(n: int) -> float:
    """The smallest p that a two-sided test of signs can give for n differences: 2^-(n-1)."""
    return 2.0 ** -(max(n, 1) - 1)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that keep the chance of any false finding among all of them below their level."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [0.0] * len(values), 0.0
    for position, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - position) * values[index]))
        adjusted[index] = highest
    return adjusted


def ranks(values: ArrayLike) -> Array:
    """Rank of each value, 1 for the lowest; equals share the mean of theirs."""
    rounded = np.round(np.asarray(values, np.float64), DIGITS)
    _, inverse, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]


def friedman(table: ArrayLike) -> float | None:
    """p of Friedman's test that no column is ranked unlike the others; None for fewer than two rows or columns.

    Args:
        table: [problems, methods], lower is better. With ties the statistic is corrected; its distribution is
            approximated by chi-squared, which is rough for few rows.
    """
    values = np.asarray(table, np.float64)
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        return None
    ranked = np.array([ranks(row) for row in values])
    spread = float(((ranked - (columns + 1) / 2) ** 2).sum())
    if spread == 0:
        return 1.0
    sums = ranked.sum(axis=0) - rows * (columns + 1) / 2
    statistic = (columns - 1) * float((sums**2).sum()) / spread
    return float(special.chdtrc(columns - 1, statistic))


def cliques(order: Sequence[str], told_apart: Iterable[frozenset[str]]) -> list[tuple[str, ...]]:
    """The longest runs of an order within which no two are told apart; runs of one are left out."""
    apart = set(told_apart)
    found: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not any(
            frozenset((order[end], other)) in apart for other in order[start:end]
        ):
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(order[start:end]))
        reached = max(reached, end)
    return found


def kendall(first: ArrayLike, second: ArrayLike) -> float | None:
    """Kendall's tau-b of two rankings of the same things: 1 the same order, -1 the reverse, 0 unrelated.

    None when fewer than two things, or when all are equal in one of the rankings.
    """
    x, y = (np.round(np.asarray(values, np.float64), DIGITS) for values in (first, second))
    upper = np.triu_indices(len(x), 1)
    a, b = (np.sign(values[:, None] - values[None, :])[upper] for values in (x, y))
    untied = np.sqrt((a != 0).sum()) * np.sqrt((b != 0).sum())
    return float((a * b).sum() / untied) if untied else None
