"""From outputs to metrics: what is recorded when, on which samples, and why a metric is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mu import metrics
from mu.evaluate import (
    Outputs,
    compare,
    costly_score,
    population_of,
    score,
    unavailable,
)
from mu.metrics import METRICS, attacks, closeness
from mu.relative import gaps

POPULATION = [f"mia_population_asr_fpr{p}" for p in (1, 5, 10, 25, 50)]
NONMEMBER = [name for name in METRICS if name.endswith("_nonmember")]
EXTRA = [name for name in NONMEMBER if "chunked" in name or "columns" in name]
COSTLY = [name for name in NONMEMBER if name not in EXTRA]
COSTLY += ["mia_acc_forget_test"]
STREISAND = {name for name in METRICS if name.startswith("streisand")} | {"wrong_class_rate"}
POWER = {"mia_population_tpr_fpr1", "mia_population_tpr_fpr0.1", "mia_lr_entropy_tpr_fpr0.1"}
"""What 120 held-out samples cannot resolve."""


def made(count: int, boost: float, seed: int = 0, classes: int = 4) -> Outputs:
    """Return outputs on random samples; the larger the boost of the true class the surer."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += boost
    return Outputs(logits.astype(np.float32), labels)


def with_class(outputs: Outputs, label: int) -> Outputs:
    return Outputs(outputs.logits, outputs.labels, outputs.labels == label)


def only(outputs: Outputs, label: int) -> Outputs:
    return outputs.part(outputs.labels == label)


@pytest.fixture(scope="module")
def random_request() -> tuple[Outputs, Outputs, Outputs]:
    """Return D_r, D_f and held-out outputs where random samples are forgotten."""
    return made(300, 4, 1), made(40, 3, 2), made(120, 2, 3)


@pytest.fixture(scope="module")
def class_request() -> tuple[Outputs, Outputs, Outputs]:
    """Return the same where class 2 is forgotten, and D_r has none of it."""
    retain, held_out = made(400, 4, 1), made(160, 2, 3)
    return (
        retain.part(retain.labels != 2),
        only(made(200, 1, 2), 2),
        with_class(held_out, 2),
    )


def test_population_is_half_of_every_class_and_depends_on_labels_only() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 501)
    chosen = population_of(labels)
    assert chosen.sum() == 250
    for label in range(7):
        assert abs(chosen[labels == label].mean() - 0.5) < 1 / (labels == label).sum()
    assert np.array_equal(population_of(labels.copy()), chosen)
    assert population_of(labels[:1]).tolist() == [False]
    assert population_of(labels[:0]).tolist() == []


def test_score_attacks_with_one_half_of_the_held_out_samples(random_request) -> None:
    retain, forget, held_out = random_request
    values = score(retain, forget, held_out)
    chosen = population_of(held_out.labels)
    losses = [metrics.cross_entropy(part.logits, part.labels) for part in random_request]
    expected = attacks.mia_population(losses[0], losses[2][chosen], losses[1])
    assert {name: values[name] for name in expected} == expected
    auc = attacks.auc(-losses[1], -losses[2][~chosen])
    assert values["mia_population_auc"] == auc
    assert values["mia_population_auc"] != attacks.auc(-losses[1], -losses[2])
    assert values["loss_ks"] == closeness.loss_ks(losses[1], losses[2])  # of all of them
    confusions = [metrics.confusion(part.logits, part.labels) for part in (forget, held_out)]
    assert values["streisand_tv"] == closeness.streisand(*confusions)["streisand_tv"]


def test_score_does_not_depend_on_the_order_of_training_samples(random_request) -> None:
    retain, forget, held_out = random_request
    order = np.random.default_rng(0).permutation(len(retain.labels))
    shuffled = Outputs(retain.logits[order], retain.labels[order])
    backwards = Outputs(forget.logits[::-1], forget.labels[::-1])
    expected = pytest.approx(score(*random_request), nan_ok=True)
    assert score(shuffled, backwards, held_out) == expected


def test_power_at_small_rates_needs_enough_held_out_samples() -> None:
    retain, forget, held_out = made(300, 4, 1), made(40, 3, 2), made(4000, 2, 3)
    values = score(retain, forget, held_out)
    others = held_out.losses[~population_of(held_out.labels)]
    for name, rate in (("fpr1", 0.01), ("fpr0.1", 0.001)):
        of_losses = attacks.tpr_at_fpr(-forget.losses, -others, rate)
        assert values[f"mia_population_tpr_{name}"] == of_losses
        of_entropies = attacks.tpr_at_fpr(-forget.entropies, -held_out.entropies, rate)
        assert values[f"mia_lr_entropy_tpr_{name}"] == of_entropies
    reasons = unavailable(
        score(retain, forget, held_out.part(np.arange(150))),
        retain,
        forget,
        held_out.part(np.arange(150)),
    )
    assert reasons == {
        "mia_population_tpr_fpr1": "needs 100 non-members, but has 75",
        "mia_population_tpr_fpr0.1": "needs 1000 non-members, but has 75",
        "mia_lr_entropy_tpr_fpr0.1": "needs 1000 non-members, but has 150",
    }


def test_costly_score_is_what_finalists_have_more(random_request) -> None:
    values = costly_score(*random_request, generator_seed=3)
    assert set(values) == set(COSTLY)
    assert {METRICS[name].when for name in values} == {"finalist"}
    assert all(0 <= value <= 1 for value in values.values())
    assert not set(values) & set(score(*random_request))
    for group, names in (("svc_chunked", EXTRA[1:]), ("svc_columns", EXTRA[:1])):
        assert set(costly_score(*random_request, 3, groups=[group])) == set(names)
    assert costly_score(*random_request, generator_seed=3) == values
    others = [costly_score(*random_request, generator_seed=i) for i in range(3)]
    assert any(other != values for other in others)


def test_costly_score_takes_as_many_members_as_non_members(random_request) -> None:
    retain, forget, held_out = random_request
    rng = np.random.default_rng(5)
    order = rng.permutation(len(retain.labels))[: len(held_out.labels)]
    members, outside, queries = (
        attacks.svc_features(part.logits, part.labels)["conf"]
        for part in (Outputs(retain.logits[order], retain.labels[order]), held_out, forget)
    )
    values = costly_score(*random_request, generator_seed=5)
    assert values["mia_svc_conf_nonmember"] == attacks.mia_svc_nonmember(members, outside, queries)
    drawn = attacks.mia_acc_forget_test(forget.losses, held_out.losses, rng)
    assert values["mia_acc_forget_test"] == drawn
    more = costly_score(*random_request, generator_seed=5, groups=["svc_chunked", "svc_columns"])
    order = np.random.default_rng(5).permutation(len(retain.labels))
    members, outside, queries = (
        attacks.svc_features(part.logits, part.labels)["entropy"]
        for part in (retain.part(order), held_out, forget)
    )
    chunked = attacks.mia_akbari(members, outside, queries)
    assert more["mia_svc_chunked_entropy_nonmember"] == chunked
    columns = [
        attacks.m_entropy(part.logits, part.labels, "columns")[:, None]
        for part in (retain.part(order[: len(held_out.labels)]), held_out, forget)
    ]
    expected = attacks.mia_svc_nonmember(*columns)
    assert more["mia_svc_m_entropy_columns_nonmember"] == expected


def test_costly_attacks_leave_out_a_forgotten_class_but_the_others_keep_it(class_request) -> None:
    """UGradSL removes the class from D_te; NatMU and JiT do not."""
    retain, forget, held_out = class_request
    kept = held_out.without_forgotten()
    assert not (kept.labels == 2).any()
    with_it = Outputs(held_out.logits, held_out.labels)
    costly = costly_score(*class_request, generator_seed=0)
    assert costly == costly_score(retain, forget, kept, generator_seed=0)
    assert costly != costly_score(retain, forget, with_it, generator_seed=0)
    values, whole = score(*class_request), score(retain, forget, with_it)
    kept_names = {name: values[name] for name in whole}
    assert kept_names == pytest.approx(whole, nan_ok=True, abs=0)
    without = score(retain, forget, kept)
    assert values["loss_ks"] != without["loss_ks"]
    assert values["mia_population_asr_fpr25"] != without["mia_population_asr_fpr25"]


def test_metrics_at_the_ends_of_forgetting(random_request) -> None:
    retain, _, held_out = random_request
    hidden = score(retain, held_out, held_out)  # D_f looks like new data
    assert hidden["loss_ks"] == 0
    assert hidden["streisand_tv"] == 0
    assert hidden["mia_population_auc"] == pytest.approx(0.5, abs=0.1)
    kept = score(retain, made(300, 9, 7), held_out)
    assert kept["mia_population_auc"] > 0.95
    destroyed = score(retain, made(300, -9, 7), held_out)
    assert destroyed["mia_population_auc"] < 0.05
    assert destroyed["mia_population_asr"] < 0.05
    assert destroyed["streisand_tv"] > 0.5


def compared_with(
    values: Mapping[str, float],
    reference: Mapping[str, float],
    forget: Outputs,
    logits: NDArray[np.float32],
    untrained: NDArray[np.float32],
    whole_class: bool,
) -> dict[str, float]:
    """Everything that compares a model with retrained ones."""
    return {**compare(forget, logits, untrained), **gaps(values, reference, whole_class)}


def test_without_a_retrained_model_nothing_is_compared_with_one(random_request) -> None:
    _, forget, _ = random_request
    alone = compare(forget, None, -forget.logits)
    assert alone == {"zrf": closeness.zrf(forget.logits, -forget.logits)}


@pytest.mark.parametrize("whole_class", [False, True])
def test_compare_has_every_gap_whose_metrics_are_there(
    whole_class: bool, random_request, class_request
) -> None:
    parts = class_request if whole_class else random_request
    retain, forget, held_out = parts
    other = Outputs(forget.logits[::-1].copy(), forget.labels)
    cheap = score(*parts), score(retain, other, held_out)
    compared = compared_with(*cheap, forget, other.logits, -forget.logits, whole_class)
    always = {"activation_distance", "delta_acc_forget", "entropy_wilcoxon_p", "zrf"}
    assert set(compared) == always | {"entropy_median_diff", "avg_gap_natmu"}
    assert {METRICS[name].when for name in compared} == {"trial"}
    names = metrics.AVG_GAP_NATMU[whole_class]
    assert compared["avg_gap_natmu"] == metrics.mean_gap(*cheap, names)
    assert compared["zrf"] == closeness.zrf(forget.logits, -forget.logits)
    assert compared["delta_acc_forget"] == abs(cheap[0]["acc_forget"] - cheap[1]["acc_forget"])
    assert compared["activation_distance"] == metrics.activation_distance(
        forget.logits, other.logits
    )
    test = closeness.entropy_wilcoxon(forget.logits, other.logits)
    assert (compared["entropy_wilcoxon_p"], compared["entropy_median_diff"]) == (
        test.p,
        test.median_difference,
    )
    full = [
        {**values, **costly_score(retain, part, held_out, 0)}
        for values, part in zip(cheap, (forget, other))
    ]
    more = compared_with(*full, forget, other.logits, -forget.logits, whole_class)
    assert {name: more[name] for name in compared} == compared
    for name, of in (
        ("avg_gap_ugradsl", metrics.AVG_GAP_UGRADSL[whole_class]),
        ("avg_gap_ugradsl5", metrics.AVG_GAP_UGRADSL5[whole_class]),
        ("mia_svc_gap4", metrics.SVC_GAP4),
    ):
        assert more[name] == metrics.mean_gap(*full, of)
    assert more["mia_svc_gap_max"] == metrics.max_gap(*full, metrics.SVC_GAP4)
    costly = ("avg_gap_ugradsl", "avg_gap_ugradsl5", "mia_svc_gap4", "mia_svc_gap_max")
    assert set(more) - set(compared) == set(costly)
    assert {METRICS[name].when for name in costly} == {"finalist"}
    parts = [
        {**values, **costly_score(retain, part, held_out, 0, groups=["svc_chunked"])}
        for values, part in zip(cheap, (forget, other))
    ]
    best = compared_with(*parts, forget, other.logits, -forget.logits, whole_class)
    assert set(best) - set(compared) == {"mia_svc_chunked_gap4"}
    assert best["mia_svc_chunked_gap4"] == pytest.approx(
        np.mean([abs(parts[0][name] - parts[1][name]) for name in EXTRA if "chunked" in name])
    )
    assert "avg_gap_ugradsl" not in compared_with(
        full[0], cheap[1], forget, other.logits, -forget.logits, whole_class
    )


def test_compare_of_the_retrained_model_with_itself_has_no_gap(random_request) -> None:
    values = {**score(*random_request), **costly_score(*random_request, generator_seed=0)}
    compared = compared_with(
        values, values, random_request[1], random_request[1].logits, random_request[1].logits, False
    )
    assert compared.pop("entropy_wilcoxon_p") == compared.pop("zrf") == 1
    assert set(compared.values()) == {0.0}


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", range(3))
def test_broken_outputs_leave_no_number_that_needs_them(broken, position, random_request) -> None:
    parts = list(random_request)
    logits = parts[position].logits.copy()
    logits[3, 1] = broken
    parts[position] = Outputs(logits, parts[position].labels)
    values = {**score(*parts), **costly_score(*parts, generator_seed=0)}
    own = (
        {"acc_retain"},
        {"acc_forget", "err_forget", "label_ldp_empirical"},
        {"acc_test"},
    )[position]
    if position:
        both = {"mia_population_auc", "mia_lr_entropy_auc", "mia_lr_entropy_tpr_fpr1", "loss_ks"}
        own |= both | STREISAND
    rates = {f"mia_lr_entropy{name}" for name in ("", "_held_out", "_retain")}
    everywhere = POWER | rates | {"mia_population_asr", *POPULATION, *COSTLY}
    missing = {name for name, value in values.items() if math.isnan(value)}
    assert missing == own | everywhere
    reasons = unavailable(values, *parts)
    where = ("D_r", "D_f", "the held-out set")[position]
    assert reasons == dict.fromkeys(missing, f"outputs on {where} are not finite")


def test_reasons_for_too_few_samples_say_how_many_there_are(random_request, class_request) -> None:
    retain, forget, held_out = random_request
    few = forget.part(np.arange(len(forget.labels)) < 4)
    values = {**score(retain, few, held_out), **costly_score(retain, few, held_out, 0)}
    reasons = unavailable(values, retain, few, held_out)
    assert set(reasons) == {"mia_acc_forget_test", *POWER}
    assert "needs 10 samples" in reasons["mia_acc_forget_test"]
    assert "has 4 and 120" in reasons["mia_acc_forget_test"]
    assert set(unavailable(score(*random_request), *random_request)) == POWER

    lonely = held_out.part(np.arange(120) == 0)
    values = {**score(retain, forget, lonely), **costly_score(retain, forget, lonely, 0)}
    reasons = unavailable(values, retain, forget, lonely)
    power = {*POWER, "mia_lr_entropy_tpr_fpr1"}
    assert set(reasons) == {"mia_population_asr", *POPULATION, *COSTLY, *power}
    assert "but has 1" in reasons["mia_population_asr"]
    assert "has 1 and 1" in reasons["mia_svc_prob_nonmember"]

    retain, forget, held_out = class_request
    gone = held_out.without_forgotten()
    reasons = unavailable(score(retain, forget, gone), retain, forget, gone)
    nothing_shared = "no class has samples in D_f and among the held-out ones"
    assert reasons["streisand_tv"] == reasons["streisand_max"] == nothing_shared
    assert set(reasons) == {"streisand_tv", "streisand_max", *POWER}
    alone = with_class(only(held_out, 2), 2)
    values = {**score(retain, forget, alone), **costly_score(retain, forget, alone, 0)}
    reasons = unavailable(values, retain, forget, alone)
    assert reasons["acc_test_retain"] == "all held-out samples belong to what is forgotten"
    assert {"acc_test_retain", *COSTLY} < set(reasons)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(*[st.integers(0, 14)] * 3, st.booleans(), st.integers(0, 99))
def test_every_missing_metric_has_a_reason_and_no_other(retain, forget, held_out, whole, seed):
    parts = [made(n, 2, seed + i) for i, n in enumerate((retain, forget, held_out))]
    if whole:
        parts[2] = with_class(parts[2], 1)
    values = {**score(*parts), **costly_score(*parts, generator_seed=seed)}
    missing = {name for name, value in values.items() if math.isnan(value)}
    reasons = unavailable(values, *parts)
    assert set(reasons) == missing
    assert all(reasons.values())
    assert all(value >= 0 for name, value in values.items() if name not in missing)
    fractions = {name for name in values if METRICS[name].unit == "fraction"} - missing
    assert all(values[name] <= 1 for name in fractions)
