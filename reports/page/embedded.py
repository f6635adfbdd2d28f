"""The data of the page as JSON: columns rather than rows, each word once, numbers as precise as a reader needs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reports import frames
from reports.charts.figure import Figure, looks
from reports.load import RecordedStudy
from reports.text import knob_value, label

CURVES = ("acc_retain", "acc_forget", "acc_test")
"""Metrics of a trial's curve that the page draws; in thousandths."""
DIGITS = 4


def embedded(study: RecordedStudy, figures: Iterable[Figure]) -> str:
    """Return the data of the page as JSON that may stand within a script element."""
    figures = list(figures)
    content = {
        "methods": looks(study),
        "requests": [request.name for request in study.requests],
        "phases": dict(study.phases),
        "objective": label(study.objective),
        "curves": CURVES,
        "runs": _link(study),
        "trials": _trials(study),
        "figures": {
            figure.name: {
                **{"height": figure.height, "alike": figure.alike, "specs": figure.specs()},
                **{"panels": list(figure.panels.items()), "data": list(figure.data)},
                **{"field": figure.field},
            }
            for figure in figures
        },
        "data": {name: columns(frame) for figure in figures for name, frame in figure.data.items()},
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a frame; of words, ``[words, index of each row]``."""
    return {str(name): _column(frame[name].tolist()) for name in frame.columns}


def _column(values: list[Any]) -> Any:
    if values and all(isinstance(value, str) for value in values):
        words = list(dict.fromkeys(values))
        places = {word: place for place, word in enumerate(words)}
        return [words, [places[value] for value in values]]
    return {"n": [_number(value) for value in values]}


def _number(value: Any) -> Any:
    """Return a number with few digits, a whole one in full; truth as 0 or 1, which Vega tells apart alike."""
    if isinstance(value, float) and not value.is_integer():
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, (bool, float)) else value


def _trials(study: RecordedStudy) -> dict[str, Any]:
    frame = frames.trials(study).drop(columns=["knobs"])
    frame = frame if _link(study) else frame.drop(columns=["key"])
    frame["total"] = [r.time_total for r in study.records]
    frame["names"] = [" ".join(r.knobs) for r in study.records]
    frame["values"] = [[knob_value(v) for v in r.knobs.values()] for r in study.records]
    frame["epochs"] = [" ".join(f"{p['epoch']:g}" for p in r.curve) for r in study.records]
    for metric in CURVES:
        frame[metric] = [_curve(r.curve, metric) for r in study.records]
    return columns(frame)


def _curve(points: Sequence[Mapping[str, float]], metric: str) -> list[int | None] | None:
    """Return a metric over a curve, in thousandths; None where no point has it."""
    values = [point.get(metric, math.nan) for point in points]
    if not any(map(math.isfinite, values)):
        return None
    return [round(1000 * value) if math.isfinite(value) else None for value in values]


def _link(study: RecordedStudy) -> str:
    """Return the start of the address of a trial's run in MLflow, which its key ends; empty where no server is known."""
    runs = str(study.summary.get("mlflow") or "")
    return f"{runs}?searchFilter=" if runs.startswith(("http://", "https://")) else ""
