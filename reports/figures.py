"""The figures, one function each. A figure that has nothing to show is None."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mu.metrics import METRICS
from reports.load import EPOCHS, Method, Request, Study
from reports.outcomes import outcome, retrained
from reports.stats import Spread, spread
from reports.tables import label

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4F24")
"""Okabe and Ito's, which colour-blind readers can tell apart, without those too pale for lines."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
"""One more than colours, so that no two of the first 56 methods look alike."""
INK, FAINT = "#222222", "#8A8A8A"
STYLE: dict[Any, Any] = {
    "font.family": "STIXGeneral",
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "text.parse_math": False,
    "svg.hashsalt": "musweep",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.use": True,
}
"""Names of a study may hold `$`, which must not be read as mathematics."""
PANEL = 3.4
"""Width of a panel in inches; three of them fill the page."""


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Args:
        name: File name without suffix.
        title: A few words.
        caption: How to read it.
        figure: What was drawn.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def all_figures(study: Study) -> dict[str, Drawing]:
    """Every figure that has something to show, by name."""
    with matplotlib.rc_context(STYLE):
        drawn = [draw(study) for draw in FIGURES]
    return {drawing.name: drawing for drawing in drawn if drawing is not None}


def save(drawing: Drawing, folder: Path) -> Path:
    """Write a figure as SVG and PNG; the path of the SVG. The same results give the same SVG."""
    with matplotlib.rc_context(STYLE):
        drawing.figure.savefig(folder / f"{drawing.name}.png", dpi=160)
        path = folder / f"{drawing.name}.svg"
        drawing.figure.savefig(path, metadata={"Date": None})
    return path


def over_forgetting(study: Study) -> Drawing | None:
    """Forget accuracy over epochs against the retrained models, from the longest runs (NatMU Fig. 1)."""
    curves = {
        (request.name, method.name): _curve(study, request, method)
        for request in study.requests
        for method in study.methods
    }
    if not any(curves.values()):
        return None
    figure, panels = _panels([request.name for request in study.requests], 2.9)
    starred = False
    for request, axes in zip(study.requests, panels):
        for method in study.methods:
            points = curves[request.name, method.name]
            if not points:
                continue
            epochs, colour = list(points), _colour(method)
            means = [100 * s.mean for s in points.values()]
            stds = [100 * (s.std or 0.0) for s in points.values()]
            axes.plot(epochs, means, color=colour, marker=_marker(method), markersize=3.5)
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
            if tuned in points and tuned != max(epochs):
                starred = True
                axes.plot(
                    tuned,
                    100 * points[tuned].mean,
                    marker="*",
                    markersize=13,
                    color=colour,
                    markeredgecolor="white",
                    zorder=5,
                )
        level = retrained(study, request).means.get("acc_forget")
        if level is not None:
            axes.axhline(100 * level, color=INK, linestyle="--", linewidth=1.2)
        if not any(curves[request.name, method.name] for method in study.methods):
            _say(axes, "no finished run")
        low, high = axes.get_ylim()
        high = min(high, 101.9)  # no tick above 100
        axes.set_ylim(min(low, high - 10), high)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Epoch")
    panels[0].set_ylabel("Forget accuracy (%)")
    extra = [Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="retrain")]
    if starred:
        extra.append(
            Line2D(
                [], [], color=FAINT, marker="*", markersize=11, linestyle="", label="tuned epochs"
            )
        )
    _legend(figure, study.methods, extra, lines=True)
    star = " A star marks the number of epochs that the search chose." if starred else ""
    return Drawing(
        "over_forgetting",
        "Forget accuracy during unlearning",
        "Accuracy on the forget set after each epoch of the longest runs of each method (sufficient training "
        "where there is any, else the tuned knobs): mean and standard deviation over the report seeds. The "
        f"dashed line is the mean of the retrained models; a curve that ends below it over-forgets.{star}",
        figure,
    )


def gaps(study: Study) -> Drawing | None:
    """AvgGap of every method with the noise floor."""
    results = {
        request.name: [outcome(study, request, method.name) for method in study.methods]
        for request in study.requests
    }
    if all(result.average is None for row in results.values() for result in row):
        return None
    figure, panels = _panels(
        [request.name for request in study.requests], _bars_height(study), sharey=True
    )
    for request, axes in zip(study.requests, panels):
        for method, result in zip(study.methods, results[request.name]):
            if result.average is None or result.per_run is None:
                _say_at(axes, method.position, result.reason or "no retrained model")
                continue
            colour = _colour(method)
            axes.barh(method.position, 100 * result.average, 0.62, color=colour, alpha=0.85)
            runs, std = result.per_run, result.per_run.std or 0.0
            axes.errorbar(
                100 * runs.mean,
                method.position,
                xerr=100 * std,
                fmt="o",
                color=INK,
                markersize=3.5,
                linewidth=1,
                capsize=2,
            )
        _floor(axes.axvline, retrained(study, request).average)
        _name_rows(axes, study.methods)
        axes.set_xlim(left=0)
        axes.set_xlabel("AvgGap (points)")
    _legend(
        figure,
        [],
        [
            Patch(color=FAINT, alpha=0.85, label="gap of means"),
            Line2D(
                [], [], color=INK, marker="o", markersize=4, label="gap of single runs, mean ± std"
            ),
            _floor_handle(),
        ],
    )
    return Drawing(
        "gaps",
        "AvgGap of every method",
        "Distance to the retrained models on the test view with tuned knobs, smaller is better. A bar that "
        "does not pass the dotted line is within the noise floor, the distance between retrained models.",
        figure,
    )


def transfer(study: Study) -> Drawing | None:
    """AvgGap with own and with transferred knobs side by side (NatMU Fig. 4a)."""
    results = {
        (source, target): [
            (
                outcome(study, study.request(target), method.name),
                outcome(study, study.request(target), method.name, "transfer", source),
            )
            for method in study.methods
        ]
        for source, target in study.transfers
    }
    if all(moved.average is None for row in results.values() for _, moved in row):
        return None
    titles = [f"{source} → {target}" for source, target in results]
    figure, panels = _panels(titles, _bars_height(study), sharey=True)
    for ((_, target), row), axes in zip(results.items(), panels):
        for method, (own, moved) in zip(study.methods, row):
            for result, shift, alpha in ((own, -0.19, 0.35), (moved, 0.19, 0.9)):
                y = method.position + shift
                if result.average is None:
                    _say_at(axes, y, result.reason or "no retrained model")
                else:
                    axes.barh(y, 100 * result.average, 0.34, color=_colour(method), alpha=alpha)
        _floor(axes.axvline, retrained(study, study.request(target)).average)
        _name_rows(axes, study.methods)
        axes.set_xlim(left=0)
        axes.set_xlabel("AvgGap (points)")
    handles = [
        Patch(color=FAINT, alpha=0.35, label="own knobs"),
        Patch(color=FAINT, alpha=0.9, label="transferred knobs"),
        _floor_handle(),
    ]
    _legend(figure, [], handles)
    return Drawing(
        "transfer",
        "Own and transferred knobs",
        "AvgGap on the target request (right of the arrow) with the knobs tuned on it, and with those tuned on "
        "the source (left of the arrow). A method is usable without a retrained model when both bars are short.",
        figure,
    )


def cost(study: Study) -> Drawing | None:
    """AvgGap against unlearning time."""
    results = {
        request.name: [outcome(study, request, method.name) for method in study.methods]
        for request in study.requests
    }
    if not any(r.average is not None and r.seconds for row in results.values() for r in row):
        return None
    figure, panels = _panels([request.name for request in study.requests], 2.9)
    for request, axes in zip(study.requests, panels):
        shown = False
        for method, result in zip(study.methods, results[request.name]):
            if result.average is None or not result.seconds:
                continue
            shown = True
            axes.plot(
                result.seconds,
                100 * result.average,
                color=_colour(method),
                marker=_marker(method),
                markersize=8,
                markeredgecolor="white",
                linestyle="",
            )
        reference = retrained(study, request)
        if reference.seconds:
            axes.axvline(reference.seconds, color=INK, linestyle="--", linewidth=1.2)
        _floor(axes.axhline, reference.average)
        if shown:
            _log_seconds(axes)
            _, high = axes.get_ylim()
            axes.set_ylim(-0.05 * high, 1.05 * high)
        else:
            _say(axes, "no finished run")
        axes.set_xlabel("Unlearning time (s)")
    panels[0].set_ylabel("AvgGap (points)")
    handles = [
        Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="retraining time"),
        _floor_handle(),
    ]
    _legend(figure, study.methods, handles)
    return Drawing(
        "cost",
        "Gap against time",
        "AvgGap on the test view against the median time of the method, on a logarithmic axis: lower left is "
        "better. Right of the dashed line a method is slower than retraining.",
        figure,
    )


def progress(study: Study) -> Drawing | None:
    """Best objective so far against trial number."""
    if not any(study.candidates.values()):
        return None
    in_percent = study.objective in METRICS and METRICS[study.objective].unit == "fraction"
    scale = 100.0 if in_percent else 1.0
    figure, panels = _panels([request.name for request in study.requests], 2.9)
    for request, axes in zip(study.requests, panels):
        for method in study.methods:
            found = study.candidates.get((request.name, method.name), ())
            if not found:
                continue
            numbers = [candidate.number for candidate in found]
            best = list(accumulate((scale * candidate.value for candidate in found), min))
            last = max(r.number or 0 for r in study.searched(request.name, method.name))
            axes.step(
                [*numbers, last], [*best, best[-1]], where="post", color=_colour(method), alpha=0.9
            )
            first = best.index(best[-1])
            axes.plot(
                numbers[first],
                best[first],
                color=_colour(method),
                marker=_marker(method),
                markersize=6,
            )
        if not any(study.candidates.get((request.name, m.name)) for m in study.methods):
            _say(axes, "no finished search trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Trial")
    panels[0].set_ylabel(f"Best {label(study.objective)}" + (" (points)" if in_percent else ""))
    _legend(figure, study.methods, [], lines=True)
    return Drawing(
        "progress",
        "Search progress",
        f"Smallest {label(study.objective)} on the validation view so far, by the number of the trial in its "
        "cell. The marker is the configuration that was chosen. A curve that still falls at its end would "
        "gain from a larger budget.",
        figure,
    )


FIGURES: tuple[Callable[[Study], Drawing | None], ...] = (
    over_forgetting,
    gaps,
    transfer,
    cost,
    progress,
)


def _curve(study: Study, request: Request, method: Method) -> dict[float, Spread]:
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


def _panels(
    titles: Sequence[str], height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A grid of panels, up to three beside each other."""
    columns = 2 if len(titles) == 4 else min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(PANEL * max(columns, 2), height * rows + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    panels = list(grid.flat)
    for spare in panels[len(titles) :]:
        spare.set_visible(False)
    for axes, title in zip(panels, titles):
        axes.set_title(title)
    return figure, panels[: len(titles)]


def _bars_height(study: Study) -> float:
    return 1.0 + 0.32 * max(3, len(study.methods))


def _name_rows(axes: Axes, methods: Sequence[Method]) -> None:
    axes.set_yticks([method.position for method in methods], [method.name for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _legend(
    figure: Figure, methods: Iterable[Method], extra: Sequence[Artist], lines: bool = False
) -> None:
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=_colour(method),
            marker=_marker(method),
            markersize=5 if lines else 7,
            linestyle="-" if lines else "",
            label=method.name,
        )
        for method in methods
    ]
    handles += extra
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = int(figure.get_figwidth() / (0.6 + 0.075 * longest))  # inches of handle and letters
    rows = math.ceil(len(handles) / max(1, fitting))
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def _floor(line: Callable[..., object], floor: float | None) -> None:
    if floor is not None:
        line(100 * floor, color=INK, linestyle=":", linewidth=1.3)


def _floor_handle() -> Line2D:
    return Line2D([], [], color=INK, linestyle=":", linewidth=1.3, label="noise floor")


def _log_seconds(axes: Axes) -> None:
    """A logarithmic axis labelled in plain numbers, more of them the fewer powers of ten it spans."""
    axes.set_xscale("log")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 3.2 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _say_at(axes: Axes, y: float, text: str) -> None:
    """Words where a bar would be."""
    axes.text(
        0.02,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        va="center",
        color=FAINT,
        fontsize=9.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        zorder=4,
    )


def _colour(method: Method) -> str:
    return COLOURS[method.position % len(COLOURS)]


def _marker(method: Method) -> str:
    return MARKERS[method.position % len(MARKERS)]
