"""IU: exact and official steps against the golden vectors, their sign, and solving in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn
from torch.nn import functional as F

from mu import gradients
from mu.data import Examples
from mu.evaluate import predict
from mu.gradients import flatten
from mu.methods import iu
from mu.rng import generator
from mu.split import Split


def golden_problem() -> tuple[nn.Module, Split]:
    z = golden("iu_woodfisher")
    classes, inputs = z["W"].shape
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).double()
    model.load_state_dict({"1.weight": torch.tensor(z["W"]), "1.bias": torch.tensor(z["b"])})
    parts = {
        name: Examples(torch.from_numpy(z[f"X{name[0]}"]), torch.from_numpy(z[f"Y{name[0]}"]))
        for name in ("retain", "forget")
    }
    return model, Split(parts, num_classes=classes)


def moved_by(**knobs: Any) -> np.ndarray:
    """Return how `unlearn` moves the golden model's weights [P]."""
    model, split = golden_problem()
    before = vector(model)
    assert len(list(iu.unlearn(model, split, generator(0), **knobs))) == 1
    return (vector(model) - before).numpy()


def vector(model: nn.Module) -> Tensor:
    return flatten([weight.detach() for weight in model.parameters()]).clone()


def test_direction_is_forgotten_minus_retained_gradient() -> None:
    known = iu.measure(*golden_problem(), 1000, generator(0))
    np.testing.assert_allclose(known.direction, golden("iu_woodfisher")["v"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("damping", "name"), [(1.0, "lambda1"), (0.01, "lambda0.01")])
def test_step_solves_the_damped_system(damping: float, name: str) -> None:
    expected = golden("iu_woodfisher")[f"delta_woodfisher_{name}"]
    np.testing.assert_allclose(moved_by(alpha=1.0, damping=damping), expected, rtol=0, atol=1e-9)


def test_step_is_plus_alpha_times_the_solution() -> None:
    expected = golden("iu_woodfisher")["delta_woodfisher_lambda1"]
    np.testing.assert_allclose(moved_by(alpha=5.0), 5 * expected, rtol=0, atol=1e-9)


def test_official_function_is_reproduced() -> None:
    z = golden("iu_woodfisher")
    step = moved_by(alpha=1.0, first_order_official=True)
    np.testing.assert_allclose(step, z["delta_official"], rtol=0, atol=1e-9)
    start = np.concatenate([z["W"].ravel(), z["b"]])
    step = moved_by(alpha=float(z["alpha"]), first_order_official=True)
    np.testing.assert_allclose(start + step, z["theta_official"], rtol=0, atol=1e-9)


def test_official_function_is_first_order() -> None:
    """Its result is nearly the plain gradient, far from the inverse that it claims to apply."""
    z = golden("iu_woodfisher")
    official, exact = (moved_by(alpha=1.0, first_order_official=flag) for flag in (True, False))
    length = np.linalg.norm
    assert length(official - z["v"]) < 0.1 * length(z["v"])
    assert length(official - exact) > 0.3 * length(exact)


@pytest.mark.parametrize("official", [False, True])
def test_a_step_raises_the_forgotten_loss(model: nn.Module, split: Split, official: bool) -> None:
    def loss() -> float:
        logits = torch.from_numpy(predict(model, split.forget))
        return F.cross_entropy(logits, split.forget.labels).item()

    before = loss()
    for _ in iu.unlearn(model, split, generator(0), alpha=0.5, first_order_official=official):
        pass
    assert loss() > before


def test_solution_does_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = golden_problem()
    whole = iu.measure(model, split, 1000, generator(0))
    monkeypatch.setattr(gradients, "MEMORY", 3 * 8 * len(whole.direction))
    assert [len(part) for part in gradients.chunks(model, 7)] == [3, 3, 1]
    pieces = iu.measure(model, split, 1000, generator(0))
    torch.testing.assert_close(pieces.products, whole.products, rtol=0, atol=1e-12)
    torch.testing.assert_close(pieces.projections, whole.projections, rtol=0, atol=1e-12)


def test_a_limit_takes_a_random_subset(model: nn.Module, split: Split) -> None:
    known = iu.measure(model, split, 10, generator(0))
    assert len(known.examples) == len(known.projections) == 10
    other = iu.measure(model, split, 10, generator(1))
    assert not torch.equal(known.examples.inputs, other.examples.inputs)
