"""Figures of results, one function each. A figure that has nothing to show is None."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.analysis.summaries import CellSummary, cell_summary, retrained
from reports.canvas import (
    FAINT,
    INK,
    Drawing,
    bars_height,
    colour_of,
    floor_handle,
    floor_line,
    legend,
    log_scale,
    marker_of,
    name_rows,
    panels_of,
    say,
    say_at,
)
from reports.load import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Spread, spread

RUN: dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "markersize": 3.2,
    "markerfacecolor": "white",
    "linestyle": "",
}
"""How a single run is drawn."""


def over_forgetting(study: RecordedStudy) -> Drawing | None:
    """Draw forget accuracy over epochs against the retrained models, from the longest runs (NatMU Fig. 1)."""
    curves = {
        (request.name, method.name): _curve(study, request, method)
        for request in study.requests
        for method in study.methods
    }
    if not any(curves.values()):
        return None
    figure, panels = panels_of([request.name for request in study.requests], 2.9)
    starred = False
    for request, axes in zip(study.requests, panels):
        for method in study.methods:
            if points := curves[request.name, method.name]:
                starred |= _draw_curve(study, request, method, points, axes)
        level = retrained(study, request).means.get("acc_forget")
        if level is not None:
            axes.axhline(100 * level, color=INK, linestyle="--", linewidth=1.2)
        if not any(curves[request.name, method.name] for method in study.methods):
            say(axes, "no finished run")
        low, high = axes.get_ylim()
        high = min(high, 101.9)  # no tick above 100
        axes.set_ylim(min(low, high - 10), high)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Epoch")
    panels[0].set_ylabel("Forget accuracy (%)")
    extra = [Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="retrain")]
    if starred:
        star_mark: dict[str, Any] = {
            "color": FAINT,
            "marker": "*",
            "markersize": 11,
            "linestyle": "",
        }
        extra.append(Line2D([], [], label="tuned epochs", **star_mark))
    legend(figure, study.methods, extra, lines=True)
    star = " A star marks the number of epochs that the search chose." if starred else ""
    return Drawing(
        "over_forgetting",
        "Forget accuracy during unlearning",
        "Accuracy on the forget set after each epoch of the longest runs of each method (sufficient training "
        "where there is any, else the tuned knobs): mean and standard deviation over the report seeds. The "
        f"dashed line is the mean of the retrained models; a curve that ends below it over-forgets.{star}",
        figure,
    )


def _draw_curve(
    study: RecordedStudy,
    request: RecordedRequest,
    method: RecordedMethod,
    points: dict[float, Spread],
    axes: Axes,
) -> bool:
    """Draw a method's forget accuracy by epoch, and return whether a star marks the tuned epochs."""
    epochs, colour = list(points), colour_of(method)
    means = [100 * s.mean for s in points.values()]
    stds = [100 * (s.std or 0.0) for s in points.values()]
    axes.plot(epochs, means, color=colour, marker=marker_of(method), markersize=3.5)
    axes.fill_between(
        epochs,
        [max(0.0, m - s) for m, s in zip(means, stds)],
        [min(100.0, m + s) for m, s in zip(means, stds)],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    chosen = study.chosen(request.name, method.name)
    tuned = chosen.knobs.get(EPOCHS) if chosen else None
    if tuned not in points or tuned == max(epochs):
        return False
    axes.plot(
        tuned,
        100 * points[tuned].mean,
        marker="*",
        markersize=13,
        color=colour,
        markeredgecolor="white",
        zorder=5,
    )
    return True


def gaps(study: RecordedStudy) -> Drawing | None:
    """AvgGap of every method with the noise floor."""
    results = {
        request.name: [cell_summary(study, request, method.name) for method in study.methods]
        for request in study.requests
    }
    if all(result.average is None for row in results.values() for result in row):
        return None
    figure, panels = panels_of(
        [request.name for request in study.requests], bars_height(study), sharey=True
    )
    for request, axes in zip(study.requests, panels):
        for method, result in zip(study.methods, results[request.name]):
            if result.average is None:
                say_at(axes, method.position, result.reason or "no retrained model")
                continue
            average, interval = result.average, result.average_interval
            low, high = interval or (average, average)
            axes.barh(method.position, 100 * average, 0.62, color=colour_of(method), alpha=0.85)
            axes.errorbar(
                100 * average,
                method.position,
                xerr=[[100 * (average - low)], [100 * (high - average)]],
                color=INK,
                linewidth=1,
                capsize=2,
            )
            runs = [100 * gap for gap in result.by_seed.values()]
            axes.plot(runs, [method.position + 0.2] * len(runs), **RUN)
        floor = retrained(study, request).average
        floor_line(axes.axvline, floor)
        name_rows(axes, study.methods)
        axes.set_xlim(0, _reach(results[request.name], floor))
        axes.set_xlabel("AvgGap (points)")
    legend(
        figure,
        [],
        [
            Patch(color=FAINT, alpha=0.85, label="gap of means"),
            Line2D([], [], color=INK, linewidth=1, label="its 95 % interval"),
            Line2D([], [], **RUN, label="single runs"),
            floor_handle(),
        ],
    )
    return Drawing(
        "gaps",
        "AvgGap of every method",
        "Distance to the retrained models on the test view with tuned knobs, smaller is better. A bar that "
        "does not pass the dotted line is within the noise floor, the distance between retrained models. The "
        "gap of a single run is on average above that of the means, in which runs cancel. Lines that reach the "
        "edge go on: with few seeds little is certain.",
        figure,
    )


def cost(study: RecordedStudy) -> Drawing | None:
    """AvgGap against unlearning time."""
    results = {
        request.name: [cell_summary(study, request, method.name) for method in study.methods]
        for request in study.requests
    }
    if not any(r.average is not None and r.seconds for row in results.values() for r in row):
        return None
    figure, panels = panels_of([request.name for request in study.requests], 2.9)
    for request, axes in zip(study.requests, panels):
        shown = False
        for method, result in zip(study.methods, results[request.name]):
            if result.average is None or not result.seconds:
                continue
            shown = True
            axes.plot(
                result.seconds,
                100 * result.average,
                color=colour_of(method),
                marker=marker_of(method),
                markersize=8,
                markeredgecolor="white",
                linestyle="",
            )
        reference = retrained(study, request)
        if reference.seconds:
            axes.axvline(reference.seconds, color=INK, linestyle="--", linewidth=1.2)
        floor_line(axes.axhline, reference.average)
        if shown:
            log_scale(axes.xaxis)
            axes.margins(x=0.08)
            _, high = axes.get_ylim()
            axes.set_ylim(-0.05 * high, 1.05 * high)
        else:
            say(axes, "no finished run")
        axes.set_xlabel("Unlearning time (s)")
    panels[0].set_ylabel("AvgGap (points)")
    handles = [
        Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="retraining time"),
        floor_handle(),
    ]
    legend(figure, study.methods, handles)
    return Drawing(
        "cost",
        "Gap against time",
        "AvgGap on the test view against the median time of the method, on a logarithmic axis: lower left is "
        "better. Right of the dashed line a method is slower than retraining.",
        figure,
    )


def _reach(results: Sequence[CellSummary], floor: float | None) -> float | None:
    """End of an axis that shows every gap and run, and the ends of intervals that are not far beyond."""
    shown = [gap for r in results for gap in (r.average, *r.by_seed.values()) if gap is not None]
    if not shown:
        return None
    ends = [r.average_interval.high for r in results if r.average_interval is not None]
    largest = max([*shown, floor or 0.0])
    return 100 * min(1.08 * max([largest, *ends]), 1.5 * largest) or None


def _curve(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> dict[float, Spread]:
    """Epoch to forget accuracy over the seeds of the longest runs."""
    runs = study.cell("sufficient", request.name, method.name).finished
    runs = runs or study.cell("confirm", request.name, method.name).finished
    values: dict[float, list[float]] = defaultdict(list)
    for record in runs:
        for point in record.curve:
            values[point.get("epoch", math.nan)].append(point.get("acc_forget", math.nan))
    return {
        epoch: s
        for epoch, at_epoch in sorted(values.items())
        if math.isfinite(epoch) and (s := spread(at_epoch)) is not None
    }
