"""Chart of what each rule gives up that chooses knobs from a menu, most of them without a retrained model."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import altair as alt
import pandas as pd

from mu.rules import MENU_RULES
from mu.selection import Rule
from reports.analysis import regret
from reports.charts.figure import CHOSEN, HEIGHT, Chart, Figure, rows, tip
from reports.load import RecordedRequest, RecordedStudy

KINDS = {"random": "Random requests", "others": "Other requests", "classes": "Whole classes"}
"""Group of requests to its title. Rules differ most between those whose samples are like any others and those that are not."""
COSTS = {"none": "#0072B2", "in part": "#E69F00", "whole": "#888888"}
"""How much must be retrained for a rule, and its colour."""


def choice(study: RecordedStudy) -> Figure | None:
    """Draw the regret of every rule, a panel for each group of requests, with the cells of which it is the mean."""
    found = regret.cells(study)
    if found.empty:
        return None
    groups = {request.name: group_of(request) for request in study.requests}
    found = found.assign(kind=found["forget"].map(groups))
    by_kind = {kind: found[found["kind"] == kind] for kind in KINDS if kind in set(found["kind"])}
    means = pd.DataFrame(row for kind, of in by_kind.items() for row in _means(kind, of))
    cells = pd.DataFrame(row for kind, of in by_kind.items() for row in _cells(kind, of))
    most = means.groupby("kind")["rule"].count().max()

    def draw(panel: str | None) -> Chart:
        shown = means[means["kind"] == panel]
        names = [rule.name for rule in MENU_RULES if rule.name in set(shown["rule"])]
        end = 1.15 * max(shown["regret"].max(), 0.1)
        x = alt.X("regret:Q", title="Regret (points of AvgGap)").scale(domain=[0, end], clamp=True)
        y = alt.Y("rule:N", title=None, sort=names)
        tint = alt.Color("needs:N", legend=alt.Legend(title=None)).scale(
            domain=list(COSTS), range=list(COSTS.values())
        )
        mean = rows("choice", panel, "kind")
        tips = [alt.Tooltip("rule:N"), alt.Tooltip("label:N")]
        tips += [tip(name, ".2f") for name in ("regret", "low", "high")]
        tips += [tip("share"), alt.Tooltip("cells:Q")]
        ends = mean.mark_rule(strokeWidth=1.5, clip=True).encode(x=x, y=y, color=tint)
        cell = rows("choice_cells", panel, "kind").transform_filter(CHOSEN)
        where = [alt.Tooltip(f"{name}:N") for name in ("rule", "method", "forget")]
        return alt.layer(
            cell.mark_tick(thickness=1.2, opacity=0.5, size=9).encode(
                x=x, y=y, color=tint, tooltip=[*where, tip("regret", ".2f")]
            ),
            ends.encode(x2="low:Q"),
            ends.encode(x2="high:Q"),
            mean.mark_point(filled=True, size=70, opacity=1).encode(
                x=x, y=y, color=tint, tooltip=tips
            ),
        )

    return Figure(
        "choice",
        "What each rule gives up",
        "AvgGap of the configuration that a rule chooses above that of the best of the menu, in percent points: the mean over "
        "methods and requests, and its 95 % interval over requests (of one request over methods); a tick is one method on one "
        "request. The further left, the better; what is beyond the right end is drawn there. Colour: whether no model, a part of one or a whole one must be retrained.",
        draw,
        {
            kind: f"{KINDS[kind]}: {', '.join(of['forget'].unique())}"
            for kind, of in by_kind.items()
        },
        {"choice": means, "choice_cells": cells},
        alike=False,
        field="kind",
        height=max(HEIGHT, 15 * int(most)),
    )


def group_of(request: RecordedRequest) -> str:
    """Return the group of a request, one of ``KINDS``."""
    if request.whole_class:
        return "classes"
    return "random" if request.kind == "random" else "others"


def needs_of(rule: Rule) -> str:
    """Return how much must be retrained for a rule, one of ``COSTS``."""
    if rule.oracle or "transfer" in rule.needs:
        return "whole"
    return "in part" if rule.retrainings and rule.needs != ("twin",) else "none"


def _means(kind: str, found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the mean regret of each rule on a group of requests, in percent points."""
    for rule, of in regret.by_rule(found).items():
        if mean := regret.mean_regret(of):
            ends, shares = mean.interval, regret.by_cell(of, "share").tolist()
            yield {
                **{"kind": kind, "rule": rule.name, "label": rule.label, "needs": needs_of(rule)},
                "regret": 100 * mean.value,
                "low": None if ends is None else 100 * max(ends.low, 0.0),
                "high": None if ends is None else 100 * ends.high,
                "share": 100 * statistics.median(shares) if shares else None,
                "cells": len(regret.by_cell(of, "points")),
            }


def _cells(kind: str, found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the regret of each rule in each cell, in percent points."""
    for rule, of in regret.by_rule(found).items():
        for (forget, method), value in regret.by_cell(of, "points").items():
            row = {"kind": kind, "rule": rule.name, "method": method, "forget": forget}
            yield {**row, "needs": needs_of(rule), "regret": 100 * value}
