"""Charts on the search: its history, and how the objective answers to the knobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import altair as alt
import pandas as pd

from reports.analysis import tuning_check
from reports.analysis.importance import mean_shares
from reports.analysis.spaces import Span, spans
from reports.analysis.summaries import unit
from reports.charts.figure import (
    CHOSEN,
    INKED,
    Chart,
    Figure,
    colour,
    look,
    rows,
    slug,
    span,
    tip,
)
from reports.load import RecordedMethod, RecordedStudy
from reports.text import knob_value, label, searched_view

WIDE = 20.0
"""Positive values whose largest is so many times their smallest are drawn on a logarithmic axis."""


def progress(study: RecordedStudy) -> Figure | None:
    """Draw the best objective so far against the number of the trial."""
    data = pd.DataFrame(_progress(study))
    if data.empty:
        return None

    def draw(panel: str | None) -> Chart:
        here = rows("progress", panel).transform_filter(CHOSEN)
        x = alt.X("number:Q", title="Trial").axis(tickMinStep=1)
        y = _objective_axis(study, "best", f"Best {label(study.objective)}", data["best"])
        tips = [*("method:N", "number:Q"), tip("best", ".3~f")]
        encoded = {"x": x, "y": y, "color": colour(study, panel)}
        chosen = here.transform_filter("datum.chosen").mark_point(filled=True, size=50)
        return alt.layer(
            here.mark_line(interpolate="step-after", strokeWidth=1.8).encode(**encoded),
            chosen.encode(**encoded, tooltip=tips),
        )

    return Figure(
        "progress",
        "Search progress",
        f"Smallest {label(study.objective)} on the {searched_view(study)} so far, by the number of the trial in its cell. "
        "The point is where the best was found. A curve that still falls at its end would gain from a larger budget.",
        draw,
        {name: name for name in data["forget"].unique()},
        {"progress": data},
    )


def expected_best(study: RecordedStudy) -> Figure | None:
    """Draw the best objective that so many trials can be expected to give."""
    data = pd.DataFrame(_expected(study))
    if data.empty:
        return None
    ends = [*data["low"], *data["high"]]

    def draw(panel: str | None) -> Chart:
        here = rows("expected", panel).transform_filter(CHOSEN)
        x = alt.X("trials:Q", title="Finished trials").axis(tickMinStep=1)
        title = f"Expected best {label(study.objective)}"
        y = _objective_axis(study, "expected", title, ends)
        tint = colour(study, panel)
        band = here.mark_area(opacity=0.5 / (3 + len(study.methods)))
        tips = [*("method:N", "trials:Q"), tip("expected", ".3~f")]
        return alt.layer(
            band.encode(x=x, y=_objective_axis(study, "low", title, ends), y2="high:Q", color=tint),
            here.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=tint, tooltip=tips),
        )

    return Figure(
        "expected_best",
        "Expected best objective against budget",
        f"Smallest {label(study.objective)} on the {searched_view(study)} that so many trials give on average, had they "
        "come in another order (Dodge et al. 2019: draws with replacement from the finished trials), and where 95 % of "
        "orders lie. A method whose curve still falls at its end was not tuned enough; where curves cross, the ranking "
        "depends on the budget.",
        draw,
        {name: name for name in data["forget"].unique()},
        {"expected": data},
    )


def knobs(study: RecordedStudy) -> list[Figure]:
    """Draw, for each method, its trials over all knobs at once, and the objective against every searched knob."""
    figures = []
    for method in study.methods:
        known = {span.knob: span for span in spans(study, method)}
        ordered = [known[knob] for knob in mean_shares(study, method)] if known else []
        data = pd.DataFrame(_trials(study, method, ordered))
        if not data.empty:
            name = slug([m.name for m in study.methods], method.position)
            figures.append(_response(study, method, ordered, data, name))
            if len(ordered) > 1:
                figures.append(_parallel(study, method, ordered, data, name))
    return figures


def _response(
    study: RecordedStudy,
    method: RecordedMethod,
    ordered: Sequence[Span],
    data: pd.DataFrame,
    name: str,
) -> Figure:
    shares, known = mean_shares(study, method), {span.knob: span for span in ordered}
    requests = [request.name for request in study.requests]
    colours, shapes = zip(*(look(position) for position in range(len(requests))))

    def draw(panel: str | None) -> Chart:
        one = known[str(panel)]
        here = rows(f"knobs_{method.position}", str(panel), "knob")
        legend = alt.Legend(title=None)
        encoded = {
            "x": _knob_axis(one),
            "y": _objective_axis(study, "objective", label(study.objective), data["objective"]),
            "color": alt.Color("forget:N", legend=legend).scale(domain=requests, range=colours),
        }
        symbol = alt.Shape("forget:N", legend=legend).scale(domain=requests, range=shapes)
        tips = ["forget:N", "number:Q", "value:N", tip("objective", ".3~f")]
        chosen = here.transform_filter("datum.chosen").mark_point(
            filled=True, size=110, strokeWidth=1.5, stroke=alt.ExprRef("ink")
        )
        return alt.layer(
            here.mark_point(filled=True, size=26, opacity=0.6).encode(
                **encoded, shape=symbol, tooltip=tips
            ),
            chosen.encode(**encoded, shape=symbol),
        )

    return Figure(
        f"response_{name}",
        f"Response to the knobs of {method.name}",
        f"{label(study.objective)} of every finished search trial against each searched knob, the most important first; "
        "a point is a trial, whose other knobs differ, too. The outlined points were chosen.",
        draw,
        {s.knob: f"{s.knob} (importance {100 * shares[s.knob]:.0f} %)" for s in ordered},
        {f"knobs_{method.position}": data},
        alike=False,
        field="knob",
        method=method.name,
    )


def _parallel(
    study: RecordedStudy,
    method: RecordedMethod,
    ordered: Sequence[Span],
    data: pd.DataFrame,
    name: str,
) -> Figure:
    order = [span.knob for span in ordered]
    ends = [
        {"knob": s.knob, "place": place, "text": text} for s in ordered for place, text in _ticks(s)
    ]

    def draw(panel: str | None) -> Chart:
        here = rows(f"knobs_{method.position}", panel)
        x = alt.X("knob:N", title=None, sort=order).scale(padding=0.3).axis(labelAngle=0, grid=True)
        y = alt.Y("place:Q", axis=None).scale(domain=[-0.04, 1.04])
        tint = alt.Color("rank:Q", title="Rank (0 is best)").scale(
            range=["#D55E00", "#E69F00", "#9AA4B2"], interpolate="rgb"
        )
        tips = ["number:Q", tip("objective", ".3~f")]
        lines = here.mark_line(opacity=0.55, strokeWidth=1.2).encode(
            x=x, y=y, color=tint, detail="number:N", order="at:Q", tooltip=tips
        )
        best = here.transform_filter("datum.chosen").mark_line(strokeWidth=3, **INKED)
        words = alt.Chart(alt.InlineData(ends)).mark_text(
            fontSize=9, align="left", dx=4, limit=70, **INKED
        )
        return alt.layer(
            lines, best.encode(x=x, y=y, order="at:Q"), words.encode(x=x, y=y, text="text:N")
        )

    return Figure(
        f"parallel_{name}",
        f"Trials of {method.name} over all knobs",
        f"Every line is a finished search trial; the more red, the smaller its {label(study.objective)} by rank. Each axis is "
        "the range that was searched, logarithmic where the search was. The thick line was chosen.",
        draw,
        {forget: forget for forget in data["forget"].unique()},
        {f"knobs_{method.position}": data},
        method=method.name,
    )


def _objective_axis(study: RecordedStudy, column: str, title: str, values: Any) -> alt.Y:
    """Return an axis of the objective, in percent points where it is a fraction."""
    there = [float(v) for v in values if math.isfinite(v)]
    text = title + (" (points)" if _scale(study) > 1 else "")
    y = alt.Y(f"{column}:Q", title=text)
    if there and min(there) > 0 and max(there) > WIDE * min(there):
        return y.scale(type="log", domain=span(there, log=True)).axis(tickCount=5, format="~g")
    return y.scale(domain=[min([0.0, *there]), max([*there, 1e-9]) * 1.05])


def _knob_axis(one: Span) -> alt.X:
    if one.choices:
        names = [knob_value(choice) for choice in one.choices]
        return alt.X("value:N", title=one.knob, sort=names).scale(domain=names)
    x = alt.X("at_value:Q", title=one.knob)
    if one.log:
        ends = span([one.low, one.high], log=True)
        return x.scale(type="log", domain=ends).axis(tickCount=4, format="~g")
    return x.scale(domain=span([one.low, one.high])).axis(tickCount=4, format="~g")


def _scale(study: RecordedStudy) -> float:
    """Return what the objective is multiplied by, so that fractions are in percent."""
    return 100.0 if unit(study.objective) == "fraction" else 1.0


def _progress(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    factor = _scale(study)
    for (forget, method), tried in study.candidates.items():
        head = {"forget": forget, "method": method}
        best = list(accumulate((factor * candidate.value for candidate in tried), min))
        for place, (candidate, value) in enumerate(zip(tried, best)):
            chosen = place == best.index(best[-1])
            yield {**head, "number": candidate.number, "best": value, "chosen": chosen}
        if tried:
            last = max(r.number or 0 for r in study.searched(forget, method))
            yield {**head, "number": last, "best": best[-1], "chosen": False}


def _expected(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    factor = _scale(study)
    for request in study.requests:
        for method in study.methods:
            values = tuning_check.values_of(study, request.name, method.name)
            for trials in range(1, len(values) + 1) if len(values) > 1 else ():
                best = asdict(tuning_check.best_of(values, trials))
                head = {"forget": request.name, "method": method.name, "trials": trials}
                yield head | {name: factor * value for name, value in best.items()}


def _trials(
    study: RecordedStudy, method: RecordedMethod, ordered: Sequence[Span]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each finished trial and knob: its value, its place in the range, and the rank of the trial."""
    factor = _scale(study)
    for request in study.requests:
        tried = study.candidates.get((request.name, method.name), ())
        chosen = study.chosen(request.name, method.name)
        order = {c.number: at for at, c in enumerate(sorted(tried, key=lambda c: c.value))}
        for candidate in tried:
            trial = {
                "forget": request.name,
                "number": candidate.number,
                "objective": factor * candidate.value,
                "rank": order[candidate.number] / max(1, len(tried) - 1),
                "chosen": chosen is not None and candidate.number == chosen.number,
            }
            for at, one in enumerate(ordered):
                if one.knob in candidate.knobs:
                    value = candidate.knobs[one.knob]
                    place = {"knob": one.knob, "value": knob_value(value), "at": at}
                    number = math.nan if one.choices else one.place(value)
                    yield {**trial, **place, "at_value": number, "place": one.share(value)}


def _ticks(one: Span) -> Iterator[tuple[float, str]]:
    """Yield places on an axis of the parallel coordinates and what stands there."""
    if one.choices:
        yield from ((one.share(choice), knob_value(choice)) for choice in one.choices)
    else:
        yield from ((0.0, f"{one.low:.3g}"), (1.0, f"{one.high:.3g}"))
