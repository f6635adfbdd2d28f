"""Charts of results: what is gained at which cost, with which knobs, and what over-forgetting and transfer do."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import altair as alt
import pandas as pd

from reports import frames
from reports.analysis.summaries import retrained, scale
from reports.charts.figure import (
    CHOSEN,
    HEIGHT,
    INKED,
    Chart,
    Figure,
    colour,
    rows,
    shape,
    span,
    tip,
)
from reports.load import EPOCHS, RecordedStudy
from reports.statistics.intervals import spread

LOW, HIGH = -50.0, 120.0
"""Ends of an axis of recovery in percent, at most."""
KNOBS = {
    "recovery_tuned": "tuned",
    "recovery_transferred": "transferred",
    "recovery_defaults": "defaults",
    "recovery_longer": "more epochs",
}
"""Column of ``frames.methods`` to whose knobs they are."""
LEVELS = alt.InlineData([{"y": 0, "level": "doing nothing"}, {"y": 100, "level": "retraining"}])
BRUSH = alt.selection_interval(name="brush")
DIM = alt.when(CHOSEN).then(alt.value(1)).otherwise(alt.value(0.12))


def measured(study: RecordedStudy) -> dict[str, str]:
    """Return the requests on which there is something to measure, as panels."""
    return {r.name: r.name for r in study.requests if scale(study, r).measurable}


def cells(study: RecordedStudy) -> pd.DataFrame:
    """Return recovery, its interval and the time of every cell, in percent; `front` says that no other has more for less."""
    frame = frames.methods(study)
    columns = ["recovery_tuned", "recovery_tuned_low", "recovery_tuned_high", "time_ratio"]
    made = frame[["forget", "method", "role"]].assign(**(100 * frame[columns].astype(float)))
    made = made.set_axis([*made.columns[:3], "recovery", "low", "high", "time"], axis=1)
    known = made.dropna(subset=["recovery", "time"]).sort_values(
        ["time", "recovery"], ascending=[True, False]
    )
    best = known.groupby("forget")["recovery"].cummax()
    before = best.groupby(known["forget"]).shift(fill_value=-math.inf)
    made["front"] = (known["recovery"] > before).reindex(made.index, fill_value=False)
    return made


def tradeoff(study: RecordedStudy) -> Figure | None:
    """Draw time against recovery, with the methods that no other beats in both, original and retrained models."""
    data, panels = cells(study), measured(study)
    shown = data[(data["role"] == "method") & data["recovery"].notna() & data["time"].notna()]
    if shown.empty or not panels:
        return None
    domain, ends = span([*shown["time"], 100.0], 0.08, log=True), _ends(shown)
    recovery = alt.Y("recovery:Q", title="Recovery (%)").scale(domain=ends, clamp=True)
    data = data.assign(label=_labels(shown, 0.08 * (ends[1] - ends[0])))
    few = len(study.methods) <= 10

    def draw(panel: str | None) -> Chart:
        time = alt.X("time:Q", title="Time, % of retraining").scale(
            type="log", domain=domain, clamp=True
        )
        here = rows("cells", panel).transform_filter("isValid(datum.recovery)")
        timed = here.transform_filter("isValid(datum.time)")
        methods = timed.transform_filter("datum.role === 'method'")
        looks = {"x": time, "y": recovery, "color": colour(study, panel), "opacity": DIM}
        tips = ["method:N", *(tip(name) for name in ("recovery", "low", "high", "time"))]
        points = methods.mark_point(filled=True, size=110, strokeWidth=0).encode(
            **looks, shape=shape(study, panel), tooltip=tips
        )
        front = timed.transform_filter("datum.front").mark_line(
            interpolate="step-after", strokeDash=[4, 3], opacity=0.6, **INKED
        )
        layers = [
            *_levels(),
            front.encode(x=time, y=recovery, order="time:Q"),
            methods.mark_rule(strokeWidth=1.5, clip=True).encode(**looks, y2="high:Q"),
            methods.mark_rule(strokeWidth=1.5, clip=True).encode(**looks, y2="low:Q"),
            *_references(here, time, recovery),
            points if panel else points.add_params(BRUSH),
        ]
        if few:
            words = methods.mark_text(align="left", dx=9, limit=90, fontSize=10, **INKED)
            place = alt.Y("label:Q").scale(domain=ends, clamp=True)
            layers.append(words.encode(x=time, y=place, opacity=DIM, text="method:N"))
        return alt.layer(*layers)

    return Figure(
        "tradeoff",
        "Time against recovery",
        "Recovery with tuned knobs, with its 95 % interval, against the time of a method: upper left is better. The dashed "
        "steps are the front: no method on them is beaten in both. The diamond is one retrained model against the others, "
        f"the circle at the left end is doing nothing. What is below {LOW:.0f} % is drawn at the edge.",
        draw,
        panels,
        {"cells": data},
        height=HEIGHT if len(panels) < 3 else 150,
    )


def recoveries(study: RecordedStudy) -> Figure | None:
    """Draw recovery with tuned, transferred, default knobs and with more epochs, of each method."""
    frame, panels = frames.methods(study), measured(study)
    frame = frame[frame["role"] == "method"]
    ends = ("", "_low", "_high")
    parts = [
        frame[["forget", "method"]]
        .assign(knobs=name)
        .join(100 * frame[[column + end for end in ends]].astype(float))
        .set_axis(["forget", "method", "knobs", "recovery", "low", "high"], axis=1)
        for column, name in KNOBS.items()
    ]
    data = pd.concat(parts).dropna(subset=["recovery"])
    if data.empty or not panels:
        return None
    kinds = [name for name in KNOBS.values() if name in set(data["knobs"])]

    def draw(panel: str | None) -> Chart:
        here = rows("recoveries", panel).transform_filter(CHOSEN)
        x = alt.X("recovery:Q", title="Recovery (%)").scale(domain=_ends(data), clamp=True)
        place = {
            "y": alt.Y("method:N", title=None, sort=[m.name for m in study.methods]),
            "yOffset": alt.YOffset("knobs:N", sort=kinds),
            "color": colour(study, panel).legend(None),
        }
        legend = alt.Legend(title=None, symbolFillColor="#888", symbolStrokeWidth=0)
        symbol = alt.Shape("knobs:N", sort=kinds, legend=legend)
        tips = ["method:N", "knobs:N", *(tip(name) for name in ("recovery", "low", "high"))]
        rules = here.mark_rule(strokeWidth=1.2).encode(**place, x=x, x2="high:Q")
        return alt.layer(
            alt.Chart(LEVELS).mark_rule(strokeDash=[2, 3], opacity=0.7, **INKED).encode(x="y:Q"),
            rules,
            rules.encode(x2="low:Q"),
            here.mark_point(filled=True, size=55).encode(**place, x=x, shape=symbol, tooltip=tips),
        )

    return Figure(
        "recoveries",
        "Recovery with knobs of every kind",
        "Recovery with knobs tuned on the request, with knobs of other requests of the same kind, with the authors' "
        f"defaults and with more epochs, and 95 % intervals. What is below {LOW:.0f} % is drawn at the edge.",
        draw,
        panels,
        {"recoveries": data},
        height=max(HEIGHT, 9 * len(kinds) * len(study.methods)),
    )


def over_forgetting(study: RecordedStudy) -> Figure | None:
    """Draw forget accuracy over epochs against the retrained models, from the longest runs (NatMU Fig. 1)."""
    data = pd.DataFrame(_forgetting(study))
    if data.empty:
        return None
    levels = pd.DataFrame(
        {"forget": r.name, "level": 100 * mean}
        for r in study.requests
        if (mean := retrained(study, r).means.get("acc_forget")) is not None
    )
    ends = span([*data["low"], *data["high"], *levels.get("level", [])]) or [0, 100]
    domain = [max(0, min(ends[0], ends[1] - 10)), min(101.5, ends[1])]

    def draw(panel: str | None) -> Chart:
        here = rows("forgetting", panel).transform_filter(CHOSEN)
        x = alt.X("epoch:Q", title="Epoch").axis(tickMinStep=1)
        y = alt.Y("mean:Q", title="Forget accuracy (%)").scale(domain=domain)
        tint = colour(study, panel)
        tips = ["method:N", "epoch:Q", tip("mean")]
        star = here.transform_filter("datum.tuned").mark_point(shape="diamond", size=90)
        return alt.layer(
            here.mark_area(opacity=0.13).encode(
                x=x, y=alt.Y("low:Q", title="Forget accuracy (%)"), y2="high:Q", color=tint
            ),
            here.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=tint),
            here.mark_point(filled=True, size=22).encode(
                x=x, y=y, color=tint, shape=shape(study, panel), tooltip=tips
            ),
            star.encode(x=x, y=y, color=tint),
            rows("levels", panel).mark_rule(strokeDash=[5, 3], **INKED).encode(y="level:Q"),
        )

    return Figure(
        "over_forgetting",
        "Forget accuracy during unlearning",
        "Accuracy on the forget set after each epoch of the longest runs of each method (sufficient training where there "
        "is any, else the tuned knobs): mean and standard deviation over the report seeds. The dashed line is the mean "
        "of the retrained models; a curve that ends below it over-forgets. A diamond marks the epochs that were tuned.",
        draw,
        {name: name for name in data["forget"].unique()},
        {"forgetting": data, "levels": levels},
    )


def _ends(data: pd.DataFrame) -> list[float]:
    """Return the ends of an axis that shows every recovery from doing nothing to retraining, and not much beyond."""
    low, high = data[["recovery", "low"]].min().min(), data[["recovery", "high"]].max().max()
    return [max(LOW, min(low, 0) - 5), min(HIGH, max(high, 100) + 8)]


def _labels(shown: pd.DataFrame, room: float) -> pd.Series:
    """Return at which recovery the name of each point stands: below another's where one would cover the other."""
    places: dict[Any, float] = {}
    for _, points in shown.groupby("forget"):
        points = points.sort_values("recovery", ascending=False)
        for at, time, place in zip(points.index, points["time"], points["recovery"]):
            for other in [index for index in points.index if index in places]:
                if 0.3 < time / points["time"][other] < 3 and place > places[other] - room:
                    place = places[other] - room
            places[at] = place
    return pd.Series(places, dtype=float)


def _levels() -> list[Chart]:
    """Draw doing nothing and retraining as lines."""
    levels = alt.Chart(LEVELS).encode(y=alt.Y("y:Q", title="Recovery (%)"))
    words = levels.mark_text(align="left", dx=3, dy=-5, fontSize=9, opacity=0.8, **INKED)
    return [
        levels.mark_rule(strokeDash=[2, 3], opacity=0.7, **INKED),
        words.encode(text="level:N", x=alt.value(0)),
    ]


def _references(here: alt.Chart, time: alt.X, recovery: alt.Y) -> list[Chart]:
    """Draw the original, which takes no time, at the left end, and the retrained models."""
    style: dict[str, Any] = {"size": 80, "filled": False, "strokeWidth": 1.6, **INKED}
    tips = [alt.Tooltip("method:N"), tip("recovery")]
    original = here.transform_filter("datum.role === 'original'").mark_point(**style)
    retrain = here.transform_filter("datum.role === 'retrain'").mark_point(shape="diamond", **style)
    return [
        original.encode(x=alt.value(0), y=recovery, tooltip=tips),
        retrain.encode(x=time, y=recovery, tooltip=tips),
    ]


def _forgetting(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    """Yield mean and spread of the forget accuracy at each epoch of the longest runs, in percent."""
    for request, method in itertools.product(study.requests, study.methods):
        longest = study.cell("sufficient", request.name, method.name).finished
        longest = longest or study.cell("confirm", request.name, method.name).finished
        values: dict[float, list[float]] = defaultdict(list)
        for point in (point for record in longest for point in record.curve):
            values[point.get("epoch", math.nan)].append(point.get("acc_forget", math.nan))
        chosen = study.chosen(request.name, method.name)
        tuned, last = chosen and chosen.knobs.get(EPOCHS), max(values, default=0)
        for epoch, found in sorted(values.items()):
            if math.isfinite(epoch) and (s := spread(found)):
                mean, std = 100 * s.mean, 100 * (s.std or 0)
                head = {"forget": request.name, "method": method.name, "epoch": epoch, "mean": mean}
                ends = {"low": max(0.0, mean - std), "high": min(100.0, mean + std)}
                yield {**head, **ends, "tuned": epoch == tuned != last}
