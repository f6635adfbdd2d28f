"""GA: its step, what batch norm does meanwhile, and that divergence stays visible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import Tensor, nn

from mu.data import Examples
from mu.evaluate import predict
from mu.methods import ga
from mu.rng import generator
from mu.split import Split


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_one_step_is_that_of_the_official_code(mode: Any) -> None:
    z = golden("l1_ft_ga")
    model = tanh_mlp(z, "theta0_")
    forget = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    split = Split({"forget": forget}, num_classes=len(z["theta0_fc2_bias"]))
    steps = ga.unlearn(model, split, generator(0), epochs=1, lr=float(z["lr"]), mode=mode)
    assert len(list(steps)) == 1
    for name, value in mlp_weights(z, "ga_").items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-10)


def test_divergence_is_left_to_be_seen(model: nn.Module, split: Split) -> None:
    for _ in ga.unlearn(model, split, generator(0), epochs=20, lr=1e30, batch_size=16):
        pass
    assert not np.isfinite(predict(model, split.forget)).all()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_of_batch_norm_move_in_train_mode_only(
    model: nn.Module, split: Split, mode: Any
) -> None:
    before = statistics(model)
    for _ in ga.unlearn(model, split, generator(0), epochs=1, mode=mode):
        pass
    moved = [not torch.equal(one, other) for one, other in zip(before, statistics(model))]
    assert before and set(moved) == {mode == "train"}


def test_clipping_bounds_the_whole_step(model: nn.Module, split: Split) -> None:
    before = [weight.detach().clone() for weight in model.parameters()]
    for _ in ga.unlearn(
        model,
        split,
        generator(0),
        epochs=1,
        lr=0.5,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=64,
        clip_norm=1e-3,
    ):
        pass
    steps = [weight.detach() - value for weight, value in zip(model.parameters(), before)]
    length = torch.linalg.vector_norm(torch.cat([step.flatten() for step in steps]))
    assert float(length) == pytest.approx(0.5 * 1e-3, rel=1e-3)
