"""Finetune: one step of the published baseline."""

from __future__ import annotations

import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import nn

from mu.data import Examples
from mu.methods import finetune
from mu.models import head
from mu.rng import generator
from mu.split import Split


def test_one_step_is_that_of_the_official_code() -> None:
    z = golden("l1_ft_ga")
    model = tanh_mlp(z, "theta0_")
    retain = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    split = Split({"retain": retain}, num_classes=len(z["theta0_fc2_bias"]))
    steps = finetune.unlearn(
        model, split, generator(0), epochs=1, lr=float(z["lr"]), batch_size=len(retain)
    )
    assert len(list(steps)) == 1
    for name, value in mlp_weights(z, "ft_").items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-10)


def test_reinit_head_redraws_the_weight_and_keeps_the_bias(model: nn.Module, split: Split) -> None:
    bias, weight = head(model).bias.clone(), head(model).weight.clone()
    frozen = 1e-30  # a learning rate that moves no weight in float32
    for _ in finetune.unlearn(
        model, split, generator(0), epochs=1, lr=frozen, weight_decay=0.0, reinit_head=True
    ):
        pass
    assert torch.equal(head(model).bias, bias)
    assert (head(model).weight != weight).all()
