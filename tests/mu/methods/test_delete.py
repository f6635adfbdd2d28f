"""DELETE: its targets and steps against a network in numpy, and whose answers it distils."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy_mlp
import pytest
import torch
from torch import nn

from mu.evaluate import predict
from mu.methods import delete, load
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split

LABELS = [2, 2, 1, 2, 0, 2, 2]


def expected_targets(logits: numpy_mlp.Array) -> numpy_mlp.Array:
    """Return the softmax over all classes but a sample's own, [N, K]."""
    targets = np.zeros_like(logits)
    for row, (values, label) in enumerate(zip(logits, LABELS)):
        others = [k for k in range(len(values)) if k != label]
        powers = np.exp(values[others] - values[others].max())
        targets[row, others] = powers / powers.sum()
    return targets


def test_masked_logits_leave_the_softmax_of_the_other_classes() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (len(LABELS), 4))
    result = delete.masked(torch.from_numpy(logits), torch.tensor(LABELS)).softmax(1)
    np.testing.assert_allclose(result, expected_targets(logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_steps_are_those_of_the_formula(temperature: float) -> None:
    """The gradient by the logits is (student - target) / (N T); targets stay those of the original."""
    rng = np.random.default_rng(1)
    weights = numpy_mlp.draw(rng)
    forget = numpy_mlp.examples(rng, LABELS)
    model = numpy_mlp.as_torch(weights)
    steps = delete.unlearn(
        model,
        Split({"forget": forget}, num_classes=4),
        generator(0),
        epochs=3,
        lr=0.5,
        weight_decay=0.01,
        temperature=temperature,
    )
    assert len(list(steps)) == 3
    inputs = forget.inputs.numpy()
    # A teacher's answers are kept in float32.
    original = numpy_mlp.forward(weights, inputs)[0].astype(np.float32).astype(np.float64)
    targets = expected_targets(original / temperature)
    stepper = numpy_mlp.Sgd(0.5, 0.9, 0.01)
    for _ in range(3):
        student = numpy_mlp.softmax(numpy_mlp.forward(weights, inputs)[0] / temperature)
        by_logits = (student - targets) / (len(LABELS) * temperature)
        weights = stepper.step(weights, numpy_mlp.backward(weights, inputs, by_logits))
    numpy_mlp.assert_same(model, weights, 1e-7)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_of_batch_norm_move_in_train_mode_alone(
    model: nn.Module, split: Split, mode: Literal["train", "eval"]
) -> None:
    before = weights_of(model)
    for _ in delete.unlearn(model, split, generator(0), epochs=1, mode=mode):
        pass
    moved = [
        not np.array_equal(value, before[name])
        for name, value in weights_of(model).items()
        if "running_mean" in name
    ]
    assert moved == [mode == "train"] * len(moved)


def test_shows_what_it_trains_and_is_for_classes(model: nn.Module, split: Split) -> None:
    original = predict(model, split.forget)
    for _ in delete.unlearn(model, split, generator(0), epochs=1):
        pass
    shown = split.diagnostics.instances
    assert shown is not None
    own = shown.labels.gather(1, split.forget.labels[:, None])
    assert float(own.max()) == 0.0
    second = np.where(np.eye(4)[split.forget.labels] == 1, -np.inf, original).argmax(1)
    assert np.array_equal(shown.labels.argmax(1), second)
    assert load("delete").requests == ("full_class", "sub_class")
