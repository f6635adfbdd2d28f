"""Membership inference: the fitted attacks against scikit-learn and the golden vectors, and their ranges."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.svm import SVC

from mu.metrics import METRICS, SVC_GAP4, attacks, max_gap, mean_gap
from mu.metrics.attacks import MIN_FIT, SVC_INPUTS, mia_lr_entropy
from mu.metrics.logistic import Threshold, fit_logistic

quick = settings(deadline=None, max_examples=30, derandomize=True)
TIGHT = {"rel": 1e-9, "abs": 1e-10}


def numbers(low: float, high: float, sizes: tuple[int, int] = (1, 40)) -> st.SearchStrategy:
    """Draw arrays of finite numbers, often with ties."""
    return arrays(
        np.float64,
        st.integers(*sizes),
        elements=st.one_of(
            st.floats(low, high, allow_subnormal=False),
            st.sampled_from([low, (low + high) / 2, high]),
        ),
    )


LOSSES = numbers(0, 20)


def log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logits of probabilities, some of which may be 0."""
    return np.log(np.maximum(probabilities, 1e-300))


def scores(case: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores of members and non-members."""
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
    cached, often = fit_logistic(inside, outside), fit_logistic(np.tile(inside, 9), outside)
    middle = [-fit.intercept / fit.slope for fit in (cached, often)]
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


def gradient(fitted: Threshold, inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Return the largest derivative of the attack's objective, relative to the terms it is the sum of."""
    margin_in, margin_out = (fitted.slope * x + fitted.intercept for x in (inside, outside))
    half = len(inside) + len(outside)  # c = 2
    terms = [
        -half / len(inside) / (1 + np.exp(margin_in)),
        half / len(outside) / (1 + np.exp(-margin_out)),
    ]
    at = np.concatenate([inside, outside])
    residual = np.concatenate(terms)
    slope = fitted.slope + residual @ at
    size = np.abs(residual) @ np.abs(at) + abs(fitted.slope)
    return max(
        abs(float(residual.sum())) / float(np.abs(residual).sum() + 1e-300),
        abs(float(slope)) / float(size + 1e-300),
    )


@quick
@given(numbers(-5, 5), numbers(-5, 5), st.sampled_from([1e-3, 1.0, 50.0]), st.floats(-100, 100))
def test_fit_is_at_the_optimum_of_any_scores(inside, outside, scale, shift) -> None:
    inside, outside = scale * inside + shift, scale * outside + shift
    assert gradient(fit_logistic(inside, outside), inside, outside) < 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6, 1e12])
def test_fit_of_separable_scores_of_any_scale_parts_them(scale: float) -> None:
    inside, outside = scale * np.linspace(0, 1, 40), scale * np.linspace(1.5, 3, 30)
    fitted = fit_logistic(inside, outside)
    assert gradient(fitted, inside, outside) < 1e-6
    assert fitted.members(inside).all()
    if scale >= 1:  # below, the penalty on the slope outweighs the scores
        assert not fitted.members(outside).any()


@pytest.mark.parametrize("case", CASES)
def test_fit_of_many_scores_is_that_of_few_repeated(case: str) -> None:
    inside, outside = scores(case)
    times = 20_000 // len(outside)
    # The penalty weighs as much less as there are more samples.
    few, many = (
        fit_logistic(inside, outside, 2.0 * times),
        fit_logistic(np.tile(inside, times), np.tile(outside, times)),
    )
    assert many.slope == pytest.approx(few.slope, rel=1e-8, abs=1e-8)
    assert many.intercept == pytest.approx(few.intercept, rel=1e-8, abs=1e-8)


@quick
@given(LOSSES, LOSSES, LOSSES, st.randoms(use_true_random=False))
def test_entropy_attack_is_a_rate_whatever_the_order(retain, held_out, forget, random) -> None:
    rate = mia_lr_entropy(retain, held_out, forget)
    assert 0 <= rate <= 1
    order = random.sample(range(len(retain)), len(retain))
    shuffled = mia_lr_entropy(retain[order], held_out[::-1], forget[::-1])
    borderline = np.abs(
        fit_logistic(retain, held_out).slope * forget + fit_logistic(retain, held_out).intercept
    )
    if borderline.min() > 1e-6:
        assert shuffled == rate


def test_batch_independent_modified_entropy_is_the_published_one() -> None:
    z = golden("b_mia_jia_svc")
    entropies = attacks.m_entropy(z["logits_forget"], z["y_forget"])
    np.testing.assert_allclose(entropies, z["m_entropy_rowwise_forget"], rtol=1e-9, atol=1e-10)
    column = attacks.m_entropy(z["logits_forget"], z["y_forget"], "columns")
    np.testing.assert_allclose(column, z["m_entropy_official_forget"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("part", ["shadow_train", "shadow_test", "target_train", "target_test"])
@pytest.mark.parametrize(("variant", "key"), [("rows", "song"), ("columns", "official")])
def test_modified_entropies_of_probabilities(part: str, variant: str, key: str) -> None:
    z = golden("svc_mia")
    entropies = attacks.m_entropy(log(z[f"p_{part}"]), z[f"y_{part}"], variant)
    np.testing.assert_allclose(entropies, z[f"mentr_{key}_{part}"], rtol=0, atol=1e-9)


def test_attack_on_natmus_modified_entropy() -> None:
    z = golden("mia_entropy")
    entropies = {
        name: attacks.m_entropy(log(z[f"p_{name}"]), z[f"y_{name}"], "natmu")
        for name in ("retain", "test", "forget")
    }
    for name, values in entropies.items():
        np.testing.assert_allclose(values, z[f"mentr_natmu_{name}"], rtol=0, atol=1e-10)
    song = attacks.m_entropy(log(z["p_forget"]), z["y_forget"])
    np.testing.assert_allclose(song, z["mentr_song_forget"], rtol=0, atol=1e-10)
    fitted = fit_logistic(entropies["retain"], entropies["test"])
    assert (fitted.slope, fitted.intercept) == pytest.approx(tuple(z["beta_m"]), abs=1e-5)
    assert 100 * fitted.members(entropies["forget"]).mean() == pytest.approx(
        float(z["mia_m_ratio_percent"])
    )


def test_modified_entropy_spans_its_scale() -> None:
    logits = np.array([[0.0, -1000.0], [0.0, -1000.0], [0.0, 0.0], [0.0, -50.0]])
    right, wrong, undecided, nearly = attacks.m_entropy(logits, [0, 1, 0, 1])
    assert right == 0
    assert wrong == pytest.approx(2000)  # -ln p_y - ln(1 - p of the other): 1000 each
    assert undecided == pytest.approx(math.log(2))
    assert nearly == pytest.approx(100)  # though 1 - p rounds to 0
    with pytest.raises(ValueError, match="variant must be"):
        attacks.m_entropy(logits, [0, 1, 0, 1], "song")


def test_modified_entropy_of_a_sample_depends_on_the_batch_only_in_the_official_variant() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    for variant, same in (("rows", True), ("natmu", True), ("columns", False)):
        alone = attacks.m_entropy(logits[:1], labels[:1], variant)
        together = attacks.m_entropy(logits, labels, variant)
        assert bool(np.isclose(alone[0], together[0])) is same


def test_svc_attacks_are_those_of_jia_et_al() -> None:
    z = golden("b_mia_jia_svc")
    parts = ("retain", "test", "forget", "target_train")
    features = {p: attacks.svc_features(z[f"logits_{p}"], z[f"y_{p}"]) for p in parts}
    for name, rate, privacy in zip(SVC_INPUTS, z["forget_efficacy"], z["training_privacy"]):
        sets = [features[part][name] for part in parts]
        if name == "m_entropy":
            assert attacks.mia_svc_nonmember(*sets[:3]) == z["m_entropy_attack_rowwise"]
            sets = [
                attacks.m_entropy(z[f"logits_{p}"], z[f"y_{p}"], "columns")[:, None] for p in parts
            ]
        assert attacks.mia_svc_nonmember(*sets[:3]) == pytest.approx(rate, abs=1e-12), name
        called = attacks.svc_members(sets[0], sets[1], sets[3]).mean()
        assert (called + rate) / 2 == pytest.approx(privacy, abs=1e-12), name
    called = attacks.svc_members(*(features[part]["conf"] for part in parts[:3]))
    assert np.array_equal(called, z["confidence_pred_forget"])
    assert 100 * (1 - called.mean()) == pytest.approx(float(z["mia_score_percent"]))


def test_svc_attacks_are_saluns_five_numbers() -> None:
    z = golden("svc_mia")
    parts = ("shadow_train", "shadow_test", "target_test", "target_train")
    features = {p: attacks.svc_features(log(z[f"p_{p}"]), z[f"y_{p}"]) for p in parts}
    for name, rate, privacy in zip(SVC_INPUTS, z["efficacy"], z["privacy"]):
        sets = [features[part][name] for part in parts]
        if name == "m_entropy":
            song = attacks.mia_svc_nonmember(*sets[:3])
            assert song == pytest.approx(float(z["efficacy_mentr_song"]), abs=0.5 / 40)
            called = attacks.svc_members(sets[0], sets[1], sets[3]).mean()
            assert (called + song) / 2 == pytest.approx(
                float(z["privacy_mentr_song"]), abs=0.5 / 30
            )
            sets = [z[f"mentr_official_{part}"][:, None] for part in parts]
        assert attacks.mia_svc_nonmember(*sets[:3]) == pytest.approx(rate, abs=0.5 / 40), name
        called = attacks.svc_members(sets[0], sets[1], sets[3]).mean()
        assert (called + rate) / 2 == pytest.approx(privacy, abs=0.5 / 30), name


def test_bad_teachers_attack_on_entropy() -> None:
    z = golden("mia_entropy")
    sets = (z[f"H_{name}"][:, None] for name in ("retain", "test", "forget"))
    assert attacks.svc_members(*sets).mean() == pytest.approx(float(z["svc_ratio"]), abs=0.5 / 25)


def test_svc_of_equal_samples_fitted_as_one_is_the_plain_one() -> None:
    rng = np.random.default_rng(1)
    for make in (
        lambda n, p: (rng.random((n, 1)) < p).astype(float),
        lambda n, p: rng.integers(0, 4, (n, 2)) * (0.5 + p),
        lambda n, p: rng.normal(p, 1, (n, 3)),
    ):
        inside, outside, queries = make(90, 0.9), make(70, 0.6), make(50, 0.8)
        plain = SVC(C=3, gamma="auto").fit(
            np.concatenate([inside, outside]), np.repeat([1.0, 0.0], [90, 70])
        )
        assert np.array_equal(attacks.svc_members(inside, outside, queries), plain.predict(queries))


def test_chunked_attacks_are_those_of_akbari_et_al() -> None:
    z = golden("b_mia_akbari")
    keys = {
        "correctness": "correctness",
        "confidence": "conf",
        "entropy": "entropy",
        "prob": "prob",
    }
    rates = {}
    for model, expected in (
        ("unl", z["mia_percent_unlearned"]),
        ("ret", z["mia_percent_retrain"]),
    ):
        features = [
            attacks.svc_features(z[f"logits_{part}_{model}"], z[f"y_{part}_{model}"])
            for part in ("retain", "test", "forget")
        ]
        rates[model] = {
            f"mia_svc_{keys[key]}_nonmember": attacks.mia_akbari(
                *(part[keys[key]] for part in features)
            )
            for key in z["keys"]
        }
        assert 100 * np.array(list(rates[model].values())) == pytest.approx(expected, abs=1e-9)
    assert set(rates["unl"]) == set(SVC_GAP4)
    mean = mean_gap(rates["unl"], rates["ret"], SVC_GAP4)
    assert 100 * mean == pytest.approx(float(z["best_attack_as_printed_mean"]))
    assert 100 * max_gap(rates["unl"], rates["ret"], SVC_GAP4) == pytest.approx(float(z["max_gap"]))


def test_chunks_are_whole_and_cover_what_they_can() -> None:
    rng = np.random.default_rng(0)
    members, outside, forget = (rng.normal(m, 1, (n, 1)) for m, n in ((0, 50), (1, 20), (0.5, 30)))
    rates = [attacks.mia_svc_nonmember(members[i : i + 20], outside, forget) for i in (0, 20)]
    assert attacks.mia_akbari(members, outside, forget) == pytest.approx(np.mean(rates))
    assert math.isnan(attacks.mia_akbari(members[:19], outside, forget))


def test_svc_attack_spans_its_scale() -> None:
    sure, unsure = np.full((30, 1), 0.99), np.full((30, 1), 0.3)
    assert attacks.mia_svc_nonmember(sure, unsure, unsure) == 1.0
    assert attacks.mia_svc_nonmember(sure, unsure, sure) == 0.0


def test_correctness_attack_on_a_fitted_model_is_the_forget_error() -> None:
    retain = np.ones((50, 1))
    held_out, forget = (np.repeat([[1.0], [0.0]], n, axis=0) for n in ([30, 20], [13, 7]))
    assert attacks.mia_svc_nonmember(retain, held_out, forget) == pytest.approx(7 / 20)


@quick
@given(st.integers(MIN_FIT, 25), st.integers(MIN_FIT, 25), st.integers(1, 20), st.integers(0, 9999))
def test_svc_attack_is_a_rate_whatever_the_order(retain, held_out, forget, seed) -> None:
    rng = np.random.default_rng(seed)
    sets = [np.round(rng.normal(size=(n, 1)), 1) for n in (retain, held_out, forget)]
    rate = attacks.mia_svc_nonmember(*sets)
    assert 0 <= rate <= 1
    sets[0] = sets[0][:held_out]
    assert attacks.mia_svc_nonmember(*(x[rng.permutation(len(x))] for x in sets)) == pytest.approx(
        rate
    )


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_svc_attacks_are_nan_for_few_or_broken_samples(bad: float, position: int) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(20, 1)) for _ in range(3)]
    assert attacks.mia_svc_nonmember(*sets) >= 0
    broken = [x.copy() for x in sets]
    broken[position][3] = bad
    assert math.isnan(attacks.mia_svc_nonmember(*broken))
    assert math.isnan(attacks.mia_akbari(*broken))
    few = [x[: MIN_FIT - 1] if i == position else x for i, x in enumerate(sets)]
    assert math.isnan(attacks.mia_svc_nonmember(*few)) is (position < 2)


def test_features_of_non_finite_logits_are_nan() -> None:
    logits = np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 0.0]])
    for values in attacks.svc_features(logits, [1, 0, 0]).values():
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1:]).all()


def test_starting_kits_attack() -> None:
    z = golden("b_mia_additional")
    count = int(z["balanced_n"])
    accuracies = attacks.starting_kit_scores(z["loss_forget"][:count], z["loss_test"][:count])
    np.testing.assert_allclose(accuracies, z["simple_mia_scores"], rtol=0, atol=1e-9)
    assert 100 * accuracies.mean() == pytest.approx(float(z["simple_mia_mean_percent"]))
    _, best = attacks.best_threshold(z["loss_forget"][:count], z["loss_test"][:count])
    assert 100 * best == pytest.approx(float(z["best_threshold_acc_percent"]))
    assert 100 * attacks.attack_accuracy(
        z["pred_member_forget"], z["pred_member_test"]
    ) == pytest.approx(float(z["additional_mia_percent"]))
    assert z["pred_member_forget"].sum() == z["TP"]
    assert (1 - z["pred_member_test"]).sum() == z["TN"]


def test_attack_accuracy_counts_members_and_others_alike() -> None:
    assert attacks.attack_accuracy([True, True, False], [False, True, False]) == pytest.approx(
        4 / 6
    )
    assert attacks.attack_accuracy([True], []) == 1
    assert math.isnan(attacks.attack_accuracy([], []))


def test_additional_attack_balances_before_it_fits() -> None:
    rng = np.random.default_rng(0)
    alike = rng.exponential(size=300), rng.exponential(size=60)
    rate = attacks.mia_acc_forget_test(*alike, np.random.default_rng(1))
    assert 0.35 < rate < 0.65  # unbalanced, calling all by the larger set's name gives 5 / 6
    swapped = attacks.mia_acc_forget_test(*alike[::-1], np.random.default_rng(1))
    assert 0.35 < swapped < 0.65
    again = attacks.mia_acc_forget_test(*alike, np.random.default_rng(1))
    assert again == rate
    assert attacks.mia_acc_forget_test(*alike, np.random.default_rng(2)) != rate
    assert attacks.mia_acc_forget_test(alike[1], alike[1] + 100, np.random.default_rng(0)) == 1.0


@settings(quick, max_examples=3)  # thirty fits of scikit-learn's
@given(numbers(0, 20, (MIN_FIT, 40)), numbers(0, 20, (MIN_FIT, 40)))
def test_additional_attack_is_a_rate(forget, held_out) -> None:
    assert 0 <= attacks.mia_acc_forget_test(forget, held_out, np.random.default_rng(0)) <= 1


def test_additional_attack_needs_samples_that_are_numbers() -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=20)
    assert math.isnan(attacks.mia_acc_forget_test(whole[: MIN_FIT - 1], whole, rng))
    assert attacks.mia_acc_forget_test(whole[:MIN_FIT], whole, rng) >= 0
    assert math.isnan(attacks.mia_acc_forget_test(np.append(whole, np.inf), whole, rng))


def test_population_attack_is_privacy_meters() -> None:
    z = golden("b_mia_population")
    population, alphas = z["loss_population"], z["alphas"]
    thresholds = attacks.loss_thresholds(population, alphas)
    np.testing.assert_allclose(thresholds, z["thresholds_linear"], rtol=1e-9, atol=1e-10)
    lower = attacks.loss_thresholds(population, z["q_lower"], "lower")
    np.testing.assert_allclose(lower, z["thresholds_lower"], rtol=1e-9, atol=1e-10)
    called = {
        name: z[f"loss_{name}"] < thresholds[:, None] for name in ("member", "nonmember", "forget")
    }
    for name, rates in (("member", z["tpr"]), ("nonmember", z["fpr"])):
        assert np.array_equal(called[name], z[f"pred_{name}"])
        assert called[name].mean(axis=1) == pytest.approx(rates)
    for inside, outside, expected in zip(called["member"], called["nonmember"], z["accuracy"]):
        assert attacks.attack_accuracy(inside, outside) == pytest.approx(expected)
    assert 100 * called["forget"].mean(axis=1) == pytest.approx(z["asr_forget_percent"])
    tpr, fpr = z["tpr"], z["fpr"]
    area = ((tpr[1:] + tpr[:-1]) / 2 * np.diff(fpr)).sum()  # of the nine points, not of all losses
    assert area == pytest.approx(float(z["roc_auc"]))


def test_population_attack_at_its_best_threshold() -> None:
    z = golden("b_mia_population")
    threshold, accuracy = attacks.best_threshold(z["loss_member"], z["loss_population"])
    assert threshold == pytest.approx(float(z["best_balanced_threshold"]), **TIGHT)
    assert accuracy == pytest.approx(float(z["best_balanced_acc"]), **TIGHT)
    rates = attacks.mia_population(z["loss_member"], z["loss_population"], z["loss_forget"])
    assert 100 * rates["mia_population_asr"] == pytest.approx(
        float(z["asr_forget_at_best_percent"])
    )
    by_rate = dict(zip(z["alphas"], z["asr_forget_percent"]))
    for rate in attacks.FPRS:
        key = f"mia_population_asr_fpr{round(100 * rate)}"
        assert 100 * rates[key] == pytest.approx(by_rate[rate])
        assert key in METRICS


def test_population_attack_spans_its_scale() -> None:
    low, high = np.linspace(0.0, 0.1, 40), np.linspace(2.0, 3.0, 40)
    assert set(attacks.mia_population(low, high, low).values()) == {1.0}
    assert attacks.mia_population(low, high, high + 1) == dict.fromkeys(
        attacks.mia_population(low, high, high), 0.0
    )
    assert attacks.mia_population(low, high, high)["mia_population_asr_fpr50"] == 0.5
    # A threshold is not below itself: what equals the whole population is no member.
    same = np.full(10, 0.5)
    assert set(attacks.mia_population(same, same, same).values()) == {0.0}


@quick
@given(LOSSES, LOSSES, LOSSES)
def test_population_attack_gives_rates_that_grow_with_the_threshold(retain, population, forget):
    by_name = attacks.mia_population(retain, population, forget)
    assert all(0 <= rate <= 1 for rate in by_name.values())
    rates = [by_name[f"mia_population_asr_fpr{p}"] for p in (1, 5, 10, 25, 50)]
    assert rates == sorted(rates)
    reordered = attacks.mia_population(retain[::-1], np.roll(population, 1), forget[::-1])
    assert reordered == by_name
    own = attacks.mia_population(retain, population, population)
    for percent in (1, 5, 10, 25, 50):  # no more false positives than asked for
        assert own[f"mia_population_asr_fpr{percent}"] <= percent / 100 + 1 / len(population)


@quick
@given(LOSSES, LOSSES)
def test_best_threshold_is_the_best_of_all(inside, outside) -> None:
    threshold, accuracy = attacks.best_threshold(inside, outside)
    values = np.unique(np.concatenate([inside, outside]))
    if len(values) == 1:
        assert math.isnan(threshold)
        return
    reached = ((inside < threshold).mean() + (outside >= threshold).mean()) / 2
    assert reached == pytest.approx(accuracy)
    others = [((inside < v).mean() + (outside >= v).mean()) / 2 for v in values[1:]]
    assert accuracy == pytest.approx(max(others))


def test_first_of_equally_good_thresholds_whatever_rounding_says() -> None:
    """Fractions decide here; of the floats, 2/3 - 0/3 and 3/3 - 1/3 differ in their last bit."""
    for members, others in itertools.product(range(2, 12), repeat=2):
        rng = np.random.default_rng([members, others])
        for _ in range(10):
            inside, outside = (rng.integers(0, 8, count) / 8 for count in (members, others))
            values = np.unique([*inside, *outside])
            if len(values) < 2:
                continue
            scores = [
                Fraction(int((inside < high).sum()), members)
                - Fraction(int((outside < high).sum()), others)
                for high in values[1:]
            ]
            first = scores.index(max(scores))
            middle = (values[first] + values[first + 1]) / 2
            threshold, accuracy = attacks.best_threshold(inside, outside)
            assert threshold == middle, (inside, outside)
            assert accuracy == pytest.approx(float(1 + max(scores)) / 2, abs=1e-15)


def test_population_attack_takes_the_first_of_equally_good_thresholds() -> None:
    """Thresholds 0.5 and 2.5 are equally good: both tell five of six."""
    retain, population = [0.0, 0.0, 2.0], [1.0, 3.0, 3.0]
    assert attacks.best_threshold(retain, population)[0] == 0.5
    assert attacks.mia_population(retain, population, [0.25, 0.75])["mia_population_asr"] == 0.5


@quick
@given(LOSSES, LOSSES)
def test_auc_is_scikit_learns(inside, outside) -> None:
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    expected = roc_auc_score(labels, np.concatenate([inside, outside]))
    assert attacks.auc(inside, outside) == pytest.approx(expected)
    assert attacks.auc(inside[::-1], outside) == attacks.auc(inside, outside)
    assert attacks.auc(outside, inside) == pytest.approx(1 - expected)


def test_auc_spans_its_scale() -> None:
    assert attacks.auc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert attacks.auc([0.0, 1.0], [2.0, 3.0]) == 0.0
    assert attacks.auc([1.0, 1.0], [1.0]) == 0.5


@quick
@given(numbers(-3, 3), numbers(-3, 3, (100, 150)), st.sampled_from([0.01, 0.05, 0.1, 0.5, 1.0]))
def test_tpr_at_fpr_is_the_best_point_of_the_curve(inside, outside, rate) -> None:
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    fpr, tpr, _ = roc_curve(labels, np.concatenate([inside, outside]), drop_intermediate=False)
    assert attacks.tpr_at_fpr(inside, outside, rate) == tpr[fpr <= rate + 1e-12].max()


def test_tpr_at_fpr_needs_enough_non_members() -> None:
    inside, outside = np.full(10, 2.0), np.zeros(999)
    assert attacks.tpr_at_fpr(inside, outside, 0.01) == 1.0
    assert attacks.tpr_at_fpr(-inside, outside, 0.01) == 0.0
    assert math.isnan(attacks.tpr_at_fpr(inside, outside, 0.001))
    assert attacks.tpr_at_fpr(inside, np.zeros(1000), 0.001) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("position", range(3))
def test_loss_attacks_are_nan_for_broken_or_no_losses(bad: float, position: int) -> None:
    sets = [np.arange(200.0), np.arange(150.0) + 0.5, np.arange(30.0)]
    for broken in ([*sets[position], bad], []):
        inputs = [np.array(broken) if i == position else x for i, x in enumerate(sets)]
        assert all(math.isnan(rate) for rate in attacks.mia_population(*inputs).values())
        if position < 2:
            assert math.isnan(attacks.auc(*inputs[:2]))
            assert math.isnan(attacks.tpr_at_fpr(*inputs[:2], 0.01))
            assert all(math.isnan(x) for x in attacks.best_threshold(*inputs[:2]))


def test_every_recorded_attack_has_a_row() -> None:
    assert {f"mia_svc_{name}_nonmember" for name in SVC_INPUTS} <= set(METRICS)


def test_entropy_rates_are_those_of_one_attack_on_every_set() -> None:
    rng = np.random.default_rng(0)
    retain, held_out, forget = rng.normal(1, 1, 300), rng.normal(2, 1, 100), rng.normal(1.2, 1, 50)
    rates = attacks.entropy_rates(retain, held_out, forget)
    assert rates["mia_lr_entropy"] == attacks.mia_lr_entropy(retain, held_out, forget)
    # On its own held-out samples the attack is no other than on the same samples as D_f.
    for name, part in (("held_out", held_out), ("retain", retain)):
        alone = attacks.mia_lr_entropy(retain, held_out, part)
        assert rates[f"mia_lr_entropy_{name}"] == alone
    broken = attacks.entropy_rates(retain, held_out, [np.nan])
    assert len(broken) == 3 and all(map(np.isnan, broken.values()))
