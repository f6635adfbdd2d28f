"""SalUn: which weights are salient, how the others stay what they were, and the random labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import Tensor, nn

from mu.data import Examples
from mu.gradients import unflatten
from mu.methods import salun
from mu.rng import generator
from mu.split import Split
from mu.training import make_optimizer

DRAWS = 5000
NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


def golden_saliency() -> tuple[nn.Module, Tensor]:
    z = golden("salun")
    model = tanh_mlp(z)
    forget = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    return model, salun.saliency(model, forget, int(z["bs"]))


def test_saliency_is_the_absolute_sum_of_batch_gradients() -> None:
    z = golden("salun")
    model, strength = golden_saliency()
    for name, value in zip(NAMES, unflatten(strength, model)):
        expected = np.abs(z[f"grad_{name.replace('.', '_')}"])
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10)


def test_masks_keep_the_largest_over_all_weights_jointly() -> None:
    z = golden("salun")
    model, strength = golden_saliency()
    for row, ratio in enumerate(z["ratios"].tolist()):
        mask = salun.largest(strength, ratio)
        assert int(mask.sum()) == int(len(strength) * ratio)
        for name, part in zip(NAMES, unflatten(mask, model)):
            assert np.array_equal(part, z[f"mask_{name.replace('.', '_')}"][row].astype(bool))


@pytest.mark.parametrize(
    ("expected", "optimizer", "restore"),
    [
        ("upd_restore_", "sgd", True),
        ("upd_gradmask_", "sgd", False),
        ("upd_adamw_gradmask_", "adamw", False),
    ],
)
def test_masked_steps_are_those_of_both_codes(expected: str, optimizer: str, restore: bool) -> None:
    z = golden("salun")
    model, strength = golden_saliency()
    masks = unflatten(salun.largest(strength, float(z["upd_ratio"])), model)
    frozen = [weight.detach().clone() for weight in model.parameters()]
    stepper = make_optimizer(model, optimizer, float(z["upd_lr"]), 0.9, 5e-4)
    for step in range(2):
        for name, weight in model.named_parameters():
            weight.grad = torch.tensor(z[f"stepgrad_{name.replace('.', '_')}"][step])
        salun.masked_step(model, stepper, masks, frozen if restore else None)
    for name, value in mlp_weights(z, expected).items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("restore", [True, False])
def test_frozen_weights_are_bit_identical_in_spite_of_adamw_and_decay(
    model: nn.Module, split: Split, restore: bool
) -> None:
    before = [weight.detach().clone() for weight in model.parameters()]
    strength = salun.saliency(model, split.forget, 256)
    masks = unflatten(salun.largest(strength, 0.3), model)
    for _ in salun.unlearn(
        model,
        split,
        generator(0),
        epochs=3,
        ratio=0.3,
        lr=1e-2,
        optimizer="adamw",
        weight_decay=0.1,
        restore=restore,
    ):
        pass
    same = [w.detach() == value for w, value in zip(model.parameters(), before)]
    assert all(bool(kept[~mask].all()) for kept, mask in zip(same, masks)) == restore
    moved = torch.cat([(~kept)[mask] for kept, mask in zip(same, masks)])
    assert moved.float().mean() > 0.9


def test_statistics_of_batch_norm_are_never_frozen(model: nn.Module, split: Split) -> None:
    before = [value.clone() for name, value in model.named_buffers() if "running" in name]
    for _ in salun.unlearn(model, split, generator(0), epochs=1, ratio=0.01):
        pass
    after = [value for name, value in model.named_buffers() if "running" in name]
    assert all(not torch.equal(one, other) for one, other in zip(before, after))


@pytest.mark.parametrize(("labels", "expected"), [("any", "P_salun"), ("other", "P_uniform_other")])
def test_random_labels_have_the_stated_distribution(labels: Any, expected: str) -> None:
    z = golden("amnesiac_property")
    own = torch.from_numpy(z["y_forget"])
    forget = Examples(torch.zeros(len(own) * DRAWS, 1), own.repeat(DRAWS))
    split = Split({"forget": forget}, num_classes=len(z["retain_counts"]))
    drawn = salun.random_labels(split, labels, generator("draws", labels))
    seen = torch.stack(
        [torch.bincount(row, minlength=split.num_classes) for row in drawn.view(DRAWS, -1).T]
    )
    wanted = z[expected]
    spread = np.sqrt(wanted * (1 - wanted) / DRAWS)
    assert (np.abs(seen.numpy() / DRAWS - wanted) <= 4.5 * spread).all()


@pytest.mark.parametrize(("redraw", "times"), [(False, 1), (True, 3)])
def test_labels_are_drawn_once_or_in_each_epoch(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch, redraw: bool, times: int
) -> None:
    drawn: list[Tensor] = []

    def spy(*args: Any) -> Tensor:
        drawn.append(random_labels(*args))
        return drawn[-1]

    random_labels = salun.random_labels
    monkeypatch.setattr(salun, "random_labels", spy)
    for _ in salun.unlearn(model, split, generator(0), epochs=3, redraw=redraw):
        pass
    assert len(drawn) == times
    assert len({tuple(labels.tolist()) for labels in drawn}) == times
