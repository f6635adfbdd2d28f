"""Portfolios: a few configurations of a method of which one is good wherever it was tried, and what such a list is worth.

Configurations are added one by one, each time the one with which the mean over all requests of the normalised regret of the
best of the list falls most (``Landscape.regret``). So the first one is the best to take blindly, and the next ones help
where it fails. What a list is worth is measured where it was not chosen: on a request, data set or network that is left out.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from reports.analysis.landscapes import Landscape, Point
from reports.statistics.intervals import Estimate, nested_mean

SIZE = 5
"""Configurations of a portfolio."""
LEFT_OUT = ("request", "data", "model")
"""What a portfolio is measured on, in turn: each request, data set and network, when the others have chosen it."""


@dataclass(frozen=True)
class Chosen:
    """A portfolio.

    Args:
        points: The configurations, the best first.
        regret: Mean normalised regret of the best of the first one, two, three, ... of them.
    """

    points: tuple[Point, ...]
    regret: tuple[float, ...]


def choose(
    cells: Sequence[Landscape], size: int = SIZE, allowed: Callable[[Point], bool] = lambda _: True
) -> Chosen:
    """Return the portfolio of a method, chosen greedily. It is shorter than `size` where more does not help.

    A configuration counts as the median of a cell in which it was not tried. Where there are several cells, one that was
    tried in a single cell is left out: nothing says that it is good elsewhere.

    Args:
        cells: Landscapes of one method.
        allowed: Whether a configuration may be in it.
    """
    counts = Counter(p for cell in cells for p in cell.gaps if allowed(p))
    tried = [p for p, count in counts.items() if count >= min(2, len(cells))]
    regrets = {p: [cell.regret(p) for cell in cells] for p in tried}
    points: list[Point] = []
    reached: list[float] = []
    best = [float("inf")] * len(cells)
    while len(points) < size and len(points) < len(regrets):
        means = {
            p: round(statistics.fmean(map(min, best, listed)), 9) for p, listed in regrets.items()
        }
        least = min(means, key=lambda p: means[p])
        if reached and means[least] >= reached[-1]:
            break
        points.append(least)
        reached.append(means[least])
        best = list(map(min, best, regrets[least]))
    return Chosen(tuple(points), tuple(reached))


@dataclass(frozen=True)
class Worth:
    """What a portfolio is worth in a cell that did not choose it.

    Args:
        group: The request, data set or network that was left out.
        method: The method.
        trials: Trials until one is within a noise floor of the best, when the authors' defaults come first, then the
            portfolio, then what was tried in random order: the mean over all orders.
        trials_without: The same without the portfolio.
        first: AvgGap of the first configuration above the best, a fraction.
        defaults: The same of the authors' defaults.
        hurts: Whether the first is worse than the defaults by more than a noise floor.
    """

    group: str
    method: str
    trials: float
    trials_without: float
    first: float
    defaults: float
    hurts: bool


def worths(
    cells: Iterable[Landscape],
    left_out: str,
    size: int = SIZE,
    allowed: Callable[[str, Point], bool] = lambda *_: True,
) -> list[Worth]:
    """Return the worth of portfolios in every cell that can be judged; empty for fewer than two groups of a method.

    A cell can be judged where the authors' defaults and the first configuration were tried. Others of the portfolio that were
    not are left out there.

    Args:
        left_out: One of ``LEFT_OUT``.
        allowed: Whether a configuration of a method may be in its portfolio.
    """
    by_method: dict[str, dict[str, list[Landscape]]] = {}
    for cell in cells:
        group = str(getattr(cell, left_out))
        by_method.setdefault(cell.method, {}).setdefault(group, []).append(cell)
    found: list[Worth] = []
    for method, groups in by_method.items():
        for group, judged in groups.items():
            others = [cell for name, each in groups.items() if name != group for cell in each]
            if others:
                points = choose(others, size, partial(allowed, method)).points
                found += [
                    worth(group, cell, points)
                    for cell in judged
                    if cell.defaults is not None and points and points[0] in cell.gaps
                ]
    return found


def worth(group: str, cell: Landscape, points: Sequence[Point]) -> Worth:
    """Return the worth of a portfolio in a cell in which defaults and its first configuration were tried."""
    assert cell.defaults is not None
    first, defaults = cell.gaps[points[0]] - cell.best, cell.gaps[cell.defaults] - cell.best
    tried = [p for p in points if p in cell.gaps]
    return Worth(
        group,
        cell.method,
        trials_to_good(cell, [cell.defaults, *tried]),
        trials_to_good(cell, [cell.defaults]),
        first,
        defaults,
        round(first - defaults, 9) > cell.noise,
    )


def trials_to_good(cell: Landscape, first: Iterable[Point]) -> float:
    """Return after how many trials one is within a noise floor of the best: some in order, the others in random order.

    Of n in random order of which g are good, the first good one comes after (n + 1) / (g + 1) on average.
    """
    order = list(dict.fromkeys(first))
    for place, each in enumerate(order, start=1):
        if each in cell.good:
            return place
    left = len(cell.gaps) - len(order)
    return len(order) + (left + 1) / (len(cell.good) + 1)


def mean_of(found: Iterable[Worth], value: Callable[[Worth], float]) -> Estimate | None:
    """Return the mean over groups of the mean over the cells of each, with bootstrap samples of groups."""
    groups: dict[str, list[float]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(float(value(one)))
    return nested_mean(groups)
