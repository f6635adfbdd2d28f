"""What the runs of a cell come to: metrics, gaps to the retrained models, or the reason why there are none."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mu.metrics import METRICS, mean_gap
from mu.record import REFERENCES
from reports.load import Request, Runs, Study
from reports.stats import Spread, median, noise_floor, spread

VIEW = "test"
"""The view that reports read; the search reads `val`."""
DISTANCE, GAP = "activation_distance", "avg_gap_natmu"
UNEXTENDABLE = "no epochs to extend"
TOLERANCE = 1e-12
"""Differences of fractions below this are rounding of floating-point numbers."""


@dataclass(frozen=True)
class Retrained:
    """The retrained models of a request, from which every gap is measured.

    Args:
        means: Metric to mean over the report seeds; empty when none has finished.
        floors: Metric to noise floor; empty for fewer than two seeds.
        average: Noise floor of AvgGap: the mean of those of its metrics; None for fewer than two seeds.
        seconds: Median training time; None when none has finished.
    """

    means: Mapping[str, float]
    floors: Mapping[str, float]
    average: float | None
    seconds: float | None


@dataclass(frozen=True)
class Outcome:
    """The runs of one cell in one phase.

    Args:
        spreads: Metric to mean and spread over the report seeds; empty when none has finished.
        gaps: Metric to |mean - mean of the retrained models|, for metrics whose best value is the retrained
            models' own.
        average: AvgGap, the mean of those gaps over the request's list; None when one is missing.
        per_run: The same formed for each run; None when there is none.
        seconds: Median time of the method; None when no run has finished.
        samples: Median number of samples seen.
        reason: Why no run has finished; empty when one has.
        outdated: Whether the search has found better knobs since.
    """

    spreads: Mapping[str, Spread]
    gaps: Mapping[str, float]
    average: float | None
    per_run: Spread | None
    seconds: float | None
    samples: float | None
    reason: str
    outdated: bool


def is_target(metric: str) -> bool:
    """Whether a metric is best at the retrained models' value, so that it has a gap."""
    return metric not in METRICS or METRICS[metric].better == "target"


def retrained(study: Study, request: Request, view: str = VIEW) -> Retrained:
    """The retrained models of the report seeds."""
    runs = study.cell("reference", request.name, "retrain")
    values = _by_metric(runs, view)
    means = {name: s.mean for name, v in values.items() if (s := spread(v)) is not None}
    floors = {name: floor for name, v in values.items() if (floor := noise_floor(v)) is not None}
    if DISTANCE in means:
        floors[DISTANCE] = means[DISTANCE]  # recorded as the distance to the other retrained models
    else:
        floors.pop(DISTANCE, None)
    complete = all(name in floors for name in request.metrics)
    average = (
        math.fsum(floors[name] for name in request.metrics) / len(request.metrics)
        if complete
        else None
    )
    return Retrained(means, floors, average, median(r.time_unlearn for r in runs.finished))


def outcome(
    study: Study, request: Request, method: str, phase: str = "confirm", source: str = ""
) -> Outcome:
    """What a method, or a reference, comes to on a request."""
    runs = study.cell(phase, request.name, method, source)
    reference = retrained(study, request)
    spreads = {
        name: s for name, v in _by_metric(runs, VIEW).items() if (s := spread(v)) is not None
    }
    gaps = {
        name: abs(s.mean - reference.means[name])
        for name, s in spreads.items()
        if name in reference.means and is_target(name)
    }
    average = mean_gap(
        {name: s.mean for name, s in spreads.items()}, reference.means, request.metrics
    )
    per_run = spread(
        mean_gap(r.metrics.get(VIEW, {}), reference.means, request.metrics) for r in runs.finished
    )
    return Outcome(
        spreads=spreads,
        gaps=gaps,
        average=average if math.isfinite(average) else None,
        per_run=per_run,
        seconds=median(r.time_unlearn for r in runs.finished),
        samples=median(r.samples_seen for r in runs.finished),
        reason="" if runs.finished else _reason(study, request, method, phase, source, runs),
        outdated=runs.outdated,
    )


def changes(
    after: Outcome, before: Outcome, names: Sequence[str]
) -> tuple[dict[str, float], float | None]:
    """|mean after - mean before| of each metric, and their mean (NatMU's AvgChange; None when one is missing)."""
    found = {
        name: abs(after.spreads[name].mean - before.spreads[name].mean)
        for name in names
        if name in after.spreads and name in before.spreads
    }
    complete = len(found) == len(names)
    return found, math.fsum(found.values()) / len(names) if complete else None


def at_floor(gap: float | None, floor: float | None) -> bool:
    """Whether a gap is not above the noise floor, and so may be chance."""
    return gap is not None and floor is not None and gap <= floor + TOLERANCE


def _by_metric(runs: Runs, view: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for record in runs.finished:
        for name, value in record.metrics.get(view, {}).items():
            values.setdefault(name, []).append(value)
    return values


def _reason(
    study: Study, request: Request, method: str, phase: str, source: str, runs: Runs
) -> str:
    ended = Counter(record.status for record in runs.records)
    if ended:
        return ", ".join(f"{status} ×{n}" if n > 1 else status for status, n in ended.items())
    if phase == "sufficient" and not any(m.has_epochs for m in study.methods if m.name == method):
        return UNEXTENDABLE
    tuned_on = source or request.name
    searched = method not in REFERENCES and study.searched(tuned_on, method)
    if searched and not study.candidates.get((tuned_on, method)):
        return "no finished search trial"
    return "not run"
