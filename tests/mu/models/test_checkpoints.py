"""Weights from files: what is accepted, what does not fit, and weights to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
from torch import nn
from toy import toy_problem, toy_reference

from mu.models import ModelSpec, build, checkpoints, head, resolve
from mu.models.architectures import MODELS
from sweeps import preflight
from sweeps.errors import StudyError
from sweeps.study import study


def network(seed: int = 0) -> nn.Module:
    """Return the bare `toy_cnn`, as a user has it."""
    torch.manual_seed(seed)
    return MODELS["toy_cnn"]((3, 8, 8), 4)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(network(seed).state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"net": state, "acc": 0.5},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{n}": v for n, v in state.items()}},
        lambda state: {name: value.half().float() for name, value in state.items()},
    ],
)
def test_usual_checkpoints_load_into_the_inner_network(wrap: Any, tmp_path: Path) -> None:
    saved = state(seed=3)
    saved = {n: v.half().float() if v.is_floating_point() else v for n, v in saved.items()}
    torch.save(wrap(saved), tmp_path / "model.pt")
    problem = toy_problem()
    weights = problem.read(tmp_path / "model.pt")
    loaded = problem.load(weights)
    assert all(torch.equal(value, saved[n]) for n, value in loaded[1].state_dict().items())  # type: ignore[index]
    assert weights.keys() == toy_reference("original").keys()


def test_a_model_that_computes_in_bf16_takes_the_same_files(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    usual = toy_problem()
    mixed = replace(usual, recipe=replace(usual.recipe, precision="bf16"))
    one, other = (problem.read(tmp_path / "model.pt") for problem in (usual, mixed))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_half_precision_becomes_that_of_the_network(tmp_path: Path) -> None:
    torch.save({n: v.half() for n, v in state().items()}, tmp_path / "model.pt")
    weights = toy_problem().read(tmp_path / "model.pt")
    assert {value.dtype for value in weights.values()} == {np.dtype("f4"), np.dtype("i8")}


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: cannot be read as a state dict of tensors"):
        checkpoints.read(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state().items() if key != name}


MISFITS: dict[str, tuple[Any, str]] = {
    "a whole model": (network(), "cannot be read as a state dict of tensors (UnpicklingError)"),
    "settings of a program": (
        {"state_dict": state(), "args": argparse.Namespace(lr=1)},
        "cannot be read as a state dict of tensors (UnpicklingError); write it with torch.save",
    ),
    "a list": ([1, 2], "holds no state dict, but list"),
    "nothing": ({}, "holds no state dict, but dict"),
    "another wrapper": ({"weights": state()}, "holds no state dict: `weights` is dict"),
    "a shape": (
        state() | {"12.weight": torch.zeros(10, 16)},
        "`12.weight` has the shape [10, 16], but the model's has [4, 16]",
    ),
    "a first shape": (
        state() | {"12.weight": torch.zeros(10, 16), "0.weight": torch.zeros(4, 1, 3, 3)},
        "`0.weight` has the shape [4, 1, 3, 3], but the model's has [4, 3, 3, 3]",
    ),
    "a name too few": (without("3.weight"), "lacks `3.weight` [8, 4, 3, 3] of the model"),
    "another name": (
        without("12.weight") | {"fc.weight": torch.zeros(4, 16)},
        "lacks `12.weight` [4, 16] of the model; it has `fc.weight` [4, 16]",
    ),
    "a name too many": (
        state() | {"fc.weight": torch.zeros(7)},
        "has `fc.weight` [7], which the model lacks",
    ),
    "not a number": (
        state() | {"12.bias": torch.full((4,), torch.nan)},
        "`12.bias` holds values that are not finite",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_names_the_first_difference(name: str, tmp_path: Path) -> None:
    content, expected = MISFITS[name]
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        toy_problem().read(tmp_path / "model.pt")
    assert str(error.value).startswith(f"{tmp_path / 'model.pt'}: ")
    assert expected in str(error.value)


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no checkpoint at all")
    for read in (checkpoints.read, checkpoints.digest):
        with pytest.raises(ValueError, match=r"missing.pt: cannot be read: No such file"):
            read(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match=r"model.pt: cannot be read as a state dict"):
        checkpoints.read(tmp_path / "model.pt")
    whole = tmp_path / "whole.pt"
    torch.save(state(), whole)
    whole.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"whole.pt: cannot be read as a state dict"):
        checkpoints.read(whole)


# Pretrained weights


def spec_with(weights: Mapping[str, torch.Tensor], path: Path, name: str = "toy_cnn") -> ModelSpec:
    torch.save(dict(weights), path)
    return ModelSpec(name, weights=str(path))


def test_pretrained_weights_are_what_training_begins_with(tmp_path: Path) -> None:
    model = resolve(spec_with(state(seed=5), tmp_path / "w.pt"))
    problem = replace(toy_problem(), model=model)
    for seed in (0, 1):
        built = replace(problem, seed=seed).build()[1].state_dict()
        assert all(torch.equal(built[name], value) for name, value in state(seed=5).items())
    assert problem.reference_key("original") != toy_problem().reference_key("original")


def test_the_key_follows_the_content_of_the_weights_and_not_their_path(tmp_path: Path) -> None:
    one = resolve(spec_with(state(seed=5), tmp_path / "w.pt"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "v.pt").write_bytes((tmp_path / "w.pt").read_bytes())
    same = resolve(ModelSpec("toy_cnn", weights=str(tmp_path / "elsewhere" / "v.pt")))
    other = resolve(spec_with(state(seed=6), tmp_path / "w.pt"))
    assert one.key == same.key
    assert one.key != other.key


@pytest.mark.parametrize("headless", [True, False])
def test_a_head_for_other_classes_stays_as_drawn(headless: bool, tmp_path: Path) -> None:
    given = state(seed=5) | {"12.weight": torch.zeros(9, 16), "12.bias": torch.zeros(9)}
    if headless:
        del given["12.weight"], given["12.bias"]
    model = resolve(spec_with(given, tmp_path / "w.pt"))
    heads = []
    for seed in (0, 1):
        built = build(model, (3, 8, 8), 4, (0.5,) * 3, (0.5,) * 3, seed)
        heads.append(head(built).weight)
        assert torch.equal(built[1][0].weight, given["0.weight"])
        drawn = build("toy_cnn", (3, 8, 8), 4, (0.5,) * 3, (0.5,) * 3, seed)
        assert torch.equal(heads[-1], head(drawn).weight)
    assert not torch.equal(*heads)


def test_positions_of_a_transformer_are_stretched_to_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = MODELS["vit_b_32"]((3, 64, 64), 6).state_dict()
    name = "encoder.pos_embedding"
    given[name] = torch.linspace(0, 1, given[name].numel()).view(given[name].shape)
    model = resolve(spec_with(given, tmp_path / "w.pt", "vit_b_32"))
    built = build(model, (3, 96, 96), 4, (0.5,) * 3, (0.5,) * 3, seed=0)[1]
    weight = built.get_parameter(name)
    assert weight.shape == (1, 10, 768)
    assert torch.equal(weight[:, 0], given[name][:, 0])
    corners = weight[0, 1:].detach().view(3, 3, 768)[::2, ::2].reshape(4, 768)
    torch.testing.assert_close(corners, given[name][0, 1:])
    assert torch.equal(built.get_parameter("class_token"), given["class_token"])


def test_a_transformer_of_other_names_names_the_first(tmp_path: Path) -> None:
    given = {"vit.embeddings.cls_token": torch.zeros(1, 1, 768)}
    model = resolve(spec_with(given, tmp_path / "w.pt", "vit_b_32"))
    expected = r"lacks `class_token` \[1, 1, 768\] of the model; it has `vit.embeddings.cls_token`"
    with pytest.raises(ValueError, match=expected):
        build(model, (3, 32, 32), 4, (0.5,) * 3, (0.5,) * 3, seed=0)


def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = spec_with({"fc.weight": torch.zeros(2, 2)}, tmp_path / "w.pt")
    raw = studies.tiny(model={"name": "small_cnn", "weights": model.weights})
    wanted = study.read(studies.write(tmp_path, raw))
    with pytest.raises(StudyError, match=r"x: model: .*w.pt: lacks `0.weight` \[32, 1, 3, 3\]"):
        preflight.load_data(wanted, "x")
