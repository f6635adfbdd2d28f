"""The supervised loop: batches, schedules, optimizers, augmentation, recipes and the counting of samples."""

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

from mu import optimizers
from mu.data import Examples, as_float, batches
from mu.data.augment import Augment, policy
from mu.models import frozen_copy
from mu.problem import weights_of
from mu.rng import generator
from mu.training import (
    SCHEDULES,
    Hyperparameters,
    Recipe,
    count_samples,
    fit,
    learning_rate_factor,
    make_optimizer,
    one_pass,
    train,
)

SHORT = Hyperparameters(epochs=2, batch_size=16, lr=0.05)


class Recorder(nn.Module):
    """A linear model that keeps the inputs and modes it was called with."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach().clone())
        self.modes.append(self.training)
        return self.linear(inputs.flatten(1))


def toy_examples(count: int = 21) -> Examples:
    """Return images whose value tells their position: uint8 [N, 1, 4, 4]."""
    values = torch.arange(count, dtype=torch.uint8)
    return Examples(values[:, None, None, None].expand(-1, 1, 4, 4).clone(), values.long() % 3)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 17, 33, 40])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_hold_every_example_once_and_never_end_on_a_single_one(
    count: int, shuffled: bool
) -> None:
    shown = list(batches(count, 16, generator("order") if shuffled else None))
    assert sorted(torch.cat(shown).tolist()) == list(range(count))
    assert count == 1 or min(map(len, shown)) > 1
    assert max(map(len, shown)) <= 17


def test_batches_are_in_order_without_a_generator_and_shuffled_with_one() -> None:
    assert torch.cat(list(batches(50, 7))).tolist() == list(range(50))
    one, same, other = (torch.cat(list(batches(50, 7, generator(seed)))) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.tolist() != list(range(50))


def test_cosine_schedule_is_that_of_the_natmu_code() -> None:
    z = golden("lr_schedules")
    total, warmup = len(z["cosine"]), int(z["warmup_epochs"] * z["batches"])
    factors = [learning_rate_factor("cosine", step, total, warmup) for step in range(total)]
    np.testing.assert_allclose(factors, z["cosine"], rtol=0, atol=1e-12)
    assert factors[-1] == 0


def test_step_schedule_is_that_of_the_natmu_code_with_its_milestones() -> None:
    steps = golden("lr_schedules")["step"]
    total = len(steps)
    factors = [
        learning_rate_factor("step", step, total, warmup=10, milestones=(0.6, 0.8))
        for step in range(total)
    ]
    np.testing.assert_allclose(factors, steps, rtol=0, atol=1e-12)


def test_step_schedule_falls_after_the_papers_milestones_by_default() -> None:
    factors = [learning_rate_factor("step", step, 100) for step in range(100)]
    np.testing.assert_allclose(factors, [1.0] * 81 + [0.1] * 10 + [0.01] * 9)


def test_one_cycle_rises_for_a_third_and_falls_to_zero() -> None:
    factors = [learning_rate_factor("onecycle", step, 100) for step in range(100)]
    assert np.argmax(factors) == 29
    assert max(factors) == 1
    assert factors[0] == pytest.approx(1 / 30)
    assert factors[-1] == 0
    assert (np.diff(factors[:30]) > 0).all()
    assert (np.diff(factors[29:]) < 0).all()


def test_constant_schedule_is_one() -> None:
    assert {learning_rate_factor("constant", step, 9) for step in range(9)} == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_schedules_of_few_steps_are_finite(schedule: str, total: int) -> None:
    for step in range(total):
        assert 0 <= learning_rate_factor(schedule, step, total) <= 1


def test_fit_follows_its_schedule_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = optimizers.SGD.step

    def spy(self: torch.optim.SGD, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(optimizers.SGD, "step", spy)
    examples = toy_examples(21)
    for _ in fit(
        Recorder(16, 3),
        examples,
        generator(0),
        Hyperparameters(epochs=3, batch_size=7, lr=0.5, schedule="cosine", warmup_epochs=1),
    ):
        pass
    expected = [0.5 * learning_rate_factor("cosine", step, 9, 3) for step in range(9)]
    np.testing.assert_allclose(rates, expected)


def test_fit_shows_every_example_once_an_epoch_in_train_mode_and_a_new_order() -> None:
    examples, model = toy_examples(21), Recorder(16, 3).eval()
    for epoch, _ in enumerate(
        fit(model, examples, generator(0), Hyperparameters(epochs=2, batch_size=5, lr=0.1))
    ):
        assert len(model.seen) == 4 * (epoch + 1)  # the batch of one joined another
        model.eval()  # whatever the caller does between epochs
    assert all(model.modes)
    shown = (torch.cat(model.seen)[:, 0, 0, 0] * 255).round().int().view(2, 21)
    assert [sorted(epoch.tolist()) for epoch in shown] == [list(range(21))] * 2
    assert not torch.equal(*shown)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fit_repeats_itself_to_the_bit(problem: Any, split: Any, optimizer: str) -> None:
    trained = []
    for seed in (0, 0, 1):
        model = problem.build()
        for _ in fit(
            model,
            split.retain,
            generator(seed),
            replace(SHORT, optimizer=optimizer, schedule="cosine"),
            augment=split.augment,
        ):
            pass
        trained.append(weights_of(model))
    first, again, other = trained
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_fit_changes_only_what_may_be_augmented() -> None:
    examples = toy_examples(20)
    augmentable = torch.arange(20) < 12
    model = Recorder(16, 3)
    for _ in fit(
        model,
        examples,
        generator(0),
        Hyperparameters(epochs=3, batch_size=5, lr=0.1),
        augment=Augment(pad=2),
        augmentable=augmentable,
    ):
        pass
    shown = torch.cat(model.seen)
    whole = (shown == shown.flatten(1).max(1).values[:, None, None, None]).flatten(1).all(1)
    number = (shown.flatten(1).max(1).values * 255).round().int()
    assert whole[number >= 12].all()
    assert not whole[(number > 0) & (number < 12)].all()


def test_fit_trains_towards_a_lower_loss(problem: Any, split: Any) -> None:
    model = problem.build()
    losses: list[float] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(logits, labels)
        losses.append(value.item())
        return value

    for _ in fit(model, split.retain, generator(0), SHORT, loss=loss):
        pass
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.3


def test_one_pass_keeps_the_mode_and_the_optimizer_of_the_caller() -> None:
    examples = toy_examples(21)
    for mode in (True, False):
        model = Recorder(16, 3).train(mode)
        stepper = make_optimizer(model, "sgd", 0.1)
        one_pass(model, stepper, examples, generator(0), batch_size=5)
        assert model.modes == [mode] * 4
        assert len(torch.cat(model.seen)) == 21
        assert all("momentum_buffer" in stepper.state[weight] for weight in model.parameters())


@pytest.mark.parametrize(("name", "decoupled"), [("sgd", False), ("adam", False), ("adamw", True)])
def test_weight_decay_is_decoupled_in_adamw_alone(name: str, decoupled: bool) -> None:
    """With no gradient, decoupled decay shrinks by lr * decay; L2 in Adam moves by a whole lr."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    stepper = make_optimizer(model, name, lr=0.1, momentum=0.0, weight_decay=0.01)
    model.weight.grad = torch.zeros_like(model.weight)
    stepper.step()
    expected = {"sgd": 1 - 0.1 * 0.01, "adam": 1 - 0.1, "adamw": 1 - 0.1 * 0.01}[name]
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert isinstance(stepper, torch.optim.AdamW) == decoupled


def test_optimizer_leaves_frozen_weights_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    stepper = make_optimizer(model, "sgd", 0.1)
    assert sum(len(group["params"]) for group in stepper.param_groups) == 2


def test_recipe_trains_as_fit_does_with_its_fields(problem: Any, split: Any) -> None:
    recipe = Recipe(
        epochs=2,
        optimizer="adamw",
        lr=1e-3,
        batch_size=20,
        schedule="step",
        augment="crop",
        pad=2,
        milestones=(0.3,),
    )
    models = [problem.build(), problem.build()]
    for _ in train(models[0], split.retain, recipe, generator(0)):
        pass
    for _ in fit(
        models[1],
        split.retain,
        generator(0),
        Hyperparameters(
            epochs=2,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=5e-4,
            batch_size=20,
            schedule="step",
            milestones=(0.3,),
        ),
        augment=Augment(pad=2),
    ):
        pass
    one, other = map(weights_of, models)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer must be one of sgd, adam, adamw, but got 'rmsprop'"),
        ({"schedule": "linear"}, "schedule must be one of constant, .*, but got 'linear'"),
        ({"augment": "mixup"}, "augment must be one of none, crop, .*, but got 'mixup'"),
        ({"epochs": 0}, "epochs must be at least 1, but got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, but got 0"),
        ({"lr": 0.0}, "lr must be > 0, but got 0.0"),
        ({"lr": math.nan}, "lr must be > 0, but got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), but got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1e-4}, "must not be negative"),
        ({"warmup_epochs": -1.0}, "must not be negative"),
        ({"pad": 0}, "pad must be at least 1, but got 0"),
        ({"milestones": (0.9, 0.8)}, r"milestones must be increasing shares in \(0, 1\)"),
        ({"milestones": (1.0,)}, r"but got \[1.0\]"),
        ({"epochs": math.inf}, "epochs must be finite, but got inf"),
        ({"epochs": math.nan}, "epochs must be finite, but got nan"),
        ({"batch_size": math.inf}, "batch_size must be finite, but got inf"),
        ({"lr": math.inf}, "lr must be finite, but got inf"),
        ({"momentum": math.nan}, r"momentum must be in \[0, 1\), but got nan"),
        ({"weight_decay": math.inf}, "weight_decay must be finite, but got inf"),
        ({"weight_decay": math.nan}, "weight_decay must be finite, but got nan"),
        ({"warmup_epochs": math.inf}, "warmup_epochs must be finite, but got inf"),
        ({"pad": math.inf}, "pad must be finite, but got inf"),
        ({"milestones": (0.5, math.nan)}, r"milestones must be increasing shares .* nan"),
    ],
)
def test_wrong_recipes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_policies_of_augmentation() -> None:
    assert not policy("none")
    assert policy("crop") == Augment(pad=4)
    assert policy("crop_flip", pad=2) == Augment(pad=2, flip=True)
    assert policy("crop_flip_cutout") == Augment(pad=4, flip=True, cutout=0.5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_augmentation_is_a_crop_and_a_flip_of_each_image(pad: int, flip: bool) -> None:
    images = torch.rand(40, 3, 6, 7, generator=generator("images"))
    made = Augment(pad, flip)(images, generator("draws"))
    assert made.shape == images.shape
    padded = nn.functional.pad(images, (pad,) * 4)
    seen = set()
    for image, result in zip(padded, made):
        places = [
            (row, column, mirrored)
            for row in range(2 * pad + 1)
            for column in range(2 * pad + 1)
            for mirrored in ((False, True) if flip else (False,))
            if torch.equal(_cut(image, row, column, mirrored), result)
        ]
        assert places
        seen.update(places)
    assert {row for row, _, _ in seen} == set(range(2 * pad + 1))
    assert {column for _, column, _ in seen} == set(range(2 * pad + 1))
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})


def test_cutout_is_one_black_square_around_any_pixel() -> None:
    images = torch.full((300, 2, 6, 8), 9, dtype=torch.uint8)
    made = Augment(cutout=0.5)(images, generator("draws"))
    assert made.dtype == torch.uint8
    sizes, places = set(), set()
    for image in made:
        rows, columns = (image == 0).all(0).nonzero(as_tuple=True)
        assert (image == 0).sum() == 2 * len(rows)
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert height * width == len(rows)
        sizes.add((height, width))
        places.add(tuple(int(x) for axis in (rows, columns) for x in (axis.min(), axis.max())))
    assert max(sizes) == (3, 3)
    assert min(height for height, _ in sizes) == min(width for _, width in sizes) == 2
    assert len(places) == 6 * 8


def test_augmented_pixels_are_the_same_before_and_after_the_conversion_to_floats() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator("images"), dtype=torch.uint8)
    augment = Augment(pad=2, flip=True, cutout=0.5)
    early, late = augment(images, generator(0)), augment(as_float(images), generator(0))
    assert early.dtype == torch.uint8
    assert torch.equal(as_float(early), late)


def _cut(padded: Tensor, row: int, column: int, mirrored: bool) -> Tensor:
    window = padded[:, row : row + 6, column : column + 7]
    return window.flip(-1) if mirrored else window


def test_augmentation_depends_on_its_generator_alone() -> None:
    images = torch.rand(20, 1, 8, 8, generator=generator("images"))
    augment = Augment(pad=2, flip=True)
    one, same, other = (augment(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_samples_with_gradient_are_counted_in_the_model_and_its_copies() -> None:
    model = nn.Linear(2, 2)
    counter = count_samples(model)
    inputs = torch.zeros(5, 2)
    model(inputs)
    assert counter == [5]
    copy.deepcopy(model)(inputs[:3])
    assert counter == [8]
    with torch.no_grad():
        model(inputs)
    with torch.inference_mode():
        model(inputs)
    frozen_copy(model)(inputs)
    assert counter == [8]


def test_training_counts_every_pass() -> None:
    model = Recorder(16, 3)
    counter = count_samples(model)
    for _ in fit(
        model, toy_examples(21), generator(0), Hyperparameters(epochs=3, batch_size=5, lr=0.1)
    ):
        pass
    assert counter == [63]
