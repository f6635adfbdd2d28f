"""What each method comes to on each request, as plain rows: for ``frames.methods``, and for a terminal that waits for no pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mu.record import REFERENCE_ROLES
from reports.analysis.robustness import DEFAULT, SUFFICIENT, TRANSFER, robustness
from reports.analysis.summaries import (
    CellSummary,
    cell_summary,
    compares,
    recovered,
    retrained,
    scale,
)
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, Interval, mean_estimate

RECOVERIES = {"transferred": TRANSFER, "defaults": DEFAULT, "longer": SUFFICIENT}
"""Column after `recovery_` to the phase whose knobs were not tuned on the request."""


def rows(study: RecordedStudy) -> list[dict[str, Any]]:
    """Return the rows of ``frames.methods``, each with the verdicts of its own request's metrics."""
    found = []
    for request in study.requests:
        found += [_reference_row(study, request, role) for role in REFERENCE_ROLES]
        found += [_method_row(study, request, m) for m in study.methods if m.used_on(request.name)]
    return found


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
