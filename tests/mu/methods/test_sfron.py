"""SFRon: adaptive weights, the Fisher ratio and whole iterations against a network in numpy."""

from __future__ import annotations

import copy
import math

import numpy as np
import numpy_mlp
import pytest
import torch
from torch import nn

from mu.methods import sfron
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split

FORGET = [0, 1, 1, 2, 3]
RETAIN = [3, 2, 0, 1, 0, 2, 3, 1, 2]


def weighted(
    weights: numpy_mlp.Weights, x: numpy_mlp.Array, adaptivity: float
) -> tuple[float, numpy_mlp.Array]:
    """Return the adaptive loss and its gradient by the logits, sample by sample."""
    probabilities = numpy_mlp.softmax(numpy_mlp.forward(weights, x)[0])
    losses = [-math.log(row[label]) for row, label in zip(probabilities, FORGET)]
    shares = [1 / (loss**adaptivity + 1e-15) for loss in losses]
    loss = sum(share * loss for share, loss in zip(shares, losses)) / sum(shares)
    error = probabilities - numpy_mlp.one_hot(np.array(FORGET), probabilities.shape[1])
    return loss, error * (np.array(shares) / sum(shares))[:, None]


@pytest.mark.parametrize("adaptivity", [0.0, 0.5, 1.0])
def test_adaptive_loss_and_its_gradient(adaptivity: float) -> None:
    rng = np.random.default_rng(0)
    weights, forget = numpy_mlp.draw(rng), numpy_mlp.examples(rng, FORGET)
    x = forget.inputs.numpy()
    logits = torch.tensor(numpy_mlp.forward(weights, x)[0], requires_grad=True)
    loss = sfron.adaptive_loss(logits, forget.labels, adaptivity)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected, by_logits = weighted(weights, x, adaptivity)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(gradient, by_logits, rtol=0, atol=1e-12)


def ratio(weights: numpy_mlp.Weights, split: Split, size: int) -> numpy_mlp.Weights:
    """Return F_f / F_r, each the mean of the squared gradients of batch means, by name."""
    fisher = []
    for part in (split.forget, split.retain):
        x, y = part.inputs.numpy(), numpy_mlp.one_hot(part.labels.numpy(), 4)
        starts = range(0, len(x), size)
        grads = [
            numpy_mlp.by_cross_entropy(weights, x[at : at + size], y[at : at + size])
            for at in starts
        ]
        fisher.append({n: sum(g[n] ** 2 for g in grads) / len(starts) for n in weights})
    return {n: (fisher[0][n] + 1e-15) / (fisher[1][n] + 1e-15) for n in weights}


def test_fisher_ratio_is_of_batch_gradients() -> None:
    rng = np.random.default_rng(1)
    weights = numpy_mlp.draw(rng)
    parts = {"forget": numpy_mlp.examples(rng, FORGET), "retain": numpy_mlp.examples(rng, RETAIN)}
    split = Split(parts, num_classes=4)
    result = sfron.fisher_ratio(numpy_mlp.as_torch(weights), split, 3)
    expected = np.concatenate([value.ravel() for value in ratio(weights, split, 3).values()])
    np.testing.assert_allclose(result, expected, rtol=1e-9)


@pytest.mark.parametrize(("slow", "clip_norm"), [(1.0, 7.0), (0.6, 0.3)])
def test_iterations_are_those_of_the_formula(slow: float, clip_norm: float) -> None:
    """Five iterations, with ascents in the first, third and fifth; both sets fit into one batch."""
    rng = np.random.default_rng(2)
    weights = numpy_mlp.draw(rng)
    parts = {"forget": numpy_mlp.examples(rng, FORGET), "retain": numpy_mlp.examples(rng, RETAIN)}
    split = Split(parts, num_classes=4)
    model = numpy_mlp.as_torch(weights)
    steps = sfron.unlearn(
        model, split, generator(0), epochs=5, lr=0.2, forget_weight=3.0, slow=slow,
        clip_norm=clip_norm, threshold=0.8, weight_decay=0.01,
    )  # fmt: skip
    assert len(list(steps)) == 5
    x, x_kept = (parts[name].inputs.numpy() for name in ("forget", "retain"))
    kept = numpy_mlp.one_hot(np.array(RETAIN), 4)
    masks = {name: value >= 0.8 for name, value in ratio(weights, split, 128).items()}
    assert 0 < sum(mask.sum() for mask in masks.values()) < sum(m.size for m in masks.values())
    stepper = numpy_mlp.Sgd(0.2, 0.9, 0.01)
    for iteration in range(5):
        before = weights
        share = 0.5 * (1 + math.cos(math.pi * iteration / 5))
        stepper.lr = 0.2 * share
        if iteration % 2 == 0:
            by_logits = -3.0 * share * weighted(weights, x, 0.5)[1]
            ascent = numpy_mlp.backward(weights, x, by_logits)
            ascent = {name: value * masks[name] for name, value in ascent.items()}
            norm = math.sqrt(sum((value**2).sum() for value in ascent.values()))
            limit = min(1.0, clip_norm / (norm + 1e-6))
            weights = stepper.step(weights, {n: limit * value for n, value in ascent.items()})
        weights = stepper.step(weights, numpy_mlp.by_cross_entropy(weights, x_kept, kept))
        weights = {n: (1 - slow) * before[n] + slow * weights[n] for n in weights}
    numpy_mlp.assert_same(model, weights, 1e-9)


def test_only_salient_weights_ascend(model: nn.Module, split: Split) -> None:
    """Where no weight is salient an ascent is decay and momentum alone, whatever its weight."""
    results = []
    for weight in (1.0, 100.0):
        copied = copy.deepcopy(model)
        for _ in sfron.unlearn(
            copied, split, generator(0), epochs=1, threshold=1e30, forget_weight=weight
        ):
            pass
        results.append(weights_of(copied))
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])
