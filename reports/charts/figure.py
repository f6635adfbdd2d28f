"""``Figure``: one chart with its panels and data; the colours of methods; and how files are made of it.

A chart is drawn for a panel. The page asks for the chart of no panel in particular: it has the same specification, in
which the panel is a parameter, so that one specification serves any number of requests.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import altair as alt
import pandas as pd
import vl_convert
from altair.utils.schemapi import debug_mode

from reports.load import RecordedStudy

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#94632F")
"""Okabe and Ito's, which colour-blind readers can tell apart, without those that a white or a dark page swallows."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
"""One fewer than colours, so that no two of the first 42 methods look alike."""
INK, FONT = "#222222", "Liberation Sans, Arial, Helvetica, sans-serif"
"""Fonts of equal widths: wherever an SVG is opened, its text is as wide as it was laid out."""
WIDTH, HEIGHT = 270, 200
"""Of a panel in a file."""
INKED: dict[str, Any] = {"color": alt.ExprRef("ink")}
"""Style of marks that have the colour of text, which is another on a dark page."""
CHOSEN = "!length(chosen) || indexof(chosen, datum.method) >= 0"
"""Whether a method is among those that a reader has chosen; nobody has in a file."""
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        **{"gridColor": "#8883", "domainColor": "#888", "tickColor": "#888"},
        **{"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "labelLimit": 140},
    },
    "legend": {
        **{"labelColor": INK, "titleColor": INK, "orient": "bottom", "columns": 6},
        **{"labelLimit": 130, "symbolLimit": 60, "symbolOpacity": 1},
    },
    "title": {"color": INK, "fontSize": 12, "fontWeight": "bold", "anchor": "start", "limit": 260},
}
Chart: TypeAlias = Any
"""Altair's ``Chart`` or ``LayerChart``."""
Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Args:
        name: File name without suffix.
        title: A few words.
        caption: How to read it.
        draw: Makes the chart of a panel; of None, a chart in which the panel is a parameter.
        panels: Name to title of every panel.
        data: Name to rows of the data that the charts name.
        alike: Whether the charts differ in their rows alone, so that the page needs but one of them.
        field: Column that says what panel a row is of, where the charts are alike.
        method: The method it is of, where it is of one alone.
        height: Of a panel.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[str | None], Chart]
    panels: Mapping[str, str]
    data: Frames
    alike: bool = True
    field: str = "forget"
    method: str = ""
    height: int = HEIGHT

    def specs(self) -> list[dict[str, Any]]:
        """Return the specifications of the page: of each panel, or one for all where they are alike."""
        drawn = [None] if self.alike else list(self.panels)
        with debug_mode(False):  # checking them takes longer than all else; a test does
            return [_plain(self.draw(panel)) for panel in drawn]

    def whole(self) -> dict[str, Any]:
        """Return the specification of a file, with all panels and the data."""
        size = {"width": WIDTH, "height": self.height}
        with debug_mode(False):
            drawn = (
                self.draw(panel).properties(title=t, **size) for panel, t in self.panels.items()
            )
            spec = _plain(alt.concat(*drawn, columns=2 if len(self.panels) == 4 else 3))
        spec["params"] = [*spec.get("params", []), *_params()]
        data = {name: records(frame) for name, frame in self.data.items()}
        spec["datasets"] = {**spec.get("datasets", {}), **data}
        return {**spec, "config": CONFIG}

    def svg(self) -> str:
        """Return the figure as SVG; the same results give the same text."""
        return _numbered(vl_convert.vegalite_to_svg(self.whole(), allowed_base_urls=[]))

    def save(self, folder: Path) -> None:
        """Write the figure as SVG, PNG and PDF."""
        svg = self.svg()
        (folder / f"{self.name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))
        (folder / f"{self.name}.pdf").write_bytes(vl_convert.svg_to_pdf(svg))


def _params() -> list[dict[str, Any]]:
    return [{"name": "chosen", "value": []}, {"name": "ink", "value": INK}]


def _plain(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart as JSON has it, without what Altair adds of its own."""
    spec = chart.to_dict(validate=False)
    return {key: value for key, value in spec.items() if key not in ("config", "$schema")}


def _numbered(svg: str) -> str:
    """Count the marks of an SVG from 1: Vega goes on counting from one chart to the next."""
    seen: dict[str, str] = {}

    def again(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"{match[1]}{len(seen) + 1}")

    return re.sub(r"\b(clip|gradient_)\d+\b(?=[\")])", again, svg)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as JSON has them, None where there is no number."""
    return json.loads(frame.to_json(orient="records", double_precision=10))


def rows(name: str, panel: str | None, field: str = "forget") -> alt.Chart:
    """Return a chart with the rows of one panel."""
    value = "panel" if panel is None else json.dumps(panel)
    chart = alt.Chart(alt.NamedData(name))
    return chart.transform_filter(f"datum[{json.dumps(field)}] === {value}")


def look(position: int) -> tuple[str, str]:
    """Return colour and shape of the method, or the request, in a place of the study."""
    return COLOURS[position % len(COLOURS)], SHAPES[position % len(SHAPES)]


def tip(column: str, form: str = ".1f") -> alt.Tooltip:
    """Return a number of a row as the tooltip shows it."""
    return alt.Tooltip(f"{column}:Q", format=form)


def looks(study: RecordedStudy) -> list[tuple[str, str, str]]:
    """Return name, colour and shape of every method and of both references."""
    methods = [(method.name, *look(method.position)) for method in study.methods]
    return [*methods, ("original", "#888888", "circle"), ("retrain", "#888888", "diamond")]


def colour(study: RecordedStudy, panel: str | None) -> alt.Color:
    """Return the colour of a row's method. The page has one legend of its own for all charts."""
    domain, colours, _ = zip(*looks(study))
    legend = None if panel is None else alt.Legend(title=None, values=_methods(study))
    return alt.Color("method:N", legend=legend).scale(domain=domain, range=colours)


def shape(study: RecordedStudy, panel: str | None) -> alt.Shape:
    """Return the shape of a row's method."""
    domain, _, shapes = zip(*looks(study))
    legend = None if panel is None else alt.Legend(title=None, values=_methods(study))
    return alt.Shape("method:N", legend=legend).scale(domain=domain, range=shapes)


def _methods(study: RecordedStudy) -> list[str]:
    return [method.name for method in study.methods]


def span(values: Iterable[float], pad: float = 0.05, log: bool = False) -> list[float] | None:
    """Return the ends of an axis that shows all finite values; None without any."""
    finite = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if log:
        room = (high / low) ** pad if high > low else 1.5
        return [low / room, high * room]
    room = pad * (high - low) or 1.0
    return [low - room, high + room]


def slug(known: Sequence[str], position: int) -> str:
    """Return a name as a file name of at most 60 letters; with its place where that is not unique."""
    short = [re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60] for name in known]
    name = short[position]
    return name if short.count(name) == 1 else f"{name}_{position}"
