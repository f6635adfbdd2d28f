"""Networks: fresh weights from a seed, heads, modes and copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mu.models import (
    Normalization,
    Normalize,
    build,
    eval_mode,
    frozen_copy,
    head,
    logits_and_features,
    reinitialize,
    reinitialize_head,
)
from mu.rng import generator

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)


def fresh(name: str = "small_cnn", seed: int = 0, side: int = 8) -> nn.Module:
    return build(name, (3, side, side), 7, MEAN, STD, seed)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "allcnn", "toy_cnn"])
def test_convolutions_take_images_of_any_size(name: str) -> None:
    model = fresh(name).eval()
    for side in (8, 16):
        assert model(torch.rand(2, 3, side, side)).shape == (2, 7)
    assert head(model).out_features == 7


def test_weights_depend_on_the_seed_alone_and_leave_global_randomness_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = state(fresh(seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = state(fresh(seed=3)), state(fresh(seed=4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model must be one of .*small_cnn.*, but got 'vgg0'"):
        fresh("vgg0")


def test_normalization_is_inside_the_model_and_not_in_its_weights() -> None:
    model = Normalize(MEAN, STD)
    images = torch.rand(2, 3, 4, 4)
    expected = (images.numpy() - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)
    assert not model.state_dict()


def test_frozen_copy_is_no_student() -> None:
    model = fresh()
    teacher = frozen_copy(model)
    assert not teacher.training
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    before = state(teacher)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_head_is_the_last_linear_layer() -> None:
    assert head(fresh()).in_features == 128
    with pytest.raises(ValueError, match="no linear layer"):
        head(nn.Conv2d(1, 1, 1))


def test_redrawn_head_keeps_its_bias_and_has_the_published_spread() -> None:
    model = nn.Sequential(nn.Linear(5, 400), nn.Linear(400, 300))
    before = state(model)
    reinitialize_head(model, generator(0))
    after = model.state_dict()
    for name in ("0.weight", "0.bias", "1.bias"):
        assert torch.equal(after[name], before[name])
    std = math.sqrt(2) * math.sqrt(2 / 700)
    assert after["1.weight"].std().item() == pytest.approx(std, rel=0.02)
    assert after["1.weight"].mean().item() == pytest.approx(0, abs=1e-3)


def test_redrawing_depends_on_its_generator_alone() -> None:
    drawn = []
    for redraw in (reinitialize_head, reinitialize):
        for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(disturbance)
            model = fresh()
            redraw(model, generator(seed))
            drawn.append(head(model).weight.detach())
    for one, same, other in (drawn[:3], drawn[3:]):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_redrawn_network_has_forgotten_all_weights_and_statistics() -> None:
    model = fresh()
    for _ in range(3):
        model(torch.rand(4, 3, 8, 8))
    before = state(model)
    reinitialize(model, generator(0))
    untouched = fresh(seed=1).state_dict()
    for name, value in model.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, untouched[name]), name
        elif value.dim() > 1:
            assert (value != before[name]).all(), name


def test_features_are_what_the_head_sees() -> None:
    model = fresh().eval()
    images = torch.rand(4, 3, 8, 8)
    logits, features = logits_and_features(model, images)
    assert features.shape == (4, 128)
    torch.testing.assert_close(head(model)(features), logits)
    assert torch.equal(logits, model(images))
    assert not head(model)._forward_pre_hooks


def test_eval_mode_ends_where_it_began() -> None:
    model = fresh().train()
    model[1][1].eval()
    modes = [module.training for module in model.modules()]
    seen: list[bool] = []

    def fail() -> None:
        with eval_mode(model):
            seen.extend(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(seen)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_normalization_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^mean must be finite, but got \[0\.5, {value}\]$"):
        Normalization((0.5, value), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"^std must be"):
        Normalization((0.5, 0.5), (1.0, value))
