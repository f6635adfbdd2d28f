"""Mixed precision: what a bf16 model keeps in float32, and that every method works with one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from method_settings import request_kind, short_knobs
from torch import nn
from toy import RECIPE, toy_problem, toy_reference

from mu.device import place
from mu.evaluate import predict
from mu.gradients import batch_gradients, sample_gradients
from mu.methods import load, names
from mu.models import head, logits_and_features
from mu.models.precision import Mixed, at_precision, full_precision
from mu.problem import Problem, weights_of
from mu.rng import generator
from mu.split import Split
from mu.training import Hyperparameters, Recipe, fit

BF16 = replace(RECIPE, precision="bf16")


def mixed_problem(kind: str = "full_class") -> Problem:
    return replace(toy_problem(kind), recipe=BF16)


@pytest.fixture
def mixed() -> nn.Module:
    """Return the trained original, computing in bf16."""
    return mixed_problem().load(toy_reference("original"))


def test_bf16_has_keys_of_its_own_and_float32_keeps_those_it_had() -> None:
    before_there_was_a_choice = "6a4d84c5cd73b3dfab39209d89391819"
    assert toy_problem("random").key == before_there_was_a_choice
    assert mixed_problem("random").key != toy_problem("random").key


def test_float32_is_the_model_itself() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    assert at_precision(model, "float32") is model


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, but got 'fp8'"):
        Recipe(precision="fp8")


def test_weights_and_names_are_those_of_the_float32_model(mixed: nn.Module) -> None:
    weights = weights_of(mixed)
    expected = toy_reference("original")
    assert list(weights) == list(expected)
    assert all(np.array_equal(weights[name], expected[name]) for name in weights)
    assert {w.dtype for w in mixed.parameters()} == {torch.float32}
    assert isinstance(head(mixed), nn.Linear)


def test_layers_compute_in_bf16_and_logits_are_not_rounded_to_it(
    mixed: nn.Module, model: nn.Module, split: Split
) -> None:
    seen = []
    for module in mixed.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, output: seen.append(output.dtype))
    logits, expected = predict(mixed, split.retain), predict(model, split.retain)
    assert set(seen) == {torch.bfloat16}
    assert logits.dtype == np.float32
    rounded = torch.from_numpy(logits).bfloat16().float().numpy()
    assert (rounded != logits).mean() > 0.9
    error = np.abs(logits - expected).mean() / np.abs(expected).mean()
    assert 1e-5 < error < 0.02


def test_features_are_float32(mixed: nn.Module, split: Split) -> None:
    logits, features = logits_and_features(mixed.eval(), split.forget.batch(slice(4))[0])
    assert logits.dtype == features.dtype == torch.float32


def test_full_precision_is_that_of_the_float32_model_and_ends(
    mixed: nn.Module, model: nn.Module, split: Split
) -> None:
    before = predict(mixed, split.retain)
    with full_precision(mixed):
        assert np.array_equal(predict(mixed, split.retain), predict(model, split.retain))
    assert np.array_equal(predict(mixed, split.retain), before)


@pytest.mark.parametrize(
    "gradients",
    [
        lambda model, examples: sample_gradients(model, examples),
        lambda model, examples: torch.stack([g for _, g in batch_gradients(model, examples, 5)]),
    ],
    ids=["samples", "batches"],
)
def test_gradients_that_are_squared_are_exact(
    mixed: nn.Module, model: nn.Module, split: Split, gradients: Callable[..., torch.Tensor]
) -> None:
    assert torch.equal(gradients(mixed, split.forget), gradients(model, split.forget))


def test_a_copy_computes_in_bf16_too(mixed: nn.Module, split: Split) -> None:
    twin = copy.deepcopy(mixed)
    assert isinstance(twin, Mixed)
    assert np.array_equal(predict(twin, split.forget), predict(mixed, split.forget))


def test_a_bf16_retrain_is_as_accurate_as_a_float32_one() -> None:
    """On the toy problem's 40 held-out samples: within the spread of seeds."""
    test = toy_problem().held_out("test")[0]
    accuracies = {}
    for recipe in (RECIPE, BF16):
        shares = []
        for seed in range(4):
            problem = replace(toy_problem(), recipe=recipe, seed=seed)
            model = problem.build()
            for _ in problem.train("original", model):
                pass
            shares.append((predict(model, test).argmax(1) == test.labels.numpy()).mean())
        accuracies[recipe.precision] = np.array(shares)
    assert accuracies["bf16"].min() > 0.6
    apart = accuracies["bf16"].mean() - accuracies["float32"].mean()
    assert abs(apart) < 2 * accuracies["float32"].std() + 0.03


@pytest.mark.filterwarnings("ignore:SSD selected no weight")
@pytest.mark.parametrize("name", names())
def test_every_method_works_on_a_bf16_model_in_channels_last(name: str) -> None:
    """As on a GPU; a CPU has both."""
    method = load(name)
    problem = mixed_problem(request_kind(method))
    model = problem.load(toy_reference("original"))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    split = problem.split()
    for _ in method.unlearn(
        model, split.only(method.data), generator("bf16", name), **short_knobs(method)
    ):
        pass
    weights = weights_of(model)
    assert all(np.isfinite(value).all() for value in weights.values())
    assert any(
        not np.array_equal(weights[key], value) for key, value in toy_reference("original").items()
    )
    assert np.isfinite(predict(model, split.forget)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("recipe", [RECIPE, BF16], ids=lambda recipe: recipe.precision)
def test_an_epoch_never_waits_for_the_gpu(recipe: Recipe) -> None:
    problem = replace(toy_problem(), recipe=recipe)
    model = place(problem.build(), "cuda")
    split = problem.split("cuda")
    epochs = fit(
        model,
        split.retain,
        generator(0),
        Hyperparameters(epochs=3, batch_size=32, lr=0.1),
        augment=replace(split.augment, cutout=0.5),
        augmentable=torch.arange(len(split.retain)) < 20,
    )
    next(epochs)  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(epochs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
