"""A study as pandas frames: its runs, what each method comes to on each request, its trials, and their curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mu.record import TrialRecord
from mu.selection import objective_value
from reports.analysis.methods_rows import rows as method_rows
from reports.analysis.summaries import (
    GAP,
    cell_summary,
    is_target,
    retrained,
    scale,
)
from reports.load import RecordedStudy
from reports.statistics.recovery import recovery

RUNS = (
    *("study", "phase", "forget", "source", "method", "seed", "view", "metric"),
    *("value", "retrain", "gap", "key"),
)
TRIALS = (
    *("key", "number", "phase", "forget", "source", "method", "seed", "status", "reason"),
    *("objective", "recovery", "seconds", "knobs"),
)


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
    frame = pd.DataFrame(method_rows(study))
    words = ["reason", *(name for name in frame.columns if name.startswith("verdict"))]
    return frame.fillna(dict.fromkeys(words, ""))


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
