"""Statistics of the report, each against a value worked out by hand, by enumeration, or by another library."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference
from studies import ROOT

from mu.choice import retrain_seeds
from mu.record import TrialRecord
from reports import contents, load
from reports.analysis import comparison, robustness, tuning_check
from reports.analysis.summaries import cell_summary, recovered, regret, retrained, scale
from reports.page import cards
from reports.statistics.intervals import (
    RESAMPLES,
    Estimate,
    Interval,
    leave_one_out,
    resamples,
    spread,
    weighted_means,
)
from reports.statistics.rankings import (
    holm,
    kendall,
    ranks,
    signed_rank,
)
from reports.tables import results as result_tables

T2, T3 = 12.706204736, 4.302652730
"""Student's 97.5 % quantile for two and for three values, from printed tables."""


def interval(values: Sequence[float]) -> Interval:
    summary = spread(values)
    assert summary is not None and summary.interval is not None
    return summary.interval


@pytest.mark.parametrize(("values", "quantile"), [([1.0, 2.0, 6.0], T3), ([4.0, 5.0], T2)])
def test_interval_of_a_mean_is_students(values: list[float], quantile: float) -> None:
    half = quantile * stdev(values) / math.sqrt(len(values))
    assert interval(values) == pytest.approx((fmean(values) - half, fmean(values) + half))


def test_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=7)
    error = values.std(ddof=1) / math.sqrt(7)
    expected = reference.t.interval(0.95, 6, loc=values.mean(), scale=error)
    assert interval(list(values)) == pytest.approx(expected)


def test_one_run_has_no_interval() -> None:
    summary = spread([3.0])
    assert summary is not None
    assert summary.interval is None
    assert Estimate(3.0, np.array([3.0, 3.0]), 1).interval is None


def test_interval_covers_the_truth_as_often_as_it_says_and_percentiles_of_a_bootstrap_do_not() -> (
    None
):
    draws = np.random.default_rng(1).normal(size=(2000, 3))
    ours = np.mean([low <= 0 <= high for low, high in map(interval, draws.tolist())])
    means = np.einsum("bs,ds->db", resamples(3, "coverage") / 3, draws)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert ours == pytest.approx(0.95, abs=0.015)
    assert np.mean((low <= 0) & (high >= 0)) < 0.85


def test_size_of_an_interval_is_where_the_absolute_value_lies() -> None:
    assert Interval(1.0, 3.0).size == (1.0, 3.0)
    assert Interval(-3.0, -1.0).size == (1.0, 3.0)
    assert Interval(-1.0, 3.0).size == (0.0, 3.0)
    assert Interval(-3.0, 1.0).size == (0.0, 3.0)


def test_interval_within_bounds() -> None:
    assert Interval(-0.1, 1.2).within(0.0, 1.0) == (0.0, 1.0)
    assert Interval(1.1, 1.2).within(0.0, 1.0) == (1.0, 1.0)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_of_a_resampled_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    replicas = resamples(n, "mean") @ values / n
    found = Estimate(float(values.mean()), replicas, n).interval
    assert found is not None
    low, high = interval(list(values))
    assert found.high - found.low == pytest.approx(high - low, rel=0.06)
    assert (found.low + found.high) / 2 == pytest.approx(values.mean())


def test_samples_that_lack_runs_are_left_out() -> None:
    complete = Estimate(0.0, np.array([-1.0, 1.0, 1.0, -1.0]), 2).interval
    assert Estimate(0.0, np.array([-1.0, math.nan, 1.0, 1.0, -1.0]), 2).interval == complete
    assert Estimate(0.0, np.full(4, math.nan), 2).interval is None


def test_bootstrap_samples_are_of_all_seeds_and_the_same_again() -> None:
    drawn = resamples(4, "a", (1, 2))
    assert drawn.shape == (RESAMPLES, 4)
    assert set(drawn.sum(axis=1)) == {4.0}
    assert drawn.mean(axis=0) == pytest.approx(1.0, abs=0.1)
    assert (drawn == resamples(4, "a", (1, 2))).all()
    assert (drawn != resamples(4, "b", (1, 2))).any()


def test_weighted_means_skip_missing_runs() -> None:
    values = np.array([[1.0, 10.0], [2.0, math.nan], [6.0, 30.0]])
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    found = weighted_means(values, weights)
    assert found[0] == pytest.approx([3.0, 20.0])
    assert found[1, 0] == 2.0
    assert math.isnan(found[1, 1])
    assert found[2] == pytest.approx([8 / 3, 50 / 3])


def test_distances_between_retrained_models() -> None:
    values = [1.0, 2.0, 6.0, math.nan]
    assert leave_one_out(values) == pytest.approx([3.0, 1.5, 4.5])
    assert leave_one_out([1.0, 4.0]) == [3.0, 3.0]
    assert leave_one_out([1.0]) == []


def minimum_by_enumeration(values: Sequence[float], n: int) -> tuple[float, float, float]:
    """Mean and central 95 % of the lowest of n draws with replacement, over all N^n of them."""
    lowest = sorted(min(drawn) for drawn in itertools.product(values, repeat=n))
    at = [lowest[math.ceil(share * len(lowest) - 1e-9) - 1] for share in (0.025, 0.975)]
    return fmean(lowest), *at


@pytest.mark.parametrize(
    "values", [[0.4, 0.1, 0.3, 0.9], [0.2, 0.2, 0.7], [0.5, 0.1, 0.1, 0.6, 0.3]]
)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_expected_best_is_that_of_all_orders(values: list[float], n: int) -> None:
    found = tuning_check.best_of(values, n)
    expected = minimum_by_enumeration(values, n)
    assert (found.expected, found.low, found.high) == pytest.approx(expected)


def test_expected_best_of_one_is_the_mean_and_falls_to_the_minimum() -> None:
    values = [0.4, 0.1, 0.3, 0.9]
    curve = [tuning_check.best_of(values, n).expected for n in (1, 2, 3, 4, 200)]
    assert curve[0] == pytest.approx(fmean(values))
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == pytest.approx(0.1)


def trial(phase: str, method: str, seed: int, **fields: Any) -> TrialRecord:
    forget = fields.pop("forget", "random10")
    key = "/".join(
        map(str, (phase, forget, method, seed, fields.get("number"), fields.get("source")))
    )
    return TrialRecord(
        key, "s", phase, forget, method, seed, fields.pop("status", "finished"), **fields
    )


def searched(**objectives: Sequence[float]) -> load.RecordedStudy:
    """A study with one request and the search trials of some methods."""
    return load.assemble(
        {},
        [
            trial("search", method, 0, number=number, metrics={"val": {"avg_gap_natmu": value}})
            for method, values in objectives.items()
            for number, value in enumerate(values)
        ],
        {},
    )


def test_budget_is_enough_when_as_much_gain_again_would_not_reach_the_next_method() -> None:
    falling = [0.8, 0.4, 0.2, 0.1]
    gain = minimum_by_enumeration(falling, 3)[0] - minimum_by_enumeration(falling, 4)[0]
    near = searched(falling=falling, best=[0.1 - gain / 2, 0.5], first=[0.001], last=[0.9])
    far = searched(falling=falling, best=[0.1 - gain * 2, 0.5], last=[0.9])
    for study, enough in ((near, False), (far, True)):
        found = tuning_check.check_tuning(study, "random10", "falling")
        assert found is not None
        assert found.gain == pytest.approx(gain)
        assert found.enough is enough
    found = tuning_check.check_tuning(near, "random10", "falling")
    assert found is not None
    assert found.margin == pytest.approx(gain / 2)


def test_budget_is_not_enough_when_as_much_gain_again_would_draw_level() -> None:
    assert tuning_check.TuningCheck(gain=0.25, margin=0.25, trials=8).enough is False


def test_no_method_is_ranked_before_one_of_the_same_best() -> None:
    study = searched(one=[0.5, 0.4, 0.3, 0.1], other=[0.1, 0.2, 0.3, 0.4])
    for name in ("one", "other"):
        check = tuning_check.check_tuning(study, "random10", name)
        assert check is not None
        assert (check.margin, check.enough) == (None, True)


def test_budget_of_the_first_is_enough_and_of_few_trials_unknown() -> None:
    study = searched(first=[0.5, 0.4, 0.3, 0.1], second=[0.2, 0.3])
    first, second = (
        tuning_check.check_tuning(study, "random10", name) for name in ("first", "second")
    )
    assert first is not None and second is not None
    assert (first.margin, first.enough) == (None, True)
    assert second.margin == pytest.approx(0.1)
    assert second.enough is None
    assert tuning_check.check_tuning(study, "random10", "absent") is None


def test_the_least_number_of_trials_can_tell_whether_they_were_enough() -> None:
    for trials, enough in ((tuning_check.ENOUGH - 1, None), (tuning_check.ENOUGH, True)):
        assert tuning_check.TuningCheck(gain=0.1, margin=0.2, trials=trials).enough is enough


def signs_by_enumeration(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test by trying all signs."""
    found = [d for d in differences if d]
    placed = reference.rankdata(np.abs(found))
    observed = abs(sum(math.copysign(rank, d) for rank, d in zip(placed, found)))
    sums = [abs(np.dot(signs, placed)) for signs in itertools.product((-1, 1), repeat=len(found))]
    return float(np.mean([total >= observed - 1e-9 for total in sums]))


@pytest.mark.parametrize(
    "differences",
    [
        [0.3, -0.1, 0.4, 0.2, -0.5, 0.6],
        [0.1, 0.1, -0.1, 0.2, 0.2, 0.3],
        [0.5, -0.5],
        [0.1, 0.0, 0.2, 0.0, 0.4],
        [-0.3, -0.2, -0.1, -0.4],
        [0.1, 0.1, 0.2, -0.3],  # rank sums 4 and, of one tie and 0.2, 4.5
    ],
)
def test_signed_rank_is_exact_with_and_without_ties(differences: list[float]) -> None:
    assert signed_rank(differences) == pytest.approx(signs_by_enumeration(differences))


def test_signed_rank_is_exact_in_two_hundred_random_cases() -> None:
    """With values of many digits, and with rounded ones that have ties and zeros."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, digits = int(rng.integers(2, 10)), int(rng.integers(0, 3))
        values = np.round(rng.normal(0.3, 1, size), digits)
        if values.any():
            assert signed_rank(values) == pytest.approx(signs_by_enumeration(list(values)))


@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
def test_smallest_p_is_reached_when_all_signs_agree(n: int) -> None:
    assert signed_rank(np.arange(1, n + 1) / 7) == pytest.approx(2.0 ** (1 - n))


def test_signed_rank_takes_rounding_for_equality() -> None:
    assert signed_rank([0.1 + 0.2 - 0.3, 0.0]) == 1.0
    assert signed_rank([0.1, 0.1, -0.2]) == 1.0  # ranks 1.5 + 1.5 and 3
    assert signed_rank([]) == 1.0


def test_holm_is_that_of_the_textbook() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_ranks_share_ties() -> None:
    values = [3.0, 1.0, 0.1 + 0.2, 0.3, 1.0]
    assert list(ranks(values)) == [5.0, 3.5, 1.5, 1.5, 3.5]
    assert list(ranks([1.0, 1.0 + 4e-13, 1.0 + 2e-12])) == [1.5, 1.5, 3.0]  # twelve decimals count
    drawn = np.random.default_rng(2).integers(0, 5, size=20)
    assert list(ranks(drawn)) == list(reference.rankdata(drawn))


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # five pairs agree, one does not
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),
    ],
)
def test_kendall_by_hand(first: list[float], second: list[float], tau: float) -> None:
    assert kendall(first, second) == pytest.approx(tau)


def test_kendall_is_that_of_scipy() -> None:
    for seed in range(4):
        x, y = np.random.default_rng(seed).integers(0, 6, size=(2, 9))
        assert kendall(x, y) == pytest.approx(reference.kendalltau(x, y).statistic)
    assert kendall([1, 1], [1, 2]) is None
    assert kendall([1], [2]) is None


NAMES = ("acc_test", "acc_forget", "mia_lr_entropy")
RETRAIN = ((0.90, 0.88, 0.50), (0.91, 0.90, 0.50), (0.92, 0.92, 0.53))


def run(phase: str, method: str, seed: int, values: Sequence[float], **fields: Any) -> TrialRecord:
    return trial(phase, method, seed, metrics={"test": dict(zip(NAMES, values))}, **fields)


def reported(
    *runs: TrialRecord, forget: Sequence[str] = ("random10",), **line: Any
) -> load.RecordedStudy:
    """A study of three retrained models for each request, originals that are 10 points of AvgGap away, and some runs."""
    references = [
        run("reference", model, seed, (*values[:2], values[2] + more), role="report", forget=name)
        for name in forget
        for seed, values in enumerate(RETRAIN, start=1)
        for model, more in (("retrain", 0.0), ("original", 0.3))
    ]
    return load.assemble(line, [*references, *runs], {})


def half_of(ours: Sequence[float], theirs: Sequence[float], quantile: float) -> float:
    """Half of the interval of the difference of two means, by the textbook's pooled variance."""
    n, m = len(ours), len(theirs)
    pooled = ((n - 1) * stdev(ours) ** 2 + (m - 1) * stdev(theirs) ** 2) / (n + m - 2)
    return quantile * math.sqrt(pooled * (1 / n + 1 / m))


def test_gap_has_students_interval_with_pooled_variance() -> None:
    values = ((0.895, 0.90, 0.40), (0.905, 0.95, 0.45), (0.915, 1.00, 0.50))
    study = reported(*(run("confirm", "a", seed, v) for seed, v in enumerate(values, start=1)))
    found = cell_summary(study, study.requests[0], "a").gap_intervals
    half = half_of((0.90, 0.95, 1.00), (0.88, 0.90, 0.92), 2.776445105)
    assert found["acc_forget"] == pytest.approx((0.0, 0.05 + half))
    half = half_of((0.895, 0.905, 0.915), (0.90, 0.91, 0.92), 2.776445105)
    assert found["acc_test"] == pytest.approx((0.0, 0.005 + half))


def test_gap_of_fewer_runs_keeps_its_centre() -> None:
    study = reported(
        run("confirm", "a", 1, (0.9, 0.80, 0.5)), run("confirm", "a", 2, (0.9, 0.86, 0.5))
    )
    result = cell_summary(study, study.requests[0], "a")
    # mean 0.83 against 0.90 of all three
    half = half_of((0.80, 0.86), (0.88, 0.90, 0.92), 3.182446305)
    assert result.gaps["acc_forget"] == pytest.approx(0.07)
    assert result.gap_intervals["acc_forget"] == pytest.approx(
        Interval(0.07 - half, 0.07 + half).size
    )
    alone = reported(run("confirm", "a", 1, (0.9, 0.80, 0.5)))
    assert cell_summary(alone, alone.requests[0], "a").gap_intervals == {}


def test_avg_gap_of_means_has_the_interval_of_its_bootstrap() -> None:
    # All gaps are of one sign whatever the seeds, so that AvgGap is a mean of differences.
    values = ((0.70, 0.60, 0.90), (0.72, 0.64, 0.93), (0.71, 0.65, 0.95))
    study = reported(*(run("confirm", "a", seed, v) for seed, v in enumerate(values, start=1)))
    result = cell_summary(study, study.requests[0], "a")
    per_run = [fmean((r[0] - v[0], r[1] - v[1], v[2] - r[2])) for v, r in zip(values, RETRAIN)]
    assert result.average == pytest.approx(fmean(per_run))
    assert result.average_interval == pytest.approx(interval(per_run), rel=0.05)


def test_floor_of_avg_gap_is_the_mean_of_what_each_model_would_show() -> None:
    study = reported(run("confirm", "a", 1, (0.9, 0.9, 0.5)))
    found = retrained(study, study.requests[0])
    # Leave one out: 1.5, 0, 1.5 in test; 3, 0, 3 in forget; 1.5, 1.5, 3 in MIA (points)
    assert found.singles["avg_gap_natmu"] == pytest.approx([0.02, 0.005, 0.025])
    assert found.average == pytest.approx(0.05 / 3)


LONGER = [
    *(
        run("confirm", "a", s, (0.9, v, 0.5), knobs={"epochs": 5})
        for s, v in ((1, 0.90), (2, 0.95), (3, 1.0))
    ),
    *(run("sufficient", "a", s, (0.9, 0.6, 0.5), knobs={"epochs": 20}) for s in (1, 2, 3)),
]


def test_slope_is_the_change_of_forget_accuracy_per_epoch() -> None:
    study = reported(*LONGER)
    found = robustness.slope(study, study.requests[0], study.methods[0])
    assert found is not None
    changes = [-0.30 / 15, -0.35 / 15, -0.40 / 15]
    assert (found.start, found.end) == (5, 20)
    assert found.per_epoch.mean == pytest.approx(fmean(changes))
    assert found.per_epoch.interval == pytest.approx(interval(changes))
    assert found.level == pytest.approx(0.90)


def test_slope_pairs_seeds_and_needs_more_epochs() -> None:
    partly = reported(*(r for r in LONGER if (r.phase, r.seed) != ("sufficient", 2)))
    found = robustness.slope(partly, partly.requests[0], partly.methods[0])
    assert found is not None
    assert found.per_epoch.n == 2
    assert found.per_epoch.mean == pytest.approx(-0.35 / 15)
    assert found.per_epoch.interval == pytest.approx(interval([-0.30 / 15, -0.40 / 15]))
    same = [r for r in LONGER if r.phase == "confirm"]
    same += [run("sufficient", "a", s, (0.9, 0.6, 0.5), knobs={"epochs": 5}) for s in (1, 2, 3)]
    study = reported(*same)
    assert robustness.slope(study, study.requests[0], study.methods[0]) is None


def untuned() -> list[TrialRecord]:
    """Runs of a method on two requests with all kinds of knobs."""
    gaps = {  # phase, request, source: how far acc_forget is above that of retraining, in points
        ("confirm", "random10", None): 3,
        ("confirm", "random1", None): 6,
        ("default", "random10", None): 15,
        ("default", "random1", None): 0,
        ("sufficient", "random10", None): 9,
        ("sufficient", "random1", None): 3,
        ("transfer", "random1", "random10"): 18,
        ("transfer", "random10", "random1"): 6,
    }
    return [
        run(
            phase,
            "a",
            seed,
            (r[0], r[1] + gap / 100, r[2]),
            forget=forget,
            source=source,
            knobs={"epochs": 20 if phase == "sufficient" else 5},
        )
        for (phase, forget, source), gap in gaps.items()
        for seed, r in enumerate(RETRAIN, start=1)
    ]


def test_robustness_is_recovery_with_knobs_that_were_not_tuned_on_the_request() -> None:
    names, runs = ("random10", "random1"), untuned()
    study = reported(*runs, forget=names)
    found = robustness.robustness(study, study.methods[0])
    # A third of each gap is AvgGap, and doing nothing has 10 points: 6 and 2; 5 and 0; 3 and 1.
    assert found.whole
    assert {part: share.value for part, share in found.parts.items()} == pytest.approx(
        {"transfer": 0.6, "default": 0.75, "sufficient": 0.8}
    )
    assert found.total is not None and found.tuned is not None
    assert found.total.value == pytest.approx((0.6 + 0.75 + 0.8) / 3)
    assert found.tuned.value == pytest.approx(1 - (0.01 + 0.02) / 2 / 0.1)
    # Regret is 4 and 1 points; 4 and -2; 2 and -1.
    regrets = {r.place: r.regret.value for r in found.regrets if r.regret}
    assert regrets == pytest.approx(
        {
            **{"random10 → random1": 0.04, "random1 → random10": 0.01},
            **{"random10, defaults": 0.04, "random1, defaults": -0.02},
            **{"random10, 20 epochs": 0.02, "random1, 20 epochs": -0.01},
        }
    )
    assert found.regrets[-1].regret is not None
    assert found.regrets[-1].regret.value == pytest.approx(0.04)
    # Runs follow their retrained models, so that no draw of seeds changes anything.
    assert found.total.interval == pytest.approx((0.7166667, 0.7166667))

    partly = reported(
        *(r for r in runs if r.source != "random10"),
        *(
            trial("transfer", "a", seed, forget="random1", source="random10", status="failed")
            for seed in (1, 2, 3)
        ),
        forget=names,
    )
    broken = robustness.robustness(partly, partly.methods[0])
    assert not broken.whole
    assert broken.count("transfer") == (1, 2)
    assert broken.parts["transfer"].value == pytest.approx(0.8)


def test_knobs_of_another_kind_of_request_are_no_part_of_robustness() -> None:
    """What becomes of them stands in the tables of transfer."""
    moved = [
        run("transfer", "a", seed, r, forget="b", source="a") for seed, r in enumerate(RETRAIN, 1)
    ]
    kinds = {"a": {"kind": "random"}, "b": {"kind": "hardest"}}
    asked = {"forget": kinds, "experiments": {"transfer": [["a", "b"]]}}
    methods = {"a": {"has_epochs": True}}
    unlike = reported(*moved, forget=("a", "b"), definition=asked, methods=methods)
    assert robustness.asked_parts(unlike) == ()
    alike = {**asked, "forget": {name: {"kind": "random"} for name in kinds}}
    study = reported(*moved, forget=("a", "b"), definition=alike, methods=methods)
    assert robustness.asked_parts(study) == ("transfer",)
    assert robustness.robustness(study, study.methods[0]).parts["transfer"].value == 1.0


def test_interval_of_a_regret_draws_the_same_seeds_for_both() -> None:
    # Gaps differ much between seeds, but the regret hardly does.
    shifts, extra = (0.02, 0.05, 0.08), (0.03, 0.033, 0.036)
    runs = [
        run(phase, "a", seed, (r[0], r[1] + shift + more * (phase == "default"), r[2]))
        for seed, (r, shift, more) in enumerate(zip(RETRAIN, shifts, extra), start=1)
        for phase in ("confirm", "default")
    ]
    study = reported(*runs)
    tuned, untuned = (
        cell_summary(study, study.requests[0], "a", phase) for phase in ("confirm", "default")
    )
    found = regret(untuned, tuned)
    assert found is not None
    assert found.value == pytest.approx(0.011)
    assert found.interval == pytest.approx(interval([more / 3 for more in extra]), rel=0.05)
    assert tuned.average_interval is not None and found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.2 * (
        tuned.average_interval[1] - tuned.average_interval[0]
    )


def test_ranking_kept_compares_methods_that_have_both() -> None:
    own = {"a": 1, "b": 2, "c": 3, "d": 4}
    moved = {"a": 1, "b": 3, "c": 2}
    runs = [
        run(phase, method, seed, (r[0], r[1] + gap / 100, r[2]), forget="random1", source=source)
        for phase, source, gaps in (("confirm", None, own), ("transfer", "random10", moved))
        for method, gap in gaps.items()
        for seed, r in enumerate(RETRAIN, start=1)
    ]
    study = reported(*runs, forget=("random10", "random1"))
    tau, n = robustness.ranking_kept(study, "random10", "random1")
    assert (tau, n) == (pytest.approx(1 / 3), 3)  # two pairs agree, one does not


def compared(gaps: dict[str, Sequence[float | None]]) -> load.RecordedStudy:
    """A study whose methods have these AvgGaps on its requests, in points of the 10 that doing nothing has."""
    requests = [f"request{n}" for n in range(max(map(len, gaps.values())))]
    runs = [
        run("confirm", method, seed, (r[0], r[1] + 3 * gap / 100, r[2]), forget=request)
        for method, values in gaps.items()
        for request, gap in zip(requests, values)
        if gap is not None
        for seed, r in enumerate(RETRAIN, start=1)
    ]
    return reported(*runs, forget=requests)


def test_pairs_are_tested_over_requests_and_corrected_together() -> None:
    rng = np.random.default_rng(5)
    base = rng.uniform(1, 3, size=9)
    gaps = {
        "near": list(base),
        "far": list(base + 1 + rng.uniform(0, 0.4, size=9)),
        "noisy": [*(base[:7] + rng.normal(0, 0.2, size=7)), None, None],
    }
    found = {(p.first, p.second): p for p in comparison.pairs(compared(gaps))}
    names = [("near", "far"), ("near", "noisy"), ("near", "original"), ("far", "noisy")]
    assert list(found) == [*names, ("far", "original"), ("noisy", "original")]
    apart = found["near", "far"]
    assert apart.requests == 9
    assert apart.difference.value == pytest.approx(
        np.mean(np.subtract(gaps["far"], gaps["near"])) / 10
    )
    # Three pairs have enough requests for a test; all signs of each agree.
    assert apart.p == pytest.approx(3 * 2.0**-8)
    assert (apart.told_apart, apart.closer) == (True, "near")
    assert found["far", "original"].closer == "far"
    assert (found["near", "noisy"].requests, found["near", "noisy"].p) == (7, None)
    assert found["far", "noisy"].closer == "noisy", "by the interval"


def test_seeds_of_a_request_are_no_further_requests() -> None:
    """Between two requests that disagree nothing can be told, however sure each is by its seeds."""
    found = comparison.pairs(compared({"a": [1.0, 3.0], "b": [2.0, 2.5]}))[0]
    assert found.difference.value == pytest.approx((0.1 - 0.05) / 2)
    interval = found.difference.interval
    assert interval is not None and interval.low < -0.5 < 0.5 < interval.high
    assert not found.told_apart
    assert comparison.pairs(compared({"a": [1.0], "b": [2.0]}))[0].told_apart, "seeds alone"


def test_methods_are_told_apart_below_the_level_only() -> None:
    nothing = Estimate(0.1, np.array([0.0, 0.2]), 2)
    for p, apart in ((comparison.ALPHA, False), (0.99 * comparison.ALPHA, True)):
        pair = comparison.Pair("a", "b", nothing, 8, p)
        assert (pair.told_apart, pair.closer) == (apart, "a" if apart else "")


def unlike(gaps: dict[str, Sequence[float | None]]) -> set[tuple[Any, ...]]:
    """The cells of the tables of a study, but for the columns and rows of `copy` and `ruin`."""
    study = compared(gaps)
    made = contents.all_tables(study)
    return {
        (table.name, group.name, row[0].text, head, cell.text, cell.best)
        for table in made
        for group in table.groups
        for row in group.rows
        for head, cell in zip(table.columns, row)
        if not {"copy", "ruin"} & {head, row[0].text, row[1].text}
    }


def test_returning_the_original_recovers_nothing_and_a_ruin_less_and_neither_changes_others() -> (
    None
):
    """The former best of the robustness score was a method that does nothing."""
    usual: dict[str, Sequence[float | None]] = {"good": [1.0, 2.0], "fair": [4.0, 5.0]}
    study = compared({**usual, "ruin": [30.0, 20.0]})
    copies = [
        dataclasses.replace(r, phase=phase, method="copy", role="", key=f"{phase}{r.key}")
        for r in study.records
        for phase in ("confirm", "default")
        if r.method == "original"
    ]
    study = load.assemble({}, [*study.records, *copies], {})
    for request in study.requests:
        nothing = recovered(study, request, cell_summary(study, request, "copy"))
        ruin = recovered(study, request, cell_summary(study, request, "ruin"))
        assert nothing is not None and ruin is not None
        assert (nothing.value, nothing.interval) == (0.0, (0.0, 0.0))
        assert ruin.value == pytest.approx(-2.0 if request.name == "request0" else -1.0)
        assert ruin.interval is not None and ruin.interval.high < 0
    bold = [
        (table.name, row[0].text, head)
        for table in contents.all_tables(study)
        for group in table.groups
        for row in group.rows
        for head, cell in zip(table.columns, row)
        if cell.best and {"copy", "ruin"} & {row[0].text, head}
    ]
    assert bold == []
    closer = {(pair.first, pair.second): pair.closer for pair in comparison.pairs(study)}
    assert [pair for pair, best in closer.items() if best in ("copy", "ruin")] == []
    assert unlike(usual) <= unlike({**usual, "ruin": [30.0, 20.0]})


def test_a_request_on_which_doing_nothing_is_within_chance_has_nothing_to_measure() -> None:
    """Three times the noise of retraining is the least: AvgGap 1.67 here, so 5 points."""
    for gap, measured in ((0.16, True), (0.14, False)):
        study = reported(*(run("confirm", "a", seed, r) for seed, r in enumerate(RETRAIN, 1)))
        near = [
            dataclasses.replace(
                r,
                metrics={
                    "test": {**r.metrics["test"], "mia_lr_entropy": RETRAIN[r.seed - 1][2] + gap}
                },
            )
            if r.method == "original"
            else r
            for r in study.records
        ]
        study = load.assemble({}, near, {})
        request = study.requests[0]
        assert scale(study, request).measurable is measured
        main = result_tables.main(study).groups[0].rows
        last = [cell.text for cell in main[-1]]
        assert (last[1] == "nothing to measure") is not measured
        assert measured or not any(cell.best for row in main for cell in row)
        said = " ".join(cards.sentences(study))
        assert ("there is nothing to measure" in said) is not measured
        assert ("of the way to retraining" in said) is measured
        assert (robustness.robustness(study, study.methods[0]).tuned is None) is not measured


def test_worked_example_of_the_page_is_what_the_report_computes() -> None:
    """The numbers of ``docs/statistics.md``, in percent, of five retrained models, originals and three runs."""
    retrain = ((98, 94, 60), (97, 93, 62), (98, 95, 61), (97, 94, 63), (98, 93, 59))
    originals = ((98, 100, 80), (98, 100, 82), (98, 100, 81))
    runs = ((97, 95, 63), (98, 96, 62), (97, 95, 64))
    seeds = {"search": [0], "report": [1, 2, 3], "retrain": 5}
    every = (1, 2, 3, *retrain_seeds(seeds))
    records = [
        run(phase, model, seed, [value / 100 for value in row], role=role)
        for phase, model, role, table in (
            ("reference", "retrain", "report", retrain),
            ("reference", "original", "report", originals),
            ("confirm", "a", "", runs),
        )
        for seed, row in zip(every, table)
    ]
    study = load.assemble({"definition": {"seeds": seeds}}, records, {})
    request = study.requests[0]
    result, by = cell_summary(study, request, "a"), scale(study, request)
    share = recovered(study, request, result)
    assert retrained(study, request).n == 5
    assert result.verdicts == dict(zip(NAMES, ("same", "different", "undecided")))
    assert result.verdict == "undecided"
    assert [round(100 * result.gaps[name], 2) for name in NAMES] == [0.27, 1.53, 2.0]
    assert result.average is not None and by.original is not None and by.noise is not None
    numbers = (result.average, by.original.value, by.noise)
    assert [round(100 * number, 2) for number in numbers] == [1.27, 8.87, 0.97]
    assert share is not None and by.ceiling is not None
    assert (round(100 * share.value, 1), round(100 * by.ceiling, 1)) == (85.7, 89.1)
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for text in ("0.27, 1.53 and 2.00, so AvgGap is 1.27", "8.87, the floor 0.97", "= 85.7 %"):
        assert text in page
    assert "the ceiling 89.1 %" in page


def test_margin_of_the_study_decides_in_points() -> None:
    line = {"definition": {"report": {"margin": 4.0}}}
    values = ((0.90, 0.90, 0.50), (0.91, 0.91, 0.51), (0.92, 0.92, 0.52))
    runs = [run("confirm", "a", seed, row) for seed, row in enumerate(values, start=1)]
    words = []
    for given in (line, {"definition": {"report": {"margin": 2.0}}}):
        study = reported(*runs, **given)
        words.append(cell_summary(study, study.requests[0], "a").verdicts["acc_test"])
    # Standard error 0.82 points, 2.13 of them: within 4 points, but not within 1.7.
    assert words == ["same", "same"]
    strict = reported(*runs, definition={"report": {"margin": 1.7}})
    assert cell_summary(strict, strict.requests[0], "a").verdicts["acc_test"] == "undecided"


def test_further_retrained_models_join_those_of_the_report_seeds() -> None:
    """They narrow what retraining does; one that the study no longer asks for does not count."""
    seeds = {"search": [0], "report": [1, 2, 3], "retrain": 5}
    more = retrain_seeds(seeds)
    extra = [
        run("reference", "retrain", seed, (0.95, 0.96, 0.5), role="report") for seed in (*more, 77)
    ]
    runs = [run("confirm", "a", seed, r) for seed, r in enumerate(RETRAIN, 1)]
    study = reported(*runs, *extra, definition={"seeds": seeds})
    found = retrained(study, study.requests[0])
    assert found.n == 5
    assert found.means["acc_test"] == pytest.approx((0.90 + 0.91 + 0.92 + 0.95 + 0.95) / 5)
    few = reported(*runs, *extra, definition={"seeds": {**seeds, "retrain": 3}})
    assert retrained(few, few.requests[0]).n == 3
    interval = cell_summary(study, study.requests[0], "a").average_interval
    assert interval is not None and interval.low <= 0.053 / 3 <= interval.high


def test_interval_of_recovery_covers_the_truth() -> None:
    """Three runs and ten retrained models, of which a perfect and a half-way method are drawn again and again."""
    rng = np.random.default_rng(4)
    seeds = {"search": [0], "report": [1, 2, 3], "retrain": 10}
    every = (1, 2, 3, *retrain_seeds(seeds))
    held, draws = 0, 120
    for _ in range(draws):
        noise = rng.normal(0, 0.01, size=(16, 3))
        rows = [
            *(("reference", "retrain", seed, noise[at]) for at, seed in enumerate(every)),
            *(
                ("reference", "original", seed, noise[10 + seed - 1] * 0 + 0.2)
                for seed in (1, 2, 3)
            ),
            *(("confirm", "a", seed, noise[12 + seed] + 0.1) for seed in (1, 2, 3)),
        ]
        records = [
            run(phase, name, seed, values, role="report" if phase == "reference" else "")
            for phase, name, seed, values in rows
        ]
        study = load.assemble({"definition": {"seeds": seeds}}, records, {})
        share = recovered(study, study.requests[0], cell_summary(study, study.requests[0], "a"))
        assert share is not None and share.interval is not None
        held += share.interval.low <= 0.5 <= share.interval.high
    assert 0.9 <= held / draws <= 1.0


def searched_between(value: float, log: bool, **more: Any) -> load.RecordedStudy:
    """A study of five trials, whose best has this learning rate; its range is 1e-4 to 1."""
    space = {"lr": {"low": 1e-4, "high": 1.0, "log": log}, "rule": {"choices": ["x", "y"]}}
    line = {"definition": {"methods": [{"name": "a", "space": space}], **more}}
    rates = (value, 0.011, 0.012, 0.013, 0.014)
    trials = [
        trial(
            "search", "a", 0, number=number, knobs={"lr": rate, "rule": "x"},
            metrics={"val": {"avg_gap_natmu": 0.1 + number / 100}},
        )
        for number, rate in enumerate(rates)
    ]  # fmt: skip
    return load.assemble(line, trials, {})


@pytest.mark.parametrize(
    ("value", "log", "edge"),
    [
        (10**-3.6, True, True),
        (10**-3.5, True, False),
        (10**-0.4, True, True),
        (0.1, False, True),
        (0.11, False, False),
        (0.9001, False, True),
        (1.0, True, True),
    ],
)
def test_a_chosen_value_at_the_edge_of_its_range_was_not_tuned_enough(
    value: float, log: bool, edge: bool
) -> None:
    study = searched_between(value, log)
    found = tuning_check.check_tuning(study, "random10", "a")
    assert found is not None
    assert found.at_edge == (("lr",) if edge else ())
    assert found.enough is (not edge)
    table = next(table for table in contents.all_tables(study) if table.name == "knobs")
    answer = table.groups[0].rows[0][-1].text
    assert answer == ("no: lr at the edge of its range" if edge else "yes: none is before it")
    said = "In 1 of 1 cell, a chosen knob is at the edge of its range."
    assert cards.tuned_enough(study) == (said if edge else "")
