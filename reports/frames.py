"""A study as pandas frames: its runs, what each method comes to on each request, its trials, and their curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import objective_value
from reports.analysis.robustness import DEFAULT, SUFFICIENT, TRANSFER, robustness
from reports.analysis.summaries import (
    GAP,
    cell_summary,
    compares,
    is_target,
    recovered,
    retrained,
    scale,
)
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, mean_estimate
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
    reference, row = retrained(study, request), _row(study, request, role, role, "reference")
    if role == "original":
        return {**row, "seconds": 0.0, "time_ratio": 0.0 if reference.seconds else math.nan}
    by = scale(study, request)
    ceiling = by.ceiling if by.measurable else None
    return {
        **row,
        **_columns("recovery_tuned", ceiling, None),
        **_columns("avg_gap", reference.average, None),
        "seconds": reference.seconds,
        "time_ratio": 1.0 if reference.seconds else math.nan,
        **{name: "" for name in row if name.startswith("verdict")},
    }


def _method_row(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> dict[str, Any]:
    row = _row(study, request, method.name, "method", "confirm")
    untuned = robustness(study, method).runs
    for name, part in RECOVERIES.items():
        there = [
            run.recovery
            for run in untuned
            if run.part == part and run.request == request.name and run.recovery
        ]
        row |= _estimate(f"recovery_{name}", mean_estimate(there))
    return row


def _row(
    study: RecordedStudy, request: RecordedRequest, name: str, role: str, phase: str
) -> dict[str, Any]:
    result, reference = cell_summary(study, request, name, phase), retrained(study, request)
    ratio = (result.seconds or math.nan) / (reference.seconds or math.nan)
    return {
        "forget": request.name,
        "method": name,
        "role": role,
        **_estimate("recovery_tuned", recovered(study, request, result)),
        **{k: v for part in RECOVERIES for k, v in _estimate(f"recovery_{part}", None).items()},
        **_columns("avg_gap", result.average, result.average_interval),
        "seconds": result.seconds,
        "time_ratio": ratio,
        **{f"verdict_{metric}": result.verdicts.get(metric, "") for metric in request.metrics},
        "verdict": result.verdict,
        "measurable": scale(study, request).measurable,
        "oracle": study.oracle or compares(study.objective),
        "reason": result.reason,
    }


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return _columns(name, None, None)
    return _columns(name, estimate.value, estimate.interval)


def _columns(
    name: str, value: float | None, interval: tuple[float, float] | None
) -> dict[str, float | None]:
    low, high = interval or (math.nan, math.nan)
    return {name: math.nan if value is None else value, f"{name}_low": low, f"{name}_high": high}


def _trials(study: RecordedStudy) -> Iterator[tuple[Any, ...]]:
    searched = "test" if study.oracle else "val"
    searches = {
        request.name: study.references[request.name].original.get(GAP, math.nan)
        for request in study.requests
    }
    for r in study.records:
        objective = objective_value(r, study.objective, searched) if r.finished else math.nan
        recovered = (
            _search_recovery(r, searched, searches)
            if r.phase in ("search", "finalist")
            else _run_recovery(study, r)
        )
        head = (r.key, r.number, r.phase, r.forget, r.source or "", r.method, r.seed, r.status)
        yield (*head, r.reason, objective, recovered, r.time_unlearn, r.knobs)


def _search_recovery(r: TrialRecord, view: str, originals: dict[str, float]) -> float:
    gap, original = r.metrics.get(view, {}).get(GAP, math.nan), originals.get(r.forget, math.nan)
    return float(recovery(gap, original))


def _run_recovery(study: RecordedStudy, r: TrialRecord) -> float:
    """Recovery of a run of the report, by its own gaps; NaN where there is nothing to measure."""
    known = next((request for request in study.requests if request.name == r.forget), None)
    if known is None or r.method == "retrain" or r.role in ("search", "finalist"):
        return math.nan
    by = scale(study, known)
    gap = cell_summary(study, known, r.method, r.phase, r.source or "").by_seed.get(
        r.seed, math.nan
    )
    if by.original is None or not by.measurable:
        return math.nan
    return float(recovery(gap, by.original.value))
