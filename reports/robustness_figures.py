"""Figures on telling methods apart and on exchanged knobs, one function each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from reports.canvas import FAINT, INK, PANEL, Drawing, colour_of
from reports.comparison import ALPHA, ENOUGH, Ranking, ranking
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.robustness import TRANSFER
from reports.statistics.intervals import Array
from reports.summaries import cell_summary
from reports.table_cells import count, p_value

DIVERGING = LinearSegmentedColormap.from_list("regret", ["#56B4E9", "#FFFFFF", "#E69F00"])
COLUMNS = 4
"""Panels beside each other."""


def ranks(study: RecordedStudy) -> Drawing | None:
    """Mean ranks, and bars over methods that cannot be told apart (Demsar 2006)."""
    found = ranking(study)
    if found is None:
        return None
    n = len(found.ranks)
    rows = math.ceil(n / 2)
    top = 0.45 + 0.16 * len(found.cliques)
    figure = Figure(figsize=(PANEL * 2.4, 0.75 + 0.3 * (top + 0.8 * rows)))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(1 - 0.38 * (n - 1), n + 0.38 * (n - 1))
    axes.set_ylim(top + 0.8 * rows, -1.1)
    axes.plot([1, n], [0, 0], color=INK, linewidth=1)
    for rank in range(1, n + 1):
        axes.plot([rank, rank], [0, -0.18], color=INK, linewidth=1)
        axes.text(rank, -0.3, str(rank), ha="center", va="bottom", fontsize=10)
    colours = {method.name: colour_of(method) for method in study.methods}
    for place, (name, mean) in enumerate(found.ranks.items()):
        left = place < rows
        depth = top + 0.8 * (place if left else n - 1 - place)
        colour = colours.get(name, INK)
        _leader(axes, (name, colour), mean, depth, 1 if left else n, n)
    for place, clique in enumerate(found.cliques):
        ends = [found.ranks[clique[0]] - 0.012 * n, found.ranks[clique[-1]] + 0.012 * n]
        axes.plot(ends, [0.25 + 0.16 * place] * 2, color=INK, linewidth=3.2, solid_capstyle="butt")
    return Drawing("ranks", "Mean rank of the methods", _rank_caption(study, found), figure)


def _leader(
    axes: Axes, method: tuple[str, str], mean: float, depth: float, side: int, n: int
) -> None:
    """A line from a method's mean rank to its name at one side."""
    end = side + (-0.05 if side == 1 else 0.05) * (n - 1)
    axes.plot([mean, mean, end], [0, depth, depth], color=method[1], linewidth=1.2)
    axes.text(
        end,
        depth,
        f" {method[0]} ({mean:.2f}) ",
        ha="right" if side == 1 else "left",
        va="center",
        fontsize=10.5,
    )


def _rank_caption(study: RecordedStudy, found: Ranking) -> str:
    friedman = "" if found.p is None else f" (Friedman's test: p {_equals(found.p)})"
    apart = f"p (Holm) is not below {ALPHA:g}" if found.requests >= ENOUGH else "intervals hold 0"
    left_out = (
        f" Not ranked, as they lack some requests: {', '.join(found.left_out)}."
        if found.left_out
        else ""
    )
    return (
        f"Rank by recovery with tuned knobs, averaged over {count(found.requests, 'request')}, 1 is the largest"
        f"{friedman}; the original is doing nothing. A bar joins neighbours none of which can be told apart from another: "
        f"the {apart} of their differences.{left_out}"
    )


def transfer_matrix(study: RecordedStudy) -> Drawing | None:
    """AvgGap with the knobs of every other request, a panel for each method."""
    involved = [
        request
        for request in study.requests
        if request.name in {n for p in study.transfers for n in p}
    ]
    targets = [r for r in involved if r.name in {target for _, target in study.transfers}]
    found = ((method.name, _matrix(study, method, involved, targets)) for method in study.methods)
    tables = {name: table for name, table in found if np.isfinite(table[1]).any()}
    if not tables:
        return None
    columns = min(COLUMNS, max(2, len(tables)))
    rows = math.ceil(len(tables) / columns)
    size = (PANEL * 0.8 * columns + 0.6, (0.55 + 0.42 * len(involved)) * rows + 0.7)
    figure = Figure(figsize=size)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    worst = max(float(np.nanmax(np.abs(regrets))) for _, regrets in tables.values()) or 1.0
    shade = Normalize(-worst, worst)
    for axes in list(grid.flat)[len(tables) :]:
        axes.set_axis_off()
    for axes, (name, (values, regrets)) in zip(grid.flat, tables.items()):
        axes.imshow(regrets, cmap=DIVERGING, norm=shade, aspect="auto")
        axes.set_title(name)
        axes.grid(False)
        for (row, column), value in np.ndenumerate(values):
            own = involved[row].name == targets[column].name
            text = f"{100 * value:.2f}" if np.isfinite(value) else "–"  # noqa: RUF001
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9.5,
                color=INK if np.isfinite(value) else FAINT,
                weight="bold" if own else "normal",
            )
        axes.set_xticks(range(len(targets)), [r.name for r in targets], rotation=30, ha="right")
        axes.set_yticks(range(len(involved)), [r.name for r in involved])
        axes.tick_params(length=0)
    for axes in list(grid.flat)[: len(tables)][-columns:]:
        axes.tick_params(labelbottom=True)  # also where there is no panel below
    scale = ScalarMappable(shade, DIVERGING)
    bar = figure.colorbar(scale, ax=list(grid.flat), shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("Regret (points)")
    figure.supxlabel("Used on", fontsize=11)
    figure.supylabel("Tuned on", fontsize=11)
    return Drawing(
        "transfer_matrix",
        "Knobs of every request on every other",
        "AvgGap in percent points on the request of the column with the knobs tuned on that of the row; bold on "
        "the diagonal, where they are the own. Colour is the regret against the own knobs of the column, "
        "orange where the foreign ones do worse. A dash was not asked for or did not finish.",
        figure,
    )


def _matrix(
    study: RecordedStudy,
    method: RecordedMethod,
    involved: Sequence[RecordedRequest],
    targets: Sequence[RecordedRequest],
) -> tuple[Array, Array]:
    """AvgGap by the request tuned on (rows) and used on (columns), and regret in points; NaN where there is none."""
    values = np.full((len(involved), len(targets)), math.nan)
    regrets = values.copy()
    for column, target in enumerate(targets):
        own = cell_summary(study, target, method.name)
        for row, source in enumerate(involved):
            same = source.name == target.name
            moved = cell_summary(study, target, method.name, TRANSFER, source.name)
            result = own if same else moved
            if result.average is not None:
                values[row, column] = result.average
            if not same and moved.average is not None and own.average is not None:
                regrets[row, column] = 100 * (moved.average - own.average)
    return values, regrets


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
