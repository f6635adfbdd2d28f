"""NegGrad+: its step, and that an epoch is one pass over the retained data."""

from __future__ import annotations

import numpy as np
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import nn

from mu.data import Examples
from mu.methods import finetune, neggrad_plus
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator
from mu.split import Split
from mu.training import count_samples


def test_one_step_is_that_of_the_official_code() -> None:
    z = golden("scrub")
    model = tanh_mlp(z, "theta0_")
    parts = {
        name: Examples(torch.from_numpy(z[f"X{name[0]}"]), torch.from_numpy(z[f"Y{name[0]}"]))
        for name in ("retain", "forget")
    }
    split = Split(parts, num_classes=len(z["theta0_fc2_bias"]))
    steps = neggrad_plus.unlearn(
        model, split, generator(0), epochs=1, lr=0.1, forget_weight=1 - 0.95
    )
    assert len(list(steps)) == 1
    for name, value in mlp_weights(z, "neggrad_").items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-10)


def test_forgotten_data_are_cycled_to_the_length_of_the_retained(
    model: nn.Module, split: Split
) -> None:
    counter = count_samples(model)
    for _ in neggrad_plus.unlearn(
        model, split, generator(0), epochs=1, batch_size=16, forget_batch_size=8
    ):
        pass
    steps = len(split.retain) // 16
    assert len(split.retain) % 16 == 0 and steps * 8 > len(split.forget)
    assert counter[0] == len(split.retain) + steps * 8


def test_without_ascent_weights_move_as_in_finetuning(
    problem: Problem, original: Weights, split: Split
) -> None:
    """One full batch: only then do both draw the same one; batch norm also sees the forgotten data."""
    models = [problem.load(original) for _ in range(2)]
    size, shared = len(split.retain), {"epochs": 1, "lr": 0.1, "momentum": 0.0}
    for _ in neggrad_plus.unlearn(
        models[0], split, generator(0), forget_weight=0.0, batch_size=size, **shared
    ):
        pass
    for _ in finetune.unlearn(
        models[1], split, generator(0), weight_decay=0.0, batch_size=size, **shared
    ):
        pass
    one, other = map(weights_of, models)
    for name, _ in models[0].named_parameters():
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-6)
