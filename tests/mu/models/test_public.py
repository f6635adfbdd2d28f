"""Networks of timm and published weights, from caches that the tests make up: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mu.models import ModelSpec, build, checkpoints, public, resolve
from mu.vision import models as torchvision_models

SHAPE, CLASSES, GREY = (3, 32, 32), 4, ((0.5,) * 3, (0.2,) * 3)
TIMM = "timm:test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def prepared() -> None:
    """Tests import timm themselves, which imports torchvision: that must be prepared first, whatever ran before."""
    torchvision_models()


def make_hub(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Write a cache of timm's hub that holds random weights of a network, and return them."""
    timm = pytest.importorskip("timm")
    safetensors = pytest.importorskip("safetensors.torch")
    state = timm.create_model(name).state_dict()
    revision = "0" * 40
    repository = folder / "hub" / f"models--timm--{name}"
    (repository / "snapshots" / revision).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    safetensors.save_file(state, str(repository / "snapshots" / revision / "model.safetensors"))
    return dict(state)


def use_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_network_of_timm_is_built_for_the_data() -> None:
    pytest.importorskip("timm")
    model = build(resolve(ModelSpec(TIMM)), (1, 8, 8), CLASSES, (0.5,), (0.2,), seed=0)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, CLASSES)


def test_a_transformer_of_timm_is_built_for_the_size_of_the_images() -> None:
    pytest.importorskip("timm")
    model = build(resolve(ModelSpec("timm:test_vit")), SHAPE, CLASSES, *GREY, seed=0)
    assert model(torch.rand(2, *SHAPE)).shape == (2, CLASSES)


def test_weights_of_timms_hub_are_what_the_network_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_hub(tmp_path, TIMM.removeprefix("timm:"))
    use_hub(tmp_path, monkeypatch)
    resolved = resolve(ModelSpec(TIMM, weights="hub"))
    model = build(resolved, SHAPE, CLASSES, *GREY, seed=0)
    built = model[1].state_dict()
    for name, value in state.items():
        if not name.startswith("fc."):  # the head is for other classes
            assert torch.equal(built[name], value), name
    assert torch.allclose(model[0].mean.flatten(), torch.tensor([0.485, 0.456, 0.406]), atol=0.1)
    assert resolved.normalize is not None


def test_the_key_of_published_weights_follows_from_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for number in range(2):
        torch.manual_seed(number)
        make_hub(tmp_path / str(number), TIMM.removeprefix("timm:"))
        use_hub(tmp_path / str(number), monkeypatch)
        keys.append(resolve(ModelSpec(TIMM, weights="hub")).key)
        assert resolve(ModelSpec(TIMM, weights="hub")).key == keys[-1]
    assert keys[0] != keys[1]


def test_weights_that_torchvision_publishes_are_read_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = torchvision_models().get_model_weights("resnet18")["IMAGENET1K_V1"]
    state = torchvision_models().resnet18().state_dict()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / known.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = ModelSpec("resnet18", stem="imagenet", weights="IMAGENET1K_V1")
    resolved = resolve(spec)
    assert resolved.pretrained is not None and resolved.normalize is not None
    assert resolved.normalize.mean == pytest.approx((0.485, 0.456, 0.406))
    for name, value in checkpoints.to_arrays(state).items():
        assert np.array_equal(resolved.pretrained[name], value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "resnet18", "weights": "IMAGENET1K_V1"}, "set `stem: imagenet` of resnet18"),
        (
            {"name": "resnet18", "stem": "imagenet", "weights": "IMAGENET1K_V9"},
            "weights of resnet18 must be one of IMAGENET1K_V1",
        ),
        ({"name": "small_cnn", "weights": "IMAGENET1K_V1"}, "no published weights of small_cnn"),
        ({"name": "timm:resnet18x"}, "has no network 'resnet18x'"),
        ({"name": TIMM, "weights": "IMAGENET1K_V1"}, "must be hub, or a file"),
    ],
)
def test_what_nobody_publishes_is_refused_by_name(spec: dict[str, str], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        resolve(ModelSpec(**spec))  # type: ignore[arg-type]


def test_weights_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    use_hub(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=f"weights hub of {TIMM} cannot be had"):
        resolve(ModelSpec(TIMM, weights="hub"))


@pytest.mark.parametrize(
    ("weights", "named"),
    [("hub", True), ("IMAGENET1K_V1", True), ("models/x.pt", False), ("x", False)],
)
def test_names_of_weights_are_told_from_paths(weights: str, named: bool) -> None:
    assert public.names_weights(weights) is named
