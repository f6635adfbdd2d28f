"""A search over a grid, point by point: a table, its numbers in full, and heat maps over two knobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mu.selection import Candidate
from reports.analysis.spaces import Span, spans
from reports.analysis.summaries import unit
from reports.canvas import PANEL, Drawing, slug
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables.points import is_grid, metrics_of
from reports.text import count, knob_value, label, searched_view

ANNOTATED = 80
"""Most points of a heat map whose values are written into it."""


def maps(study: RecordedStudy) -> list[Drawing]:
    """For each method whose grid is over two knobs, heat maps of each metric on each request."""
    drawn = []
    for method in study.methods if is_grid(study) else ():
        two = spans(study, method)
        cells = [
            (request, found)
            for request in study.requests
            if (found := study.candidates.get((request.name, method.name), ()))
        ]
        if len(two) == 2 and cells:
            drawn.append(_map(study, method, two, cells))
    return drawn


def _map(
    study: RecordedStudy,
    method: RecordedMethod,
    two: Sequence[Span],
    cells: Sequence[tuple[RecordedRequest, Sequence[Candidate]]],
) -> Drawing:
    names = [
        name
        for name in metrics_of(study)
        if any(name in c.metrics for _, found in cells for c in found)
    ]
    across, up = (_settings(study, method, span.knob) for span in two)
    width = PANEL * max(1.0, 0.12 * len(across) + 0.3)
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        figure = Figure(figsize=(width * len(names), (1.2 + 0.28 * len(up)) * len(cells) + 0.3))
    grid = figure.subplots(len(cells), len(names), squeeze=False)
    for row, (request, found) in zip(grid, cells):
        for axes, name in zip(row, names):
            scale = 100.0 if unit(name) == "fraction" else 1.0
            shown = np.full((len(up), len(across)), math.nan)
            for point in found:
                x, y = (place.index(point.knobs[s.knob]) for place, s in zip((across, up), two))
                shown[y, x] = scale * point.metrics.get(name, math.nan)
            image = axes.imshow(shown, cmap="viridis", origin="lower", aspect="auto")
            figure.colorbar(image, ax=axes)
            there = shown[np.isfinite(shown)]
            if len(there) and shown.size <= ANNOTATED:
                middle = (there.min() + there.max()) / 2
                for (y, x), value in np.ndenumerate(shown):
                    if math.isfinite(value):
                        colour = "black" if value > middle else "white"
                        axes.text(
                            x, y, f"{value:.3g}", color=colour, fontsize=7, ha="center", va="center"
                        )
            axes.grid(False)
            axes.set_xticks(
                range(len(across)), [knob_value(value) for value in across], rotation=45
            )
            axes.set_yticks(range(len(up)), [knob_value(value) for value in up])
            axes.set_xlabel(two[0].knob)
            axes.set_ylabel(two[1].knob)
            axes.set_title(f"{request.name}: {label(name)}", fontsize=9)
    return Drawing(
        f"grid_{slug(study, method)}",
        f"Grid of {method.name} over {two[0].knob} and {two[1].knob}",
        f"Means over {count(len(study.search_seeds), 'search seed')} on the {searched_view(study)}, fractions in "
        "percent; a point that did not finish is empty.",
        figure,
    )


def _settings(study: RecordedStudy, method: RecordedMethod, knob: str) -> list[object]:
    """Every value of a knob that was tried, numbers in order."""
    found = {
        trial.knobs[knob]: None
        for request in study.requests
        for trial in study.candidates.get((request.name, method.name), ())
    }
    if all(isinstance(value, (int, float)) for value in found):
        return sorted(found)
    return list(found)
