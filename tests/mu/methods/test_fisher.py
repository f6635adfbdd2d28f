"""Fisher forgetting: the information, the noise of both variants, and which of them applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, tanh_mlp
from torch import nn
from toy import toy_problem

from mu import gradients
from mu.data import Examples
from mu.gradients import unflatten
from mu.methods import fisher
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split
from mu.training import count_samples

NAMES = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


def golden_split(forget_class: int | None = None) -> Split:
    z = golden("fisher_forgetting")
    retain = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    return Split({"retain": retain}, num_classes=len(z["fc2_bias"]), forget_class=forget_class)


@pytest.mark.parametrize("way", [gradients.one_by_one, gradients.at_once])
def test_information_is_expected_over_labels_and_of_single_samples(
    way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "one_by_one", way)
    z = golden("fisher_forgetting")
    model = tanh_mlp(z)
    information = fisher.fisher_diagonal(model, golden_split().retain)
    for name, part in zip(NAMES, unflatten(information, model)):
        np.testing.assert_allclose(part, z[f"grad2_{name}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["class", "random"])
def test_noise_is_that_of_the_official_variants(variant: str) -> None:
    z = golden("fisher_forgetting")
    forgotten = int(z["forget_class"]) if variant == "class" else None
    information = [torch.from_numpy(z[f"grad2_{name}"]) for name in NAMES]
    means, deviations = fisher.noise(tanh_mlp(z), information, float(z["alpha"]), forgotten)
    for name, mean, deviation in zip(NAMES, means, deviations):
        np.testing.assert_allclose(mean, z[f"{variant}_mu_{name}"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(deviation, z[f"{variant}_std_{name}"], rtol=0, atol=1e-10)


def test_new_weights_are_draws_around_the_means() -> None:
    z = golden("fisher_forgetting")
    model = tanh_mlp(z)
    steps = fisher.unlearn(model, golden_split(), generator(0), alpha=float(z["alpha"]))
    assert len(list(steps)) == 1
    drawn = np.concatenate(
        [
            ((weight.detach().numpy() - z[f"random_mu_{name}"]) / z[f"random_std_{name}"]).ravel()
            for name, weight in zip(NAMES, model.parameters())
        ]
    )
    assert abs(drawn.mean()) < 4 / np.sqrt(len(drawn))
    assert 0.6 < drawn.std() < 1.4


def test_a_larger_alpha_is_more_of_the_same_noise() -> None:
    z = golden("fisher_forgetting")
    start = np.concatenate([z[name].ravel() for name in NAMES])
    moves = []
    for alpha in (1e-8, 1e-6):
        model = tanh_mlp(z)
        for _ in fisher.unlearn(model, golden_split(), generator(0), alpha=alpha):
            pass
        moves.append(
            np.concatenate([w.detach().numpy().ravel() for w in model.parameters()]) - start
        )
    np.testing.assert_allclose(moves[1], 10 * moves[0], rtol=1e-6)


def test_only_a_class_of_which_nothing_is_retained_starts_from_zero() -> None:
    kinds = ("full_class", "sub_class", "random", "class_subset")
    classes = {kind: fisher.forgotten_class(toy_problem(kind).split()) for kind in kinds}
    assert classes.pop("full_class") == 1
    assert set(classes.values()) == {None}
    assert fisher.forgotten_class(golden_split(forget_class=0)) is None


def test_statistics_of_batch_norm_get_no_noise(model: nn.Module, split: Split) -> None:
    before = weights_of(model)
    for _ in fisher.unlearn(model.train(), split, generator(0), samples=8):
        pass
    after = weights_of(model)
    same = {name for name in before if np.array_equal(after[name], before[name])}
    assert same == before.keys() - dict(model.named_parameters()).keys()


def test_a_limit_on_samples_is_a_limit_on_cost(model: nn.Module, split: Split) -> None:
    counter = count_samples(model)
    for samples, expected in ((8, 8), (10**6, len(split.retain)), (None, len(split.retain))):
        counter[0] = 0
        for _ in fisher.unlearn(model, split, generator(0), samples=samples):
            pass
        assert counter[0] == expected
