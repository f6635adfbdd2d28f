"""Metrics: known answers, golden vectors, and what happens to outputs that are not numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden_files import golden

from mu import metrics
from mu.evaluate import Outputs, mean_of, score
from mu.metrics import (
    AVG_GAP_NATMU,
    AVG_GAP_UGRADSL,
    AVG_GAP_UGRADSL5,
    METRICS,
    SVC_GAP4,
)

TIGHT = {"rel": 1e-9, "abs": 1e-10}


def test_accuracy_of_known_predictions() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [0.0, 1.0]])
    assert metrics.accuracy(logits, [0, 1, 1, 1]) == 0.75
    assert metrics.accuracy(logits, [0, 1, 0, 1]) == 1.0
    assert metrics.accuracy(logits, [1, 0, 1, 0]) == 0.0


def test_accuracies_of_all_sets() -> None:
    z = golden("b_accuracy_metrics")
    assert 100 * metrics.accuracy(z["logits_f"], z["y_f"]) == pytest.approx(float(z["FA"]))
    assert 100 * metrics.accuracy(z["logits_r"], z["y_r"]) == pytest.approx(float(z["RA"]))
    assert 100 * metrics.accuracy(z["logits_te"], z["y_te"]) == pytest.approx(float(z["TA_all"]))


def test_score_names_every_accuracy_as_the_papers_define_it() -> None:
    z = golden("b_accuracy_metrics")
    forgotten = z["y_te"] == z["forget_class"]
    values = score(
        Outputs(z["logits_r"], z["y_r"]),
        Outputs(z["logits_f"], z["y_f"]),
        Outputs(z["logits_te"], z["y_te"], forgotten),
    )
    for name, paper in (
        ("acc_retain", "RA"),
        ("acc_forget", "FA"),
        ("err_forget", "UA"),
        ("acc_test", "TA_all"),
        ("acc_test_retain", "TA_without_forget_class"),
        ("acc_test_forget", "FA_test"),
    ):
        assert 100 * values[name] == pytest.approx(float(z[paper])), name
    assert set(values) <= set(METRICS)


def test_score_splits_test_accuracy_only_where_a_class_is_forgotten() -> None:
    z = golden("b_accuracy_metrics")
    retain, forget = Outputs(z["logits_r"], z["y_r"]), Outputs(z["logits_f"], z["y_f"])
    for forgotten in (None, np.zeros(len(z["y_te"]), bool)):
        values = score(retain, forget, Outputs(z["logits_te"], z["y_te"], forgotten))
        assert not {"acc_test_retain", "acc_test_forget"} & set(values)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_give_nan_and_never_a_number(broken: float) -> None:
    good = Outputs(np.eye(3, dtype=np.float32), np.arange(3))
    bad = Outputs(np.eye(3, dtype=np.float32), np.arange(3))
    bad.logits[1, 2] = broken
    assert math.isnan(metrics.accuracy(bad.logits, bad.labels))
    values = score(good, bad, good)
    assert math.isnan(values["acc_forget"])
    assert math.isnan(values["err_forget"])
    assert math.isnan(values["mia_lr_entropy"])
    assert values["acc_retain"] == 1.0
    assert math.isnan(score(bad, good, good)["mia_lr_entropy"])
    assert math.isnan(metrics.activation_distance(bad.logits, good.logits))


def test_accuracy_of_no_samples_is_nan() -> None:
    assert math.isnan(metrics.accuracy(np.empty((0, 3)), np.empty(0)))


def test_entropy_of_known_distributions() -> None:
    uniform = metrics.entropy(np.zeros((1, 8)))
    assert uniform == pytest.approx([math.log(8)])
    assert metrics.entropy([[math.log(3.0), 0.0]]) == pytest.approx(
        [-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    )


def test_entropy_does_not_depend_on_a_common_shift() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5))
    np.testing.assert_allclose(metrics.entropy(logits + 1000), metrics.entropy(logits), rtol=1e-9)


def test_entropy_of_saturated_logits_is_finite_and_keeps_its_order() -> None:
    logits = np.array([[0.0, -x] for x in (10.0, 100.0, 700.0, 1e4, 1e30)])
    values = metrics.entropy(logits)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert values[0] > values[1] > values[2] > 0
    assert values[4] == 0
    assert np.isfinite(metrics.entropy(logits.astype(np.float32))).all()


def test_entropies_are_those_of_the_papers_attack() -> None:
    z = golden("mia_entropy")
    for name in ("retain", "test", "forget"):
        values = metrics.entropy(np.log(np.maximum(z[f"p_{name}"], 1e-300)))
        np.testing.assert_allclose(values, z[f"H_{name}"], rtol=0, atol=1e-10)
    z = golden("b_mia_entropy_lr")
    for name in ("retain", "test", "forget"):
        np.testing.assert_allclose(
            metrics.entropy(z[f"logits_{name}"]), z[f"entropy_{name}"], rtol=1e-9, atol=1e-10
        )


def test_log_softmax_sums_to_one() -> None:
    logits = np.random.default_rng(0).normal(0, 50, (20, 5))
    np.testing.assert_allclose(np.exp(metrics.log_softmax(logits)).sum(axis=1), 1, rtol=1e-12)


def test_activation_distance_is_that_of_softmax_outputs() -> None:
    z = golden("b_activation_distance")
    value = metrics.activation_distance(z["logits_unlearned"], z["logits_gold"])
    assert value == pytest.approx(float(z["ad_softmax_official"]), **TIGHT)
    assert value == pytest.approx(z["ad_softmax_per_sample"].mean(), **TIGHT)


def test_activation_distance_spans_zero_to_root_two() -> None:
    sure = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    assert metrics.activation_distance(sure, sure) == 0
    assert metrics.activation_distance(sure, sure[:, ::-1]) == pytest.approx(math.sqrt(2))


def test_average_gap_is_the_mean_of_absolute_differences() -> None:
    z = golden("avggap_kl_pfa")
    names = AVG_GAP_NATMU[True]
    assert len(names) == z["metrics"].shape[1]
    reference = dict(zip(names, z["retrain"]))
    for row, gaps, expected in zip(z["metrics"], z["gaps"], z["avggap"]):
        values = dict(zip(names, row))
        for name, gap in zip(names, gaps):
            assert metrics.gap(values[name], reference[name]) == pytest.approx(abs(gap), **TIGHT)
        assert metrics.mean_gap(values, reference, names) == pytest.approx(float(expected), **TIGHT)


def test_average_gap_is_nan_where_a_metric_is_missing() -> None:
    whole = dict.fromkeys(AVG_GAP_NATMU[False], 0.5)
    assert metrics.mean_gap(whole, whole, AVG_GAP_NATMU[False]) == 0
    for values, reference in (({}, whole), (whole, {"acc_test": 0.5})):
        assert math.isnan(metrics.mean_gap(values, reference, AVG_GAP_NATMU[False]))


def test_naturalness_of_hard_and_soft_labels() -> None:
    z = golden("avggap_kl_pfa")
    logp = np.log(z["kl_p"])
    hard = metrics.kl_naturalness(logp, z["kl_y"])
    np.testing.assert_allclose(hard, z["kl_hard"], rtol=0, atol=1e-10)
    assert hard.mean() == pytest.approx(float(z["kl_hard_mean"]), **TIGHT)
    soft = metrics.kl_naturalness(logp, z["kl_q"])
    np.testing.assert_allclose(soft, z["kl_soft"], rtol=0, atol=1e-10)
    assert soft.mean() == pytest.approx(float(z["kl_soft_mean"]), **TIGHT)


def test_naturalness_of_a_soft_label_without_weight_on_a_class_is_finite() -> None:
    logp = metrics.log_softmax([[0.0, 1.0, -2000.0]])
    onehot = np.array([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        metrics.kl_naturalness(logp, onehot), metrics.kl_naturalness(logp, np.array([1]))
    )


def test_vocabulary_says_unit_and_direction_of_every_metric() -> None:
    for name, metric in METRICS.items():
        assert metric.unit in ("fraction", "s", "count", "nats", ""), name
        assert metric.better in ("target", "lower", "higher"), name
        assert metric.when in ("trial", "finalist", "analysis"), name
        assert metric.label, name
        assert metric.source, name
    for lists in (AVG_GAP_NATMU, AVG_GAP_UGRADSL, AVG_GAP_UGRADSL5):
        for names in (*lists.values(), SVC_GAP4):
            assert set(names) <= set(METRICS)


def test_mean_of_runs_keeps_what_all_runs_have() -> None:
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0}
    assert mean_of([]) == {}
