"""SCRUB: its two losses, the steps of the official code, the schedule, and the teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, mlp_weights, tanh_mlp
from torch import Tensor, nn

from mu.data import Examples
from mu.evaluate import predict
from mu.methods import scrub
from mu.rng import generator
from mu.split import Split
from mu.training import one_pass


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Return the model's state after each pass of max or min steps."""
    seen: list[dict[str, Tensor]] = []

    def spy(model: nn.Module, *args: Any, **kwargs: Any) -> None:
        one_pass(model, *args, **kwargs)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(scrub, "one_pass", spy)
    return seen


def test_distillation_and_its_gradient() -> None:
    z = golden("scrub")
    student, teacher = (
        torch.tensor(z["z_student"], requires_grad=True),
        torch.tensor(z["z_teacher"]),
    )
    loss = scrub.distillation(student, teacher, float(z["kd_T"]))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(float(z["kd"]), abs=1e-10)
    np.testing.assert_allclose(gradient, z["grad_kd"], rtol=0, atol=1e-10)


def test_squared_temperature_keeps_gradients_alike_when_answers_soften() -> None:
    z = golden("scrub")
    lengths = []
    for temperature in (10.0, 20.0):
        student = torch.tensor(z["z_student"], requires_grad=True)
        loss = scrub.distillation(student, torch.tensor(z["z_teacher"]), temperature)
        lengths.append(float(torch.autograd.grad(loss, student)[0].norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.1)


def test_max_and_min_steps_are_those_of_the_official_code(
    passes: list[dict[str, Tensor]],
) -> None:
    """The student starts off the teacher, whose answers are put where `unlearn` looks for them."""
    z = golden("scrub")
    teacher, student = tanh_mlp(z, "theta0_"), tanh_mlp(z, "start_")
    parts = {
        name: Examples(torch.from_numpy(z[f"X{name[0]}"]), torch.from_numpy(z[f"Y{name[0]}"]))
        for name in ("retain", "forget")
    }
    split = Split(parts, num_classes=len(z["theta0_fc2_bias"]))
    for name, examples in parts.items():
        answers = teacher(examples.inputs).detach()
        split.cached(f"original logits: {name}", lambda draws, answers=answers: answers)
    steps = scrub.unlearn(
        student,
        split,
        generator(0),
        epochs=1,
        max_epochs=1,
        lr=float(z["step_lr"]),
        alpha=float(z["alpha"]),
        gamma=float(z["gamma"]),
        temperature=float(z["kd_T"]),
    )
    assert len(list(steps)) == 1
    for state, prefix in zip(passes, ("step_max_", "step_min_")):
        for name, value in mlp_weights(z, prefix).items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-10)


def test_learning_rate_falls_after_epochs_3_5_and_9(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(scrub, "set_lr", lambda stepper, lr: rates.append(lr))
    for _ in scrub.unlearn(model, split, generator(0), epochs=10):
        pass
    np.testing.assert_allclose(rates, golden("scrub")["lr_sched"], rtol=1e-12)


def test_max_steps_end_after_their_epochs(
    model: nn.Module, split: Split, passes: list[dict[str, Tensor]]
) -> None:
    for _ in scrub.unlearn(model, split, generator(0), epochs=5, max_epochs=2):
        pass
    assert len(passes) == 5 + 2


def test_the_teacher_is_not_the_student(model: nn.Module, split: Split) -> None:
    before = predict(model, split.forget)
    for _ in scrub.unlearn(model, split, generator(0), lr=1e-2, forget_batch_size=8):
        pass

    def never(draws: torch.Generator) -> Tensor:
        raise AssertionError("not computed before")

    assert np.array_equal(split.cached("original logits: forget", never).numpy(), before)
    moved = torch.from_numpy(predict(model, split.forget))
    assert float(scrub.distillation(moved, torch.from_numpy(before), 4.0)) > 0.1


def test_first_max_step_has_no_gradient_where_the_student_answers_as_the_teacher(
    model: nn.Module, split: Split, passes: list[dict[str, Tensor]]
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in scrub.unlearn(
        model,
        split,
        generator(0),
        epochs=1,
        lr=1.0,
        momentum=0.0,
        weight_decay=0.0,
        forget_batch_size=len(split.forget),
        mode="eval",
    ):
        pass
    for name, value in passes[0].items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_max_steps_move_statistics_of_batch_norm_in_train_mode_only(
    model: nn.Module, split: Split, passes: list[dict[str, Tensor]], mode: Any
) -> None:
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    for _ in scrub.unlearn(model, split, generator(0), epochs=1, mode=mode):
        pass
    moved = {not torch.equal(passes[0][name], value) for name, value in before.items()}
    assert moved == {mode == "train"}
    assert all(not torch.equal(passes[1][name], value) for name, value in before.items())
