"""What figures share: their style, panels, legends and axes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reports.load import RecordedMethod, RecordedStudy

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
LEGEND_ROW = 0.2
"""Height in inches of each further row of a legend, by which a figure grows so that its panels do not shrink."""
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


def save(drawing: Drawing, folder: Path) -> Path:
    """Write a figure as SVG and PNG; the path of the SVG. The same results give the same SVG."""
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        if drawing.figure.get_layout_engine() is not None:
            drawing.figure.draw_without_rendering()  # lays it out, which each format would do again
            drawing.figure.set_layout_engine("none")
        png = folder / f"{drawing.name}.png"
        drawing.figure.savefig(png, dpi=160, pil_kwargs={"compress_level": 3})  # half the time of 6
        path = folder / f"{drawing.name}.svg"
        drawing.figure.savefig(path, metadata={"Date": None})
    return path


def panels_of(
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


def bars_height(study: RecordedStudy) -> float:
    return 1.0 + 0.32 * max(3, len(study.methods))


def name_rows(axes: Axes, methods: Sequence[RecordedMethod]) -> None:
    axes.set_yticks([method.position for method in methods], [method.name for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def legend(
    figure: Figure, methods: Iterable[RecordedMethod], extra: Sequence[Artist], lines: bool = False
) -> None:
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=colour_of(method),
            marker=marker_of(method),
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
    if figure.get_layout_engine() is None:
        figure.legend(handles=handles, loc="lower center", ncols=columns)
    else:
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def floor_line(line: Callable[..., object], floor: float | None) -> None:
    if floor is not None:
        line(100 * floor, color=INK, linestyle=":", linewidth=1.3)


def floor_handle() -> Line2D:
    return Line2D([], [], color=INK, linestyle=":", linewidth=1.3, label="noise floor")


def log_scale(axis: Axis) -> None:
    """Make an axis logarithmic, labelled in plain numbers, more of them the fewer powers of ten it spans."""
    if isinstance(axis, XAxis):
        axis.axes.set_xscale("log")
        low, high = axis.axes.get_xlim()
    else:
        axis.axes.set_yscale("log")
        low, high = axis.axes.get_ylim()
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 3.2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)


def say_at(axes: Axes, y: float, text: str) -> None:
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


def colour_of(method: RecordedMethod) -> str:
    return COLOURS[method.position % len(COLOURS)]


def marker_of(method: RecordedMethod) -> str:
    return MARKERS[method.position % len(MARKERS)]


def slug(study: RecordedStudy, method: RecordedMethod) -> str:
    """The method's name as a file name; with its place where that is not unique."""
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "_", m.name) for m in study.methods]
    name = names[method.position]
    return name if names.count(name) == 1 else f"{name}_{method.position}"
