"""LoTUS: what it imitates, its temperature and its steps against numpy, and when it ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy_mlp
import pytest
import torch
from torch import nn
from toy import toy_problem

from mu.data import Examples
from mu.methods import lotus
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split

FORGET = [0, 1, 1, 2, 3, 0, 2, 1]
RETAIN = [3, 2, 0, 1, 0, 2]


def small_split(rng: np.random.Generator, twin: list[int]) -> Split:
    parts = {
        "forget": numpy_mlp.examples(rng, FORGET),
        "retain": numpy_mlp.examples(rng, RETAIN),
        "twin": numpy_mlp.examples(rng, twin),
    }
    return Split(parts, num_classes=4)


def correct(weights: numpy_mlp.Weights, examples: Examples) -> float:
    logits = numpy_mlp.forward(weights, examples.inputs.numpy())[0]
    return float(np.mean(logits.argmax(1) == examples.labels.numpy()))


def test_targets_soften_forgotten_samples_and_take_the_largest_of_others() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 4))
    forgotten = np.array([True, False, True, False, False])
    result = lotus.targets(torch.from_numpy(logits), torch.from_numpy(forgotten), 2.5)
    soft, hard = numpy_mlp.softmax(logits / 2.5), numpy_mlp.one_hot(logits.argmax(1), 4)
    expected = np.where(forgotten[:, None], soft, hard)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_steps_are_those_of_the_formula() -> None:
    """The temperature follows the accuracies anew in each epoch."""
    rng = np.random.default_rng(10)
    weights = numpy_mlp.draw(rng)
    split = small_split(rng, [0, 1, 2, 3] * 5)
    # Labels of the model's own answers, so that there is something to unlearn.
    own = [
        numpy_mlp.forward(weights, split.parts[part].inputs.numpy())[0].argmax(1)
        for part in ("forget", "retain")
    ]
    split = replace(
        split,
        parts={
            **split.parts,
            "forget": split.forget.relabelled(torch.from_numpy(own[0])),
            "retain": split.retain.relabelled(torch.from_numpy(own[1])),
        },
    )
    model = numpy_mlp.as_torch(weights)
    steps = lotus.unlearn(
        model, split, generator(0), epochs=25, lr=0.5, alpha=3.0, retain_fraction=1.0,
        weight_decay=0.01, optimizer="sgd", noise="none",
    )  # fmt: skip
    assert len(list(steps)) == 25
    x = np.concatenate([split.forget.inputs.numpy(), split.retain.inputs.numpy()])
    teacher = numpy_mlp.forward(weights, x)[0].astype(np.float32).astype(np.float64)
    unseen = correct(weights, split.twin)
    stepper, temperatures = numpy_mlp.Sgd(0.5, 0.0, 0.01), set()
    for _ in range(25):
        excess = correct(weights, split.forget) - unseen
        assert excess > -0.01
        temperatures.add(math.exp(3.0 * excess))
        soft = numpy_mlp.softmax(teacher / math.exp(3.0 * excess))
        hard = numpy_mlp.one_hot(teacher.argmax(1), 4)
        aim = np.concatenate([soft[: len(FORGET)], hard[len(FORGET) :]])
        weights = stepper.step(weights, numpy_mlp.by_cross_entropy(weights, x, aim))
    assert len(temperatures) > 3
    numpy_mlp.assert_same(model, weights, 1e-6)


def test_noise_makes_the_largest_a_draw_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 0.5]]).repeat(20000, 1)
    noise = lotus.gumbel(logits, generator("draws"))
    counts = np.bincount((logits + noise).argmax(1), minlength=4) / len(logits)
    expected = numpy_mlp.softmax(logits[:1].double().numpy())[0]
    spread = np.sqrt(expected * (1 - expected) / len(logits))
    assert (np.abs(counts - expected) < 4.5 * spread).all()
    # The mean of Gumbel's distribution is Euler's constant, its variance pi^2 / 6.
    error = math.pi / math.sqrt(6 * noise.numel())
    assert float(noise.double().mean()) == pytest.approx(0.5772156649, abs=4.5 * error)


@pytest.mark.parametrize(
    ("kind", "zero"),
    [("full_class", True), ("sub_class", False), ("random", False), ("class_subset", False)],
)
def test_only_a_class_that_goes_as_a_whole_is_to_be_unknown(kind: str, zero: bool) -> None:
    split = toy_problem(kind).split()
    model = toy_problem(kind).build()
    assert lotus.class_is_gone(split) == zero
    unseen = lotus.unseen_accuracy(model, split)
    assert unseen == (0.0 if zero else lotus.accuracy(model, split.twin))


@pytest.mark.parametrize("kind", ["random", "full_class"])
def test_too_few_held_out_samples_are_refused_where_they_matter(kind: str) -> None:
    split = toy_problem(kind).split()
    few = replace(split, parts={**split.parts, "twin": split.twin.take(torch.arange(5))})
    model = toy_problem(kind).build()
    lotus.check(model, split)
    if kind == "full_class":
        lotus.check(model, few)
        return
    with pytest.raises(ValueError, match=r"at least 20 held-out `twin` samples.*there are 5"):
        lotus.check(model, few)


def test_nothing_changes_once_less_is_known_than_of_unseen_data(model: nn.Module) -> None:
    split = toy_problem("random").split()
    wrong = split.forget.relabelled((split.forget.labels + 1) % 4)
    split = replace(split, parts={**split.parts, "forget": wrong})
    before = weights_of(model)
    assert len(list(lotus.unlearn(model, split, generator(0), epochs=3))) == 3
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())
