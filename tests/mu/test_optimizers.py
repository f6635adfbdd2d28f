"""Optimizers are torch's, without its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from mu import optimizers

OPTIONS = {"SGD": {"momentum": 0.9}, "Adam": {}, "AdamW": {}}


def clip(stepper: torch.optim.Optimizer, *_: object) -> None:
    nn.utils.clip_grad_norm_(stepper.param_groups[0]["params"], 1.0)


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_are_those_of_torch(name: str) -> None:
    """Also when the state has been saved and loaded between, and with a hook before each step."""
    weights = []
    for module in (optimizers, torch.optim):
        model = nn.Linear(5, 3)
        nn.init.ones_(model.weight), nn.init.zeros_(model.bias)
        options = {"lr": 0.01, "weight_decay": 0.01, "fused": True, **OPTIONS[name]}
        stepper = getattr(module, name)(model.parameters(), **options)
        for step in range(6):
            if step == 3:
                before, stepper = stepper, getattr(module, name)(model.parameters(), **options)
                stepper.load_state_dict(before.state_dict())
                stepper.register_step_pre_hook(clip)
            stepper.zero_grad()
            model(torch.arange(10.0).view(2, 5) / 10).square().sum().backward()
            stepper.step()
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], torch.ones(3, 5))


def test_a_step_does_not_import_the_compiler() -> None:
    lines = """
import sys, torch
from mu.training import make_optimizer
for name in ("sgd", "adam", "adamw"):
    model = torch.nn.Linear(2, 2)
    stepper = make_optimizer(model, name, 0.1)
    model(torch.ones(1, 2)).sum().backward()
    stepper.step()
    stepper.zero_grad()
print("torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
