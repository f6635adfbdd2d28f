"""The first table of the page: methods as rows, with what they recover, at which cost, and the word of each test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports import frames
from reports.analysis.summaries import scale
from reports.charts.figure import looks
from reports.load import RecordedRequest, RecordedStudy
from reports.tables.cells import NONE, SIGNS
from reports.text import label, percent, share, title

RECOVERIES = {
    "recovery_tuned": ("Recovery", "with knobs tuned on the request"),
    "recovery_transferred": (
        "transferred",
        "recovery with knobs tuned on other requests of the same kind",
    ),
    "recovery_defaults": ("defaults", "recovery with the authors' knobs"),
    "recovery_longer": ("more epochs", "recovery with the tuned knobs and more epochs"),
}
LOW, HIGH = -0.5, 1.1
"""Ends of the small axis beside a recovery."""
REFERENCES = {"original": "doing nothing", "retrain": "retraining"}
Row = Mapping[str, Any]


def summary(study: RecordedStudy) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Return the heads of the table, and its rows by request; a column without any number is left out.

    A study of menus alone has nothing to say of a method here, only of doing nothing and of retraining.
    """
    frame = frames.methods(study)
    of_methods = frame["role"] == "method"
    if study.definition.get("choose") and frame.loc[of_methods, "avg_gap"].isna().all():
        frame = frame[~of_methods]
    there = [name for name in RECOVERIES if name == "recovery_tuned" or frame[name].notna().any()]
    heads = [
        {"name": "Method", "hint": ""},
        *({"name": RECOVERIES[name][0], "hint": RECOVERIES[name][1]} for name in there),
        {
            "name": "AvgGap",
            "hint": "mean gap to the retrained models in points, over NatMU's metrics",
        },
        {"name": "Time", "hint": "seconds of the method, in percent of retraining"},
        {"name": "Verdicts", "hint": "whether each metric is the same as for retrained models"},
    ]
    of = {name: (colour, shape) for name, colour, shape in looks(study)}
    groups = []
    for request in sorted(study.requests, key=lambda r: bool(scale(study, r).nothing)):
        rows = frame[frame["forget"] == request.name].to_dict("records")
        note = scale(study, request).nothing
        if note:
            note += ", as doing nothing is within three noise floors of retraining"
        made = []
        for row in rows:
            colour, shape = of[row["method"]]
            cells = list(_cells(request, row, there))
            head = {"method": row["method"], "role": row["role"], "colour": colour, "shape": shape}
            made.append({**head, "label": REFERENCES.get(row["role"], ""), "cells": cells})
        groups.append({"name": request.name, "title": title(request), "note": note, "rows": made})
    return heads, groups


def _cells(request: RecordedRequest, row: Row, columns: list[str]) -> Iterator[dict[str, Any]]:
    for name in columns:
        yield _recovery(row, name)
    gap, low, high = (row[f"avg_gap{end}"] for end in ("", "_low", "_high"))
    if pd.isna(gap):
        yield _cell("", row["reason"] or NONE)
    else:
        ends = None if pd.isna(low) else f"[{percent(low)}, {percent(high)}]"
        yield _cell(gap, percent(gap), range=ends)
    ratio, seconds = row["time_ratio"], row["seconds"]
    hint = "" if pd.isna(seconds) else f"{seconds:.3g} s"
    yield _cell(ratio, NONE, hint) if pd.isna(ratio) else _cell(ratio, f"{100 * ratio:.3g} %", hint)
    words = [(name, row.get(f"verdict_{name}", "")) for name in request.metrics]
    signs = [
        (SIGNS[word], f"{label(name, request.whole_class)}: {word}", word)
        for name, word in words
        if word in SIGNS
    ]
    same = sum(word == "same" for _, word in words)
    yield {**_cell(same if signs else "", "" if signs else NONE), "signs": signs}


def _recovery(row: Row, name: str) -> dict[str, Any]:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return _cell("", NONE)
    if pd.isna(low):
        return _cell(value, share(value))
    bar = [
        f"{100 * (min(max(at, LOW), HIGH) - LOW) / (HIGH - LOW):.1f}" for at in (low, value, high)
    ]
    return {**_cell(value, share(value), range=f"[{share(low)}, {share(high)}]"), "bar": bar}


def _cell(value: Any, text: str, hint: str = "", range: str | None = None) -> dict[str, Any]:
    known = "" if isinstance(value, float) and pd.isna(value) else value
    cell = {"value": known, "text": text, "hint": hint, "range": range}
    return {**cell, "bar": None, "signs": ()}
