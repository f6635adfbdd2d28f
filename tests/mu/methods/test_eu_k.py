"""EU-k: which layers are trained and redrawn, and that the others stay what they were."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn

from mu.methods import eu_k
from mu.models import build
from mu.rng import generator
from mu.split import Split

GOLDEN_LAYERS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc")


def golden_network() -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = []
    for i, (inputs, outputs) in enumerate(((3, 4), (4, 5), (5, 6)), start=1):
        layers += [
            (f"conv{i}", nn.Conv2d(inputs, outputs, 3)),
            (f"bn{i}", nn.BatchNorm2d(outputs)),
        ]
    return nn.Sequential(OrderedDict([*layers, ("flatten", nn.Flatten()), ("fc", nn.Linear(6, 4))]))


def test_the_last_layers_are_those_of_the_official_code() -> None:
    z = golden("euk_cfk")
    model = golden_network()
    for row, k in enumerate(z["ks"].tolist()):
        chosen = eu_k.last_layers(model, k)
        trained = [getattr(model, name) in chosen for name in GOLDEN_LAYERS]
        assert trained == z["trainable"][row].astype(bool).tolist()


def test_exactly_the_counted_layers_are_redrawn() -> None:
    z = golden("euk_cfk")
    for row, k in enumerate(z["ks"].tolist()):
        model = golden_network()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.weight, 0.7)
        before = copy.deepcopy(model.state_dict())
        eu_k.redraw(eu_k.last_layers(model, k), generator(0))
        redrawn = [
            not torch.equal(model.state_dict()[f"{name}.weight"], before[f"{name}.weight"])
            for name in GOLDEN_LAYERS
        ]
        assert redrawn == z["reinit"][row].astype(bool).tolist()


def test_batch_norm_between_redrawn_layers_starts_anew_if_asked() -> None:
    model = golden_network()
    for layer in (model.bn2, model.bn3):
        nn.init.constant_(layer.weight, 0.7)
        nn.init.constant_(layer.running_var, 0.7)
    eu_k.redraw(eu_k.last_layers(model, 2), generator(0), reset_batchnorm=True)
    assert (model.bn3.weight == 1).all() and (model.bn3.running_var == 1).all()
    assert (model.bn2.weight == 0.7).all() and (model.bn2.running_var == 0.7).all()


def test_redrawn_layers_are_kaiming_normal_with_zero_bias() -> None:
    layer = nn.Conv2d(16, 64, 3)
    eu_k.redraw([layer], generator(0))
    assert layer.weight.std().item() == pytest.approx(np.sqrt(2 / (16 * 9)), rel=0.05)
    assert (layer.bias == 0).all()


def test_more_layers_than_there_are_means_all() -> None:
    model = build("small_cnn", (1, 8, 8), 10, (0.5,), (0.5,), seed=0)
    layers = eu_k.last_layers(model, 99)
    assert sum(map(eu_k.is_counted, layers)) == 4
    reached = {id(weight) for layer in layers for weight in layer.parameters(recurse=False)}
    assert reached == {id(weight) for weight in model.parameters()}


@pytest.mark.parametrize("still", [False, True])
def test_frozen_layers_keep_their_weights_and_if_asked_their_statistics(
    model: nn.Module, split: Split, still: bool
) -> None:
    layers = eu_k.last_layers(model, 2)
    frozen = [m for m in model.modules() if m not in layers and not list(m.children())]
    before = copy.deepcopy([module.state_dict() for module in frozen])
    for _ in eu_k.unlearn(
        model, split, generator(0), epochs=2, k=2, weight_decay=0.1, frozen_statistics=still
    ):
        pass
    statistics = []
    for module, state in zip(frozen, before):
        for name, value in module.state_dict().items():
            if "running" in name:
                statistics.append(torch.equal(value, state[name]))
            elif name in ("weight", "bias"):
                assert torch.equal(value, state[name])
    assert len(statistics) == 4 and set(statistics) == {still}


def test_all_weights_are_trainable_again_when_stopped_early(model: nn.Module, split: Split) -> None:
    steps = eu_k.unlearn(model, split, generator(0), epochs=3, k=1, frozen_statistics=True)
    next(steps)
    assert not all(weight.requires_grad for weight in model.parameters())
    steps.close()
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
