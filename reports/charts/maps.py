"""Charts with a shaded cell for each pair: knobs on requests, forgotten samples as classes, settings of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from reports.analysis.spaces import Span, spans
from reports.analysis.summaries import cell_summary, unit
from reports.charts.figure import Chart, Figure, rows, slug, tip
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables.classes import MOST, class_name, runs_with_confusions
from reports.tables.points import is_grid, metrics_of
from reports.text import count, knob_value, label, searched_view


def transfer_matrix(study: RecordedStudy) -> Figure | None:
    """Draw AvgGap with the knobs of every other request, a panel for each method."""
    data = pd.DataFrame(_matrix(study))
    if data.empty:
        return None
    worst = data["regret"].abs().max()
    worst = worst if worst > 0 else 1.0
    order = [request.name for request in study.requests]

    def draw(panel: str | None) -> Chart:
        place = {
            "x": alt.X("target:N", title="Used on", sort=order),
            "y": alt.Y("source:N", title="Tuned on", sort=order),
        }
        here = rows("matrix", panel, "method")
        tint = alt.Color("regret:Q", title="Regret (points)").scale(
            domain=[-worst, 0, worst], range=["#56B4E9", "#ffffff", "#E69F00"], interpolate="rgb"
        )
        tips = ["source:N", "target:N", tip("gap", ".2f"), tip("regret", ".2f")]
        text = here.mark_text(color=alt.ExprRef("isValid(datum.regret) ? '#222' : ink")).encode(
            **place, text=alt.Text("gap:Q", format=".2f")
        )
        return alt.layer(here.mark_rect().encode(**place, color=tint, tooltip=tips), text)

    return Figure(
        "transfer_matrix",
        "Knobs of every request on every other",
        "AvgGap in percent points on the request of the column with the knobs tuned on that of the row. Colour is the "
        "regret against the own knobs of the column, orange where the foreign ones do worse; there is none on the "
        "diagonal. What was not asked for or did not finish is empty.",
        draw,
        {name: name for name in data["method"].unique()},
        {"matrix": data},
        field="method",
    )


def taken_for(study: RecordedStudy) -> Figure | None:
    """Draw the share of forgotten samples that is predicted as each class (UGradSL Fig. 5)."""
    data = pd.DataFrame(row for request in study.requests for row in _taken(study, request))
    if data.empty:
        return None
    order = ["retrain", "original", *(method.name for method in study.methods)]

    def draw(panel: str | None) -> Chart:
        here = rows("taken", panel)
        place = {
            "x": alt.X("class:N", title="Predicted class", sort=None),
            "y": alt.Y("method:N", title=None, sort=order),
        }
        tint = alt.Color("share:Q", title="Share (%)").scale(
            domain=[0, 100], range=["#ffffff", "#56B4E9", "#0072B2"], interpolate="rgb"
        )
        text = here.transform_filter("datum.share >= 0.5").mark_text(fontSize=9)
        light = alt.when("datum.share > 60").then(alt.value("white")).otherwise(alt.value("#222"))
        tips = ["method:N", "class:N", tip("share")]
        return alt.layer(
            here.mark_rect().encode(**place, color=tint, tooltip=tips),
            text.encode(**place, text=alt.Text("share:Q", format=".0f"), color=light),
        )

    return Figure(
        "taken_for",
        "What forgotten samples are taken for",
        "Share of the forgotten samples that is predicted as each class, in percent, averaged over the report seeds, with "
        "tuned knobs. A row should look like that of the retrained models: forgotten samples that all go to one other "
        "class stand out as much as remembered ones (the Streisand effect).",
        draw,
        {name: name for name in data["forget"].unique()},
        {"taken": data},
    )


def grids(study: RecordedStudy) -> list[Figure]:
    """Draw a heat map of each metric on each request, of each method whose grid is over two knobs."""
    figures = []
    for method in study.methods if is_grid(study) else ():
        two = spans(study, method)
        data = pd.DataFrame(_points(study, method, two) if len(two) == 2 else ())
        if data.empty:
            continue
        figures.append(
            Figure(
                f"grid_{slug([m.name for m in study.methods], method.position)}",
                f"Grid of {method.name} over {two[0].knob} and {two[1].knob}",
                f"Means over {count(len(study.search_seeds), 'search seed')} on the {searched_view(study)}, fractions in "
                "percent; a point that did not finish is empty.",
                _map(f"grid_{method.position}", two),
                {panel: panel for panel in data["panel"].unique()},
                {f"grid_{method.position}": data},
                field="panel",
                method=method.name,
            )
        )
    return figures


def _map(name: str, two: Sequence[Span]) -> Callable[[str | None], Chart]:
    def draw(panel: str | None) -> Chart:
        here = rows(name, panel, "panel")
        place = {
            "x": alt.X("x:N", title=two[0].knob, sort=None),
            "y": alt.Y(
                "y:N", title=two[1].knob, sort=alt.EncodingSortField("at", order="descending")
            ),
        }
        tint = alt.Color("value:Q", title=None).scale(scheme="viridis")
        middle = here.transform_joinaggregate(low="min(value)", high="max(value)")
        dark = alt.when("datum.value > (datum.low + datum.high) / 2")
        words = middle.mark_text(fontSize=9).encode(
            **place,
            text=alt.Text("value:Q", format=".3~g"),
            color=dark.then(alt.value("black")).otherwise(alt.value("white")),
        )
        return alt.layer(here.mark_rect().encode(**place, color=tint), words).resolve_scale(
            color="independent"
        )

    return draw


def _matrix(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    """Yield AvgGap by the request tuned on and used on, and regret, in points; where there are foreign knobs at all."""
    targets = dict.fromkeys(target for _, target in study.transfers)
    sources = dict.fromkeys(name for pair in study.transfers for name in pair)
    for method in study.methods:
        cells = []
        for target in targets:
            request = study.request(target)
            own = cell_summary(study, request, method.name).average
            for source in sources:
                moved = cell_summary(study, request, method.name, "transfer", source).average
                gap = own if source == target else moved
                if gap is not None:
                    compared = source != target and own is not None
                    regret = 100 * (gap - (own or 0.0)) if compared else None
                    place = {"method": method.name, "source": source, "target": target}
                    cells.append({**place, "gap": 100 * gap, "regret": regret})
        yield from cells if any(cell["regret"] is not None for cell in cells) else ()


def _taken(study: RecordedStudy, request: RecordedRequest) -> Iterator[dict[str, Any]]:
    """Yield the share of D_f predicted as each class, in percent, averaged over runs; retrained models first."""
    runs = runs_with_confusions(study, request)
    cells = [cell for records in runs.values() for r in records for cell in r.confusions["forget"]]
    known = study.line.get("data", {}).get("classes") or 0
    classes = max([int(known), *(1 + max(cell[:2]) for cell in cells)], default=0)
    shares: dict[str, np.ndarray] = {}
    for name in sorted(runs, key=lambda name: name != "retrain"):
        counts = np.zeros((len(runs[name]), classes))
        for row, record in zip(counts, runs[name]):
            for _, predicted, samples in record.confusions["forget"]:
                row[predicted] += samples
        shares[name] = 100 * (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    if not shares or not math.isfinite(sum(share.sum() for share in shares.values())):
        return
    most = np.max(list(shares.values()), axis=0)
    for at in sorted(np.argsort(-most, kind="stable")[:MOST].tolist()):
        for name, share in shares.items():
            head = {"forget": request.name, "method": name, "class": class_name(study, at)}
            yield {**head, "share": float(share[at])}


def _points(
    study: RecordedStudy, method: RecordedMethod, two: Sequence[Span]
) -> Iterator[dict[str, Any]]:
    """Yield each metric of each finished point of a grid over two knobs, smaller settings first."""
    names = metrics_of(study)
    for request in study.requests:
        tried = study.candidates.get((request.name, method.name), ())
        ordered = sorted(tried, key=lambda c: [span.place(c.knobs[span.knob]) for span in two])
        for name in names:
            factor = 100.0 if unit(name) == "fraction" else 1.0
            for c in ordered if any(name in c.metrics for c in tried) else ():
                x, y = (c.knobs[span.knob] for span in two)
                value = factor * c.metrics[name] if name in c.metrics else None
                place = {"x": knob_value(x), "y": knob_value(y), "at": two[1].place(y)}
                yield {"panel": f"{request.name}: {label(name)}", **place, "value": value}
