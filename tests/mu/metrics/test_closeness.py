"""Closeness and standing out: golden vectors, scipy's answers, both ends of every scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from mu import metrics
from mu.metrics import METRICS, closeness

quick = settings(deadline=None, max_examples=40, derandomize=True)
TIGHT = {"rel": 1e-9, "abs": 1e-10}
VALUES = st.one_of(st.floats(0, 5, allow_subnormal=False), st.sampled_from([0.0, 1.0, 2.5]))


def samples(most: int = 70) -> st.SearchStrategy:
    return arrays(np.float64, st.integers(1, most), elements=VALUES)


def counts(classes: int = 4) -> st.SearchStrategy:
    return arrays(np.float64, (classes, classes), elements=st.integers(0, 9).map(float))


@pytest.mark.parametrize("index", range(4))
def test_signed_rank_test_of_entropies(index: int) -> None:
    z = golden("b_entropy_wilcoxon")
    pair, kind = str(z["names"][index]).split("|")
    one, other = pair.split("_vs_")
    values, reference = z[f"entropy_{one}"], z[f"entropy_{other}"]
    test = closeness.wilcoxon(values, reference, exact=kind == "exact")
    assert test.statistic == pytest.approx(z["statistic"][index])
    assert test.p == pytest.approx(z["pvalue"][index], rel=1e-6)
    assert test.median_difference == pytest.approx(np.median(values - reference))
    for name in (one, other):
        entropies = metrics.entropy(z[f"logits_{name}"])
        np.testing.assert_allclose(entropies, z[f"entropy_{name}"], rtol=1e-9, atol=1e-10)
    of_logits = closeness.entropy_wilcoxon(z[f"logits_{one}"], z[f"logits_{other}"])
    assert of_logits.n == len(values)
    if kind == "exact":  # 40 pairs without ties are
        assert of_logits.p == pytest.approx(test.p)
    if one == "unlearned":
        assert test.statistic == min(float(z["W_plus"]), float(z["W_minus"]))


@quick
@given(samples(), st.randoms(use_true_random=False))
def test_signed_rank_test_is_scipys(values, random) -> None:
    reference = np.array(random.choices([0.0, 1.0, 2.0, 2.5, 0.3], k=len(values)))
    test = closeness.wilcoxon(values, reference)
    differences = values - reference
    different = differences[differences != 0]
    assert test.n == len(different)
    assert test.median_difference == np.median(differences)
    if not len(different):
        assert test.p == 1.0
        return
    ties = len(np.unique(np.abs(different))) < len(different)
    exact = len(different) <= 50 and not ties
    expected = scipy.stats.wilcoxon(
        different, correction=False, method="exact" if exact else "asymptotic"
    )
    assert test.statistic == pytest.approx(expected.statistic)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert 0 <= test.p <= 1
    order = random.sample(range(len(values)), len(values))
    assert closeness.wilcoxon(values[order], reference[order]).p == pytest.approx(test.p)
    swapped = closeness.wilcoxon(reference, values)
    assert swapped.p == pytest.approx(test.p)
    assert swapped.median_difference == pytest.approx(-test.median_difference)


@pytest.mark.parametrize(("count", "method"), [(50, "exact"), (51, "asymptotic")])
def test_p_is_exact_up_to_fifty_differences(count: int, method: str) -> None:
    rng = np.random.default_rng(count)
    values, reference = rng.normal(0.2, 1, count), rng.normal(0, 1, count)
    expected = scipy.stats.wilcoxon(values, reference, method=method, correction=False).pvalue
    assert closeness.wilcoxon(values, reference).p == pytest.approx(expected, rel=1e-12)


def test_signed_rank_test_spans_its_scale() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 5))
    assert closeness.entropy_wilcoxon(logits, logits).p == 1.0
    test = closeness.entropy_wilcoxon(3 * logits, logits)  # surer everywhere
    assert test.p < 1e-40
    assert test.statistic == 0
    assert test.median_difference < 0
    broken = logits.copy()
    broken[7, 2] = np.inf
    for pair in ((broken, logits), (logits, broken), (logits[:0], logits[:0])):
        test = closeness.entropy_wilcoxon(*pair)
        assert math.isnan(test.p)
        assert math.isnan(test.median_difference)


@st.composite
def distributions(draw):
    weights = draw(arrays(np.float64, (2, 5), elements=st.floats(0, 1, allow_subnormal=False)))
    weights[:, 0] += 0.01
    return weights / weights.sum(axis=1, keepdims=True)


@quick
@given(distributions())
def test_jensen_shannon_is_scipys(pair) -> None:
    divergence = float(closeness.jensen_shannon(*pair))
    assert divergence == pytest.approx(jensenshannon(*pair) ** 2, abs=1e-9)
    assert 0 <= divergence <= math.log(2)
    assert closeness.jensen_shannon(*pair[::-1]) == pytest.approx(divergence)
    assert closeness.jensen_shannon(pair[0], pair[0]) == pytest.approx(0, abs=1e-15)


def test_zrf_spans_its_scale() -> None:
    sure = np.array([[900.0, 0.0], [0.0, 900.0]])
    assert closeness.zrf(sure, sure) == 1.0
    assert closeness.zrf(sure, sure[:, ::-1]) == pytest.approx(1 - math.log(2))
    broken = sure.copy()
    broken[0, 0] = np.nan
    assert math.isnan(closeness.zrf(broken, sure))
    assert math.isnan(closeness.zrf(sure, broken))


@quick
@given(st.integers(0, 9999))
def test_zrf_is_one_minus_the_mean_divergence(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(0, 3, (2, 7, 4))
    zrf = closeness.zrf(a, b)
    p, q = (np.exp(metrics.log_softmax(z)) for z in (a, b))
    expected = 1 - np.mean([jensenshannon(x, y) ** 2 for x, y in zip(p, q)])
    assert zrf == pytest.approx(expected)
    assert 1 - math.log(2) <= zrf <= 1
    assert closeness.zrf(a[::-1], b[::-1]) == pytest.approx(zrf)
    assert closeness.zrf(b, a) == pytest.approx(zrf)


def test_streisand_check() -> None:
    z = golden("b_streisand")
    forget, test = z["cm_forget"], z["cm_test"]
    rows = closeness.row_rates(forget), closeness.row_rates(test)
    np.testing.assert_allclose(rows[0], z["cm_forget_norm"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(rows[1], z["cm_test_norm"], rtol=1e-9, atol=1e-10)
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(float(z["frobenius"]), **TIGHT)
    plus = closeness.row_rates(forget, 1) - closeness.row_rates(test, 1)
    expected = float(z["frobenius_official_plus1"])
    assert np.linalg.norm(plus) == pytest.approx(expected, **TIGHT)
    distances = closeness.streisand(forget, test)
    for name, key in (
        ("streisand_tv", "mean_row_tv"),
        ("streisand_max", "max_abs"),
        ("streisand_hist_tv", "pred_hist_tv"),
        ("streisand_hist_js", "pred_hist_js"),
    ):
        assert distances[name] == pytest.approx(float(z[key]), **TIGHT), name
    assert set(distances) <= set(METRICS)


@quick
@given(counts(), counts(), st.permutations(range(4)))
def test_streisand_measures_are_rates_whatever_the_names_of_classes(
    forget, held_out, order
) -> None:
    distances = closeness.streisand(forget, held_out)
    at = np.ix_(order, order)
    renamed = closeness.streisand(forget[at], held_out[at])
    for name, value in distances.items():
        assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12
        assert renamed[name] == pytest.approx(value, nan_ok=True)
    shared = (forget.sum(axis=1) > 0) & (held_out.sum(axis=1) > 0)
    assert math.isnan(distances["streisand_tv"]) is not shared.any()
    if forget.sum():
        same = closeness.streisand(forget, 3 * forget)
        del same["wrong_class_rate"]
        assert list(same.values()) == pytest.approx([0] * 4, abs=1e-12)


def test_streisand_compares_only_classes_that_both_have() -> None:
    forget = np.array([[0, 5, 5], [0, 0, 0], [0, 0, 0]])  # a class is forgotten
    held_out = np.array([[8, 2, 0], [0, 10, 0], [1, 0, 9]])
    distances = closeness.streisand(forget, held_out)
    assert distances["streisand_tv"] == pytest.approx((0.8 + 0.3 + 0.5) / 2)
    assert distances["streisand_max"] == pytest.approx(0.8)
    assert distances["wrong_class_rate"] == 0.5
    apart = closeness.streisand(forget, held_out * [[0], [1], [1]])
    assert math.isnan(apart["streisand_tv"])
    assert math.isnan(apart["streisand_max"])
    assert np.isnan(closeness.row_rates(forget)[1:]).all()


def test_rates_of_a_row_are_shares_of_its_samples_and_of_what_is_added() -> None:
    counts, missing = [[1, 0], [0, 0]], [math.nan, math.nan]
    with np.errstate(all="raise"):  # a row without samples is divided by nothing
        for added, first in ((0, [1, 0]), (1, [0.5, 0])):
            np.testing.assert_array_equal(closeness.row_rates(counts, added), [first, missing])


def test_streisand_spans_its_scale() -> None:
    right, wrong = np.diag([5, 5, 5]), np.array([[0, 7, 0], [7, 0, 0], [7, 0, 0]])
    distances = closeness.streisand(wrong, right)
    assert distances["streisand_tv"] == 1
    assert distances["streisand_max"] == 1
    assert distances["wrong_class_rate"] == pytest.approx(2 / 3)
    assert closeness.streisand(right, right)["wrong_class_rate"] == 0
    away = closeness.streisand([[0, 3], [0, 0]], [[3, 0], [0, 0]])
    assert away["streisand_hist_tv"] == 1
    assert away["streisand_hist_js"] == pytest.approx(math.log(2))
    for broken in (np.full((3, 3), np.nan), np.zeros((3, 3))):
        for pair in ((broken, right), (right, broken)):
            assert all(math.isnan(value) for value in closeness.streisand(*pair).values())


@pytest.mark.filterwarnings("ignore:divide by zero")  # scipy's p-value of very few samples
@quick
@given(samples(), samples())
def test_loss_distance_is_scipys(losses, others) -> None:
    distance = closeness.loss_ks(losses, others)
    assert distance == pytest.approx(scipy.stats.ks_2samp(losses, others, method="asymp").statistic)
    assert 0 <= distance <= 1
    assert closeness.loss_ks(others[::-1], losses) == distance
    assert closeness.loss_ks(losses, np.repeat(losses, 2)) == pytest.approx(0, abs=1e-12)
    assert closeness.loss_ks(losses, others + 100) == 1


@pytest.mark.parametrize("bad", [[np.nan], [1.0, np.inf], []])
def test_loss_distance_of_broken_or_no_losses_is_nan(bad: list[float]) -> None:
    assert math.isnan(closeness.loss_ks(np.array(bad), np.ones(3)))
    assert math.isnan(closeness.loss_ks(np.ones(3), np.array(bad)))


def test_label_privacy_of_the_theorem() -> None:
    z = golden("b_label_ldp")
    inputs = z["gamma1"], z["gamma2"], z["alpha"], z["K"]
    epsilon = closeness.label_ldp_eps(*inputs)
    assert np.array_equal(np.isnan(epsilon), ~z["valid"])
    np.testing.assert_allclose(epsilon, z["epsilon"], rtol=0, atol=1e-9)
    own, other = closeness.label_ldp_prediction(*inputs)
    np.testing.assert_allclose(own, z["p_label"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(other, z["p_other"], rtol=0, atol=1e-9)
    ratio = np.where(z["valid"], own / other, np.nan)
    np.testing.assert_allclose(ratio, z["log_argument"], rtol=1e-9, atol=1e-10)


@quick
@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-3, -0.01), st.integers(2, 100))
def test_label_privacy_is_zero_where_all_labels_are_as_likely(gamma1, gamma2, alpha, k) -> None:
    value = float(closeness.label_ldp_eps(gamma1, gamma2, alpha, k))
    condition = gamma1 - gamma2 * (1 + (1 - k) / k * alpha)
    if abs(condition) > 1e-9:
        assert math.isnan(value) is bool(condition < 0)
        assert math.isnan(value) or value >= 0
    even = float(closeness.label_ldp_eps(gamma2 * (1 - alpha), gamma2, alpha, k))
    assert even == pytest.approx(0, abs=1e-9)
    assert math.isnan(float(closeness.label_ldp_eps(gamma1, gamma2, -alpha, k)))
    assert np.isnan(closeness.label_ldp_prediction(gamma1, gamma2, -alpha, k)).all()


@quick
@given(arrays(np.float64, (5, 4), elements=st.floats(-30, 30, allow_subnormal=False)))
def test_empirical_label_privacy_is_the_log_ratio_of_the_label_to_the_others(logits) -> None:
    labels = np.array([0, 1, 2, 3, 0])
    ratio = closeness.label_ldp_empirical(logits, labels)
    p = np.exp(metrics.log_softmax(logits))
    own = p[np.arange(5), labels]
    others = np.array([np.delete(row, label).mean() for row, label in zip(p, labels)])
    assert ratio == pytest.approx(np.abs(np.log(own / others)).mean(), rel=1e-6, abs=1e-6)
    order = [3, 1, 4, 0, 2]
    assert closeness.label_ldp_empirical(logits[order], labels[order]) == pytest.approx(ratio)


def test_empirical_label_privacy_spans_its_scale() -> None:
    assert closeness.label_ldp_empirical(np.zeros((3, 7)), [0, 1, 2]) == pytest.approx(0, abs=1e-12)
    assert closeness.label_ldp_empirical([[100.0, 0, 0]], [0]) == pytest.approx(100)
    assert closeness.label_ldp_empirical([[100.0, 0, 0]], [1]) == pytest.approx(100, abs=1)
    assert math.isnan(closeness.label_ldp_empirical([[np.nan, 0, 0]], [1]))


def test_class_means_are_the_mean_prediction_on_each_class() -> None:
    logits = np.log([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2], [0.1, 0.1, 0.8]])
    means = closeness.class_means(logits, [0, 0, 2])
    assert means[0] == pytest.approx([0.6, 0.2, 0.2])
    assert means[2] == pytest.approx([0.1, 0.1, 0.8])
    assert np.isnan(means[1]).all()


def test_rf_jsd_is_the_mean_divergence_over_the_classes_that_both_have() -> None:
    logits = np.log([[0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
    unseen = np.array([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25]])
    by_scipy = jensenshannon([0.1, 0.1, 0.8], unseen[2]) ** 2
    assert closeness.rf_jsd(logits, [0, 2], unseen) == pytest.approx(by_scipy / 2, **TIGHT)
    assert closeness.rf_jsd(logits[:1], [0], unseen) == pytest.approx(0, abs=1e-12)
    unseen[2] = np.nan
    assert closeness.rf_jsd(logits, [0, 2], unseen) == pytest.approx(0, abs=1e-12)
    assert math.isnan(closeness.rf_jsd(logits[1:], [2], unseen))
    assert math.isnan(closeness.rf_jsd(logits * np.nan, [0, 2], unseen))
