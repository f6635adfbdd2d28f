"""A study as pandas frames: its runs, what each method comes to on each request, its trials, and their curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import objective_value
from reports.analysis.robustness import DEFAULT, SUFFICIENT, TRANSFER, robustness
from reports.analysis.summaries import (
    GAP,
    CellSummary,
    cell_summary,
    compares,
    is_target,
    recovered,
    retrained,
    scale,
)
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, Interval, mean_estimate
from reports.statistics.recovery import recovery

RUNS = (
    *("study", "phase", "forget", "source", "method", "seed", "view", "metric"),
    *("value", "retrain", "gap", "key"),
)
TRIALS = (
    *("key", "number", "phase", "forget", "source", "method", "seed", "status", "reason"),
    *("objective", "recovery", "seconds", "knobs"),
)
RECOVERIES = {"transferred": TRANSFER, "defaults": DEFAULT, "longer": SUFFICIENT}
"""Column of ``methods`` after `recovery_` to the phase whose knobs were not tuned on the request."""


def runs(study: RecordedStudy) -> pd.DataFrame:
    """Return every metric of every run that counts, in full precision, fractions in [0, 1]: the rows of ``results.csv``.

    `retrain` is the mean of the retrained models on the report seeds, `gap` the run's own distance to it; NaN where
    there is no such model, and for metrics that are themselves distances. References are those of the report; of
    methods, runs with the chosen knobs, or the latest ones where none has run with those yet.
    """
    return study.once("runs", lambda: pd.DataFrame(_runs(study), columns=list(RUNS)))


def methods(study: RecordedStudy) -> pd.DataFrame:
    """Return a row for each request and method that is used on it, after its original and its retrained models.

    Columns: `forget`, `method`, `role` (`original`, `retrain` or `method`); `recovery_tuned`, `recovery_transferred` (mean
    over the requests of the same kind whose knobs were used here), `recovery_defaults` and `recovery_longer`, each with
    `_low` and `_high`, the ends of its 95 % interval; `avg_gap` with both ends, a fraction; `seconds` of unlearning,
    `time_ratio` against retraining; `verdict_<metric>` for each metric of AvgGap, and `verdict` on all of them;
    `measurable`, whether doing nothing is far enough from retraining on the request; `oracle`, whether knobs were chosen
    by comparison with a retrained model; `reason`, why there is no finished run. The recovery of retrained models is what
    one of them gets against the others. What is missing is NaN, of words the empty string.
    """
    return study.once("methods", lambda: _methods(study))


def trials(study: RecordedStudy) -> pd.DataFrame:
    """Return a row for each ended trial, audits apart.

    `objective` is that of the search, on the view that it looks at; `recovery` that of the run alone, on the test view
    and against the originals of the report, of search trials on the search's view; `seconds` are those of the method,
    `knobs` a dict.
    """
    return study.once("trials", lambda: pd.DataFrame(_trials(study), columns=list(TRIALS)))


def curves(study: RecordedStudy) -> pd.DataFrame:
    """Return `key`, `epoch`, `metric`, `value` of every trial that has a curve; epoch 0 is before unlearning."""
    rows = (
        (r.key, point["epoch"], metric, value)
        for r in study.records
        for point in r.curve
        for metric, value in point.items()
        if metric != "epoch"
    )
    return pd.DataFrame(rows, columns=["key", "epoch", "metric", "value"])


def _runs(study: RecordedStudy) -> Iterator[tuple[str | int | float | None, ...]]:
    requests = {request.name: request for request in study.requests}
    for (phase, forget, method, source), counting in study.runs.items():
        for record in counting.finished:
            for view, metrics in record.metrics.items():
                means = retrained(study, requests[forget], view).means
                for name, value in metrics.items():
                    mean = means.get(name)
                    gap = abs(value - mean) if mean is not None and is_target(name) else None
                    head = study.name, phase, forget, source, method, record.seed, view, name
                    yield (*head, value, mean, gap, record.key)


def _methods(study: RecordedStudy) -> pd.DataFrame:
    rows = []
    for request in study.requests:
        rows += [_reference_row(study, request, role) for role in REFERENCE_ROLES]
        rows += [_method_row(study, request, m) for m in study.methods if m.used_on(request.name)]
    frame = pd.DataFrame(rows)
    words = ["reason", *(name for name in frame.columns if name.startswith("verdict"))]
    return frame.fillna(dict.fromkeys(words, ""))


def _reference_row(study: RecordedStudy, request: RecordedRequest, role: str) -> dict[str, Any]:
    """Doing nothing takes no time; retrained models are compared with each other."""
    reference, by = retrained(study, request), scale(study, request)
    result = cell_summary(study, request, role, "reference")
    row = _row(study, request, role, role, result, {"tuned": recovered(study, request, result)})
    ratio = 1.0 if reference.seconds else math.nan
    if role == "original":
        return {**row, "seconds": 0.0, "time_ratio": 0.0 * ratio}
    return {
        **row,
        **_columns("recovery_tuned", by.ceiling if by.measurable else None, None),
        **_columns("avg_gap", reference.average, None),
        **{"seconds": reference.seconds, "time_ratio": ratio},
        **{name: "" for name in row if name.startswith("verdict")},
    }


def _method_row(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> dict[str, Any]:
    result = cell_summary(study, request, method.name)
    untuned = [r for r in robustness(study, method).runs if r.request == request.name]
    shares = {
        name: mean_estimate([r.recovery for r in untuned if r.part == part and r.recovery])
        for name, part in RECOVERIES.items()
    }
    shares["tuned"] = recovered(study, request, result)
    return _row(study, request, method.name, "method", result, shares)


def _row(
    study: RecordedStudy,
    request: RecordedRequest,
    name: str,
    role: str,
    result: CellSummary,
    shares: Mapping[str, Estimate | None],
) -> dict[str, Any]:
    row: dict[str, Any] = {"forget": request.name, "method": name, "role": role}
    for kind in ("tuned", *RECOVERIES):
        known = shares.get(kind)
        row |= _columns(
            f"recovery_{kind}", known.value if known else None, known.interval if known else None
        )
    ratio = (result.seconds or math.nan) / (retrained(study, request).seconds or math.nan)
    return {
        **row,
        **_columns("avg_gap", result.average, result.average_interval),
        **{"seconds": result.seconds, "time_ratio": ratio},
        **{f"verdict_{metric}": result.verdicts.get(metric, "") for metric in request.metrics},
        "verdict": result.verdict,
        "measurable": scale(study, request).measurable,
        "oracle": study.oracle or compares(study.objective),
        "reason": result.reason,
    }


def _columns(name: str, value: float | None, interval: Interval | None) -> dict[str, float]:
    low, high = interval or (math.nan, math.nan)
    return {name: math.nan if value is None else value, f"{name}_low": low, f"{name}_high": high}


def _trials(study: RecordedStudy) -> Iterator[tuple[Any, ...]]:
    view = "test" if study.oracle else "val"
    for r in study.records:
        objective = objective_value(r, study.objective, view) if r.finished else math.nan
        head = (r.key, r.number, r.phase, r.forget, r.source or "", r.method, r.seed, r.status)
        yield (*head, r.reason, objective, _recovery(study, r, view), r.time_unlearn, r.knobs)


def _recovery(study: RecordedStudy, r: TrialRecord, view: str) -> float:
    """Return the recovery of one trial by its own gaps; NaN where there is none or nothing to measure."""
    request = next((each for each in study.requests if each.name == r.forget), None)
    if request is None or r.method == "retrain" or r.role in ("search", "finalist"):
        return math.nan
    if r.phase in ("search", "finalist"):
        nothing = study.references[r.forget].original.get(GAP, math.nan)
        return float(recovery(r.metrics.get(view, {}).get(GAP, math.nan), nothing))
    by, result = scale(study, request), cell_summary(study, request, r.method, r.phase, r.source or "")  # fmt: skip
    nothing = by.original.value if by.original and by.measurable else math.nan
    return float(recovery(result.by_seed.get(r.seed, math.nan), nothing))
