"""UNSIR and EMMN: the noise of the released code, in the right units, and all of it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn

from mu.data import Examples
from mu.methods import emmn, unsir
from mu.models import eval_mode
from mu.rng import generator
from mu.split import Split


def linear(z: Mapping[str, Any]) -> nn.Module:
    """Return the golden network z = W x + b on flattened images."""
    layer = nn.Linear(*reversed(z["W"].shape), dtype=torch.float64)
    layer.load_state_dict({"weight": torch.from_numpy(z["W"]), "bias": torch.from_numpy(z["b"])})
    return nn.Sequential(nn.Flatten(), layer)


def bare_split(z: Mapping[str, Any]) -> Split:
    """Return a split without data, whose inputs are normalised as they are."""
    return Split({}, len(z["b"]), int(z["forget_class"]), (0.0,) * 3, (1.0,) * 3)


def labels(z: Mapping[str, Any]) -> Tensor:
    return torch.full((len(z["noise0"]),), int(z["forget_class"]))


def made(z: Mapping[str, Any], maximize: bool, steps: int) -> Tensor:
    noise = torch.from_numpy(z["noise0"])
    return unsir.error_noise(
        linear(z),
        bare_split(z),
        noise,
        labels(z),
        unsir.NoiseSettings(
            maximize=maximize,
            penalty=0.1 if maximize else 0.0,
            steps=steps,
            lr=0.1,
            images_per_class=len(noise),
        ),
    )


def objective(z: Mapping[str, Any], noise: Tensor, maximize: bool) -> Tensor:
    logits = linear(z)(noise)
    penalty = 0.1 if maximize else 0.0
    values = unsir.noise_objective(logits, labels(z), noise, maximize=maximize, penalty=penalty)
    return values.mean()


def test_objectives_and_gradient_are_the_released_codes() -> None:
    z = golden("unsir_emmn")
    noise = torch.from_numpy(z["noise0"]).requires_grad_()
    for maximize, key in ((True, "obj_max"), (False, "obj_min")):
        value = objective(z, noise, maximize).detach()
        assert float(value) == pytest.approx(float(z[key]), abs=1e-8)
    gradient = torch.autograd.grad(objective(z, noise, maximize=True), noise)[0]
    np.testing.assert_allclose(gradient, z["grad_max"], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("maximize", "key"), [(True, "max_after"), (False, "min_after")])
def test_noise_follows_the_released_code(maximize: bool, key: str) -> None:
    z = golden("unsir_emmn")
    for steps, expected in zip(z["steps"].tolist(), z[key]):
        np.testing.assert_allclose(made(z, maximize, steps), expected, rtol=0, atol=1e-8)


def test_classes_that_share_a_batch_do_not_change_one_anothers_noise() -> None:
    z = golden("unsir_emmn")
    noise = torch.from_numpy(z["noise0"])
    together = unsir.error_noise(
        linear(z),
        bare_split(z),
        torch.cat([noise, noise]),
        torch.cat([labels(z), (labels(z) + 1) % len(z["b"])]),
        unsir.NoiseSettings(
            maximize=False, penalty=0.0, steps=5, lr=0.1, images_per_class=len(noise)
        ),
    )
    torch.testing.assert_close(together[: len(noise)], made(z, False, 5), rtol=0, atol=1e-12)


def test_making_noise_leaves_the_model_and_the_start_alone(model: nn.Module, split: Split) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = torch.randn((4, *split.input_shape), generator=generator(0))
    kept = start.clone()
    own = torch.zeros(4, dtype=torch.int64)
    settings = unsir.NoiseSettings(maximize=True, penalty=0.1, steps=3, lr=0.1, images_per_class=4)
    noise = unsir.error_noise(model, split, start, own, settings)
    assert torch.equal(start, kept)
    assert not torch.equal(noise, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(module.training for module in model.modules())


def test_noise_is_normalised_and_the_model_takes_pixels(split: Split) -> None:
    noise = torch.randn((500, *split.input_shape), generator=generator(0))
    pixels = unsir.to_pixels(noise, split)
    for channel, (mean, std) in enumerate(zip(split.input_mean, split.input_std)):
        assert float(pixels[:, channel].mean()) == pytest.approx(mean, abs=0.01)
        assert float(pixels[:, channel].std()) == pytest.approx(std, abs=0.01)


def test_every_noise_image_is_trained_on_equally_often(split: Split) -> None:
    """The released loader takes as many of them as an image has channels."""
    sample = split.retain.take(torch.arange(10))
    noise = torch.arange(8.0).view(8, 1, 1, 1).expand(8, *split.input_shape) + 100
    noisy = Examples(noise, torch.full((8,), 3))
    inputs, own = unsir.mixed_batch(sample, noisy, torch.arange(10 + 24))
    torch.testing.assert_close(inputs[:10], sample.batch(torch.arange(10))[0])
    assert torch.equal(own[:10], sample.labels)
    assert inputs[10:, 0, 0, 0].sub(100).long().bincount().tolist() == [3] * 8
    assert own[10:].tolist() == [3] * 24


def test_sample_holds_each_class_up_to_the_count() -> None:
    classes = torch.tensor([0] * 5 + [2] * 3 + [3] * 9)
    chosen = unsir.sample_per_class(classes, 4, generator(0))
    assert len(chosen.unique()) == len(chosen)
    assert classes[chosen].bincount().tolist() == [4, 0, 3, 4]


def test_emmn_noise_is_as_wrong_as_can_be_for_the_forgotten_class_and_right_for_the_others(
    model: nn.Module, split: Split
) -> None:
    examples = emmn.noise_examples(
        model,
        split.only(emmn.NEEDS),
        generator(0),
        images=3,
        maximize_steps=40,
        minimize_steps=40,
        lr=0.1,
        penalty=0.0,
    )
    assert examples.labels.bincount().tolist() == [3] * split.num_classes
    with eval_mode(model), torch.no_grad():
        predicted = model(examples.inputs).argmax(1)
    forgotten = examples.labels == split.forget_class
    assert (predicted[forgotten] != split.forget_class).all()
    assert torch.equal(predicted[~forgotten], examples.labels[~forgotten])


def test_emmn_never_looks_at_an_image(model: nn.Module, split: Split) -> None:
    forget = split.forget
    unlike = Examples(torch.full_like(forget.inputs, 7), forget.labels)
    made_of = [
        emmn.noise_examples(
            model,
            Split({"forget": examples}, split.num_classes, split.forget_class),
            generator(0),
            images=2,
            maximize_steps=2,
            minimize_steps=2,
            lr=0.1,
            penalty=0.1,
        ).inputs
        for examples in (forget, unlike)
    ]
    assert torch.equal(*made_of)


def test_emmn_in_eval_mode_keeps_the_statistics_of_images(model: nn.Module, split: Split) -> None:
    before = {name: value.clone() for name, value in model.named_buffers()}
    for _ in emmn.unlearn(model, split, generator(0), epochs=1, rounds=1, mode="eval"):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
