"""Membership inference: the fitted attack against scikit-learn and the golden vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden_files import golden
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from mu.attacks import Threshold, fit_logistic, mia_lr_entropy


def scores(case: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of members and non-members."""
    rng = np.random.default_rng(len(case))
    inside, outside = rng.normal(0, 1, 60), rng.normal(1, 1.5, 35)
    if case == "unbalanced":
        inside = rng.normal(0, 1, 900)
    if case == "separable":
        inside, outside = rng.uniform(0, 1, 40), rng.uniform(3, 4, 25)
    if case == "constant":
        inside, outside = np.full(30, 0.7), np.full(20, 0.7)
    if case == "entropies":
        inside, outside = rng.exponential(1e-3, 200), rng.exponential(0.2, 50)
    if case == "far":
        inside, outside = 50 + inside, 50 + outside
    return inside, outside


CASES = ["random", "unbalanced", "separable", "constant", "entropies", "far"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("c", [2.0, 1.0])
def test_fit_is_scikit_learns(case: str, c: float) -> None:
    inside, outside = scores(case)
    fitted = fit_logistic(inside, outside, c)
    reference = LogisticRegression(
        C=c, class_weight="balanced", tol=1e-12, max_iter=100_000, solver="newton-cholesky"
    )
    reference.fit(
        np.concatenate([inside, outside])[:, None],
        np.repeat([1, 0], [len(inside), len(outside)]),
    )
    assert fitted.slope == pytest.approx(reference.coef_.item(), rel=1e-6, abs=1e-6)
    assert fitted.intercept == pytest.approx(reference.intercept_.item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_fit_is_at_the_optimum(case: str) -> None:
    inside, outside = scores(case)
    fitted = fit_logistic(inside, outside)
    score = np.concatenate([inside, outside])
    label = np.repeat([1.0, 0.0], [len(inside), len(outside)])
    weight = np.repeat(
        [len(score) / 2 / len(inside), len(score) / 2 / len(outside)], [len(inside), len(outside)]
    )
    residual = 2 * weight * (1 / (1 + np.exp(-(fitted.slope * score + fitted.intercept))) - label)
    scale = len(score) * (1 + np.abs(score).max())
    assert abs(residual.sum()) < 1e-8 * scale
    assert abs(fitted.slope + residual @ score) < 1e-8 * scale


def test_classes_weigh_the_same_whatever_their_sizes() -> None:
    inside, outside = scores("random")
    once, often = fit_logistic(inside, outside), fit_logistic(np.tile(inside, 9), outside)
    middle = [-fit.intercept / fit.slope for fit in (once, often)]
    assert middle[0] == pytest.approx(middle[1], abs=0.02)


def test_fit_needs_both_sets() -> None:
    for inside, outside in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="needs both sets"):
            fit_logistic(inside, outside)


def test_members_lie_strictly_above_the_threshold() -> None:
    assert Threshold(2.0, -1.0).members([0.4, 0.5, 0.6]).tolist() == [False, False, True]


def test_papers_attack_on_the_golden_entropies() -> None:
    z = golden("mia_entropy")
    fitted = fit_logistic(z["H_retain"], z["H_test"])
    assert fitted.slope == pytest.approx(float(z["beta"]), abs=1e-5)
    assert fitted.intercept == pytest.approx(float(z["intercept"]), abs=1e-5)
    assert -fitted.intercept / fitted.slope == pytest.approx(float(z["thr"]), abs=1e-5)
    assert np.array_equal(fitted.members(z["H_forget"]), z["member_forget"])
    ratio = mia_lr_entropy(z["H_retain"], z["H_test"], z["H_forget"])
    assert 100 * ratio == pytest.approx(float(z["mia_ratio_percent"]))
    slope, intercept, share = z["lr_C1"]
    plain = fit_logistic(z["H_retain"], z["H_test"], c=1.0)
    assert (plain.slope, plain.intercept) == pytest.approx((slope, intercept), rel=1e-4)
    assert 100 * plain.members(z["H_forget"]).mean() == pytest.approx(share)


@pytest.mark.parametrize("c", [1, 2])
def test_attack_on_golden_logits(c: int) -> None:
    z = golden("b_mia_entropy_lr")
    fitted = fit_logistic(z["entropy_retain"], z["entropy_test"], float(c))
    assert fitted.slope == pytest.approx(float(z[f"coef_C{c}"]), rel=1e-5)
    assert fitted.intercept == pytest.approx(float(z[f"intercept_C{c}"]), rel=1e-5)
    called = fitted.members(z["entropy_forget"])
    assert np.array_equal(called, z[f"pred_C{c}"])
    assert 100 * called.mean() == pytest.approx(float(z[f"mia_percent_C{c}"]))
    if c == 2:
        rate = mia_lr_entropy(*(z[f"entropy_{name}"] for name in ("retain", "test", "forget")))
        assert rate == called.mean()


def test_confident_samples_are_called_members() -> None:
    low, high = np.full(50, 0.01), np.full(50, 1.0)
    assert mia_lr_entropy(low, high, low) == 1.0
    assert mia_lr_entropy(low, high, high) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("position", range(3))
def test_rate_is_nan_where_an_entropy_is_not_finite(bad: float, position: int) -> None:
    sets = [np.array([0.1, 0.2]), np.array([1.0, 2.0]), np.array([0.3])]
    assert not math.isnan(mia_lr_entropy(*sets))
    sets[position] = np.append(sets[position], bad)
    assert math.isnan(mia_lr_entropy(*sets))
    sets[position] = np.empty(0)
    assert math.isnan(mia_lr_entropy(*sets))
