"""Same, different, undecided: against SciPy's t tests, and by simulation as ``docs/statistics.md`` prints it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from error_rates import OFFSETS, SIZES, rates, table
from scipy import stats
from studies import ROOT

from reports.statistics import equivalence, recovery
from reports.statistics.equivalence import DIFFERENT, SAME, UNDECIDED, PValues


def test_tests_are_those_of_scipy_in_two_hundred_random_cases() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        runs, models = (rng.normal(size=int(rng.integers(2, 12))) for _ in range(2))
        limit = float(rng.uniform(0.1, 3))
        found = equivalence.compare(runs, models, limit)
        sides = (
            stats.ttest_ind(runs - limit, models, alternative="less").pvalue,
            stats.ttest_ind(runs + limit, models, alternative="greater").pvalue,
        )
        assert float(found.apart) == pytest.approx(max(sides), abs=1e-9)
        expected = stats.ttest_ind(runs, models)
        assert float(found.equal) == pytest.approx(expected.pvalue, abs=1e-9)
        interval = expected.confidence_interval(0.95)
        assert equivalence.interval(runs, models) == pytest.approx((interval.low, interval.high))


def test_margin_is_two_deviations_of_the_retrained_models_and_half_a_point_at_least() -> None:
    assert float(equivalence.margin([0.90, 0.92, 0.94])) == pytest.approx(0.04)
    least = equivalence.HALF_A_POINT
    assert float(equivalence.margin([0.90, 0.901, 0.902], least)) == pytest.approx(0.005)
    assert float(equivalence.margin([0.90, 0.92, 0.94], least)) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("runs", "models", "word"),
    [
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], SAME),
        ([0.904, 0.904], [0.9, 0.9], SAME),  # within half a point, and no spread at all
        ([0.906, 0.906], [0.9, 0.9], DIFFERENT),
        ([0.1 + 0.2] * 3, [0.3] * 3, SAME),
        ([0.5, 0.9, 0.7], [0.9, 0.91, 0.92], UNDECIDED),
    ],
)
def test_values_without_spread_are_told_by_the_margin(
    runs: list[float], models: list[float], word: str
) -> None:
    limit = float(equivalence.margin(models, equivalence.HALF_A_POINT))
    assert equivalence.verdict(runs, models, limit) == word


def test_a_difference_within_the_margin_is_none_that_counts() -> None:
    assert equivalence.word(0.01, 0.01) == SAME
    assert equivalence.word(0.05, 0.01) == DIFFERENT
    assert equivalence.word(0.05, 0.05) == UNDECIDED


def test_several_metrics_are_the_same_together_and_different_beyond_doubt() -> None:
    def tests(*pairs: tuple[float, float]) -> list[PValues]:
        return [PValues(np.float64(apart), np.float64(equal)) for apart, equal in pairs]

    assert equivalence.together(tests((0.01, 0.5), (0.04, 0.9))) == SAME
    assert equivalence.together(tests((0.01, 0.5), (0.9, 0.02))) == DIFFERENT
    assert equivalence.together(tests((0.01, 0.5), (0.9, 0.03))) == UNDECIDED, "two tests"


def test_error_rates_and_power_are_what_they_should_be() -> None:
    """Of normal values; of skewed and of tied ones a perfect method is called different no more often either."""
    for law in ("normal", "skewed", "tied"):
        for n, m in SIZES:
            perfect, *_ = found = [rates(law, n, m, offset) for offset in OFFSETS]
            same, different = zip(*found)
            assert perfect[1] <= 0.055
            assert list(same) == sorted(same, reverse=True)
            assert different[-1] == max(different)
    assert rates("normal", 3, 3, 0)[0] == pytest.approx(0.28, abs=0.02)
    for (n, m), power in {(3, 10): 0.74, (5, 10): 0.88, (10, 10): 0.95}.items():
        assert rates("normal", n, m, 0)[0] == pytest.approx(power, abs=0.02)
        assert rates("normal", n, m, 2)[0] <= 0.09, "two deviations off is at the margin"
        assert rates("normal", n, m, 3)[1] >= 0.98


def test_the_page_has_the_table_of_error_rates() -> None:
    assert "\n".join(table()) in (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_recovery_is_the_share_of_the_way_to_retraining() -> None:
    assert recovery.recovery(0.0, 0.08) == 1.0
    assert recovery.recovery(0.08, 0.08) == 0.0
    assert recovery.recovery(0.12, 0.08) == pytest.approx(-0.5)
    assert math.isnan(recovery.recovery(0.1, 0.0))
    assert list(recovery.recovery(np.array([0.02, 0.08]), np.array([0.08, 0.16]))) == [0.75, 0.5]
    assert recovery.ceiling(0.02, 0.08) == 0.75
    assert recovery.ceiling(None, 0.08) is recovery.ceiling(0.02, 0.0) is None


@pytest.mark.parametrize(
    ("original", "noise", "measurable"),
    [
        (0.03, 0.01, True),
        (0.029, 0.01, False),
        (0.01, None, True),
        (0.0, 0.0, False),
        (None, 0.01, False),
    ],
)
def test_doing_nothing_must_be_three_noises_from_retraining(
    original: float | None, noise: float | None, measurable: bool
) -> None:
    assert recovery.measurable(original, noise) is measurable
