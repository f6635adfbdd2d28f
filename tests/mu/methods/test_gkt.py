"""GKT: the released losses and filter, a teacher that stays as it was, and images it does not take for the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn

from mu.data import Examples
from mu.methods import gkt
from mu.models import frozen_copy
from mu.rng import generator
from mu.split import Split

SHORT: dict[str, Any] = {
    "epochs": 1,
    "rounds": 3,
    "student_steps": 2,
    "batch_size": 32,
    "latent_size": 8,
    "generator_width": 8,
}


def tensors(*names: str) -> list[Tensor]:
    z = golden("gkt")
    return [torch.from_numpy(z[name]) for name in names]


def test_filter_keeps_the_golden_samples() -> None:
    z = golden("gkt")
    kept = gkt.gate(torch.from_numpy(z["z_teacher"]), int(z["forget_class"]), float(z["eps"]))
    np.testing.assert_array_equal(kept, z["keep"].astype(bool))


def test_divergence_is_a_mean_over_samples_and_classes() -> None:
    z = golden("gkt")
    value = gkt.divergence(*tensors("z_student", "z_teacher"))
    assert float(value) == pytest.approx(float(z["div"]), abs=1e-10)
    assert -float(value) == pytest.approx(float(z["gen_loss"]), abs=1e-10)


def test_attention_maps_and_losses_are_the_golden_ones() -> None:
    z = golden("gkt")
    student, teacher = (
        [gkt.attention(a) for a in tensors(f"act_{who}0", f"act_{who}1")] for who in "st"
    )
    np.testing.assert_allclose(teacher[0], z["attention_t0"], rtol=0, atol=1e-10)
    for ours, theirs, expected in zip(student, teacher, z["att"]):
        value = gkt.attention_difference([ours], [theirs])
        assert float(value) == pytest.approx(float(expected), abs=1e-10)
    divergence = gkt.divergence(*tensors("z_student", "z_teacher"))
    for beta, expected in zip(z["betas"].tolist(), z["student_loss"]):
        value = divergence + beta * gkt.attention_difference(student, teacher)
        assert float(value) == pytest.approx(float(expected), abs=1e-10)


def test_attention_is_taken_at_each_call_of_an_activation_layer(
    model: nn.Module, split: Split
) -> None:
    inputs = split.forget.batch(slice(0, 4))[0]
    logits, maps = gkt.logits_and_attention(model.eval(), inputs)
    assert torch.equal(logits, model(inputs))
    assert [tuple(each.shape) for each in maps] == [(4, 64), (4, 64), (4, 16)]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Collect the teachers of the runs to come."""
    made: list[nn.Module] = []

    def keep(model: nn.Module) -> nn.Module:
        made.append(frozen_copy(model))
        return made[-1]

    monkeypatch.setattr(gkt, "frozen_copy", keep)
    return made


def run(model: nn.Module, split: Split, **knobs: Any) -> None:
    for _ in gkt.unlearn(model, split.only(gkt.NEEDS), generator(0), **{**SHORT, **knobs}):
        pass


def test_teacher_stays_as_the_original_was(
    model: nn.Module, split: Split, teachers: list[nn.Module]
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, split, epsilon=1.0)
    assert not teachers[0].training
    assert all(torch.equal(v, before[name]) for name, v in teachers[0].state_dict().items())


def test_student_is_trained_only_on_images_that_pass_the_filter(
    model: nn.Module, split: Split, teachers: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    inner = gkt.logits_and_attention

    def watch(network: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        seen.append(inputs)
        return inner(network, inputs)

    monkeypatch.setattr(gkt, "logits_and_attention", watch)
    run(model, split, epsilon=0.05)
    assert seen
    for inputs in seen:
        probability = teachers[0](inputs).softmax(1)[:, split.forget_class]
        assert float(probability.detach().max()) <= 0.05 + 1e-6
        assert len(inputs) < SHORT["batch_size"]


def test_an_empty_filter_ends_with_a_fresh_student(model: nn.Module, split: Split) -> None:
    before = {name: value.clone() for name, value in model.named_parameters()}
    run(model, split, epsilon=0.0)
    for name, weight in model.named_parameters():
        assert weight.isfinite().all()
        if weight.ndim > 1:
            assert not torch.isclose(weight, before[name]).any(), f"{name} is not redrawn"


def test_never_looks_at_an_image(model: nn.Module, split: Split) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}
    ends = []
    for fill in (0, 7):
        model.load_state_dict(start)
        forget = Examples(torch.full_like(split.forget.inputs, fill), split.forget.labels)
        run(model, Split({"forget": forget}, split.num_classes, split.forget_class), epsilon=1.0)
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 7, 10)])
def test_generated_images_have_the_shape_and_scale_of_normalised_inputs(
    shape: tuple[int, int, int],
) -> None:
    torch.manual_seed(0)
    images = gkt.image_generator(8, 16, shape)(torch.randn(64, 8))
    assert images.shape == (64, *shape)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(shape[0]), atol=0.01, rtol=0)
    torch.testing.assert_close(
        images.std((0, 2, 3), unbiased=False), torch.ones(shape[0]), atol=0.01, rtol=0
    )
