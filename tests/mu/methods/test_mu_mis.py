"""MU-Mis: sensitivities and their gradients against derivatives worked out in numpy, and the rule that ends it."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import numpy_mlp
import pytest
import torch
from torch import nn

from mu.methods import mu_mis
from mu.models.architectures import MODELS
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split

LABELS = [0, 3, 2, 0, 1]
OTHERS = [1, 0, 3, 2, 0]


def square(weights: numpy_mlp.Weights, x: numpy_mlp.Array, k: int) -> float:
    """Return ||d f_k / dx||^2, where d f_k / dx = W1' (W2[k] (1 - tanh^2))."""
    hidden = np.tanh(weights["fc1.weight"] @ x + weights["fc1.bias"])
    slope = weights["fc1.weight"].T @ (weights["fc2.weight"][k] * (1 - hidden**2))
    return float(slope @ slope)


def square_gradient(weights: numpy_mlp.Weights, x: numpy_mlp.Array, k: int) -> numpy_mlp.Weights:
    """Return the derivatives of `square` by all weights, by the chain rule."""
    first, second = weights["fc1.weight"], weights["fc2.weight"]
    hidden = np.tanh(first @ x + weights["fc1.bias"])
    inner = 1 - hidden**2
    scaled = second[k] * inner
    by_slope = 2 * (first.T @ scaled)
    by_scaled = first @ by_slope
    by_sum = by_scaled * second[k] * (-2 * hidden * inner)
    result = {name: np.zeros_like(value) for name, value in weights.items()}
    result["fc1.weight"] = np.outer(scaled, by_slope) + np.outer(by_sum, x)
    result["fc1.bias"] = by_sum
    result["fc2.weight"][k] = by_scaled * inner
    return result


def test_squared_sensitivities_are_those_worked_out() -> None:
    rng = np.random.default_rng(0)
    weights = numpy_mlp.draw(rng)
    forget = numpy_mlp.examples(rng, LABELS)
    result = mu_mis.squared_sensitivities(
        numpy_mlp.as_torch(weights), forget.inputs, forget.labels, torch.tensor(OTHERS)
    )
    for values, classes in zip(result, (LABELS, OTHERS)):
        expected = [square(weights, x, k) for x, k in zip(forget.inputs.numpy(), classes)]
        np.testing.assert_allclose(values.detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("relative", [False, True])
def test_steps_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    """Each step descends on the mean of both squares' difference, second derivatives and all."""
    rng = np.random.default_rng(1)
    weights = numpy_mlp.draw(rng)
    forget = numpy_mlp.examples(rng, LABELS)
    labels = forget.labels.tolist()
    monkeypatch.setattr(
        mu_mis, "irrelevant", lambda labels, *_: (labels + 1) % 4
    )  # fixed in place of drawn
    model = numpy_mlp.as_torch(weights)
    steps = mu_mis.unlearn(
        model,
        Split({"forget": forget}, num_classes=4),
        generator(0),
        epochs=3,
        lr=0.05,
        irrelevant_weight=0.5,
        relative=relative,
        weight_decay=0.02,
    )
    assert len(list(steps)) == 3
    inputs = forget.inputs.numpy()
    unit = np.mean([square(weights, x, k) for x, k in zip(inputs, labels)]) if relative else 1.0
    stepper = numpy_mlp.Sgd(0.05, 0.9, 0.02)
    for _ in range(3):
        total = {name: np.zeros_like(value) for name, value in weights.items()}
        for x, k in zip(inputs, labels):
            target = square_gradient(weights, x, k)
            other = square_gradient(weights, x, (k + 1) % 4)
            for name in total:
                total[name] += (target[name] - 0.5 * other[name]) / (len(labels) * unit)
        # The last bias does not matter to any slope: it has no gradient, and torch does not decay it.
        weights = stepper.step(weights, total) | {"fc2.bias": weights["fc2.bias"]}
    numpy_mlp.assert_same(model, weights, 1e-7)  # the unit is kept in float32


def test_irrelevant_classes_are_all_the_others_alike() -> None:
    labels = torch.tensor([0, 1, 2, 3]).repeat(3000)
    drawn = mu_mis.irrelevant(labels, 4, generator("draws"))
    assert not bool((drawn == labels).any())
    counts = torch.bincount(labels * 4 + drawn, minlength=16).view(4, 4)
    spread = (3000 * (1 / 3) * (2 / 3)) ** 0.5
    off = counts[~torch.eye(4, dtype=torch.bool)].double()
    assert bool(((off - 1000).abs() < 4.5 * spread).all())


def test_forgetting_ends_when_other_classes_have_recovered() -> None:
    watch = mu_mis.Watch(2.0, recovery=1.1, collapse=0.0)
    ends = [watch.ends(level**2 * 128, 128) for level in (1.0, 1.5, 2.19, 2.21)]
    assert ends == [False, False, False, True]


def test_forgetting_ends_at_collapse_and_only_judges_full_windows() -> None:
    watch = mu_mis.Watch(2.0, recovery=1.1, collapse=0.75)
    assert not watch.ends(0.1 * 100, 100)  # far below, but of 100 samples
    assert watch.ends(0.1 * 28, 28)
    watch = mu_mis.Watch(2.0, 1.1, 0.75)
    assert not watch.ends(4.0 * 128, 128)
    assert not watch.ends(1.6 * 64, 64)  # the older batch still counts as a whole
    assert watch.ends(1.6 * 64, 64)  # the older batch has left the window


def test_rule_goes_on_from_a_snapshot() -> None:
    watch = mu_mis.Watch(2.0, 1.1, 0.0)
    watch.ends(1.0 * 128, 128)
    again = mu_mis.Watch(2.0, 1.1, 0.0)
    again.load_state_dict(watch.state_dict())
    assert again.lowest == watch.lowest == 1.0
    assert again.recent == watch.recent


def test_nothing_changes_after_the_end(model: nn.Module, split: Split) -> None:
    states = []
    for _ in mu_mis.unlearn(model, split, generator(0), epochs=40, batch_size=64, lr=0.02):
        states.append(weights_of(model))
    same = [
        all(np.array_equal(one[name], other[name]) for name in one)
        for one, other in itertools.pairwise(states)
    ]
    assert True in same
    assert all(same[same.index(True) :])


def test_a_single_class_is_not_given_up(model: nn.Module, split: Split) -> None:
    """The toy class' other classes lose half of their sensitivity before they recover."""
    strict = copy.deepcopy(model)
    for copied, collapse in ((model, 0.0), (strict, 0.95)):
        for _ in mu_mis.unlearn(copied, split, generator(0), epochs=12, collapse=collapse):
            pass
    for one, other in zip(model.parameters(), strict.parameters()):
        assert torch.equal(one, other)


def test_networks_with_attention_can_be_differentiated_twice(split: Split) -> None:
    network = MODELS["small_data_vit"]((3, 8, 8), 4)
    before = weights_of(network)
    for _ in mu_mis.unlearn(network, split, generator(0), epochs=1):
        pass
    after = weights_of(network)
    assert any(not np.array_equal(after[name], before[name]) for name in before)
    assert all(np.isfinite(value).all() for value in after.values())
