"""The figure on exchanged knobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from reports.analysis.robustness import TRANSFER
from reports.analysis.summaries import cell_summary
from reports.canvas import FAINT, INK, PANEL, Drawing
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Array

DIVERGING = LinearSegmentedColormap.from_list("regret", ["#56B4E9", "#FFFFFF", "#E69F00"])
COLUMNS = 4
"""Panels beside each other."""


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
