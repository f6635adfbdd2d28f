"""Data: digits, image folders and zips, their cache, and every way in which they can be wrong."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import mu.data.decode
from mu.data import PARTS, Dataset, DataSpec, Examples, as_float, concat, load, stratified_choice
from mu.rng import generator

CLASSES = ("ant", "bee", "cat")
SIDE = 6
PER_CLASS = {"train": 10, "test": 3}


def picture(split: str, label: int, number: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Return an image that differs from every other, [side, side, 3]."""
    seed = [len(split), label, number]
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder laid out {train,test}/<class>/<image>."""
    root = tmp_path_factory.mktemp("images")
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                path = root / split / name / f"{number:02}.png"
                Image.fromarray(picture(split, label, number)).save(path)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Make a copy of the folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def spec(root: Path, **fields: object) -> DataSpec:
    return replace(DataSpec("image_folder", str(root), val=0.2), **fields)


def zipped(folder: Path, path: Path, top: str = "", extra: Iterable[str] = ()) -> Path:
    """Make a .zip of a folder below a top folder, with further entries that hold no image."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, top + file.relative_to(folder).as_posix())
        for name in extra:
            archive.writestr(name, b"not an image")
    return path


def rows(images: NDArray[np.uint8]) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint and all(
        np.array_equal(one.parts[name].inputs, other.parts[name].inputs) for name in PARTS
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataSpec("digits", val=0.1, twin=0.05))


def test_digits_are_grey_images_of_ten_classes(digits: Dataset) -> None:
    assert digits.input_shape == (1, 8, 8)
    assert digits.classes == digits.fine_classes == tuple("0123456789")
    for name in PARTS:
        part = digits.parts[name]
        assert part.inputs.dtype == np.uint8
        assert part.inputs.shape == (len(part), 1, 8, 8)
        assert part.labels.dtype == np.int64
        assert np.array_equal(part.labels, part.fine)
    assert digits.parts["train"].inputs.max() == 255


def test_digits_are_cut_into_disjoint_parts_that_hold_them_all(digits: Dataset) -> None:
    total = 1797
    test = total // 5
    training = total - test
    sizes = [len(digits.parts[name]) for name in PARTS]
    val, twin = round(0.1 * training), round(0.05 * training)
    assert sizes == [training - val - twin, val, twin, test]
    everything = np.concatenate([digits.parts[name].inputs for name in PARTS])
    bundled = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert rows(everything) == rows(bundled[:, None])


def test_parts_have_every_class_in_its_share(digits: Dataset) -> None:
    labels = np.concatenate([digits.parts[name].labels for name in PARTS])
    shares = np.bincount(labels) / len(labels)
    for name in PARTS:
        counts = np.bincount(digits.parts[name].labels, minlength=10)
        # Each of the cuts rounds to within one sample.
        assert np.abs(counts - shares * counts.sum()).max() < 2


def test_loading_is_deterministic_and_fingerprinted(digits: Dataset) -> None:
    assert same(digits, load(DataSpec("digits", val=0.1, twin=0.05)))
    assert digits.fingerprint != load(DataSpec("digits", val=0.2, twin=0.05)).fingerprint


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("field", ["inputs", "labels", "fine"])
def test_fingerprint_changes_with_every_array(data: Dataset, name: str, field: str) -> None:
    array = getattr(data.parts[name], field).copy()
    array.flat[0] += 1
    changed = replace(data, parts={**data.parts, name: replace(data.parts[name], **{field: array})})
    assert changed.fingerprint != data.fingerprint


def test_fingerprint_changes_with_the_shape_of_the_images(data: Dataset) -> None:
    test = data.parts["test"]
    wide = replace(test, inputs=test.inputs.reshape(len(test), 3, 4, 16))
    assert replace(data, parts={**data.parts, "test": wide}).fingerprint != data.fingerprint


def test_fingerprint_changes_with_class_names_and_not_with_the_name(data: Dataset) -> None:
    assert replace(data, name="other").fingerprint == data.fingerprint
    for field in ("classes", "fine_classes"):
        renamed = replace(data, **{field: ("x", *getattr(data, field)[1:])})
        assert renamed.fingerprint != data.fingerprint


def test_channel_statistics_are_those_of_the_training_pixels(data: Dataset) -> None:
    pixels = data.parts["train"].inputs / 255
    mean, std = data.channel_stats
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)


def test_image_folder_holds_what_was_written(made: Path, cache: Path) -> None:
    data = load(spec(made), cache)
    assert data.classes == CLASSES
    assert data.input_shape == (3, SIDE, SIDE)
    assert [len(data.parts[name]) for name in PARTS] == [24, 6, 0, 9]
    written = {
        picture(split, label, number).transpose(2, 0, 1).tobytes(): (split, label)
        for split, count in PER_CLASS.items()
        for label in range(len(CLASSES))
        for number in range(count)
    }
    for name in PARTS:
        part = data.parts[name]
        for image, label in zip(part.inputs, part.labels):
            expected = written.pop(np.asarray(image).tobytes())
            assert expected == ("test" if name == "test" else "train", label)
    assert not written


@pytest.mark.parametrize("top", ["", "archive/deeper/"])
def test_zip_gives_what_its_folder_gives(made: Path, tmp_path: Path, cache: Path, top: str) -> None:
    extra = (
        f"{top}README.md",
        f"__MACOSX/{top}train/ant/._00.png",
        f"{top}__MACOSX/train/ant/00.png",
        f"{top}train/ant/.hidden.png",
    )
    path = zipped(made, tmp_path / "images.zip", top, extra)
    assert same(load(spec(path), cache), load(spec(made), cache))


def test_files_of_the_operating_system_are_ignored_in_folders_too(
    folder: Path, made: Path, cache: Path
) -> None:
    (folder / "__MACOSX" / "train" / "ant").mkdir(parents=True)
    for name in ("train/ant/._00.png", "__MACOSX/train/ant/00.png", "train/ant/Thumbs.db"):
        (folder / name).write_bytes(b"not an image")
    assert same(load(spec(folder), cache), load(spec(made), cache))


def test_folder_of_folders_is_found(folder: Path, made: Path, cache: Path) -> None:
    nested = folder.parent / "outer" / "inner"
    nested.parent.mkdir()
    folder.rename(nested)
    assert same(load(spec(nested.parent), cache), load(spec(made), cache))


def test_decoded_images_are_used_again(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(spec(made), cache)

    def fail(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(mu.data.decode, "decode_into", fail)
    assert same(load(spec(made), cache), first)


def test_changed_image_is_decoded_again(folder: Path, cache: Path) -> None:
    before = load(spec(folder), cache)
    Image.fromarray(picture("train", 0, 99)).save(folder / "train" / "ant" / "00.png")
    assert load(spec(folder), cache).fingerprint != before.fingerprint


def test_cache_appears_only_when_complete(folder: Path, cache: Path) -> None:
    bad = folder / "test" / "cat" / "02.png"
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"cannot read image test/cat/02\.png"):
        load(spec(folder), cache)
    assert list((cache / "images").iterdir()) == []
    bad.write_bytes(good)
    load(spec(folder), cache)
    (entry,) = (cache / "images").iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["test.npy", "train.npy"]


def test_two_processes_may_decode_the_same_images(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = mu.data.decode.decode_into

    def slower(folder: Path, *args: object) -> None:
        if not folder.is_dir():
            decode(folder, *args)  # the other process, which finishes in the middle of ours
        decode(folder, *args)

    monkeypatch.setattr(mu.data.decode, "decode_into", slower)
    data = load(spec(made), cache)
    assert len(list((cache / "images").iterdir())) == 1
    monkeypatch.undo()
    assert same(load(spec(made), cache), data)


def test_cache_folder_is_named_by_the_environment(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(cache))
    load(spec(made))
    assert (cache / "images").is_dir()


def test_images_are_resized_to_the_size_asked_for(made: Path, cache: Path) -> None:
    data = load(spec(made, size=4), cache)
    assert data.input_shape == (3, 4, 4)
    resized = Image.fromarray(picture("test", 0, 0)).resize((4, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(data.parts["test"].inputs[0], np.asarray(resized).transpose(2, 0, 1))
    assert load(spec(made), cache).input_shape == (3, SIDE, SIDE)


def test_grey_and_transparent_images_become_three_channels(folder: Path, cache: Path) -> None:
    for number, mode in enumerate(("L", "RGBA", "P")):
        image = Image.fromarray(picture("train", 0, number)).convert(mode)
        image.save(folder / "train" / "ant" / f"{number:02}.png")
    assert load(spec(folder), cache).input_shape == (3, SIDE, SIDE)


def test_images_of_mixed_sizes_are_refused_by_name_unless_a_size_is_given(
    folder: Path, cache: Path
) -> None:
    Image.fromarray(picture("train", 1, 3, side=7)).save(folder / "train" / "bee" / "03.png")
    message = r"train/bee/03\.png is 7x7 pixels, train/ant/00\.png is 6x6; set data\.size"
    with pytest.raises(ValueError, match=message):
        load(spec(folder), cache)
    assert load(spec(folder, size=6), cache).input_shape == (3, 6, 6)


@pytest.mark.parametrize("where", ["folder", "zip"])
def test_unreadable_image_is_named(folder: Path, tmp_path: Path, cache: Path, where: str) -> None:
    (folder / "train" / "cat" / "04.png").write_bytes(b"these are not pixels")
    root = folder if where == "folder" else zipped(folder, tmp_path / "images.zip")
    with pytest.raises(ValueError, match=r"cannot read image train/cat/04\.png"):
        load(spec(root), cache)


def test_missing_root_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root is required"):
        load(DataSpec("image_folder"), cache)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load(spec(tmp_path / "nowhere"), cache)
    file = tmp_path / "data.tar"
    file.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"neither a folder nor a \.zip file"):
        load(spec(file), cache)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_wrong_layout_is_explained(folder: Path, cache: Path, missing: str) -> None:
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(
        ValueError, match=rf"no images under {missing}/<class>/; the layout must be"
    ):
        load(spec(folder), cache)


def test_class_without_training_images_is_named(folder: Path, cache: Path) -> None:
    for path in (folder / "train" / "bee").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="test class 'bee' has no training images"):
        load(spec(folder), cache)


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.name must be one of .*digits.*, but got 'emnist'"):
        load(DataSpec("emnist"))


def test_subset_keeps_every_class_in_its_share(digits: Dataset) -> None:
    data = load(DataSpec("digits", subset=200, val=0.1))
    assert len(data.parts["train"]) == 180
    assert len(data.parts["val"]) == 20
    assert len(data.parts["test"]) == len(digits.parts["test"])
    kept = np.concatenate([data.parts[name].labels for name in ("train", "val")])
    every = np.concatenate([digits.parts[name].labels for name in ("train", "val", "twin")])
    expected = np.bincount(every) * 200 / len(every)
    assert np.abs(np.bincount(kept) - expected).max() < 1


def test_test_subset_keeps_every_class_in_its_share_and_nothing_else_changes(
    digits: Dataset,
) -> None:
    data = load(DataSpec("digits", test_subset=0.5))
    whole, half = (np.bincount(each.parts["test"].labels) for each in (digits, data))
    assert abs(half.sum() - whole.sum() / 2) <= 1 and np.abs(half - whole / 2).max() <= 1
    usual = load(DataSpec("digits"))
    assert np.array_equal(data.parts["train"].inputs, usual.parts["train"].inputs)
    assert data.fingerprint != usual.fingerprint
    with pytest.raises(
        ValueError, match=r"data\.test_subset must be in \[1, 359\] \(the test im.* got 400"
    ):
        load(DataSpec("digits", test_subset=400))


@pytest.mark.parametrize("subset", [0, -5, 10_000])
def test_subset_out_of_range_is_refused(subset: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.subset must be in \[1, 1438\] .* got {subset}"):
        load(DataSpec("digits", subset=subset))


@pytest.mark.parametrize("shares", [{"val": 0.0}, {"val": 0.7, "twin": 0.3}])
def test_parts_left_empty_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="each must be at least 1"):
        load(DataSpec("digits", **shares))


@pytest.mark.parametrize("shares", [{"val": -0.1}, {"val": 1.0}, {"twin": -0.1}, {"twin": 1.2}])
def test_shares_out_of_range_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"data\.(val|twin) must be in \[0, 1\)"):
        load(DataSpec("digits", **shares))


def test_class_left_without_training_images_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"no training image is left of class .* raise data\.subset"
    ):
        load(DataSpec("digits", subset=5, val=0.2))


def test_superclasses_become_the_labels(made: Path, cache: Path) -> None:
    data = load(spec(made, superclasses={"pet": ["cat"], "insect": ["bee", "ant"]}), cache)
    assert data.classes == ("pet", "insect")
    assert data.fine_classes == CLASSES
    for name in PARTS:
        part = data.parts[name]
        assert np.array_equal(part.labels, np.where(part.fine == CLASSES.index("cat"), 0, 1))


@pytest.mark.parametrize(
    ("superclasses", "message"),
    [
        ({"pet": ["cat", "dog"], "insect": ["bee", "ant"]}, "unknown class 'dog'"),
        ({"pet": ["cat"], "insect": ["bee"]}, "no superclass for 'ant'"),
        ({"pet": ["cat", "bee"], "insect": ["bee", "ant"]}, "more than one superclass for 'bee'"),
    ],
)
def test_wrong_superclasses_are_refused_by_name(
    made: Path, cache: Path, superclasses: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"data\.superclasses: {message}; .* ant, bee, cat"):
        load(spec(made, superclasses=superclasses), cache)


def test_stratified_choice_is_within_one_of_every_share() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 7, 301)
    sizes = np.bincount(classes)
    for count in range(0, 302, 7):
        chosen = stratified_choice(classes, count, np.random.default_rng(count))
        assert len(chosen) == count
        assert (np.diff(chosen) > 0).all()
        assert np.abs(np.bincount(classes[chosen], minlength=7) - sizes * count / 301).max() < 1


def test_pixels_become_shares_of_255_and_floats_stay() -> None:
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [0, 0.2, 1]
    )
    floats = torch.tensor([0.5, 300.0], dtype=torch.float64)
    assert as_float(floats) is floats


def test_examples_are_taken_in_the_order_asked_for_and_concatenated() -> None:
    inputs = torch.arange(12, dtype=torch.uint8).view(4, 3)
    examples = Examples(inputs, torch.arange(4))
    taken = examples.take(torch.tensor([2, 0]))
    assert taken.labels.tolist() == [2, 0]
    both = concat(examples, taken)
    assert len(both) == 6
    assert torch.equal(both.inputs, torch.cat([inputs, inputs[[2, 0]]]))


def a_set(count: int = 30) -> Examples:
    pixels = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=generator("set"))
    return Examples(pixels, torch.arange(count) % 3)


def assert_same(one: Examples, other: Examples) -> None:
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.labels, other.labels)
    assert (one.dtype, one.input_shape, len(one)) == (other.dtype, other.input_shape, len(other))


def test_rows_of_a_set_are_what_a_copy_of_them_would_be() -> None:
    whole, index = a_set(), torch.tensor([7, 3, 3, 29, 0])
    rows, copy = whole.rows(index), whole.take(index)
    assert_same(rows, copy)
    inner = torch.tensor([4, 0, 1])
    assert_same(rows.take(inner), copy.take(inner))
    assert_same(rows.rows(inner), copy.take(inner))
    for chosen in (inner, slice(1, 3)):
        for one, other in zip(rows.batch(chosen), copy.batch(chosen)):
            assert torch.equal(one, other)
    labels = torch.rand(5, 3)
    assert_same(rows.relabelled(labels), Examples(copy.inputs, labels))


def test_rows_of_one_set_are_joined_without_a_copy_and_others_with_one() -> None:
    whole = a_set()
    parts = [whole.rows(torch.arange(20)), whole.rows(torch.arange(25, 30))]
    joined = concat(*parts)
    assert_same(joined, concat(*(part.take(torch.arange(len(part))) for part in parts)))
    storages = {t.data_ptr() for t in vars(joined).values() if t.dtype == torch.uint8}
    assert storages == {whole.inputs.data_ptr()}
    other = a_set(4)
    assert_same(concat(parts[1], other), concat(parts[1].take(torch.arange(5)), other))


def test_a_part_is_put_on_a_device_once_and_travels_without_that() -> None:
    part = load(DataSpec("digits")).parts["val"]
    examples = part.examples()
    assert part.examples("cpu") is examples
    assert np.shares_memory(examples.inputs.numpy(), part.inputs)
    again = pickle.loads(pickle.dumps(part))
    assert len(pickle.dumps(part)) < 1.5 * part.inputs.nbytes + 20 * len(part) + 2000
    assert np.array_equal(again.inputs, part.inputs)
