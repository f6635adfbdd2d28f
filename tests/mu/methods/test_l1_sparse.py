"""l1-sparse: the penalty, its schedule, and the steps of the official code."""

from __future__ import annotations

import pytest
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch.nn import functional as F

from mu.data import Examples
from mu.methods import l1_sparse
from mu.rng import generator
from mu.split import Split


def golden_split() -> Split:
    z = golden("l1_ft_ga")
    retain = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    return Split({"retain": retain}, num_classes=len(z["theta0_fc2_bias"]))


def test_penalty_falls_linearly_and_ends_before_the_free_epochs() -> None:
    z = golden("l1_ft_ga")
    epochs, free = int(z["E"]), int(z["n0"])
    weights = [l1_sparse.penalty(float(z["gamma"]), epoch, epochs, free) for epoch in range(epochs)]
    assert weights == pytest.approx(z["alpha_sched"].tolist(), abs=1e-12)
    assert [l1_sparse.penalty(1.0, epoch, 3, 3) for epoch in range(3)] == [0.0] * 3


def test_objective_counts_all_weights_and_biases() -> None:
    z = golden("l1_ft_ga")
    model = tanh_mlp(z, "theta0_")
    norm = l1_sparse.l1_norm(model).item()
    assert norm == pytest.approx(float(z["l1_norm0"]), abs=1e-10)
    retain = golden_split().retain
    entropy = F.cross_entropy(model(retain.inputs), retain.labels).item()
    expected = [entropy + weight * norm for weight in z["alpha_sched"].tolist()]
    assert expected == pytest.approx(z["objective"].tolist(), abs=1e-10)


@pytest.mark.parametrize("epoch", range(5))
def test_one_step_at_each_epochs_penalty_is_that_of_the_official_code(epoch: int) -> None:
    z = golden("l1_ft_ga")
    model = tanh_mlp(z, "theta0_")
    steps = l1_sparse.unlearn(
        model,
        golden_split(),
        generator(0),
        epochs=1,
        gamma=float(z["alpha_sched"][epoch]),
        lr=float(z["lr"]),
        augment=False,
    )
    assert len(list(steps)) == 1
    for name, value in mlp_weights(z, "l1_step_", epoch).items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-10)


def test_free_epochs_take_plain_steps() -> None:
    split = golden_split()
    model = tanh_mlp(golden("l1_ft_ga"), "theta0_")
    steps = l1_sparse.unlearn(
        model,
        split,
        generator(0),
        epochs=2,
        free_epochs=1,
        gamma=0.1,
        lr=0.5,
        momentum=0.0,
        weight_decay=0.0,
        augment=False,
    )
    next(steps)
    before = [weight.detach().clone() for weight in model.parameters()]
    loss = F.cross_entropy(model(split.retain.inputs), split.retain.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    next(steps)
    for weight, start, gradient in zip(model.parameters(), before, gradients):
        torch.testing.assert_close(weight.detach(), start - 0.5 * gradient, rtol=0, atol=1e-12)


def test_penalty_thins_the_network_out() -> None:
    z = golden("l1_ft_ga")
    norms = []
    for gamma in (0.0, 0.05):
        model = tanh_mlp(z, "theta0_")
        for _ in l1_sparse.unlearn(
            model, golden_split(), generator(0), epochs=20, gamma=gamma, lr=0.1, augment=False
        ):
            pass
        norms.append(l1_sparse.l1_norm(model).item())
    assert norms[1] < 0.8 * norms[0]
