"""Gradient Surgery: the golden projection, penalty and trace; up for the forgotten loss, level for the retained."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples
from mu.methods import gradient_surgery
from mu.rng import generator
from mu.split import Split
from mu.training import make_optimizer, one_pass

TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def test_projection_is_the_golden_one() -> None:
    z = golden("b_gradient_surgery")
    for row, (forgotten, retained) in enumerate(zip(z["g_f"], z["g_r"])):
        part = gradient_surgery.orthogonal_part(*map(torch.from_numpy, (forgotten, retained)))
        np.testing.assert_allclose(part, z["g_perp"][row], rtol=1e-7, atol=1e-10)
        if row in (1, 2):  # parallel and anti-parallel
            assert float(part.abs().max()) < 1e-12


def test_without_a_retained_gradient_there_is_no_projection() -> None:
    forgotten = torch.tensor([1.0, 2.0])
    for retained in (torch.zeros(2), torch.tensor([1e-9, 0])):
        assert torch.equal(gradient_surgery.orthogonal_part(forgotten, retained), forgotten)


def golden_network() -> nn.Sequential:
    z = golden("b_gradient_surgery")
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    names = zip(("0.weight", "0.bias", "2.weight", "2.bias"), ("w0", "b0", "w1", "b1"))
    model.load_state_dict({name: torch.from_numpy(z[f"net_{key}"]) for name, key in names})
    return model


def flat(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_steps_follow_the_released_code() -> None:
    z = golden("b_gradient_surgery")
    model = golden_network()
    batches = {key: torch.from_numpy(z[key]) for key in ("Xf", "Yf", "Xr", "Yr")}
    stepper = make_optimizer(model, "sgd", float(z["ascent_lr"]), float(z["ascent_momentum"]))
    for step in range(3):
        forget = batches["Xf"][step], batches["Yf"][step]
        retain = batches["Xr"][step], batches["Yr"][step]
        loss = F.cross_entropy(model(forget[0]), forget[1]).detach()
        assert float(loss) == pytest.approx(float(z["forget_loss_trace"][step]), rel=1e-7)
        gradient_surgery.ascend(model, stepper, forget, retain)
        update = torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        np.testing.assert_allclose(update, z["orth_update_trace"][step], rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(flat(model), z["param_trace"][step], rtol=1e-7)
    stepper = make_optimizer(
        model, "adamw", float(z["descent_lr"]), weight_decay=float(z["descent_wd"])
    )

    def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
        penalty = gradient_surgery.elastic_net(model.parameters(), float(z["descent_l1"]))
        return F.cross_entropy(logits, labels) + penalty

    for step in range(2):
        inputs, labels = batches["Xr"][step], batches["Yr"][step]
        loss = loss_of(model(inputs), labels).detach()
        assert float(loss) == pytest.approx(float(z["descent_loss_trace"][step]), rel=1e-7)
        one_pass(model, stepper, Examples(inputs, labels), generator(0), 10, loss_of)
        np.testing.assert_allclose(flat(model), z["param_trace"][3 + step], rtol=1e-7)


def test_penalties_and_their_gradients_are_the_golden_ones() -> None:
    z = golden("b_elastic_net")
    names = ("W", "b", "V", "c")
    weights = [torch.from_numpy(z[name]).requires_grad_() for name in names]
    value = gradient_surgery.elastic_net(weights, float(z["lmb_official"]))
    np.testing.assert_allclose(value.detach(), z["l1_term_official"], **TIGHT)
    for name, gradient in zip(names, torch.autograd.grad(value, weights)):
        np.testing.assert_allclose(gradient, z[f"grad_official_{name}"], **TIGHT)
    unit = gradient_surgery.elastic_net(weights, 1.0, l1_reduction="sum").detach()
    np.testing.assert_allclose(unit, z["l1_norm"], **TIGHT)
    l1, l2 = float(z["lambda1"]), float(z["lambda2"])
    half = gradient_surgery.elastic_net(weights, l1, l2, "sum").detach()
    np.testing.assert_allclose(half, z["elastic_half"], **TIGHT)
    whole = gradient_surgery.elastic_net(weights, l1, 2 * l2, "sum")
    np.testing.assert_allclose(whole.detach(), z["elastic_sum"], **TIGHT)
    gradient = torch.autograd.grad(whole, weights[2])[0]
    np.testing.assert_allclose(gradient, z["grad_elastic_sum_V"], **TIGHT)


def test_ascent_raises_the_forgotten_loss_and_keeps_the_retained_to_first_order() -> None:
    z = golden("b_gradient_surgery")
    forget = torch.from_numpy(z["Xf"][0]), torch.from_numpy(z["Yf"][0])
    retain = torch.from_numpy(z["Xr"][0]), torch.from_numpy(z["Yr"][0])
    changes = []
    for lr in (1e-3, 1e-4):
        model = golden_network()
        before = [F.cross_entropy(model(x), y).detach() for x, y in (forget, retain)]
        stepper = make_optimizer(model, "sgd", lr, momentum=0.0)
        gradient_surgery.ascend(model, stepper, forget, retain)
        after = [F.cross_entropy(model(x), y).detach() for x, y in (forget, retain)]
        changes.append([float(new - old) for old, new in zip(before, after)])
    (far_forget, far_retain), (near_forget, near_retain) = changes
    assert far_forget > 0 and near_forget > 0
    assert far_forget / near_forget == pytest.approx(10, rel=0.05)  # first order
    assert far_retain / near_retain == pytest.approx(100, rel=0.05)  # second order


def test_frozen_weights_stay_and_shift_no_others(model: nn.Module, split: Split) -> None:
    """The released code collects trainable gradients only, but writes them back counting all weights."""
    first, *others = model.parameters()
    first.requires_grad_(False)
    kept = first.clone()
    batch = split.forget.batch(slice(0, 16)), split.retain.batch(slice(0, 16))
    expected = copy.deepcopy(model)
    for network in (model, expected):
        gradient_surgery.ascend(network, make_optimizer(network, "sgd", 0.1), *batch)
    assert torch.equal(first, kept)
    assert all(weight.grad is not None and weight.grad.any() for weight in others)


def test_rate_falls_after_each_epoch(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(gradient_surgery, "set_lr", lambda stepper, lr: rates.append(lr))
    for _ in gradient_surgery.unlearn(
        model, split, generator(0), epochs=3, lr=0.01, lr_gamma=0.5, ascent_passes=0
    ):
        pass
    assert rates == [0.01, 0.005, 0.0025]
