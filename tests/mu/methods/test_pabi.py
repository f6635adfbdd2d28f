"""PABI: number of noisy steps, level of the noise, one step, and what is left of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn

from mu.methods import pabi
from mu.rng import generator
from mu.split import Split
from mu.training import Hyperparameters, count_samples


def test_schedule_is_that_of_the_official_code() -> None:
    z = golden("b_pabi")
    for row in range(len(z["C0"])):
        clips = [float(z[name][row]) for name in ("C0", "C1", "lr", "weight_decay")]
        budget, steps = float(z["eps_renyi"][row]), int(z["T_steps"][row])
        assert pabi.steps_needed(*clips) == steps
        sigma = pabi.noise_level(*clips, budget, steps, "code")
        assert sigma == pytest.approx(float(z["sigma_as_in_code"][row]), rel=1e-9)
        limit = pabi.noise_level(*clips[:3], 0.0, budget, steps, "limit")
        assert limit == pytest.approx(float(z["sigma_limit_lambda0"][row]), rel=1e-9)


def test_without_decay_the_noise_is_the_limit_of_ever_less_decay() -> None:
    fixed = {"model_clip": 3.0, "gradient_clip": 0.7, "lr": 0.02, "renyi_budget": 2.0, "steps": 40}
    nearly = pabi.noise_level(decay=1e-7, **fixed)
    assert pabi.noise_level(decay=0.0, **fixed) == pytest.approx(nearly, rel=1e-5)
    half = pabi.noise_level(decay=0.0, undecayed="code", **fixed)
    assert half == pytest.approx(nearly / np.sqrt(2), rel=1e-5)


def test_one_noisy_step() -> None:
    z = golden("b_pabi")
    gradient = torch.from_numpy(z["step_grad"])
    np.testing.assert_allclose(
        pabi.clipped(gradient, float(z["step_C1"])), z["step_grad_clipped"], rtol=1e-9, atol=1e-10
    )
    after = pabi.noisy_step(
        torch.from_numpy(z["step_w"]),
        gradient,
        torch.from_numpy(z["step_unit_noise"]),
        float(z["step_lr"]),
        float(z["step_wd"]),
        float(z["step_C1"]),
        float(z["step_sigma"]),
    )
    np.testing.assert_allclose(after, z["step_w_next"], rtol=1e-9, atol=1e-10)


def test_clipping_keeps_what_is_short_enough() -> None:
    vector = torch.tensor([0.3, -0.4])
    assert torch.equal(pabi.clipped(vector, 0.5), vector)
    assert torch.equal(pabi.clipped(torch.zeros(2), 0.5), torch.zeros(2))
    torch.testing.assert_close(pabi.clipped(vector, 0.1), vector / 5)


def test_noisy_steps_precede_the_epochs_and_outweigh_the_network(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[torch.Tensor] = []

    def spy(
        model: nn.Module, examples: Any, generator: Any, given: Hyperparameters, **_: Any
    ) -> Iterator[None]:
        states.append(pabi.read(model))
        return iter([None] * given.epochs)

    monkeypatch.setattr(pabi, "fit", spy)
    before, counter = pabi.read(model), count_samples(model)
    steps = pabi.unlearn(model, split, generator(0), epochs=2, noisy_steps=4, batch_size=32)
    assert len(list(steps)) == 2
    assert counter[0] == 4 * 32
    (noisy,) = states
    sigma = pabi.noise_level(1.0, 100.0, 1e-3, 500.0, 10.0, 4)
    shrinking = sum(0.25**step for step in range(4))  # each step halves the noise of those before
    assert noisy.std().item() == pytest.approx(sigma * shrinking**0.5, rel=0.15)
    kept = torch.nn.functional.cosine_similarity(before, noisy, dim=0).item()
    assert abs(kept) < 0.1
