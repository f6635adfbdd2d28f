"""Metrics: known answers, golden vectors, and what happens to outputs that are not numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from mu import metrics
from mu.evaluate import Outputs, score
from mu.metrics import (
    AVG_GAP_NATMU,
    AVG_GAP_UGRADSL,
    AVG_GAP_UGRADSL5,
    METRICS,
    SVC_GAP4,
)
from mu.relative import mean_of

TIGHT = {"rel": 1e-9, "abs": 1e-10}
quick = settings(deadline=None, max_examples=40, derandomize=True)


@st.composite
def predictions(draw, classes: int = 4):
    """Draw logits [N, classes], many of them tied or extreme, labels, and an order of the samples."""
    count = draw(st.integers(1, 12))
    values = st.one_of(
        st.floats(-60, 60, allow_subnormal=False), st.sampled_from([-800.0, 0.0, 3.0, 800.0])
    )
    logits = draw(arrays(np.float64, (count, classes), elements=values))
    labels = draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    return logits, labels, np.array(draw(st.permutations(range(count))))


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
    with np.errstate(over="ignore"):  # the difference of the logits, and the log-probability
        assert metrics.entropy([[1e308, -1e308]]) == 0


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


def test_lists_of_average_gaps_are_the_papers() -> None:
    """By what each paper calls them; its test accuracy drops the class where a class is forgotten."""
    natmu = {True: ("RA", "FATrain", "FATest", "MIA"), False: ("RA", "FA", "MIA")}
    ugradsl = ("UA", "MIA_Score", "RA", "TA", "Add. MIA")
    for whole_class, kind in ((True, "class"), (False, "random")):
        for paper, names, theirs in (
            ("NatMU", AVG_GAP_NATMU[whole_class], natmu[whole_class]),
            ("UGradSL", AVG_GAP_UGRADSL[whole_class], ugradsl[:4]),
            ("UGradSL", AVG_GAP_UGRADSL5[whole_class], ugradsl),
        ):
            printed = [METRICS[name].names for name in names]
            assert [n.get(f"{paper} ({kind})", n.get(paper)) for n in printed] == list(theirs)


def test_mean_of_runs_keeps_what_all_runs_have() -> None:
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0}
    assert mean_of([]) == {}


@quick
@given(predictions())
def test_accuracy_is_a_rate_whatever_the_order(drawn) -> None:
    logits, labels, order = drawn
    value = metrics.accuracy(logits, labels)
    assert 0 <= value <= 1
    assert metrics.accuracy(logits[order], labels[order]) == value
    assert metrics.accuracy(logits, logits.argmax(axis=1)) == 1
    assert metrics.accuracy(logits, (logits.argmax(axis=1) + 1) % 4) == 0


@quick
@given(predictions())
def test_entropy_lies_between_certain_and_uniform(drawn) -> None:
    logits, _, order = drawn
    values = metrics.entropy(logits)
    assert ((values >= 0) & (values <= math.log(4) + 1e-12)).all()
    np.testing.assert_array_equal(metrics.entropy(logits[order]), values[order])
    assert metrics.entropy(logits[:, ::-1]) == pytest.approx(values, abs=1e-12)


@quick
@given(predictions())
def test_losses_are_negative_log_probabilities(drawn) -> None:
    logits, labels, order = drawn
    losses = metrics.cross_entropy(logits, labels)
    rows = np.arange(len(labels))
    assert losses == pytest.approx(-metrics.log_softmax(logits)[rows, labels], **TIGHT)
    assert (losses >= 0).all()
    np.testing.assert_array_equal(
        metrics.cross_entropy(logits[order], labels[order]), losses[order]
    )


@quick
@given(predictions())
def test_logit_confidence_is_the_margin_over_the_others(drawn) -> None:
    logits, labels, _ = drawn
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    expected = logits[rows, labels] - logsumexp(others, axis=1)
    confidences = metrics.logit_confidence(logits, labels)
    within = np.abs(expected) < 700
    assert confidences[within] == pytest.approx(expected[within], rel=1e-9, abs=1e-9)
    assert (np.sign(confidences[~within]) == np.sign(expected[~within])).all()


def test_logit_confidence_of_probabilities() -> None:
    z = golden("b_ulira")
    p = z["prob_true"]
    logits = np.log(np.stack([p, 1 - p], axis=1))
    confidences = metrics.logit_confidence(logits, np.zeros(len(p), int))
    np.testing.assert_allclose(confidences, z["phi_logit_scaled"], rtol=1e-9, atol=1e-10)


def test_losses_of_sure_predictions_keep_their_order() -> None:
    logits = np.array([[x, 0.0] for x in (10.0, 40.0, 400.0, 700.0)])
    losses = metrics.cross_entropy(logits, [0, 0, 0, 0])
    assert losses[0] > losses[1] > losses[2] > losses[3] > 0
    assert metrics.cross_entropy(logits, [1, 1, 1, 1]) == pytest.approx(
        [10, 40, 400, 700], abs=1e-4
    )
    assert metrics.cross_entropy([[1e9, 0.0]], [0]) == 0
    assert metrics.cross_entropy([[1e9, 0.0]], [1]) == pytest.approx(1e9)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_rows_are_nan_and_leave_others_alone(broken: float) -> None:
    logits = np.array([[1.0, 2.0, 0.5], [0.0, broken, 1.0]])
    for values in (
        metrics.cross_entropy(logits, [0, 0]),
        metrics.logit_confidence(logits, [0, 0]),
        metrics.entropy(logits),
        metrics.log_softmax(logits).sum(axis=1),
    ):
        assert np.isnan(values).tolist() == [False, True]
    whole = logits[:1].repeat(2, axis=0)
    assert np.isnan(metrics.confusion(logits, [0, 0])).all()
    assert np.isnan(metrics.per_class_accuracy(metrics.confusion(logits, [0, 0]))).all()
    assert math.isnan(metrics.acc_gl([True, True], logits, [0, 0]))
    assert math.isnan(metrics.partial_forget_accuracy(logits[None], [[0, 0]]))
    for pair in ((logits, whole), (whole, logits)):
        assert math.isnan(metrics.mean_distance(*pair))
        assert math.isnan(metrics.activation_distance(*pair))


@quick
@given(predictions())
def test_confusion_counts_every_sample_once(drawn) -> None:
    logits, labels, order = drawn
    counts = metrics.confusion(logits, labels)
    assert counts.sum() == len(labels)
    assert (counts.sum(axis=1) == np.bincount(labels, minlength=4)).all()
    assert counts.trace() / len(labels) == pytest.approx(metrics.accuracy(logits, labels))
    np.testing.assert_array_equal(metrics.confusion(logits[order], labels[order]), counts)
    accuracies = metrics.per_class_accuracy(counts)
    for label in range(4):
        of_class = labels == label
        expected = metrics.accuracy(logits[of_class], labels[of_class])
        assert accuracies[label] == pytest.approx(expected, nan_ok=True)


def test_confusion_rows_are_true_classes() -> None:
    z = golden("b_streisand")
    one_hot = np.eye(int(z["K"]))
    for part in ("forget", "test"):
        counts = metrics.confusion(one_hot[z[f"pred_{part}"]], z[f"y_{part}"])
        assert np.array_equal(counts, z[f"cm_{part}"])


def test_distances_of_logits_and_features() -> None:
    z = golden("b_activation_distance")
    for key, pair in (
        ("ad_logits", ("logits_unlearned", "logits_gold")),
        ("ad_features", ("feat_unlearned", "feat_gold")),
    ):
        distance = metrics.mean_distance(*(z[name] for name in pair))
        assert distance == pytest.approx(float(z[key]), **TIGHT)


@quick
@given(predictions(), predictions())
def test_activation_distance_is_a_distance_of_paired_samples(drawn, other) -> None:
    logits, _, _ = drawn
    count = min(len(logits), len(other[0]))
    a, b = logits[:count], other[0][:count]
    value = metrics.activation_distance(a, b)
    assert 0 <= value <= math.sqrt(2) + 1e-12
    assert metrics.activation_distance(b, a) == value
    assert metrics.activation_distance(a, a) == 0
    assert metrics.activation_distance(a[::-1], b[::-1]) == pytest.approx(value)
    assert metrics.mean_distance(a, a + 3) == pytest.approx(6)  # sqrt(4 * 9)


def test_gap_of_means_and_mean_of_gaps() -> None:
    z = golden("b_avggap")
    names = AVG_GAP_UGRADSL[False]
    for runs, retrain, of_means, of_gaps in zip(
        z["per_run_values"], z["per_run_retrain"], z["gap_of_means"], z["mean_of_gaps"]
    ):
        values = [dict(zip(names, run)) for run in runs]
        reference = dict(zip(names, retrain))
        assert metrics.gap_of_means(values, reference, names) == pytest.approx(of_means, **TIGHT)
        assert metrics.mean_of_gaps(values, reference, names) == pytest.approx(of_gaps, **TIGHT)


def test_average_gaps_of_the_printed_rows() -> None:
    z = golden("b_avggap")
    for row, retrain, count, expected in zip(
        z["values"], z["retrain"], z["n_metrics"], z["avg_gap"]
    ):
        names = (AVG_GAP_UGRADSL5 if count == 5 else AVG_GAP_UGRADSL)[True]
        assert len(names) == count
        gap = metrics.mean_gap(dict(zip(names, row)), dict(zip(names, retrain)), names)
        assert gap == pytest.approx(expected, **TIGHT)


RUNS = st.lists(
    st.fixed_dictionaries({name: st.floats(0, 1) for name in "abc"}), min_size=1, max_size=5
)


@quick
@given(RUNS, st.fixed_dictionaries({name: st.floats(0, 1) for name in "abc"}))
def test_gaps_are_ordered_and_zero_at_the_reference(runs, reference) -> None:
    of_means = metrics.gap_of_means(runs, reference, "abc")
    of_gaps = metrics.mean_of_gaps(runs, reference, "abc")
    assert 0 <= of_means <= of_gaps + 1e-12
    assert of_gaps <= 1
    assert metrics.gap_of_means(runs[::-1], reference, "abc") == pytest.approx(of_means)
    assert metrics.mean_of_gaps(runs[::-1], reference, "abc") == pytest.approx(of_gaps)
    assert metrics.mean_gap(runs[0], reference, "abc") <= metrics.max_gap(runs[0], reference, "abc")
    assert metrics.max_gap(reference, reference, "abc") == 0
    assert metrics.gap_of_means([reference] * 3, reference, "abc") == pytest.approx(0, abs=1e-15)


def test_gaps_span_their_scale_and_need_every_metric() -> None:
    low, high = dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 1.0)
    for of in (metrics.mean_gap, metrics.max_gap):
        assert of(low, high, "abc") == 1
        assert math.isnan(of(low, {"a": 1.0}, "abc"))
    assert metrics.gap_of_means([low, high], {"a": 0.5}, "a") == 0
    assert metrics.mean_of_gaps([low, high], {"a": 0.5}, "a") == 0.5
    for over_runs in (metrics.gap_of_means, metrics.mean_of_gaps):
        assert math.isnan(over_runs([low, {"a": 1.0}], high, "abc"))


def test_delta_averages_absolute_values_over_classes() -> None:
    assert metrics.delta_acc_forget([0.9, 0.7], [0.8, 0.9]) == pytest.approx(0.15)  # TMU, not 0.05
    assert metrics.delta_acc_forget(0.25, 1.0) == 0.75
    assert metrics.delta_acc_forget(0.0, 1.0) == 1
    assert metrics.delta_acc_forget([0.3, 0.4], [0.3, 0.4]) == 0
    assert math.isnan(metrics.delta_acc_forget([0.3, np.nan], [0.3, 0.4]))


def test_partial_forgetting_accuracy() -> None:
    z = golden("avggap_kl_pfa")
    masked = z["pfa_xf"][:, None] * z["pfa_masks"][None, :, None]
    logits = masked.reshape(*masked.shape[:2], -1) @ z["pfa_W"].T
    assert metrics.partial_forget_accuracy(logits, z["pfa_yr"]) == pytest.approx(float(z["pfa"]))
    whole = z["pfa_xf"].reshape(len(z["pfa_xf"]), -1) @ z["pfa_W"].T
    own = np.repeat(whole.argmax(axis=1)[:, None], logits.shape[1], axis=1)
    assert metrics.partial_forget_accuracy(logits, own) == pytest.approx(float(z["pfa_orig"]))
    assert metrics.partial_forget_accuracy(logits, logits.argmax(axis=2)) == 1


def test_accuracy_of_easy_and_hard_labels() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    labels = [0, 1, 1, 0]  # the gold model gets the last two wrong: hard
    assert metrics.acc_gl([False, False, True, True], logits, labels) == 1
    assert metrics.acc_gl([True, True, False, False], logits, labels) == 0
    assert metrics.acc_gl([True, False, True, True], logits, labels) == 0.75


def test_speedup_is_of_mean_times() -> None:
    z = golden("b_accuracy_metrics")
    unlearn, retrain = z["rte_unlearn_s"], z["rte_retrain_s"]
    assert metrics.speedup(unlearn, retrain) == pytest.approx(float(z["rte_speedup"]), **TIGHT)
    assert unlearn.mean() / 60 == pytest.approx(float(z["rte_minutes_mean"]))
    assert metrics.speedup(2.0, 1.0) == 0.5


@quick
@given(predictions(), predictions())
def test_naturalness_is_zero_for_the_models_own_prediction_only(drawn, other) -> None:
    count = min(len(drawn[0]), len(other[0]))
    logp = metrics.log_softmax(np.clip(drawn[0][:count], -50, 50))
    q = np.exp(metrics.log_softmax(np.clip(other[0][:count], -50, 50)))
    values = metrics.kl_naturalness(logp, q)
    assert (values >= -1e-9).all()
    assert metrics.kl_naturalness(logp, np.exp(logp)) == pytest.approx(np.zeros(count), abs=1e-9)
    hard = metrics.kl_naturalness(logp, drawn[1][:count])
    assert hard == pytest.approx(metrics.kl_naturalness(logp, np.eye(4)[drawn[1][:count]]))
