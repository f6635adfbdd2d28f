"""Audits with many models: golden vectors, known answers at both ends, and what they do not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from imports import imported_by
from scipy.optimize import brentq

from mu.metrics import METRICS, audits
from mu.metrics.attacks import auc, tpr_at_fpr

quick = settings(deadline=None, max_examples=30, derandomize=True)
VALUES = st.one_of(st.floats(-8, 8, allow_subnormal=False), st.sampled_from([-3.0, 0.0, 3.0]))


def outputs(samples: int = 3, models: int = 5) -> st.SearchStrategy:
    return arrays(np.float64, (samples, models), elements=VALUES)


def test_metrics_and_attacks_need_no_torch() -> None:
    for name in (
        "mu.metrics.attacks",
        "mu.metrics.audits",
        "mu.metrics.closeness",
        "mu.metrics.logistic",
        "mu.metrics.vocabulary",
    ):
        assert imported_by([name], ["torch", "torchvision", "sklearn", "scipy"]) == ""


def test_reference_attack_is_privacy_meters() -> None:
    z = golden("b_mia_population")
    for kind, rates in (("member", z["ref_tpr"]), ("nonmember", z["ref_fpr"])):
        called = audits.reference_members(z[f"loss_{kind}"], z[f"ref_loss_{kind}"], z["alphas"])
        assert called.shape == (len(z["alphas"]), len(z[f"loss_{kind}"]))
        assert called.mean(axis=1) == pytest.approx(rates)
        below = z[f"loss_{kind}"] < z[f"ref_thresholds_{kind}"]
        assert np.array_equal(called, below)


@quick
@given(outputs(6, 9), arrays(np.float64, 6, elements=VALUES))
def test_reference_attack_calls_more_members_at_higher_rates(reference, losses) -> None:
    losses, reference = np.abs(losses), np.abs(reference)
    called = audits.reference_members(losses, reference, [0.0, 0.1, 0.5, 0.9, 1.0])
    assert (np.diff(called.astype(int), axis=0) >= 0).all()
    assert not called[0].any()
    assert called[-1].all()
    assert np.array_equal(
        called[:, ::-1],
        audits.reference_members(losses[::-1], reference[::-1, ::-1], [0.0, 0.1, 0.5, 0.9, 1.0]),
    )


def rmia_inputs() -> dict[str, np.ndarray]:
    z = golden("b_mia_population")
    return {
        "probability": z["rmia_target_signals"],
        "reference": z["rmia_ref_signals"],
        "trained_on": z["rmia_ref_memberships"],
        "population": z["rmia_z_target"],
        "population_reference": z["rmia_z_ref"],
    }


def test_rmia_is_privacy_meters() -> None:
    z = golden("b_mia_population")
    half = z["rmia_ref_signals"].shape[1] // 2
    scores = audits.rmia(**rmia_inputs(), a=float(z["rmia_offline_a"]), models=half)
    np.testing.assert_allclose(scores, z["rmia_scores"], rtol=1e-9, atol=1e-10)


def test_rmia_averages_over_models_that_did_not_see_the_sample() -> None:
    inputs = rmia_inputs()
    scores = audits.rmia(**inputs)
    changed = inputs["reference"].copy()
    changed[inputs["trained_on"]] = 0.123  # what the others say is not looked at
    assert np.array_equal(audits.rmia(**{**inputs, "reference": changed}), scores)
    seen = inputs["trained_on"].copy()
    seen[4] = True
    assert np.isnan(audits.rmia(**{**inputs, "trained_on": seen})).tolist() == [
        i == 4 for i in range(len(scores))
    ]


def test_rmia_spans_its_scale() -> None:
    reference, seen = np.full((3, 4), 0.5), np.zeros((3, 4), bool)
    population, population_reference = np.full(10, 0.5), np.full((10, 4), 0.5)
    scores = audits.rmia([0.9, 0.5, 0.1], reference, seen, population, population_reference)
    assert scores.tolist() == [1.0, 0.0, 0.0]
    doubled = audits.rmia(
        [0.9, 0.5, 0.1], reference, seen, population, population_reference, gamma=2.0
    )
    assert doubled.tolist() == [0.0, 0.0, 0.0]
    assert auc(scores[:1], scores[1:]) == 1.0
    assert tpr_at_fpr(scores[:1], np.tile(scores[1:], 50), 0.01) == 1.0


@pytest.mark.parametrize("name", ["probability", "population"])
def test_rmia_of_broken_probabilities_is_nan(name: str) -> None:
    inputs = rmia_inputs()
    broken = inputs[name].copy()
    broken[2] = np.nan
    scores = np.isnan(audits.rmia(**{**inputs, name: broken}))
    assert scores[2]
    assert scores.all() == (name == "population")


@quick
@given(st.integers(0, 9999))
def test_rmia_scores_are_rates_whatever_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, seen = rng.random((6, 4)), rng.random((6, 4)) < 0.4
    seen[:, 0] = False
    probability, z, z_reference = rng.random(6), rng.random(9), rng.random((9, 4))
    scores = audits.rmia(probability, reference, seen, z, z_reference)
    assert ((scores >= 0) & (scores <= 1)).all()
    models = rng.permutation(4)
    again = audits.rmia(
        probability, reference[:, models], seen[:, models], z[::-1], z_reference[::-1]
    )
    assert again == pytest.approx(scores)


def test_u_lira_is_the_golden_one() -> None:
    z = golden("b_ulira")
    shadows = z["phi_shadow_unlearned"], z["phi_shadow_retrained"]
    ratios = {}
    for kind in ("unlearned", "retrained"):
        ratios[kind] = audits.u_lira(z[f"phi_target_{kind}"], *shadows)
        np.testing.assert_allclose(ratios[kind], z[f"llr_{kind}"], rtol=1e-9, atol=1e-10)
        posterior = 1 / (1 + np.exp(-ratios[kind]))
        np.testing.assert_allclose(posterior, z[f"posterior_{kind}"], rtol=1e-9, atol=1e-10)
    accuracy = audits.u_lira_accuracy(ratios["unlearned"], ratios["retrained"])
    assert accuracy == pytest.approx(float(z["accuracy"]))


def test_u_lira_spans_its_scale() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(-5, 1, (40, 16)), rng.normal(5, 1, (40, 16))
    apart = audits.u_lira(low[:, 0], low, high), audits.u_lira(high[:, 0], low, high)
    assert audits.u_lira_accuracy(*apart) == 1.0
    assert audits.u_lira_accuracy(*apart[::-1]) == 0.0
    assert auc(*apart) == 1.0
    same = audits.u_lira(low[:, 0], low, low)
    assert same == pytest.approx(np.zeros(40))
    assert audits.u_lira_accuracy(same, same) == 0.5
    assert audits.u_lira_accuracy([0.0], [-1.0]) == 0.5  # a ratio of 0 is not above 0


@quick
@given(st.integers(0, 9999))
def test_u_lira_changes_sign_with_its_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    unlearned, retrained, phi = rng.normal(size=(5, 9)), rng.normal(size=(5, 8)), rng.normal(size=5)
    ratios = audits.u_lira(phi, unlearned, retrained)
    assert audits.u_lira(phi, retrained, unlearned) == pytest.approx(-ratios)
    assert audits.u_lira(phi, unlearned[:, ::-1], retrained) == pytest.approx(ratios)
    shifted = audits.u_lira(3 * phi + 7, 3 * unlearned + 7, 3 * retrained + 7)
    assert shifted == pytest.approx(ratios)


def test_u_lira_is_nan_with_few_models_or_broken_values() -> None:
    rng = np.random.default_rng(0)
    phi, models = rng.normal(size=4), rng.normal(size=(4, audits.MIN_MODELS))
    assert np.isfinite(audits.u_lira(phi, models, models + 1)).all()
    assert np.isnan(audits.u_lira(phi, models[:, 1:], models)).all()
    assert np.isnan(audits.u_lira(phi, models, models[:, 1:])).all()
    broken = models.copy()
    broken[2, 3] = np.nan
    ratios = audits.u_lira(phi, broken, models)
    assert np.isnan(ratios).tolist() == [False, False, True, False]
    assert math.isnan(audits.u_lira_accuracy(ratios, ratios[:1]))
    equal = audits.u_lira(np.zeros(4), np.zeros((4, 8)), models)
    assert np.isfinite(equal).all()  # no spread at all


@pytest.mark.parametrize("row", range(3))
def test_challenge_f_score(row: int) -> None:
    z = golden("b_fscore_neurips2023")
    delta = float(z["deltas"][row])
    outputs = z["outputs_unlearned"], z["outputs_retrained"]
    fscore = audits.fscore_neurips(*outputs, delta=delta)
    np.testing.assert_allclose(
        fscore.epsilons, z["eps_single_threshold"][row], rtol=1e-9, atol=1e-10
    )
    assert np.array_equal(fscore.bins, z["n_bin"][row])
    assert 2 / 2**fscore.bins == pytest.approx(z["H"][row], **{"rel": 1e-12})
    assert fscore.value == pytest.approx(float(z["F"][row]), rel=1e-9)
    assert fscore.models == (int(z["K_models"]),) * 2
    assert (fscore.delta, fscore.max_bin) == (delta, 13)
    both = audits.fscore_neurips(*outputs, delta=delta, intervals=True)
    np.testing.assert_allclose(
        both.epsilons, z["eps_single_and_two_sided"][row], rtol=1e-9, atol=1e-10
    )
    utility = audits.utility_ratio(
        (float(z["RA_U"]), float(z["RA_R"])), (float(z["TA_U"]), float(z["TA_R"]))
    )
    assert utility == pytest.approx(float(z["utility"]), rel=1e-9)
    assert fscore.value * utility == pytest.approx(float(z["score"][row]), rel=1e-9)


def test_privacy_loss_of_given_error_rates() -> None:
    z = golden("b_fscore_neurips2023")
    for delta, expected in zip(z["deltas"], z["hand_eps"]):
        per_attack = audits.privacy_epsilons(z["hand_fpr"], z["hand_fnr"], float(delta))
        for chosen, epsilon in zip(z["hand_subset_index"], expected):
            largest = per_attack[chosen[chosen >= 0]].max(initial=-np.inf)
            assert largest == pytest.approx(epsilon, rel=1e-9, abs=1e-10)


def test_privacy_loss_at_its_ends() -> None:
    fpr, fnr = np.array([0.5, 0.0, 0.0, 1.0, 0.25]), np.array([0.5, 0.0, 0.5, 1.0, 0.25])
    epsilons = audits.privacy_epsilons(fpr, fnr, 0.0)
    assert epsilons[0] == 0
    assert epsilons[1] == np.inf
    assert epsilons[2] == -np.inf
    assert epsilons[3] == -np.inf  # always wrong: ln 0 on both sides
    assert epsilons[4] == pytest.approx(math.log(3))
    # Of a worse attack than chance one term is undefined, the other counts.
    for rates in ((0.95, 0.05), (0.05, 0.95)):
        assert audits.privacy_epsilons(*rates, 0.1) == pytest.approx(math.log(0.85 / 0.95))


def test_bins_of_privacy_losses() -> None:
    z = golden("b_fscore_neurips2023")
    bins = audits.epsilon_bins(z["bin_grid_eps"])
    assert np.array_equal(bins, z["bin_grid_n"])
    assert 2 / 2**bins == pytest.approx(z["bin_grid_H"], rel=1e-12)
    assert audits.epsilon_bins([-np.inf, 0.9, 1.0, np.inf], 4, 1.0).tolist() == [1, 1, 2, 4]
    assert np.isnan(audits.epsilon_bins([np.nan]))


def test_f_score_spans_its_scale() -> None:
    rng = np.random.default_rng(0)
    models = rng.normal(size=(20, 8))
    apart = audits.fscore_neurips(models, models + 100)
    assert (apart.epsilons == np.inf).all()
    assert apart.value == 2 / 2**13
    assert audits.fscore_neurips(models, models + 100, max_bin=3).value == 0.25
    same = audits.fscore_neurips(np.zeros((4, 8)), np.zeros((4, 8)))
    assert (same.epsilons == -np.inf).all()  # no threshold lies between equal outputs
    assert same.value == 1.0
    close = audits.fscore_neurips(models, models[:, ::-1], delta=0.01)
    assert close.value > apart.value


@quick
@given(outputs(), outputs(), st.sampled_from([0.0, 0.01, 0.1]))
def test_f_score_depends_on_order_neither_of_models_nor_of_samples(ours, theirs, delta) -> None:
    fscore = audits.fscore_neurips(ours, theirs, delta=delta)
    assert 2 / 2**13 <= fscore.value <= 1
    again = audits.fscore_neurips(ours[::-1, ::-1], theirs[::-1], delta=delta)
    assert again.epsilons[::-1] == pytest.approx(fscore.epsilons)
    assert audits.fscore_neurips(theirs, ours, delta=delta).epsilons == pytest.approx(
        fscore.epsilons
    )
    more = audits.fscore_neurips(ours, theirs, delta=delta, intervals=True)
    assert (more.epsilons >= fscore.epsilons).all()  # more attacks never prove less


@quick
@given(outputs(2, 4), outputs(2, 5))
def test_f_scores_rules_are_all_thresholds_and_intervals(ours, theirs) -> None:
    """Against every rule spelt out, sample by sample."""
    fscore = audits.fscore_neurips(ours, theirs, delta=0.05, intervals=True)
    for sample, epsilon in enumerate(fscore.epsilons):
        u, r = ours[sample], theirs[sample]
        values = np.unique(np.concatenate([u, r]))
        cuts = (values[1:] + values[:-1]) / 2
        rules = [(-np.inf, cut) for cut in cuts]
        rules += [(a, b) for a in cuts for b in cuts if a < b]
        losses = [-np.inf]
        for low, high in rules:
            u_in, r_in = ((x > low) & (x < high) for x in (u, r))
            losses += [
                float(audits.privacy_epsilons(r_in.mean(), (~u_in).mean(), 0.05)),
                float(audits.privacy_epsilons((~r_in).mean(), u_in.mean(), 0.05)),
            ]
        assert epsilon == pytest.approx(max(losses), rel=1e-9)


def test_f_score_of_many_samples_is_that_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2000, 32)), rng.normal(0.5, 1, (2000, 32))
    whole = audits.fscore_neurips(ours, theirs, intervals=True)  # in several chunks
    few = audits.fscore_neurips(ours[-5:], theirs[-5:], intervals=True)
    assert np.array_equal(whole.epsilons[-5:], few.epsilons)
    assert whole.value == pytest.approx((2 / 2**whole.bins).mean())


def test_f_score_of_broken_outputs_is_nan() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=(2, 3, 8))
    ours[1, 2] = np.nan
    fscore = audits.fscore_neurips(ours, theirs)
    assert np.isnan(fscore.epsilons).tolist() == [False, True, False]
    assert math.isnan(fscore.value)
    assert math.isnan(audits.fscore_neurips(ours[:0], theirs[:0]).value)


def test_f_score_of_akbari_et_al() -> None:
    z = golden("b_fscore_neurips2023")
    h_values = audits.fscore_seed003(
        z["s003_logits_unlearn_forget"], z["s003_logits_retrain_forget"]
    )
    np.testing.assert_allclose(h_values, z["s003_H_per_example"], rtol=1e-9, atol=1e-10)
    assert h_values.mean() == pytest.approx(float(z["s003_H"]), rel=1e-9)

    def accuracy(key: str, labels: str) -> float:
        return float((z[key].argmax(axis=2) == z[labels][:, None]).mean())

    utility = audits.utility_ratio(
        *(
            tuple(
                accuracy(f"s003_logits_{m}_{part}", f"s003_y_{part}")
                for m in ("unlearn", "retrain")
            )
            for part in ("retain", "val")
        )
    )
    assert utility == pytest.approx(float(z["s003_utility"]), rel=1e-9)
    assert h_values.mean() * utility == pytest.approx(float(z["s003_f_score"]), rel=1e-9)


def akbari_h(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Return Akbari et al.'s H of one sample from the softmax of class 0 under each model, rule by rule."""
    m0, s0, m1, s1 = unlearned.mean(), unlearned.std(), retrained.mean(), retrained.std()

    def ratio(x: float) -> float:  # log density of the retrained over that of the unlearned models
        return scipy.stats.norm.logpdf(x, m1, s1) - scipy.stats.norm.logpdf(x, m0, s0)

    wide, middle = 1e5 * max(s0, s1), (m0 if s0 < s1 else m1)
    low, high = (brentq(ratio, middle, middle + side * wide) for side in (-1, 1))
    between = ratio(low + 0.01) > 0
    rules = [lambda x: low <= x <= high if between else x <= high]
    rules += [lambda x, at=i / 10: x > at for i in range(1, 10)]
    epsilons = []
    for rule in rules:
        fpr = np.mean([rule(x) for x in unlearned])
        fnr = np.mean([not rule(x) for x in retrained])
        if fpr == 0 and fnr == 0:
            epsilons.append(math.inf)
        elif fpr > 0 and fnr > 0 and fpr < 0.9:
            one = math.log(0.9 - fpr) - math.log(fnr)
            other = math.log(0.9 - fnr) - math.log(fpr) if fnr < 0.9 else -math.inf
            epsilons.append(max(one, other))
    best = max(epsilons, default=-math.inf)
    return 2 / 2 ** (1 + 12 / (1 + math.exp(-best)))


@settings(quick, max_examples=60)
@given(st.integers(0, 9999), st.sampled_from([0.2, 1.0, 3.0]), st.sampled_from([-1.0, 0.0, 1.0]))
def test_f_score_of_akbari_et_al_rule_by_rule(seed: int, spread: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    logits = np.zeros((2, 1, 12, 2))
    logits[0, ..., 0] = rng.normal(shift, 0.6 * spread, (1, 12))
    logits[1, ..., 0] = rng.normal(0, 0.6, (1, 12))
    unlearned, retrained = 1 / (1 + np.exp(-logits[:, 0, :, 0]))
    h_values = audits.fscore_seed003(logits[0], logits[1])
    assert h_values == pytest.approx([akbari_h(unlearned, retrained)])


@settings(quick, max_examples=60)
@given(st.integers(0, 9999), st.sampled_from([0.4, 1.0, 2.5]), st.sampled_from([-0.01, 0.0, 0.01]))
def test_f_score_of_akbari_et_al_by_the_gaussian_rule_alone(
    seed: int, spread: float, shift: float
) -> None:
    """No threshold 0.1 to 0.9 parts probabilities between 0.4 and 0.5."""
    draws = np.random.default_rng(seed).normal(0.45, 0.012, (2, 12))
    unlearned = (0.45 + shift + spread * (draws[0] - 0.45)).clip(0.401, 0.499)
    retrained = draws[1].clip(0.401, 0.499)
    logits = np.zeros((2, 1, 12, 2))
    logits[:, 0, :, 0] = [np.log(p / (1 - p)) for p in (unlearned, retrained)]
    expected = akbari_h(unlearned, retrained)
    assert audits.fscore_seed003(*logits) == pytest.approx([expected])


def test_f_score_of_akbari_et_al_rewards_models_that_are_easy_to_tell_apart() -> None:
    """Its known fault, and the reason it ranks nothing: the challenge's score falls where this one rises."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 40)
    retrained, unlearned = rng.normal(size=(2, 40, 32, 10))
    for logits in (retrained, unlearned):
        logits[np.arange(40), :, labels] += 4
    apart = unlearned.copy()
    apart[np.arange(40), :, labels] += 6
    alike = audits.fscore_seed003(unlearned, retrained).mean()
    assert audits.fscore_seed003(apart, retrained).mean() > alike

    def own(logits: np.ndarray) -> np.ndarray:
        return logits[np.arange(40), :, labels]

    good = audits.fscore_neurips(own(unlearned), own(retrained)).value
    assert audits.fscore_neurips(own(apart), own(retrained)).value < good


def test_f_score_of_akbari_et_al_where_the_gaussian_rule_does_not_exist() -> None:
    same = np.zeros((2, 6, 3))
    assert (audits.fscore_seed003(same, same) == 1).all()  # every attack discarded: their best
    broken = same.copy()
    broken[1, 2, 0] = np.inf
    h_values = audits.fscore_seed003(broken, same)
    assert np.isnan(h_values).tolist() == [False, True]


@quick
@given(st.integers(0, 9999))
def test_f_score_of_akbari_et_al_stays_on_its_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    unlearned, retrained = rng.normal(0, 2, (2, 3, 6, 4))
    h_values = audits.fscore_seed003(unlearned, retrained)
    assert ((h_values >= 2 / 2**13) & (h_values <= 1)).all()
    again = audits.fscore_seed003(unlearned[::-1, ::-1], retrained[::-1])
    assert again[::-1] == pytest.approx(h_values)


def test_rows_of_the_vocabulary_for_audits() -> None:
    names = {
        f"{attack}_{key}"
        for attack in ("u_lira", "rmia")
        for key in ("auc", "tpr_fpr1", "tpr_fpr0.1")
    }
    names |= {"u_lira_acc", "fscore_neurips", "score_neurips", "fscore_seed003"}
    assert names <= set(METRICS)
    assert {METRICS[name].when for name in names} == {"analysis"}
