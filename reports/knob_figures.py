"""Figures on the search: progress, whether the budget was enough, and how the objective answers to each knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mu.selection import Candidate
from reports.analysis import tuning_check
from reports.analysis.importance import importance, mean_shares
from reports.analysis.spaces import Span, spans
from reports.analysis.summaries import unit
from reports.canvas import (
    COLOURS,
    INK,
    MARKERS,
    PANEL,
    Drawing,
    colour_of,
    legend,
    log_scale,
    marker_of,
    panels_of,
    say,
    slug,
)
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.rankings import ranks
from reports.text import knob_value, label, searched_view

WIDE = 20.0
"""Positive values whose largest is so many times their smallest are drawn on a logarithmic axis."""
COLUMNS = 4
"""Panels beside each other."""
CROWDED = 22
"""Letters of names below an axis, beyond which they are turned."""

RequestCandidates = Sequence[tuple[RecordedRequest, Sequence[Candidate]]]


def expected_best(study: RecordedStudy) -> Drawing | None:
    """Best objective that so many trials can be expected to find."""
    if not any(len(found) > 1 for found in study.candidates.values()):
        return None
    scale, in_unit = _scale(study)
    curves = {
        (request.name, method.name): [
            tuning_check.best_of(values, n) for n in range(1, len(values) + 1)
        ]
        for request in study.requests
        for method in study.methods
        if len(values := tuning_check.values_of(study, request.name, method.name)) > 1
    }
    wide = _wide(
        [end for curve in curves.values() for best in curve for end in (best.low, best.high)]
    )
    figure, panels = panels_of([request.name for request in study.requests], 2.9)
    for request, axes in zip(study.requests, panels):
        for method in study.methods:
            curve = curves.get((request.name, method.name), [])
            counts, colour = range(1, len(curve) + 1), colour_of(method)
            means, lows, highs = (
                [scale * value for value in values]
                for values in (
                    [best.expected for best in curve],
                    [best.low for best in curve],
                    [best.high for best in curve],
                )
            )
            axes.plot(counts, means, color=colour, marker=marker_of(method), markevery=[-1])
            axes.fill_between(
                counts, lows, highs, color=colour, alpha=0.6 / (3 + len(study.methods)), linewidth=0
            )
        if not any((request.name, method.name) in curves for method in study.methods):
            say(axes, "fewer than two finished trials")
        elif wide:
            log_scale(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Finished trials")
    panels[0].set_ylabel(f"Expected best {label(study.objective)}{in_unit}")
    legend(figure, study.methods, [], lines=True)
    return Drawing(
        "expected_best",
        "Expected best objective against budget",
        f"Smallest {label(study.objective)} on the {searched_view(study)} that so many trials find on average, had they "
        "come in another order (Dodge et al. 2019: draws with replacement from the finished trials), and where "
        "95 % of orders lie. A method whose curve still falls at its end was not tuned enough; where curves "
        "cross, the ranking depends on the budget.",
        figure,
    )


def progress(study: RecordedStudy) -> Drawing | None:
    """Best objective so far against trial number."""
    if not any(study.candidates.values()):
        return None
    scale, in_unit = _scale(study)
    figure, panels = panels_of([request.name for request in study.requests], 2.9)
    for request, axes in zip(study.requests, panels):
        for method in study.methods:
            found = study.candidates.get((request.name, method.name), ())
            if not found:
                continue
            numbers = [candidate.number for candidate in found]
            best = list(accumulate((scale * candidate.value for candidate in found), min))
            last = max(r.number or 0 for r in study.searched(request.name, method.name))
            axes.step(
                [*numbers, last],
                [*best, best[-1]],
                where="post",
                color=colour_of(method),
                alpha=0.9,
            )
            first = best.index(best[-1])
            axes.plot(
                numbers[first],
                best[first],
                color=colour_of(method),
                marker=marker_of(method),
                markersize=6,
            )
        if not any(study.candidates.get((request.name, m.name)) for m in study.methods):
            say(axes, "no finished search trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Trial")
    panels[0].set_ylabel(f"Best {label(study.objective)}{in_unit}")
    legend(figure, study.methods, [], lines=True)
    return Drawing(
        "progress",
        "Search progress",
        f"Smallest {label(study.objective)} on the {searched_view(study)} so far, by the number of the trial in its "
        "cell. The marker is the configuration that was chosen. A curve that still falls at its end would "
        "gain from a larger budget.",
        figure,
    )


def responses(study: RecordedStudy) -> list[Drawing]:
    """For each method, the objective against every searched knob, and over its two most important ones."""
    drawn = []
    for method in study.methods:
        cells = [
            (request, found)
            for request in study.requests
            if (found := study.candidates.get((request.name, method.name), ()))
        ]
        known = {span.knob: span for span in spans(study, method)}
        if known and cells:
            drawn.append(_response(study, method, known, cells))
    return drawn


def _response(
    study: RecordedStudy,
    method: RecordedMethod,
    known: Mapping[str, Span],
    cells: RequestCandidates,
) -> Drawing:
    ordered = [known[knob] for knob in mean_shares(study, method)]
    two = ordered[:2] if len(ordered) > 1 else []
    figure, singles, doubles = _response_panels(len(ordered), len(cells) if two else 0)
    _single_panels(study, method, ordered, cells, singles)
    for axes, (request, found) in zip(doubles, cells):
        _double_panel(study, request, method, two, found, axes)
    _response_legend(study, figure, [request for request, _ in cells])
    across = [*ordered, *(two[:1] * len(doubles))]
    for span, axes in zip(across, (*singles, *doubles)):
        axes.xaxis.set_label_coords(0.5, -0.29 if _crowded(span) else -0.2)
        axes.yaxis.set_label_coords(-0.25, 0.5)
    for axes in doubles:
        if any(len(knob_value(choice)) > 5 for choice in two[1].choices):
            axes.yaxis.set_label_coords(-0.36, 0.5)
    below = (
        f" Below, the same trials over {two[0].knob} and {two[1].knob}, the most important two, for each "
        "request: the darker, the better by rank."
        if two
        else ""
    )
    return Drawing(
        f"response_{slug(study, method)}",
        f"Response to the knobs of {method.name}",
        f"{label(study.objective)} of every finished search trial against each searched knob, the most "
        f"important first; a point is a trial, whose other knobs differ, too.{below}",
        figure,
    )


def _response_panels(single: int, double: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """Return a figure with `single` panels of one knob and, in rows below them, `double` panels of two."""
    columns = min(COLUMNS, max(2, single, double))
    upper = math.ceil(single / columns)
    rows = upper + math.ceil(double / columns)
    width, height = PANEL * 0.82 * columns, 2.3 * rows + 0.4
    # Laid out by hand, also titles and labels, which halves the time: there is one for each method.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.85 / width,
        right=1 - 0.15 / width,
        bottom=0.9 / height,
        top=1 - 0.3 / height,
        wspace=0.48,
        hspace=0.62,
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    singles, doubles = panels[:single], panels[upper * columns :][:double]
    for spare in panels:
        if spare not in singles and spare not in doubles:
            spare.set_axis_off()
    assert len(singles) + len(doubles) == single + double
    return figure, singles, doubles


def _response_legend(
    study: RecordedStudy, figure: Figure, requests: Sequence[RecordedRequest]
) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=_request_colour(study, request),
            marker=_request_marker(study, request),
            linestyle="",
            markersize=5,
            label=request.name,
        )
        for request in requests
    ]
    chosen = Line2D(
        [],
        [],
        color="white",
        markeredgecolor=INK,
        marker="*",
        markersize=11,
        linestyle="",
        label="chosen",
    )
    legend(figure, [], [*handles, chosen])


def _single_panels(
    study: RecordedStudy,
    method: RecordedMethod,
    ordered: Sequence[Span],
    cells: RequestCandidates,
    panels: Sequence[Axes],
) -> None:
    """The objective against one knob each."""
    scale, in_unit = _scale(study)
    wide = _wide([scale * c.value for _, found in cells for c in found])
    for span, axes in zip(ordered, panels):
        for request, found in cells:
            places = [span.place(candidate.knobs.get(span.knob)) for candidate in found]
            heights = [scale * candidate.value for candidate in found]
            colour, marker = _request_colour(study, request), _request_marker(study, request)
            axes.plot(
                places,
                heights,
                color=colour,
                marker=marker,
                markersize=3.6,
                linestyle="",
                alpha=0.6,
            )
            best = study.chosen(request.name, method.name)
            if best is not None:
                axes.plot(
                    span.place(best.knobs.get(span.knob)),
                    scale * best.value,
                    marker="*",
                    markersize=11,
                    color=colour,
                    markeredgecolor=INK,
                    markeredgewidth=0.7,
                    linestyle="",
                    zorder=4,
                )
        _knob_axis(axes.xaxis, span)
        if wide:
            log_scale(axes.yaxis)
        shares = [s for r, _ in cells if (s := importance(study, r, method).shares)]
        share = mean_shares(study, method)[span.knob]
        axes.set_title(f"importance {100 * share:.0f} %" if shares else "", fontsize=10, y=1.02)
    panels[0].set_ylabel(f"{label(study.objective)}{in_unit}")


def _double_panel(
    study: RecordedStudy,
    request: RecordedRequest,
    method: RecordedMethod,
    two: Sequence[Span],
    found: Sequence[Candidate],
    axes: Axes,
) -> None:
    """Trials over two knobs, shaded by the rank of their objective."""
    x, y = ([span.place(c.knobs.get(span.knob)) for c in found] for span in two)
    order = ranks([candidate.value for candidate in found]) / len(found)
    worst_first = np.argsort(-order)
    axes.scatter(
        np.asarray(x)[worst_first],
        np.asarray(y)[worst_first],
        c=order[worst_first],
        cmap="viridis",
        vmin=0,
        vmax=1,
        s=20,
        linewidths=0,
    )
    best = study.chosen(request.name, method.name)
    if best is not None:
        place = [span.place(best.knobs.get(span.knob)) for span in two]
        axes.plot(
            *place, marker="*", markersize=11, color="white", markeredgecolor=INK, linestyle=""
        )
    for axis, span in zip((axes.xaxis, axes.yaxis), two):
        _knob_axis(axis, span)
    axes.set_title(request.name, fontsize=10, y=1.02)


def _knob_axis(axis: Axis, span: Span) -> None:
    axis.set_label_text(span.knob)
    if span.choices:
        names = [knob_value(choice) for choice in span.choices]
        axis.set_ticks(range(len(names)), names)
        if isinstance(axis, XAxis) and _crowded(span):
            axis.set_tick_params(rotation=30, labelsize="small")
        limits = (-0.5, len(span.choices) - 0.5)
    else:
        limits = (span.low, span.high)
        if span.log:
            limits = (
                span.low * (span.low / span.high) ** 0.05,
                span.high * (span.high / span.low) ** 0.05,
            )
        else:
            edge = 0.05 * (span.high - span.low) or 1.0
            limits = (span.low - edge, span.high + edge)
    (axis.axes.set_xlim if isinstance(axis, XAxis) else axis.axes.set_ylim)(limits)
    if span.log:
        log_scale(axis)
    elif not span.choices:
        axis.set_major_locator(MaxNLocator(4))


def _crowded(span: Span) -> bool:
    return sum(len(knob_value(choice)) for choice in span.choices) > CROWDED


def _scale(study: RecordedStudy) -> tuple[float, str]:
    """What the objective is multiplied by, and the unit to name."""
    return (100.0, " (points)") if unit(study.objective) == "fraction" else (1.0, "")


def _wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > WIDE * min(values)


def _request_colour(study: RecordedStudy, request: RecordedRequest) -> str:
    return COLOURS[study.requests.index(request) % len(COLOURS)]


def _request_marker(study: RecordedStudy, request: RecordedRequest) -> str:
    return MARKERS[study.requests.index(request) % len(MARKERS)]
