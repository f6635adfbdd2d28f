"""CF-k: trains the last layers from where they are; with all of them it is finetuning."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mu.methods import cf_k, eu_k, finetune
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator
from mu.split import Split


def test_nothing_is_redrawn(model: nn.Module, split: Split) -> None:
    before = [weight.detach().clone() for weight in model.parameters()]
    for _ in cf_k.unlearn(model, split, generator(0), epochs=1, lr=1e-30):
        pass
    assert all(torch.equal(w, value) for w, value in zip(model.parameters(), before))


def test_other_layers_stay_frozen(model: nn.Module, split: Split) -> None:
    layers = eu_k.last_layers(model, 1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in cf_k.unlearn(model, split, generator(0), epochs=1, k=1):
        pass
    trained = {id(weight) for layer in layers for weight in layer.parameters()}
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) != (id(weight) in trained)


def test_with_all_layers_it_is_finetuning_to_the_bit(
    problem: Problem, original: Weights, split: Split
) -> None:
    shared = {"epochs": 2, "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "batch_size": 32}
    models = [problem.load(original) for _ in range(2)]
    for _ in cf_k.unlearn(models[0], split, generator(0), k=4, augment=True, **shared):
        pass
    for _ in finetune.unlearn(models[1], split, generator(0), augment=True, **shared):
        pass
    one, other = map(weights_of, models)
    assert all(np.array_equal(one[name], other[name]) for name in one)
