"""JiT: steps of the paper's objective and of the released code, units of sigma, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import Tensor, nn

from mu.data import Examples
from mu.methods import jit
from mu.rng import generator
from mu.split import Split

FORMS: tuple[jit.Form, ...] = ("released", "equation")


def step(
    z: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    batches: int | slice,
    lr: float | None = None,
    model: nn.Module | None = None,
    **knobs: Any,
) -> nn.Module:
    """Return a network, or else the golden one, after a pass over the first batches, with the golden noise instead of drawn."""
    chosen = slice(batches) if isinstance(batches, int) else batches
    noise = iter(torch.from_numpy(z["noise"])[chosen])

    def golden_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        drawn = next(noise)
        assert drawn.shape == shape
        return drawn

    model = model or tanh_mlp(z)
    inputs = torch.from_numpy(z["x"])[chosen].flatten(0, 1)
    labels = torch.zeros(len(inputs), dtype=torch.int64)  # read by nothing
    split = Split(
        {"forget": Examples(inputs, labels)},
        num_classes=len(z["fc2_bias"]),
        input_mean=(0.0,) * inputs.shape[1],
        input_std=(1.0,) * inputs.shape[1],
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", golden_noise)
        yields = jit.unlearn(
            model,
            split,
            generator(0),
            lr=float(z["eta"]) if lr is None else lr,
            sigma=float(z["sigma"]),
            perturbations=z["noise"].shape[1],
            batch_size=z["x"].shape[1],
            **knobs,
        )
        assert len(list(yields)) == 1
    return model


def assert_weights(model: nn.Module, expected: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-9)


def test_ratios_are_those_of_equation_1() -> None:
    z = golden("jit_step")
    inputs, noise = (torch.from_numpy(z[name][0]) for name in ("x", "noise"))
    ratios = jit.lipschitz_ratios(tanh_mlp(z), inputs, noise * float(z["sigma"])).detach()
    np.testing.assert_allclose(ratios, z["paper_per_sample"], rtol=0, atol=1e-9)
    assert float(ratios.sum()) == pytest.approx(float(z["paper_loss_sum"]), abs=1e-9)
    assert float(ratios.mean()) == pytest.approx(float(z["paper_loss_mean"]), abs=1e-9)


def test_step_of_the_equation_is_the_papers_with_losses_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z = golden("jit_step")
    one = step(z, monkeypatch, batches=1, form="equation")
    assert_weights(one, mlp_weights(z, "paper_sum_"))


def test_mean_of_losses_is_a_smaller_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    z = golden("jit_step")
    lr = float(z["eta"]) / z["x"].shape[1]
    one = step(z, monkeypatch, batches=1, lr=lr, form="equation")
    assert_weights(one, mlp_weights(z, "paper_mean_"))


def test_equation_resets_gradients_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    z = golden("jit_step")
    both = step(z, monkeypatch, batches=2, form="equation")
    first = step(z, monkeypatch, batches=1, form="equation")
    second = step(z, monkeypatch, batches=slice(1, 2), model=first, form="equation")
    assert_weights(both, second.state_dict())


def test_default_is_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    z = golden("jit_step")
    assert_weights(step(z, monkeypatch, batches=1), mlp_weights(z, "code_b1_"))
    assert_weights(step(z, monkeypatch, batches=2), mlp_weights(z, "code_b2_"))


def test_released_code_with_gradients_reset_is_reproduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over each batch alone begins without gradients."""
    z = golden("jit_step")
    first = step(z, monkeypatch, batches=1)
    both = step(z, monkeypatch, batches=slice(1, 2), model=first)
    assert_weights(both, mlp_weights(z, "fixed_b2_"))


def test_loss_of_the_released_code_at_the_first_batch() -> None:
    z = golden("jit_step")
    inputs, noise = (torch.from_numpy(z[name][0]) for name in ("x", "noise"))
    noise *= float(z["sigma"])
    ratios = jit.lipschitz_ratios(tanh_mlp(z), inputs, noise, form="released").detach()
    assert float(ratios.sum()) == pytest.approx(float(z["code_loss"][0]), abs=1e-9)


def test_sigma_counts_standard_deviations_of_the_inputs() -> None:
    """Perturbing raw pixels of a model that normalises equals perturbing normalised inputs of the rest."""
    z = golden("jit_step")
    rest = tanh_mlp(z)
    mean = torch.tensor([0.4, 0.5, 0.2], dtype=torch.float64).view(1, -1, 1, 1)
    std = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(1, -1, 1, 1)
    raw, noise = (torch.from_numpy(z[name][0]) for name in ("x", "noise"))

    def model(images: Tensor) -> Tensor:
        return rest((images - mean) / std)

    for form in FORMS:
        inside = jit.lipschitz_ratios(rest, (raw - mean) / std, noise, form=form)
        outside = jit.lipschitz_ratios(model, raw, noise, mean, std, form)
        torch.testing.assert_close(outside, inside)


def test_rate_counts_sigmas_unless_it_is_given(problem: Any, original: Any, split: Split) -> None:
    """At a `sigma` of 0.5 a rate of 3e-4 is 6e-4 for each unit of it, and published so."""
    ends = []
    for knobs in ({}, {"lr": 3e-4}, {"lr_per_sigma": 6e-4}, {"lr": 3e-4, "lr_per_sigma": 1.0}):
        edited = problem.load(original)
        for _ in jit.unlearn(edited, split, generator(0), **knobs):  # type: ignore[arg-type]
            pass
        ends.append(nn.utils.parameters_to_vector(edited.parameters()))
    assert all(torch.equal(ends[0], end) for end in ends)


def test_batch_norm_is_warned_of_before_the_start_and_in_the_trial(
    model: nn.Module, split: Split
) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(split.forget.inputs[0].numel(), 4))
    jit.check(plain, split)
    assert split.diagnostics.warnings == []
    jit.check(model, split)
    assert split.diagnostics.warnings == [jit.BATCH_NORM]
    split.memo.start([0])
    next(jit.unlearn(model, split, generator(0)))
    assert split.diagnostics.warnings == [jit.BATCH_NORM]


def test_clipping_limits_the_length_of_a_step(model: nn.Module, split: Split) -> None:
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    for _ in jit.unlearn(model, split, generator(0), lr=1.0, clip_norm=1e-3):
        pass
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_norm_statistics_move_in_train_mode_only(
    model: nn.Module, split: Split, mode: Any
) -> None:
    before = {name: value.clone() for name, value in model.named_buffers()}
    for _ in jit.unlearn(model, split, generator(0), mode=mode):
        pass
    moved = any(not torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert moved == (mode == "train")


def test_labels_are_not_read(model: nn.Module, problem: Any, original: Any, split: Split) -> None:
    wrong = Examples(split.forget.inputs, torch.full_like(split.forget.labels, 10**9))
    unlabelled = Split(
        {"forget": wrong},
        split.num_classes,
        input_mean=split.input_mean,
        input_std=split.input_std,
    )
    other = problem.load(original)
    for edited, given in ((model, split), (other, unlabelled)):
        for _ in jit.unlearn(edited, given, generator(0), lr=1e-2):
            pass
    for one, two in zip(model.parameters(), other.parameters()):
        assert torch.equal(one, two)
