"""What the runs of a cell come to: metrics, gaps to the retrained models, or the reason why there are none."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mu.metrics import MEAN_GAPS, METRICS, mean_gap
from mu.record import REFERENCE_ROLES
from reports.load import RecordedRequest, RecordedStudy, Runs
from reports.stats import (
    Array,
    Estimate,
    Interval,
    Spread,
    leave_one_out,
    median,
    pairwise,
    resamples,
    spread,
    weighted_means,
)

VIEW = "test"
"""The view that reports read; the search reads `val`."""
DISTANCE, GAP, OWN_GAP = "activation_distance", "avg_gap_natmu", "mean_gap"
"""Distance of outputs, NatMU's AvgGap, and the mean gap over a study's own list."""
UNEXTENDABLE, UNUSED = "no epochs to extend", "not asked for"
TOLERANCE = 1e-12
"""Differences of fractions below this are rounding of floating-point numbers."""


@dataclass(frozen=True)
class Retrained:
    """The retrained models of a request, from which every gap is measured.

    Args:
        n: Number of models.
        means: Metric to mean over the report seeds; empty when none has finished.
        floors: Metric to noise floor, the mean of its `singles`; empty for fewer than two seeds.
        singles: Metric to the distance of each model from the mean of the others. Of a metric that is a mean
            gap itself, the mean of these over its list.
        pairs: The same for the distance of every two models.
        seconds: Median training time; None when none has been trained.
    """

    n: int
    means: Mapping[str, float]
    floors: Mapping[str, float]
    singles: Mapping[str, Sequence[float]]
    pairs: Mapping[str, Sequence[float]]
    seconds: float | None

    @property
    def average(self) -> float | None:
        """Noise floor of AvgGap, the mean of those of its metrics; None for fewer than two seeds."""
        return self.floors.get(GAP)


@dataclass(frozen=True)
class CellSummary:
    """The runs of one cell in one phase.

    Args:
        spreads: Metric to mean and spread over the report seeds; empty when none has finished.
        gaps: Metric to |mean - mean of the retrained models|, for metrics whose best value is the retrained
            models' own.
        gap_intervals: Metric to the interval of that gap: Student's for the difference of each run to the
            retrained model of its seed, without its sign; absent for fewer than two such pairs.
        average: AvgGap, the mean of those gaps over the request's list; None when one is missing.
        estimate: The same with its bootstrap samples of the seeds, those of the retrained models drawn along.
        per_run: The same formed for each run; None when there is none.
        by_seed: The same of each run.
        seconds: Median time of the method; None when no run has finished.
        samples: Median number of samples seen.
        reason: Why no run has finished; empty when one has.
        outdated: Whether the search has found better knobs since.
    """

    spreads: Mapping[str, Spread]
    gaps: Mapping[str, float]
    gap_intervals: Mapping[str, Interval]
    average: float | None
    estimate: Estimate | None
    per_run: Spread | None
    by_seed: Mapping[int, float]
    seconds: float | None
    samples: float | None
    reason: str
    outdated: bool

    @property
    def average_interval(self) -> Interval | None:
        """That of AvgGap, a fraction."""
        found = self.estimate.interval if self.estimate else None
        return found.within(0.0, 1.0) if found else None


def better(metric: str) -> str:
    """Where a metric is best: at the retrained models' value (`target`), as for unknown ones, or `lower`, `higher`."""
    if metric == OWN_GAP:
        return "lower"
    return METRICS[metric].better if metric in METRICS else "target"


def is_target(metric: str) -> bool:
    """Whether a metric is best at the retrained models' value, so that it has a gap."""
    return better(metric) == "target"


def unit(metric: str) -> str:
    """Unit of a metric; empty for unknown ones."""
    if metric == OWN_GAP:
        return "fraction"
    return METRICS[metric].unit if metric in METRICS else ""


def retrained(study: RecordedStudy, request: RecordedRequest, view: str = VIEW) -> Retrained:
    """The retrained models of the report seeds."""
    return study.once(("retrained", request.name, view), lambda: _retrained(study, request, view))


def cell_summary(
    study: RecordedStudy,
    request: RecordedRequest,
    method: str,
    phase: str = "confirm",
    source: str = "",
    view: str = VIEW,
) -> CellSummary:
    """What a method, or a reference, comes to on a request."""
    return study.once(
        ("cell_summary", request.name, method, phase, source, view),
        lambda: _cell_summary(study, request, method, phase, source, view),
    )


def changes(
    after: CellSummary, before: CellSummary, names: Sequence[str]
) -> tuple[dict[str, float], float | None]:
    """|mean after - mean before| of each metric, and their mean (NatMU's AvgChange; None when one is missing)."""
    found = {
        name: abs(after.spreads[name].mean - before.spreads[name].mean)
        for name in names
        if name in after.spreads and name in before.spreads
    }
    complete = len(found) == len(names)
    return found, math.fsum(found.values()) / len(names) if complete else None


def regret(after: CellSummary, before: CellSummary) -> Estimate | None:
    """AvgGap after minus AvgGap before, over the same bootstrap samples; None when there is none to compare."""
    if after.estimate is None or before.estimate is None:
        return None
    return Estimate(
        after.estimate.value - before.estimate.value,
        after.estimate.replicas - before.estimate.replicas,
        min(after.estimate.n, before.estimate.n),
    )


def at_floor(gap: float | None, floor: float | None) -> bool:
    """Whether a gap is not above the noise floor, and so may be chance.

    The rule of every dagger: gap <= floor, where the floor is the mean, over the retrained models, of the
    distance of one to the mean of the others. It says that one more retrained model would be as far off.
    """
    return gap is not None and floor is not None and gap <= floor + TOLERANCE


def weights(study: RecordedStudy) -> Array:
    """Bootstrap samples of the report seeds, the same for all that is estimated."""
    return study.once(
        "weights", lambda: resamples(len(study.report_seeds), study.name, study.report_seeds)
    )


def _retrained(study: RecordedStudy, request: RecordedRequest, view: str) -> Retrained:
    runs = study.cell("reference", request.name, "retrain")
    values = _by_metric(runs, view)
    means = {name: s.mean for name, v in values.items() if (s := spread(v)) is not None}
    distances = {name: v for name, v in values.items() if is_target(name)}
    singles = {name: leave_one_out(v) for name, v in distances.items()}
    pairs = {name: pairwise(v) for name, v in distances.items()}
    if DISTANCE in means:  # recorded as the distance to the other retrained models
        singles[DISTANCE] = [value for value in values[DISTANCE] if math.isfinite(value)]
    for gap, names in _gap_lists(study, request).items():
        if all(len(singles.get(name, ())) == len(runs.finished) > 1 for name in names):
            for table in (singles, pairs):
                rows = zip(*(table[name] for name in names))
                table[gap] = [math.fsum(row) / len(row) for row in rows]
    floors = {name: math.fsum(v) / len(v) for name, v in singles.items() if v}
    seconds = median(r.time_unlearn for r in runs.finished) or None
    return Retrained(len(runs.finished), means, floors, singles, pairs, seconds)


def _gap_lists(study: RecordedStudy, request: RecordedRequest) -> dict[str, Sequence[str]]:
    """Metrics that are mean gaps, with their lists."""
    lists: dict[str, Sequence[str]] = {
        **MEAN_GAPS[request.whole_class],
        "delta_acc_forget": ("acc_forget",),
        OWN_GAP: study.own_list,
    }
    return {name: metrics for name, metrics in lists.items() if metrics}


def _cell_summary(
    study: RecordedStudy, request: RecordedRequest, method: str, phase: str, source: str, view: str
) -> CellSummary:
    runs = study.cell(phase, request.name, method, source)
    reference = retrained(study, request, view)
    spreads = {
        name: s for name, v in _by_metric(runs, view).items() if (s := spread(v)) is not None
    }
    gaps = {
        name: abs(s.mean - reference.means[name])
        for name, s in spreads.items()
        if name in reference.means and is_target(name)
    }
    average = mean_gap(
        {name: s.mean for name, s in spreads.items()}, reference.means, request.metrics
    )
    by_seed = {
        r.seed: gap
        for r in runs.finished
        if math.isfinite(gap := mean_gap(r.metrics.get(view, {}), reference.means, request.metrics))
    }
    finite = math.isfinite(average)
    return CellSummary(
        spreads=spreads,
        gaps=gaps,
        gap_intervals=_gap_intervals(study, request, runs, spreads, gaps, view),
        average=average if finite else None,
        estimate=_estimate(study, request, runs, average, view) if finite else None,
        per_run=spread(by_seed.values()),
        by_seed=by_seed,
        seconds=median(r.time_unlearn for r in runs.finished),
        samples=median(r.samples_seen for r in runs.finished),
        reason="" if runs.finished else _reason(study, request, method, phase, source, runs),
        outdated=runs.outdated,
    )


def _gap_intervals(
    study: RecordedStudy,
    request: RecordedRequest,
    runs: Runs,
    spreads: Mapping[str, Spread],
    gaps: Mapping[str, float],
    view: str,
) -> dict[str, Interval]:
    """Of the gaps, from the differences within seeds; the centre is the difference of all the means."""
    reference = retrained(study, request, view)
    twins = {
        r.seed: r.metrics.get(view, {})
        for r in study.cell("reference", request.name, "retrain").finished
    }
    found = {}
    for name in gaps:
        differences = spread(
            r.metrics.get(view, {}).get(name, math.nan) - twins[r.seed].get(name, math.nan)
            for r in runs.finished
            if r.seed in twins
        )
        if differences is not None and differences.interval is not None:
            shift = spreads[name].mean - reference.means[name] - differences.mean
            low, high = differences.interval
            found[name] = Interval(low + shift, high + shift).size
    return found


def _estimate(
    study: RecordedStudy, request: RecordedRequest, runs: Runs, average: float, view: str
) -> Estimate | None:
    """AvgGap of means over bootstrap samples of the seeds."""
    twins = study.cell("reference", request.name, "retrain")
    ours, theirs = (
        weighted_means(_matrix(study, part, request.metrics, view), weights(study))
        for part in (runs, twins)
    )
    n = min(len(runs.finished), len(twins.finished))
    return Estimate(average, np.abs(ours - theirs).mean(axis=1), n)


def _matrix(study: RecordedStudy, runs: Runs, names: Sequence[str], view: str) -> Array:
    """Values [seeds, names] in the order of the report seeds, NaN where there is none."""
    found = {r.seed: r.metrics.get(view, {}) for r in runs.finished}
    return np.array(
        [[found.get(seed, {}).get(name, math.nan) for name in names] for seed in study.report_seeds]
    )


def _by_metric(runs: Runs, view: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for record in runs.finished:
        for name, value in record.metrics.get(view, {}).items():
            values.setdefault(name, []).append(value)
    return values


def _reason(
    study: RecordedStudy, request: RecordedRequest, method: str, phase: str, source: str, runs: Runs
) -> str:
    ended = Counter(record.status for record in runs.records)
    if ended:
        return ", ".join(f"{status} ×{n}" if n > 1 else status for status, n in ended.items())
    listed = next((m for m in study.methods if m.name == method), None)
    tuned_on = source or request.name
    if listed is not None and not (listed.used_on(request.name) and listed.used_on(tuned_on)):
        return UNUSED
    if phase == "sufficient" and not (listed is not None and listed.has_epochs):
        return UNEXTENDABLE
    searched = (
        method not in REFERENCE_ROLES and phase != "default" and study.searched(tuned_on, method)
    )
    if searched and not study.candidates.get((tuned_on, method)):
        return "no finished search trial"
    return "not run"
