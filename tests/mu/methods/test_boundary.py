"""Boundary Shrink and Expand: attack, labels and steps of the golden files; labels and outputs as they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn

from mu.data import Examples
from mu.methods import boundary_expand, boundary_shrink
from mu.models import eval_mode, head
from mu.rng import generator
from mu.split import Split
from mu.training import make_optimizer, one_pass


def linear(z: Mapping[str, Any]) -> nn.Module:
    """Return the golden network z = W x + b on flattened images."""
    layer = nn.Linear(*reversed(z["W"].shape), dtype=torch.float64)
    layer.load_state_dict({"weight": torch.from_numpy(z["W"]), "bias": torch.from_numpy(z["b"])})
    return nn.Sequential(nn.Flatten(), layer)


def forgotten(z: Mapping[str, Any]) -> Examples:
    return Examples(torch.from_numpy(z["x"]), torch.from_numpy(z["y"]))


def assert_layer(model: nn.Module, weight: Any, bias: Any) -> None:
    np.testing.assert_allclose(head(model).weight.detach(), weight, rtol=0, atol=1e-10)
    np.testing.assert_allclose(head(model).bias.detach(), bias, rtol=0, atol=1e-10)


def test_attack_is_of_the_bound_in_pixel_units() -> None:
    z = golden("boundary")
    for bound, expected in zip(z["bounds"].tolist(), z["fgsm_xadv"]):
        attacked = boundary_shrink.sign_attack(
            linear(z), forgotten(z).inputs, forgotten(z).labels, bound=bound, step=bound
        )
        rounded = attacked.mul(255).round() / 255
        np.testing.assert_allclose(rounded, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("exclude", "key"), [(False, "label_code"), (True, "label_excl")])
def test_labels_are_the_golden_ones(exclude: bool, key: str) -> None:
    z = golden("boundary")
    for bound, expected in zip(z["bounds"].tolist(), z[key]):
        nearest = boundary_shrink.nearest_labels(linear(z), forgotten(z), bound, exclude)
        np.testing.assert_array_equal(nearest, expected)


def test_shrink_step_is_the_golden_one() -> None:
    z = golden("boundary")
    model = linear(z)
    for _ in boundary_shrink.unlearn(
        model,
        Split({"forget": forgotten(z)}, len(z["b"])),
        generator(0),
        epochs=1,
        lr=0.1,
        bound=float(z["bounds"][0]),
        momentum=0.0,
        exclude_own_class=False,
    ):
        pass
    assert_layer(model, z["shrink_step_W"], z["shrink_step_b"])


def test_shrink_loss_is_the_golden_one() -> None:
    z = golden("boundary")
    label = torch.from_numpy(z["label_code"][0])
    loss = nn.functional.cross_entropy(linear(z)(forgotten(z).inputs), label).detach()
    assert float(loss) == pytest.approx(float(z["shrink_loss"]), abs=1e-10)


def test_expand_step_is_the_golden_one() -> None:
    z = golden("boundary")
    model, classes = linear(z), len(z["b"])
    widened = boundary_expand.Widened(model, generator(0))
    with torch.no_grad():
        widened.row.copy_(torch.from_numpy(z["new_w"]))
        widened.bias.fill_(float(z["new_b"]))
    extra = torch.full_like(forgotten(z).labels, classes)
    loss = nn.functional.cross_entropy(widened(forgotten(z).inputs), extra).detach()
    assert float(loss) == pytest.approx(float(z["expand_loss"]), abs=1e-10)
    stepper = make_optimizer(widened, "sgd", 0.1, momentum=0.0)
    one_pass(widened, stepper, Examples(forgotten(z).inputs, extra), generator(0), 100)
    assert_layer(model, z["expand_step_W"], z["expand_step_b"])


@pytest.mark.parametrize("bound", [1e-3, 0.1])
def test_nearest_label_is_never_the_samples_own(
    model: nn.Module, split: Split, bound: float
) -> None:
    nearest = boundary_shrink.nearest_labels(model, split.forget, bound)
    assert (nearest != split.forget.labels).all()
    if bound < 0.01:  # where no attack succeeds the code trains on the true labels
        nearest = boundary_shrink.nearest_labels(
            model, split.forget, bound, exclude_own_class=False
        )
        assert (nearest == split.forget.labels).float().mean() > 0.5


def test_attack_stays_within_its_bound_and_within_images(model: nn.Module, split: Split) -> None:
    inputs, labels = split.forget.batch(slice(None))
    with eval_mode(model):
        for steps, step in ((1, 0.2), (5, 0.1)):
            attacked = boundary_shrink.sign_attack(
                model, inputs, labels, bound=0.2, step=step, steps=steps
            )
            assert float((attacked - inputs).abs().max()) <= 0.2 + 1e-6
            assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1
            before, after = (
                nn.functional.cross_entropy(model(x), labels) for x in (inputs, attacked)
            )
            assert after > before
    assert all(weight.grad is None for weight in model.parameters())


def test_labels_are_found_in_eval_mode(model: nn.Module, split: Split) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    nearest = boundary_shrink.nearest_labels(model, split.forget, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert torch.equal(nearest, boundary_shrink.nearest_labels(model.eval(), split.forget, 0.1))


@pytest.mark.parametrize("method", [boundary_shrink, boundary_expand])
def test_eval_mode_keeps_batch_norm_statistics(method: Any, model: nn.Module, split: Split) -> None:
    before = {name: value.clone() for name, value in model.named_buffers()}
    for _ in method.unlearn(model, split, generator(0), epochs=1, mode="eval"):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_model_keeps_its_outputs_and_shape_at_each_yield(model: nn.Module, split: Split) -> None:
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    layer = head(model)
    for _ in boundary_expand.unlearn(model, split, generator(0), epochs=2, lr=1e-3):
        with eval_mode(model), torch.no_grad():
            logits = model(split.forget.batch(slice(0, 4))[0])
        assert logits.shape == (4, split.num_classes)
        assert logits.isfinite().all()
    assert head(model) is layer
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize("method", [boundary_shrink, boundary_expand])
def test_raises_the_forgotten_loss(method: Any, model: nn.Module, split: Split) -> None:
    inputs, labels = split.forget.batch(slice(None))
    losses = []
    for epochs in (0, 5):
        for _ in method.unlearn(model, split, generator(0), epochs=epochs, lr=1e-3, mode="eval"):
            pass
        losses.append(float(nn.functional.cross_entropy(model.eval()(inputs), labels).detach()))
    assert losses[1] > losses[0] + 0.1


def test_training_moves_forgotten_samples_into_the_extra_class(
    model: nn.Module, split: Split
) -> None:
    widened = boundary_expand.Widened(model, generator(0))
    inputs = split.forget.batch(slice(None))[0]

    def share(probabilities: Tensor) -> float:
        return float(probabilities.detach().softmax(1)[:, -1].mean())

    with eval_mode(widened):
        before = share(widened(inputs))
    extra = torch.full_like(split.forget.labels, split.num_classes)
    stepper = make_optimizer(widened, "sgd", 0.01)
    for _ in range(5):
        one_pass(widened.eval(), stepper, Examples(inputs, extra), generator(0), 16)
    assert share(widened(inputs)) > before + 0.2
