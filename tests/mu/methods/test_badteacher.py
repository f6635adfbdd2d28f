"""BadTeacher: its divergence, who the teachers are, and how much of the data is used."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn

from mu.evaluate import predict
from mu.methods import badteacher
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split
from mu.training import count_samples


@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_divergence_and_its_gradient(reduction: badteacher.Reduction) -> None:
    z = golden("badteacher")
    forgotten = torch.from_numpy(z["is_forget"]).bool()[:, None]
    teacher = torch.where(forgotten, torch.from_numpy(z["z_bad"]), torch.from_numpy(z["z_full"]))
    for row, temperature in enumerate(z["temps"].tolist()):
        student = torch.tensor(z["z_student"], requires_grad=True)
        loss = badteacher.divergence(student, teacher, temperature, reduction)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.item() == pytest.approx(float(z[f"loss_{reduction}"][row]), abs=1e-10)
        np.testing.assert_allclose(gradient, z[f"grad_{reduction}"][row], rtol=0, atol=1e-10)


def test_mean_divides_by_the_classes_and_there_is_no_squared_temperature() -> None:
    z = golden("badteacher")
    student, teacher = torch.from_numpy(z["z_student"]), torch.from_numpy(z["z_full"])
    by_sample, by_entry = (
        badteacher.divergence(student, teacher, 2.0, reduction)
        for reduction in ("batchmean", "mean")
    )
    torch.testing.assert_close(by_entry * student.shape[1], by_sample)
    halved = badteacher.divergence(student / 2, teacher / 2, 1.0)
    torch.testing.assert_close(by_sample, halved)


def test_teachers_answer_before_the_student_moves(model: nn.Module, split: Split) -> None:
    before = predict(model, split.retain)
    for _ in badteacher.unlearn(model, split, generator(0), lr=1e-2, epochs=2):
        pass

    def never(draws: torch.Generator) -> Tensor:
        raise AssertionError("not computed before")

    kept = split.cached("original logits: retain", never)
    assert np.array_equal(kept.numpy(), before)
    assert not np.allclose(predict(model, split.retain), before)


def test_bad_teacher_is_another_network_and_logs_its_entropy(
    model: nn.Module, split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    before = copy.deepcopy(weights_of(model))
    with caplog.at_level(logging.INFO, logger="mu.methods.badteacher"):
        logits = badteacher.random_logits(model, split, generator(0))
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())
    assert not np.allclose(logits, predict(model, split.forget), atol=0.1)
    assert torch.equal(logits, badteacher.random_logits(model, split, generator(0)))
    assert "mean entropy" in caplog.text


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_uses_the_forgotten_data_and_a_share_of_the_retained(
    model: nn.Module, split: Split, fraction: float
) -> None:
    counter = count_samples(model)
    for _ in badteacher.unlearn(model, split, generator(0), retain_fraction=fraction):
        pass
    assert counter[0] == int(fraction * len(split.retain)) + len(split.forget)
