"""`musweep init` writes a study that can be run, for whatever data it is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_data
import torch
from PIL import Image

from mu.models.architectures import MODELS
from sweeps import launch
from sweeps.__main__ import main
from sweeps.commands.common import DONE, WRONG
from sweeps.study import study


def write_images(
    folder: Path, size: tuple[int, int] = (16, 16), parts: tuple[str, ...] = ()
) -> Path:
    """Write thirty images of each of two classes, into each part."""
    draw = np.random.default_rng(0)
    for part in parts or ("",):
        for name in ("cat", "dog-1"):
            (folder / part / name).mkdir(parents=True)
            for number in range(30):
                pixels = draw.integers(0, 255, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def init(place: str | Path, out: Path) -> study.Study:
    """Run `musweep init`, and return the study that it wrote, read and planned."""
    assert main(["init", str(place), "--out", str(out)]) == DONE
    return launch.make_plan(str(out), launch.Options()).study


def test_folders_of_images_without_a_test_part(tmp_path: Path) -> None:
    wrote = init(write_images(tmp_path / "my pets"), tmp_path / "s.yaml")
    assert wrote.name == "my_pets"
    assert (wrote.data.name, wrote.data.size, wrote.data.test) == ("image_folder", None, 0.2)
    assert wrote.forget["class_cat"].target == "cat"


def test_folders_of_large_images_with_a_test_part_are_resized(tmp_path: Path) -> None:
    wrote = init(write_images(tmp_path / "pets", (90, 70), ("train", "test")), tmp_path / "s.yaml")
    assert (wrote.data.size, wrote.data.test) == (64, None)


def test_a_zip_of_images(tmp_path: Path) -> None:
    write_images(tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")
    assert init(tmp_path / "pets.zip", tmp_path / "s.yaml").name == "pets"


@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist", "tiny_imagenet", "20newsgroups"])
def test_a_data_set_in_its_own_layout(name: str, tmp_path: Path) -> None:
    tiny_data.make(name, tmp_path / "data")
    assert init(tmp_path / "data", tmp_path / "s.yaml").data.name == name


def test_a_data_set_by_name(tmp_path: Path) -> None:
    assert init("digits", tmp_path / "s.yaml").data.name == "digits"


def test_the_first_run_in_small_holds_images_of_every_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init("digits", tmp_path / "s.yaml")
    said = capsys.readouterr().out
    assert said.rstrip().endswith(f"next: musweep run {tmp_path / 's.yaml'} --sample 0.15")
    assert f"{tmp_path / 's.yaml'} --sample 0.15\n" in (tmp_path / "s.yaml").read_text(
        encoding="utf-8"
    )
    small = launch.make_plan(str(tmp_path / "s.yaml"), launch.Options(sample=0.15)).data
    assert np.bincount(small.parts["val"].labels, minlength=10).min() >= 1


def test_few_images_are_not_run_in_smaller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(write_images(tmp_path / "pets"), tmp_path / "s.yaml")
    assert capsys.readouterr().out.rstrip().endswith(f"next: musweep run {tmp_path / 's.yaml'}")
    assert "--sample" not in (tmp_path / "s.yaml").read_text(encoding="utf-8")


def test_a_checkpoint_beside_the_images_is_what_methods_start_from(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    torch.save(MODELS["slim_vgg"]((3, 16, 16), 2).state_dict(), folder / "best.pt")
    wrote = init(folder, tmp_path / "s.yaml")
    assert wrote.model.key == "slim_vgg"
    assert {str(model.path) for model in wrote.supplied.values()} == {str(folder / "best.pt")}


def test_a_checkpoint_that_fits_nothing_is_mentioned(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    torch.save({"weight": torch.zeros(3)}, folder / "other.pt")
    wrote = init(folder, tmp_path / "s.yaml")
    assert not wrote.supplied
    assert "# other.pt fits no network by name" in (tmp_path / "s.yaml").read_text(encoding="utf-8")


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.yaml"
    out.write_text("mine", encoding="utf-8")
    assert main(["init", "digits", "--out", str(out)]) == WRONG
    assert out.read_text(encoding="utf-8") == "mine"
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "no images below folders of at least two classes"),
        (lambda folder: folder / "nowhere", "is neither a folder, nor a .zip, nor a data set"),
        (lambda folder: "cifar10", "data.root"),
    ],
)
def test_nothing_is_written_where_no_data_are(
    make: object,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "empty").mkdir()
    assert callable(make)
    assert main(["init", str(make(tmp_path / "empty")), "--out", str(tmp_path / "s.yaml")]) == WRONG
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
