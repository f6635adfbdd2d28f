"""Statistics of the report, each against a value worked out by hand, by enumeration, or by another library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from mu.record import TrialRecord
from reports import comparison, load, robustness, tuning_check
from reports.ranks import (
    cliques,
    friedman,
    holm,
    kendall,
    ranks,
    signed_rank,
    smallest_p,
)
from reports.stats import (
    RESAMPLES,
    Estimate,
    Interval,
    leave_one_out,
    noise_floor,
    pairwise,
    resamples,
    spread,
    weighted_means,
)
from reports.summaries import cell_summary, regret, retrained

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
    assert pairwise(values) == [1.0, 5.0, 4.0]
    assert noise_floor(values) == pytest.approx(3.0)
    assert leave_one_out([1.0, 4.0]) == [3.0, 3.0]
    assert leave_one_out([1.0]) == pairwise([1.0]) == []


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
    assert signed_rank(differences)[0] == pytest.approx(signs_by_enumeration(differences))


def test_signed_rank_is_that_of_scipy() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.4, 1, size=14)
        expected = reference.wilcoxon(values, method="exact").pvalue
        assert signed_rank(values)[0] == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_smallest_p_is_reached_when_all_signs_agree(n: int) -> None:
    assert signed_rank(np.arange(1, n + 1) / 7)[0] == pytest.approx(smallest_p(n)) == 2.0 ** (1 - n)


def test_signed_rank_names_the_side_and_takes_rounding_for_equality() -> None:
    assert signed_rank([0.1, 0.2, -0.05])[1] == 1
    assert signed_rank([-0.3, 0.1])[1] == -1
    assert signed_rank([0.1 + 0.2 - 0.3, 0.0]) == (1.0, 0)
    assert signed_rank([0.1, 0.1, -0.2]) == (1.0, 0)  # ranks 1.5 + 1.5 and 3
    assert signed_rank([]) == (1.0, 0)


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


@pytest.mark.parametrize("high", [1000, 4])
def test_friedman_is_that_of_scipy_also_with_ties(high: int) -> None:
    table = np.random.default_rng(3).integers(0, high, size=(7, 4)).astype(float)
    expected = reference.friedmanchisquare(*table.T).pvalue
    assert friedman(table) == pytest.approx(expected)


def test_friedman_of_nothing_to_rank() -> None:
    assert friedman([[1.0, 1.0], [2.0, 2.0]]) == 1.0
    assert friedman([[1.0, 2.0]]) is None


def test_cliques_are_the_longest_runs_without_a_difference() -> None:
    def apart(*pairs: str) -> list[frozenset[str]]:
        return [frozenset(pair) for pair in pairs]

    assert cliques("abcd", apart("ad")) == [("a", "b", "c"), ("b", "c", "d")]
    assert cliques("abcd", apart("ac", "ad", "bd")) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert cliques("abcd", apart("ab", "ac", "ad")) == [("b", "c", "d")]
    assert cliques("abc", []) == [("a", "b", "c")]
    assert cliques("ab", apart("ab")) == []


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
    """A study of three retrained models for each request, and some runs."""
    retrain = [
        run("reference", "retrain", seed, values, role="report", forget=name)
        for name in forget
        for seed, values in enumerate(RETRAIN, start=1)
    ]
    return load.assemble(line, [*retrain, *runs], {})


def test_gap_has_students_interval_of_the_differences_within_seeds() -> None:
    values = ((0.895, 0.90, 0.40), (0.905, 0.95, 0.45), (0.915, 1.00, 0.50))
    study = reported(*(run("confirm", "a", seed, v) for seed, v in enumerate(values, start=1)))
    found = cell_summary(study, study.requests[0], "a").gap_intervals
    # acc_forget: differences 0.02, 0.05 and 0.08; mean 0.05, deviation 0.03
    assert found["acc_forget"] == pytest.approx((0.0, 0.05 + T3 * 0.03 / math.sqrt(3)))
    # acc_test: each is 0.005 below, so that the gap is certain
    assert found["acc_test"] == pytest.approx((0.005, 0.005))


def test_gap_of_fewer_runs_keeps_its_centre() -> None:
    study = reported(
        run("confirm", "a", 1, (0.9, 0.80, 0.5)), run("confirm", "a", 2, (0.9, 0.86, 0.5))
    )
    result = cell_summary(study, study.requests[0], "a")
    # mean 0.83 against 0.90 of all three; differences -0.08 and -0.04
    half = T2 * stdev([0.08, 0.04]) / math.sqrt(2)
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
    # Pairs: 1, 2, 1 in test; 2, 4, 2 in forget; 0, 3, 3 in MIA
    assert found.pairs["avg_gap_natmu"] == pytest.approx([0.01, 0.03, 0.02])


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


def test_robustness_is_the_mean_of_its_two_parts() -> None:
    names = ("random10", "random1")
    gaps = {  # phase, request, source: how far acc_forget is above that of retraining, in points
        ("confirm", "random10", None): 3,
        ("confirm", "random1", None): 6,
        ("sufficient", "random10", None): 9,
        ("sufficient", "random1", None): 3,
        ("transfer", "random1", "random10"): 18,
        ("transfer", "random10", "random1"): 6,
    }
    runs = [
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
    study = reported(*runs, forget=names)
    found = robustness.score(study, study.methods[0])
    # A third of each gap is AvgGap: transfers cost 4 and 1 points, longer training 2 and -1.
    assert found.complete
    assert found.parts["transfer"].value == pytest.approx(0.025)
    assert found.parts["sufficient"].value == pytest.approx(0.005)
    assert found.total is not None and found.worst is not None
    assert found.total.value == pytest.approx(0.015)
    assert found.worst.place == "random10 → random1"
    # Runs follow their retrained models, so that no draw of seeds changes anything.
    assert found.total.interval == pytest.approx((0.015, 0.015))

    partly = reported(
        *(r for r in runs if r.source != "random10"),
        *(
            trial("transfer", "a", seed, forget="random1", source="random10", status="failed")
            for seed in (1, 2, 3)
        ),
        forget=names,
    )
    broken = robustness.score(partly, partly.methods[0])
    assert not broken.complete
    assert broken.count("transfer") == (1, 2)
    assert broken.total is not None
    assert broken.total.value == pytest.approx((0.01 + 0.005) / 2)


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


def compared(gaps: dict[str, Sequence[float | None]], seeds: int = 3) -> load.RecordedStudy:
    """A study whose methods have these gaps, in order of problems: seeds within requests."""
    requests = [f"request{n}" for n in range(max(map(len, gaps.values())) // seeds)]
    runs = []
    for method, values in gaps.items():
        problems = [(request, seed) for request in requests for seed in range(seeds)]
        for (request, seed), gap in zip(problems, values):
            if gap is not None:
                acc, forget, mia = np.mean(RETRAIN, axis=0)
                runs.append(
                    run("confirm", method, seed + 1, (acc, forget + 3 * gap, mia), forget=request)
                )
    return reported(*runs, forget=requests)


def test_pairs_are_tested_over_shared_problems_and_corrected_together() -> None:
    rng = np.random.default_rng(5)
    base = rng.uniform(0.01, 0.03, size=9)
    gaps = {
        "near": list(base),
        "far": list(base + 0.01 + rng.uniform(0, 0.004, size=9)),
        "noisy": [*(base[:7] + rng.normal(0, 0.002, size=7)), None, None],
    }
    found = {(p.first, p.second): p for p in comparison.pairs(compared(gaps))}
    assert list(found) == [("near", "far"), ("near", "noisy"), ("far", "noisy")]
    apart = found["near", "far"]
    assert apart.difference.n == 9
    assert apart.requests == 3
    assert apart.difference.mean == pytest.approx(np.mean(np.subtract(gaps["near"], gaps["far"])))
    assert apart.p == pytest.approx(2.0**-8)
    assert apart.p_holm == pytest.approx(3 * 2.0**-8)
    assert apart.told_apart
    assert apart.closer == "near"
    assert found["near", "noisy"].difference.n == 7
    assert found["far", "noisy"].p == pytest.approx(2.0**-6)
    assert found["far", "noisy"].p_holm == pytest.approx(2 * 2.0**-6)
    assert found["far", "noisy"].closer == "noisy"


def test_methods_are_told_apart_below_the_level_only() -> None:
    summary = spread([0.1, 0.2])
    assert summary is not None
    for p, apart in ((comparison.ALPHA, False), (0.99 * comparison.ALPHA, True)):
        assert comparison.Pair("a", "b", summary, 1, p, p, "b").told_apart is apart


def test_few_problems_cannot_tell_anything_apart() -> None:
    study = compared({"a": [0.01] * 3, "b": [0.02] * 3, "c": [0.3] * 3})
    n, smallest, corrected = comparison.smallest_corrected(study)
    assert (n, smallest, corrected) == (3, 0.25, 0.75)
    more = compared({name: [0.01] * 3 for name in "abcd"})
    assert comparison.smallest_corrected(more) == (3, 0.25, 1.0)  # six pairs
    partly = compared({"a": [0.01] * 3, "b": [0.02] * 3, "c": [0.3, 0.3, None]})
    assert comparison.smallest_corrected(partly)[0] == 3
    assert comparison.smallest_corrected(reported()) == (0, 1.0, 0.0)
    assert not any(pair.told_apart for pair in comparison.pairs(study))


def test_methods_are_ranked_over_problems_that_all_of_them_have() -> None:
    gaps = {
        "a": [0.01, 0.02, 0.01],
        "b": [0.03, 0.01, 0.02],
        "c": [0.05, 0.05, None],
    }
    found = comparison.ranking(compared(gaps))
    assert found is not None
    assert found.ranks == {"a": pytest.approx(4 / 3), "b": pytest.approx(5 / 3)}
    assert (found.left_out, found.problems) == (("c",), 3)
    assert found.cliques == (("a", "b"),)


def test_ranking_falls_back_on_shared_problems_and_needs_two_methods() -> None:
    crossed = compared({"a": [0.01, 0.02, None], "b": [None, 0.01, 0.02]})
    found = comparison.ranking(crossed)
    assert found is not None
    assert (found.problems, found.ranks, found.p) == (1, {"b": 1.0, "a": 2.0}, None)
    assert comparison.ranking(compared({"a": [0.01, 0.02, 0.03]})) is None
    assert comparison.ranking(compared({"a": [0.01, None, None], "b": [None, 0.01, None]})) is None
