"""What the runs of a cell come to: metrics, gaps to the retrained models, recovery, or the reason why there are none."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mu.metrics import MEAN_GAPS, METRICS, mean_gap
from mu.record import REFERENCE_ROLES, TrialRecord
from reports.load import RecordedRequest, RecordedStudy, Runs
from reports.statistics import equivalence
from reports.statistics.equivalence import HALF_A_POINT, PValues
from reports.statistics.intervals import (
    Array,
    Estimate,
    Interval,
    Spread,
    leave_one_out,
    median,
    resamples,
    spread,
    weighted_means,
)
from reports.statistics.recovery import ceiling, measurable, recovery

VIEW = "test"
"""The view that reports read; the search reads `val`."""
DISTANCE, GAP, OWN_GAP = "activation_distance", "avg_gap_natmu", "mean_gap"
"""Distance of outputs, NatMU's AvgGap, and the mean gap over a study's own list."""
UNEXTENDABLE, UNUSED = "no epochs to extend", "not asked for"
TOLERANCE = 1e-12
"""Differences of fractions below this are rounding of floating-point numbers."""
COMPARED = {
    *(name for lists in MEAN_GAPS.values() for name in lists),
    *(OWN_GAP, DISTANCE, "delta_acc_forget", "mia_svc_gap_max", "kl_naturalness"),
}
"""Metrics that compare with a retrained model."""


@dataclass(frozen=True)
class Retrained:
    """The retrained models of a request, from which every gap is measured.

    Args:
        n: Number of models.
        values: Metric to its value for each model.
        means: Metric to mean over them; empty when none has finished.
        floors: Metric to noise floor, the mean of its `singles`; empty for fewer than two models.
        singles: Metric to the distance of each model from the mean of the others. Of a metric that is a mean
            gap itself, the mean of these over its list.
        seconds: Median training time; None when none has been trained.
    """

    n: int
    values: Mapping[str, Sequence[float]]
    means: Mapping[str, float]
    floors: Mapping[str, float]
    singles: Mapping[str, Sequence[float]]
    seconds: float | None

    @property
    def average(self) -> float | None:
        """Noise floor of AvgGap, the mean of those of its metrics; None for fewer than two models."""
        return self.floors.get(GAP)


@dataclass(frozen=True)
class Scale:
    """What recovery on a request is measured by.

    Args:
        original: AvgGap (of means) of doing nothing, with its bootstrap samples; None when it is unknown.
        noise: Noise floor of AvgGap; None for fewer than two retrained models.
    """

    original: Estimate | None
    noise: float | None

    @property
    def measurable(self) -> bool:
        """Whether doing nothing is far enough from retraining for methods to be ranked."""
        return measurable(self.original.value if self.original else None, self.noise)

    @property
    def ceiling(self) -> float | None:
        """Recovery of a retrained model against the others."""
        return ceiling(self.noise, self.original.value) if self.original else None

    @property
    def nothing(self) -> str:
        """Words for a request on which there is nothing to measure; empty where there is, or where that is unknown."""
        return "nothing to measure" if self.original and not self.measurable else ""


@dataclass(frozen=True)
class CellSummary:
    """The runs of one cell in one phase.

    Args:
        spreads: Metric to mean and spread over the report seeds; empty when none has finished.
        gaps: Metric to |mean - mean of the retrained models|, for metrics whose best value is the retrained
            models' own.
        gap_intervals: Metric to the interval of that gap: Student's with pooled variance for the difference of the
            means, without its sign; absent for fewer than two runs or retrained models.
        verdicts: Metric to `same`, `different` or `undecided`, by ``reports.statistics.equivalence``; absent likewise.
        verdict: The same for the list of AvgGap at once; empty when one of its metrics has none.
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
    verdicts: Mapping[str, str]
    verdict: str
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
        interval = self.estimate.interval if self.estimate else None
        return interval.within(0.0, 1.0) if interval else None


def better(metric: str) -> str:
    """Return where a metric is best: at the retrained models' value (`target`), as for unknown ones, or `lower`, `higher`."""
    if metric == OWN_GAP:
        return "lower"
    return METRICS[metric].better if metric in METRICS else "target"


def compares(metric: str) -> bool:
    """Return whether a metric compares with a retrained model, so that choosing by it takes one."""
    return metric in COMPARED


def is_target(metric: str) -> bool:
    """Return whether a metric is best at the retrained models' value, so that it has a gap."""
    return better(metric) == "target"


def unit(metric: str) -> str:
    """Return the unit of a metric; empty for unknown ones."""
    if metric == OWN_GAP:
        return "fraction"
    return METRICS[metric].unit if metric in METRICS else ""


def retrained(study: RecordedStudy, request: RecordedRequest, view: str = VIEW) -> Retrained:
    """Return the retrained models of the report seeds."""
    return study.once(("retrained", request.name, view), lambda: _retrained(study, request, view))


def cell_summary(
    study: RecordedStudy,
    request: RecordedRequest,
    method: str,
    phase: str = "confirm",
    source: str = "",
    view: str = VIEW,
) -> CellSummary:
    """Return what a method, or a reference, comes to on a request."""
    cell = phase, request.name, method, source
    return study.once(("summary", *cell, view), lambda: _cell_summary(study, request, cell, view))


def changes(
    after: CellSummary, before: CellSummary, names: Sequence[str]
) -> tuple[dict[str, float], float | None]:
    """Return |mean after - mean before| of each metric, and their mean (NatMU's AvgChange; None when one is missing)."""
    moved = {
        name: abs(after.spreads[name].mean - before.spreads[name].mean)
        for name in names
        if name in after.spreads and name in before.spreads
    }
    return moved, math.fsum(moved.values()) / len(names) if len(moved) == len(names) else None


def regret(after: CellSummary, before: CellSummary) -> Estimate | None:
    """Return AvgGap after minus AvgGap before, over the same bootstrap samples; None when there is none to compare."""
    if after.estimate is None or before.estimate is None:
        return None
    return after.estimate.minus(before.estimate)


def scale(study: RecordedStudy, request: RecordedRequest) -> Scale:
    """Return what recovery on a request is measured by."""
    original = cell_summary(study, request, "original", "reference")
    return Scale(original.estimate, retrained(study, request).average)


def recovered(
    study: RecordedStudy, request: RecordedRequest, result: CellSummary
) -> Estimate | None:
    """Return the recovery of a cell; None without a gap, and where there is nothing to measure."""
    by = scale(study, request)
    if result.estimate is None or by.original is None or not by.measurable:
        return None
    return Estimate(
        recovery(result.estimate.value, by.original.value),
        recovery(result.estimate.replicas, by.original.replicas),
        min(result.estimate.n, by.original.n),
    )


def _retrained(study: RecordedStudy, request: RecordedRequest, view: str) -> Retrained:
    runs = study.cell("reference", request.name, "retrain").finished
    values = _by_metric(runs, view)
    means = {name: s.mean for name, v in values.items() if (s := spread(v)) is not None}
    singles = {name: leave_one_out(v) for name, v in values.items() if is_target(name)}
    if DISTANCE in means:  # recorded as the distance to the other retrained models
        singles[DISTANCE] = values[DISTANCE]
    lists: dict[str, Sequence[str]] = {
        **MEAN_GAPS[request.whole_class],
        "delta_acc_forget": ("acc_forget",),
        OWN_GAP: study.own_list,
    }
    for gap, names in lists.items():
        if names and all(len(singles.get(name, ())) == len(runs) > 1 for name in names):
            rows = zip(*(singles[name] for name in names))
            singles[gap] = [math.fsum(row) / len(row) for row in rows]
    floors = {name: math.fsum(v) / len(v) for name, v in singles.items() if v}
    seconds = median(r.time_unlearn for r in runs) or None
    return Retrained(len(runs), values, means, floors, singles, seconds)


def _cell_summary(
    study: RecordedStudy, request: RecordedRequest, cell: tuple[str, str, str, str], view: str
) -> CellSummary:
    phase, _, method, source = cell
    runs, reference = study.cell(*cell), retrained(study, request, view)
    by_metric = _by_metric(runs.finished, view)
    spreads = {name: s for name, v in by_metric.items() if (s := spread(v)) is not None}
    means = {name: s.mean for name, s in spreads.items()}
    gaps = {
        name: abs(mean - reference.means[name])
        for name, mean in means.items()
        if name in reference.means and is_target(name)
    }
    tested = {
        name: (by_metric[name], reference.values[name])
        for name in gaps
        if min(len(by_metric[name]), len(reference.values[name])) > 1
    }
    tests = _compare(study, tested)
    whole = [tests[name][0] for name in request.metrics if name in tests]
    average = mean_gap(means, reference.means, request.metrics)
    by_seed = {
        r.seed: gap
        for r in runs.finished
        if math.isfinite(gap := mean_gap(r.metrics.get(view, {}), reference.means, request.metrics))
    }
    known = math.isfinite(average)
    return CellSummary(
        spreads=spreads,
        gaps=gaps,
        gap_intervals={name: ends.size for name, (_, ends) in tests.items()},
        verdicts={name: equivalence.word(*map(float, test)) for name, (test, _) in tests.items()},
        verdict=equivalence.together(whole) if len(whole) == len(request.metrics) else "",
        average=average if known else None,
        estimate=_estimate(study, request, runs, average, view) if known else None,
        per_run=spread(by_seed.values()),
        by_seed=by_seed,
        seconds=median(r.time_unlearn for r in runs.finished),
        samples=median(r.samples_seen for r in runs.finished),
        reason="" if runs.finished else _reason(study, request, (method, phase, source), runs),
        outdated=runs.outdated,
    )


def _compare(
    study: RecordedStudy, tested: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> dict[str, tuple[PValues, Interval]]:
    """Test each metric of some runs against that of the retrained models, with the margin of the study.

    Args:
        tested: Metric to its values of the runs, and of the retrained models.
    """
    sizes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, (ours, theirs) in tested.items():
        sizes[len(ours), len(theirs)].append(name)
    compared = {}
    for names in sizes.values():  # metrics of as many values are tested at once
        runs, models = (np.array([tested[name][at] for name in names]) for at in (0, 1))
        fractions = np.array([unit(name) == "fraction" for name in names])
        limits = equivalence.margin(models, np.where(fractions, HALF_A_POINT, 0.0))
        if study.margin is not None:
            limits = np.where(fractions, study.margin, limits)
        both = *equivalence.compare(runs, models, limits), *equivalence.interval(runs, models)
        for name, *numbers in zip(names, *np.array(both).tolist()):
            compared[name] = PValues(*numbers[:2]), Interval(*numbers[2:])
    return compared


def _estimate(
    study: RecordedStudy, request: RecordedRequest, runs: Runs, average: float, view: str
) -> Estimate:
    """Return AvgGap of means over bootstrap samples of the seeds.

    The retrained models of the report seeds are drawn along with the runs, the further ones among themselves.
    """
    twins = study.cell("reference", request.name, "retrain")
    further = tuple(r.seed for r in twins.records if r.seed not in study.report_seeds)

    def drawn(seeds: tuple[int, ...]) -> Array:
        return study.once(("weights", seeds), lambda: resamples(len(seeds), study.name, seeds))

    def models() -> Array:
        weights = drawn(study.report_seeds)
        weights = np.hstack([weights, drawn(further)]) if further else weights
        table = _matrix(twins, request.metrics, view, (*study.report_seeds, *further))
        return weighted_means(table, weights)

    ours = _matrix(runs, request.metrics, view, study.report_seeds)
    theirs = study.once(("drawn", request.name, view), models)
    replicas = np.abs(weighted_means(ours, drawn(study.report_seeds)) - theirs).mean(axis=1)
    return Estimate(average, replicas, min(len(runs.finished), len(twins.finished)))


def _matrix(runs: Runs, names: Sequence[str], view: str, seeds: Sequence[int]) -> Array:
    """Return values [seeds, names], NaN where there is none."""
    by_seed = {r.seed: r.metrics.get(view, {}) for r in runs.finished}
    return np.array(
        [[by_seed.get(seed, {}).get(name, math.nan) for name in names] for seed in seeds]
    )


def _by_metric(runs: Iterable[TrialRecord], view: str) -> dict[str, list[float]]:
    """Return metric to its finite values."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in runs:
        for name, value in record.metrics.get(view, {}).items():
            if math.isfinite(value):
                values[name].append(value)
    return dict(values)


def _reason(
    study: RecordedStudy, request: RecordedRequest, cell: tuple[str, str, str], runs: Runs
) -> str:
    method, phase, source = cell
    ended = Counter(record.status for record in runs.records)
    if ended:
        return ", ".join(f"{status} ×{n}" if n > 1 else status for status, n in ended.items())
    listed = next((m for m in study.methods if m.name == method), None)
    tuned_on = source or request.name
    if listed is not None and not (listed.used_on(request.name) and listed.used_on(tuned_on)):
        return UNUSED
    if phase == "sufficient" and not (listed is not None and listed.has_epochs):
        return UNEXTENDABLE
    searched = method not in REFERENCE_ROLES and phase != "default"
    return (study.why_unchosen(tuned_on, method) if searched else "") or "not run"
