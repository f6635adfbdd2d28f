"""TMU: golden features and loss; labels and pools of the right problem; steps of Eqs. 2 and 3."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples
from mu.evaluate import predict
from mu.forget import KINDS
from mu.methods import load, tmu
from mu.methods.boundary_shrink import sign_attack
from mu.problem import Problem, Weights
from mu.rng import generator
from mu.split import Split

TIGHT = {"rtol": 1e-9, "atol": 1e-10}
FEATURES = golden("b_tmu_features")
LOSS = golden("b_tmu_loss")
FAST = {"classifier_epochs": 2, "twin_batch_size": 32, "attack_steps": 2, "twin_epochs": 300}


def feature_arrays(*names: str) -> list[Tensor]:
    return [torch.from_numpy(FEATURES[name]) for name in names]


def loss_arrays(*names: str) -> list[Tensor]:
    return [torch.from_numpy(LOSS[name]) for name in names]


def test_distances_are_the_golden_ones_in_ascending_order() -> None:
    own, pool, labels, pool_labels = feature_arrays("g_f", "g_r", "y_f", "y_r")
    distances = tmu.nearest_distances(own, pool, int(FEATURES["N"]))
    np.testing.assert_allclose(distances, FEATURES["df_l2"], **TIGHT)
    same = tmu.nearest_distances(own, pool, 3, labels[:, None] == pool_labels)
    np.testing.assert_allclose(same, FEATURES["df_l2_same_class_N3"], **TIGHT)


def test_a_class_with_too_few_samples_takes_neighbours_of_any() -> None:
    own, pool = torch.zeros(1, 2), torch.tensor([[1.0, 0], [2, 0], [3, 0]])
    assert tmu.nearest_distances(own, pool, 2, torch.tensor([[False, True, True]])).tolist() == [
        [2, 3]
    ]
    assert tmu.nearest_distances(own, pool, 2, torch.tensor([[False, False, True]])).tolist() == [
        [1, 2]
    ]


def golden_attack(steps: int, step: float) -> Tensor:
    weight, bias, inputs, labels = feature_arrays("W", "b", "x", "y_f")
    model = nn.Linear(*reversed(weight.shape), dtype=torch.float64)
    model.load_state_dict({"weight": weight, "bias": bias})
    bound = float(FEATURES["eps"])
    return sign_attack(model, inputs, labels, bound=bound, step=step, steps=steps)


def test_attack_follows_the_golden_trace() -> None:
    for steps, expected in enumerate(FEATURES["x_adv_trace"], start=1):
        attacked_inputs = golden_attack(steps, float(FEATURES["step"]))
        np.testing.assert_allclose(attacked_inputs, expected, rtol=0, atol=1e-12)
    fgsm = golden_attack(1, float(FEATURES["eps"]))
    np.testing.assert_allclose(fgsm, FEATURES["x_adv_fgsm"], rtol=0, atol=1e-12)


def test_attack_and_curriculum_features_are_the_golden_ones() -> None:
    attacked, clean = feature_arrays("scores_adv", "scores_clean")
    for form in ("literal", "swapped"):
        computed = tmu.attacked_entropy(attacked, clean, form)  # type: ignore[arg-type]
        np.testing.assert_allclose(computed, FEATURES[f"af_{form}"], **TIGHT)
    wrong = tmu.misclassified(*feature_arrays("scores_adv", "y_f"))
    np.testing.assert_array_equal(wrong, FEATURES["attack_success"])
    logits, labels = feature_arrays("cf_logits", "y_f")
    curriculum = F.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(curriculum, FEATURES["cf"], **TIGHT)


def test_features_are_standardised_by_population_statistics() -> None:
    features = feature_arrays("features_concat")[0]
    standardized = tmu.standardize(features, features)
    np.testing.assert_allclose(standardized, FEATURES["features_standardized"], **TIGHT)
    assert tmu.standardize(torch.ones(3, 1), torch.ones(3, 1)).tolist() == [[0.0]] * 3


def test_generalization_labels_are_the_golden_ones() -> None:
    hard = tmu.misclassified(*feature_arrays("twin_logits_Mo_on_test", "twin_y_test"))
    np.testing.assert_array_equal(hard, FEATURES["twin_label_hard"].astype(bool))


def signed_loss(
    easy: str, reduction: tmu.Reduction, cap: float | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the loss of the golden batch, and its gradient by the logits of hard and of easy samples."""
    hard_logits, easy_logits = (a.requires_grad_() for a in loss_arrays("logits_hard", easy))
    losses = torch.cat(
        [
            F.cross_entropy(logits, labels, reduction="none")
            for logits, labels in zip((hard_logits, easy_logits), loss_arrays("y_hard", "y_easy"))
        ]
    )
    hard = torch.arange(len(losses)) < len(hard_logits)
    loss = tmu.signed_loss(losses, tmu.signed_weights(hard, reduction), cap)
    return loss.detach(), torch.autograd.grad(loss, (hard_logits, easy_logits))


@pytest.mark.parametrize("reduction", ["subset_mean", "sample_mean"])
def test_loss_of_equation_3_is_the_golden_one(reduction: tmu.Reduction) -> None:
    key = reduction.replace("_", "")
    loss, gradients = signed_loss("logits_easy_noisy", reduction)
    np.testing.assert_allclose(loss, LOSS[f"eq3_minimized_{key}"], **TIGHT)
    for who, gradient in zip(("hard", "easy"), gradients):
        np.testing.assert_allclose(gradient, LOSS[f"grad_{who}_{key}"], **TIGHT)


def test_loss_of_equation_2_is_the_golden_one() -> None:
    loss, _ = signed_loss("logits_easy_clean", "subset_mean")
    np.testing.assert_allclose(loss, -LOSS["eq2_objective_subsetmean"], **TIGHT)


def test_a_hard_sample_beyond_the_cap_is_pushed_no_further() -> None:
    cap = float(LOSS["hard_cap"])
    loss, (hard, _) = signed_loss("logits_easy_noisy", "subset_mean", cap)
    np.testing.assert_allclose(loss, LOSS["eq3_minimized_subsetmean_capped"], **TIGHT)
    logits, labels = loss_arrays("logits_hard", "y_hard")
    beyond = F.cross_entropy(logits, labels, reduction="none") > cap
    assert beyond.any()
    assert not hard[beyond].any() and hard[~beyond].any(1).all()


def test_noise_is_in_255ths_of_the_pixel_range_and_level_0_is_none() -> None:
    inputs, noise = loss_arrays("x_easy", "unit_noise")
    for row, level in enumerate(LOSS["noise_levels"].tolist()):
        for clamp, key in ((False, "x_noisy"), (True, "x_noisy_clamped")):
            perturbed = tmu.perturb(inputs, noise, level, clamp)
            np.testing.assert_allclose(perturbed, LOSS[key][row], **TIGHT)
    assert torch.equal(tmu.perturb(inputs, noise, 0), inputs)


def hardness_of(split: Split, value: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `value` [N] be the predicted hardness of the forgotten samples."""
    monkeypatch.setattr(tmu, "predict_hardness", lambda *args: value)


@pytest.mark.parametrize("noise_level", [0.0, 5.0])
def test_a_step_raises_the_loss_of_hard_samples_above_that_of_easy_ones(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch, noise_level: float
) -> None:
    """At level 0 the step is the one of Eq. 2, written out."""
    hard = torch.arange(len(split.forget)) % 4 == 0
    hardness_of(split, hard.float(), monkeypatch)
    inputs, labels = split.forget.batch(slice(None))
    expected = copy.deepcopy(model).eval()
    losses = F.cross_entropy(expected(inputs), labels, reduction="none")
    before = losses[hard].mean() - losses[~hard].mean()
    (-before).backward()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    for _ in tmu.unlearn(
        model,
        split,
        generator(0),
        epochs=1,
        lr=1e-3,
        noise_level=noise_level,
        momentum=0.0,
        retain_weight=0.0,
    ):
        pass
    for ours, theirs in zip(model.parameters(), expected.parameters()):
        assert theirs.grad is not None
        wanted = theirs.detach() - 1e-3 * theirs.grad
        close = torch.allclose(ours, wanted, rtol=1e-5, atol=1e-7)
        assert close or noise_level > 0
    after = F.cross_entropy(model.eval()(inputs), labels, reduction="none").detach()
    assert after[hard].mean() - after[~hard].mean() > before
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_only_easy_samples_are_noisy(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardness_of(split, torch.ones(len(split.forget)), monkeypatch)
    ends = []
    for level in (0.0, 10.0):
        network = copy.deepcopy(model)
        for _ in tmu.unlearn(network, split, generator(0), epochs=1, noise_level=level):
            pass
        ends.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(*ends)


def settings(**knobs: Any) -> tmu.Settings:
    """Return the settings that ``unlearn`` makes of its defaults, those of `FAST` and those given."""
    made: list[tmu.Settings] = []

    class Stop(Exception):
        pass

    def take(name: tuple[str, tmu.Settings], compute: Any) -> Tensor:
        made.append(name[1])
        raise Stop

    examples = Examples(torch.zeros(50, 1, 1, 1), torch.zeros(50, dtype=torch.int64))
    split = Split({"twin": examples, "retain": examples, "forget": examples}, 4)
    object.__setattr__(split, "cached", take)
    with pytest.raises(Stop):
        next(tmu.unlearn(nn.Linear(1, 4), split, generator(0), **{**FAST, **knobs}))
    return made[0]


def test_classifier_learns_from_the_twin_problem(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of the original; features of the twin, whose pool holds D_f, while that of D_f does not."""
    taught: list[tuple[Tensor, ...]] = []
    pools: list[tuple[int, int]] = []
    inner = tmu.nearest_distances

    def watch(features: Tensor, pool: Tensor, *rest: Any) -> Tensor:
        pools.append((len(features), len(pool)))
        return inner(features, pool, *rest)

    def classify(features: Tensor, hard: Tensor, others: Tensor, *rest: Any) -> Tensor:
        taught.append((features, hard, others))
        return torch.zeros(len(others))

    monkeypatch.setattr(tmu, "nearest_distances", watch)
    monkeypatch.setattr(tmu, "classify", classify)
    logits = predict(model, split.twin)
    tmu.predict_hardness(model, split, generator(0), settings())
    (features, hard, others) = taught[0]
    wrong = logits.argmax(1) != split.twin.labels.numpy()
    assert 0 < wrong.sum() < len(wrong), "the toy original should fail on some of the twin set"
    np.testing.assert_array_equal(hard, wrong)
    retain, forget, twin = (len(getattr(split, name)) for name in ("retain", "forget", "twin"))
    assert pools == [(twin, retain + forget), (forget, retain)]
    assert features.shape == (twin, 7) and others.shape == (forget, 7)


def with_hard_twins(split: Split) -> Split:
    """Return the split with other labels for half of its twin set: whatever the original is, a twin must learn them."""
    labels = split.twin.labels.clone()
    labels[::2] = (labels[::2] + 1) % split.num_classes
    return replace(split, parts={**split.parts, "twin": Examples(split.twin.inputs, labels)})


def test_twin_knows_the_twin_set_and_the_original_is_left_alone(
    model: nn.Module, split: Split
) -> None:
    split = with_hard_twins(split)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = tmu.fine_tuned_twin(model, split, generator(0), settings(twin_epochs=1000, twin_lr=0.03))
    assert tmu.accuracy(model, split.twin) < tmu.accuracy(twin, split.twin)
    assert tmu.accuracy(twin, split.twin) >= tmu.accuracy(model, split.forget)
    tmu.barely_trained(model, split, generator(0), settings())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_twin_that_knows_less_than_the_original_fails_the_trial(
    model: nn.Module, split: Split
) -> None:
    split = with_hard_twins(split)
    with pytest.raises(ValueError, match=r"after 1 epochs the twin knows .* raise `twin_epochs`"):
        tmu.fine_tuned_twin(model, split, generator(0), settings(twin_epochs=1))


def with_half_known(split: Split) -> Split:
    """Return the split with other labels for a third of D_tw and D_f, so that a twin knows as much of it after some epochs."""
    parts = dict(split.parts)
    for name in ("twin", "forget"):
        labels = parts[name].labels.clone()
        labels[::3] = (labels[::3] + 1) % split.num_classes
        parts[name] = Examples(parts[name].inputs, labels)
    return replace(split, parts=parts)


def hardness_with(problem: Problem, original: Weights, **change: Any) -> Tensor:
    """Return the predicted hardness of D_f with the settings of the tests, some of them changed."""
    split = with_half_known(problem.split())
    chosen = replace(settings(), **change)
    return tmu.predict_hardness(problem.load(original), split, generator(0), chosen)


@pytest.fixture(scope="module")
def expected_hardness(problem: Problem, original: Weights) -> Tensor:
    return hardness_with(problem, original)


def test_hardness_is_the_same_again(
    problem: Problem, original: Weights, expected_hardness: Tensor
) -> None:
    assert torch.equal(hardness_with(problem, original), expected_hardness)


@pytest.mark.parametrize(
    "change",
    [
        {"features": "distance"},
        {"features": "attack"},
        {"features": "curriculum"},
        {"neighbors": 3},
        {"attack_eps": 1 / 255},
        {"attack_step": 3 / 255},
        {"attack_steps": 1},
        {"attack_feature": "swapped"},
        {"twin_lr": 0.02},
        {"curriculum_epochs": 1},
        {"curriculum_lr": 0.02},
        {"curriculum_fraction": 0.9},
        {"classifier_epochs": 3},
        {"classifier_lr": 0.02},
        {"batch_size": 16},
        {"momentum": 0.5},
        {"weight_decay": 0.0},
    ],
    ids=lambda change: "=".join(map(str, next(iter(change.items())))),
)
def test_every_setting_of_the_hardness_changes_it(
    problem: Problem, original: Weights, expected_hardness: Tensor, change: dict[str, Any]
) -> None:
    assert not torch.equal(hardness_with(problem, original, **change), expected_hardness)


def test_hard_samples_are_found_once_for_all_trials(
    problem: Problem, original: Weights, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tmu.Settings] = []
    inner = tmu.predict_hardness

    def watch(model: nn.Module, split: Split, draws: torch.Generator, s: tmu.Settings) -> Tensor:
        calls.append(s)
        return inner(model, split, draws, s)

    monkeypatch.setattr(tmu, "predict_hardness", watch)
    for knobs in ({}, {"lr": 0.01}, {"epochs": 2}, {"noise_level": 0.0}, {"threshold": 0.2}):
        for _ in tmu.unlearn(problem.load(original), split, generator(0), **FAST, **knobs):  # type: ignore[arg-type]
            pass
    assert len(calls) == 1


def test_twin_set_is_limited_to_the_forgotten_classes_where_it_is_large_enough() -> None:
    labels = torch.arange(4).repeat_interleave(210)
    twin = Examples(torch.zeros(840, 1), labels)
    forget = Examples(torch.zeros(2, 1), torch.tensor([1, 1]))
    assert tmu.of_forgotten_classes(twin, forget).labels.unique().tolist() == [1]
    assert len(tmu.of_forgotten_classes(twin.take(torch.arange(100, 840, 4)), forget)) == 185


@pytest.mark.parametrize(
    ("part", "count", "message"), [("twin", 19, "at least 20"), ("retain", 4, "at most 4")]
)
def test_says_what_it_needs_before_it_starts(
    model: nn.Module, split: Split, part: str, count: int, message: str
) -> None:
    few = getattr(split, part).take(torch.arange(count))
    with pytest.raises(ValueError, match=message):
        next(tmu.unlearn(model, replace(split, parts={**split.parts, part: few}), generator(0)))


def test_declares_the_twin_set() -> None:
    assert "twin" in load("tmu").data


def test_refuses_whole_classes() -> None:
    requests = set(load("tmu").requests)
    assert requests == set(KINDS) - {"full_class", "sub_class"}


@pytest.mark.parametrize("count", [0, 4, 5])
def test_fewer_than_five_hard_samples_are_warned_of(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    hardness_of(split, (torch.arange(len(split.forget)) < count).float(), monkeypatch)
    for _ in tmu.unlearn(model, split, generator(0), epochs=1):
        pass
    said = f"takes {count} of {len(split.forget)} forgotten samples for hard"
    assert [said in text for text in split.diagnostics.warnings] == [True] * (count < 5)


def test_ascent_stops_at_the_loss_of_a_uniform_prediction_unless_it_is_uncapped(
    problem: Problem, original: Weights, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardness_of(split, torch.ones(len(split.forget)), monkeypatch)
    inputs, labels = split.forget.batch(slice(None))
    ends = []
    for cap in (1.0, None):
        model = problem.load(original)
        knobs = {"lr": 1e-3, "momentum": 0.0, "retain_weight": 0.0, "hard_loss_cap": cap}
        for _ in tmu.unlearn(model, split, generator(0), epochs=200, **knobs):  # type: ignore[arg-type]
            pass
        losses = F.cross_entropy(model.eval()(inputs), labels, reduction="none").detach()
        ends.append(float(losses.min()) / math.log(split.num_classes))
    assert 0.8 < ends[0] < 2
    assert not ends[1] < 2, "without a cap the loss grows, or the model diverges"


def test_each_set_of_features_is_standardised_by_its_own_statistics() -> None:
    """Features of another scale and origin, as a model that memorises more has, change nothing."""
    draws = generator(1)
    features = torch.randn(40, 3, generator=draws)
    others = torch.randn(30, 3, generator=draws)
    hard = features[:, 0] > 0
    one, other = (
        tmu.classify(features, hard, given, generator(0), settings(classifier_epochs=20))
        for given in (others, 5 * others + 7)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
