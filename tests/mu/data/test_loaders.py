"""Data sets by name, each read from small files in its original format, and what is said of wrong ones."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import tiny_data
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import fetch_20newsgroups

from mu.data import LOADERS, Dataset, DataSpec, load
from mu.data.decode import make_entry
from mu.data.text_sets import encode, vocabulary_of, words
from mu.forget import ForgetRequest, members, select
from mu.vision import datasets as torchvision_datasets

NEEDED: dict[str, dict[str, Any]] = {
    "celeba": {"size": 32, "label": ("Male", "Smiling")},
    "imagenet": {"size": 32},
    "pins_faces": {"size": 32},
    "vggface2": {"size": 32},
}
"""Keys that a data set cannot do without."""


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make every data set's files."""
    folders = {name: tmp_path_factory.mktemp(name) for name in tiny_data.MAKERS}
    for name, folder in folders.items():
        tiny_data.make(name, folder)
    return folders


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def spec(name: str, root: Path, **keys: Any) -> DataSpec:
    return DataSpec(name, str(root), **{**NEEDED.get(name, {}), **keys})


def copy_of(root: Path, tmp_path: Path) -> Path:
    """Make a copy of some files that a test may spoil."""
    return Path(shutil.copytree(root, tmp_path / "copy"))


def in_order(data: Dataset, part: str = "inputs") -> NDArray[Any]:
    """Return inputs, or labels, of all training samples, in the order of the data set; `val` is not small here."""
    values = {name: getattr(data.parts[name], part) for name in ("train", "val")}
    assert data.positions is not None
    every = np.empty(
        (sum(map(len, values.values())), *values["train"].shape[1:]), values["train"].dtype
    )
    held_out = np.setdiff1d(np.arange(len(every)), data.positions)
    every[data.positions], every[held_out] = values["train"], values["val"]
    return every


def unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")


def test_every_data_set_has_small_files_to_be_tested_on() -> None:
    assert set(tiny_data.MAKERS) == set(LOADERS) - {"digits"}


@pytest.mark.parametrize("name", tiny_data.MAKERS)
def test_data_set_is_read_once_and_is_the_same_from_the_cache(
    name: str, roots: dict[str, Path], cache: Path
) -> None:
    data = load(spec(name, roots[name]), cache)
    entries = sorted(path for path in cache.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in entries]
    again = load(spec(name, roots[name]), cache)
    assert entries
    assert [path.stat().st_mtime_ns for path in entries] == times
    assert again.fingerprint == data.fingerprint
    assert len(set(data.parts["test"].labels)) == len(data.classes)
    assert data.images == (name != "20newsgroups")


def test_cifar10_holds_the_rows_of_its_batches(roots: dict[str, Path], cache: Path) -> None:
    data = load(spec("cifar10", roots["cifar10"], val=0.3), cache)
    folder = roots["cifar10"] / "cifar-10-batches-py"
    batches = [unpickled(folder / f"data_batch_{number}") for number in range(1, 6)]
    rows = np.concatenate([batch["data"] for batch in batches])
    assert np.array_equal(in_order(data).reshape(len(rows), -1), rows)
    labels = [label for batch in batches for label in batch["labels"]]
    assert in_order(data, "labels").tolist() == labels
    test = unpickled(folder / "test_batch")
    assert np.array_equal(data.parts["test"].inputs.reshape(len(test["data"]), -1), test["data"])
    assert data.parts["test"].labels.tolist() == test["labels"]
    assert data.classes == tuple(tiny_data.CIFAR10)


def test_cifar20_predicts_coarse_labels_and_forgets_fine_ones(
    roots: dict[str, Path], cache: Path
) -> None:
    root = roots["cifar20"]
    data = load(spec("cifar20", root), cache)
    content = unpickled(root / "cifar-100-python" / "train")
    assert in_order(data, "labels").tolist() == content["coarse_labels"]
    assert in_order(data, "fine").tolist() == content["fine_labels"]
    assert data.classes == tuple(tiny_data.COARSE)
    assert data.fine_classes == tuple(tiny_data.CIFAR100)
    rocket = ForgetRequest("sub_class", target="rocket")
    fine = data.parts["train"].fine[select(rocket, data)]
    assert set(fine) == {tiny_data.CIFAR100.index("rocket")}
    owners = data.parts["test"].labels[members(rocket, data, "test")]
    assert set(owners) == {data.classes.index("vehicles_2")}
    flat = load(spec("cifar100", root), cache)
    assert np.array_equal(in_order(flat, "labels"), in_order(data, "fine"))


def test_cifar20_has_superclasses_of_its_own(roots: dict[str, Path], cache: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.superclasses: cifar20 has its own"):
        load(spec("cifar20", roots["cifar20"], superclasses={"all": ("apple",)}), cache)


def test_cifar20_refuses_a_class_of_two_superclasses(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["cifar20"], tmp_path)
    path = root / "cifar-100-python" / "train"
    content = unpickled(path)
    content["coarse_labels"][0] = (content["coarse_labels"][0] + 1) % 20
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="100 classes come with 101 pairs"):
        load(spec("cifar20", root), cache)


def test_svhn_counts_the_label_ten_as_zero(roots: dict[str, Path], cache: Path) -> None:
    from scipy.io import loadmat

    data = load(spec("svhn", roots["svhn"]), cache)
    stored = loadmat(roots["svhn"] / "test_32x32.mat")
    assert stored["y"].max() == 10
    assert np.array_equal(data.parts["test"].labels, stored["y"].ravel() % 10)
    assert np.array_equal(data.parts["test"].inputs, stored["X"].transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_holds_the_bytes_of_its_files(
    name: str, folder: str, roots: dict[str, Path], cache: Path
) -> None:
    data = load(spec(name, roots[name]), cache)
    raw = roots[name] / folder / "raw"
    pixels = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    labels = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    assert np.array_equal(data.parts["test"].inputs.ravel(), pixels)
    assert np.array_equal(data.parts["test"].labels, labels)
    assert data.input_shape == (1, 28, 28)
    assert len(data.classes) == 10


def test_arrays_are_resized_as_image_files_are(roots: dict[str, Path], cache: Path) -> None:
    data = load(spec("cifar10", roots["cifar10"], size=16), cache)
    full = load(spec("cifar10", roots["cifar10"]), cache)
    image = Image.fromarray(full.parts["test"].inputs[0].transpose(1, 2, 0))
    small = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(data.parts["test"].inputs[0], small)


def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = roots["tiny_imagenet"]
    data = load(spec("tiny_imagenet", root), cache)
    folder = root / "tiny-imagenet-200"
    assert data.classes == tuple(tiny_data.WORDNET)
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    expected = {}
    for line in lines:
        file, name, *_ = line.split("\t")
        with Image.open(folder / "val" / "images" / file) as image:
            expected[np.asarray(image).transpose(2, 0, 1).tobytes()] = name
    test = data.parts["test"]
    assert len(test) == len(lines) == 200
    assert [expected[image.tobytes()] for image in test.inputs] == [
        data.classes[label] for label in test.labels
    ]
    packed = tiny_data.zipped(folder, tmp_path / "tiny-imagenet-200.zip")
    for other in (packed, packed.parent, folder):
        assert load(spec("tiny_imagenet", other), cache).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("wnids.txt", "wnids.txt is missing; get tiny-imagenet-200.zip from http"),
        ("val/val_annotations.txt", "val_annotations.txt is missing; get tiny-imagenet-200.zip"),
        ("val/images/val_7.JPEG", "val_7.JPEG, which val_annotations.txt names, is missing; get"),
        ("train/n01443537/images", "train/n01443537/images/ is empty or missing; get"),
    ],
)
def test_what_tiny_imagenet_lacks_is_named(
    gone: str, message: str, roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["tiny_imagenet"], tmp_path)
    path = root / "tiny-imagenet-200" / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(ValueError, match=message):
        load(spec("tiny_imagenet", root), cache)


def test_celeba_labels_are_combinations_of_attributes_and_groups_are_identities(
    roots: dict[str, Path], cache: Path
) -> None:
    root = roots["celeba"]
    data = load(spec("celeba", root), cache)
    assert data.classes == (
        "not Male & not Smiling",
        "not Male & Smiling",
        "Male & not Smiling",
        "Male & Smiling",
    )
    folder = root / "celeba"
    partition = (folder / "list_eval_partition.txt").read_text().splitlines()
    attributes = (folder / "list_attr_celeba.txt").read_text().splitlines()[2:]
    identities = (folder / "identity_CelebA.txt").read_text().splitlines()
    rows = [i for i, line in enumerate(partition) if line.endswith(" 0")]
    answers = [attributes[i].split()[1:] for i in rows]
    columns = [tiny_data.ATTRIBUTES.index(name) for name in ("Male", "Smiling")]
    expected = [sum(w * (a[c] == "1") for w, c in zip((2, 1), columns)) for a in answers]
    assert in_order(data, "labels").tolist() == expected
    assert in_order(data, "groups").tolist() == [int(identities[i].split()[1]) for i in rows]
    smiling = load(spec("celeba", root, label=("Smiling",)), cache)
    assert smiling.classes == ("not Smiling", "Smiling")
    assert len(list((cache / "images").iterdir())) == 1, "other labels need no other images"
    assert len(list((cache / "lists").iterdir())) == 1, "its lists are read once"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": None}, r"data\.label is required for celeba"),
        ({"label": ("Happy",)}, r"data\.label: unknown attribute 'Happy'; celeba has 5_o_Clock"),
    ],
)
def test_wrong_labels_of_celeba_are_refused(
    keys: dict[str, Any], message: str, roots: dict[str, Path], cache: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load(spec("celeba", roots["celeba"], **keys), cache)


def test_lists_of_celeba_that_have_changed_are_read_again(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["celeba"], tmp_path)
    path = root / "celeba" / "identity_CelebA.txt"
    before = load(spec("celeba", root), cache).parts["train"].groups
    lines = (line.split() for line in path.read_text().splitlines())
    path.write_text("".join(f"{name} {int(person) + 1000}\n" for name, person in lines))
    after = load(spec("celeba", root), cache).parts["train"].groups
    assert before is not None and after is not None
    np.testing.assert_array_equal(after, before + 1000)


def test_missing_images_of_celeba_are_counted_and_named(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["celeba"], tmp_path)
    lines = (root / "celeba" / "list_eval_partition.txt").read_text().splitlines()
    gone = next(line.split()[0] for line in lines if line.endswith(" 0"))
    (root / "celeba" / "img_align_celeba" / gone).unlink()
    with pytest.raises(ValueError, match=rf"1 of 288 images are missing, such as {gone}; unpack"):
        load(spec("celeba", root), cache)


def test_pins_faces_are_cut_by_person(roots: dict[str, Path], cache: Path) -> None:
    data = load(spec("pins_faces", roots["pins_faces"]), cache)
    assert data.classes[:2] == ("Person 000", "Person 001")
    assert np.bincount(data.parts["test"].labels).tolist() == [1] * 105
    larger = load(spec("pins_faces", roots["pins_faces"], test=0.4), cache)
    assert np.bincount(larger.parts["test"].labels).tolist() == [2] * 105


def test_vggface2_is_cut_from_the_people_to_train_on(roots: dict[str, Path], cache: Path) -> None:
    data = load(spec("vggface2", roots["vggface2"]), cache)
    assert data.classes == tuple(f"n{number:06}" for number in range(2, 14))
    assert len(data.parts["test"]) == round(0.3 * 12 * 14)


def test_imagenet_tests_on_val_and_keeps_the_classes_asked_for(
    roots: dict[str, Path], cache: Path
) -> None:
    root = roots["imagenet"]
    data = load(spec("imagenet", root), cache)
    assert len(data.parts["test"]) == 20 * 2
    few = load(spec("imagenet", root, classes=(tiny_data.WORDNET[3], tiny_data.WORDNET[1])), cache)
    assert few.classes == (tiny_data.WORDNET[1], tiny_data.WORDNET[3])
    wanted = np.isin(data.parts["test"].labels, (1, 3))
    assert np.array_equal(few.parts["test"].inputs, data.parts["test"].inputs[wanted])
    with pytest.raises(ValueError, match=r"data\.classes: unknown class 'dog'; there are n0144"):
        load(spec("imagenet", root, classes=("dog",)), cache)


def test_the_largest_classes_are_those_with_the_most_images(tmp_path: Path, cache: Path) -> None:
    for name, count in (("ant", 3), ("bee", 9), ("cat", 5), ("dog", 9)):
        tiny_data._folders(tmp_path, {"images": ([name], count)}, ".png")
    keys: dict[str, Any] = {"test": 0.3, "val": 0.2}
    data = load(spec("image_folder", tmp_path / "images", largest=2, **keys), cache)
    assert data.classes == ("bee", "dog")
    with pytest.raises(ValueError, match=r"data\.largest must be at most 4, .* got 5"):
        load(spec("image_folder", tmp_path / "images", largest=5, **keys), cache)
    with pytest.raises(ValueError, match=r"with the share of test images in data\.test"):
        load(spec("image_folder", tmp_path / "images"), cache)


def test_a_share_for_test_is_refused_where_there_are_test_images(
    roots: dict[str, Path], cache: Path
) -> None:
    with pytest.raises(ValueError, match=r"data\.test: .* has test images of its own"):
        load(spec("image_folder", roots["image_folder"], test=0.2), cache)


def test_words_are_counted_in_training_texts_and_ties_go_by_the_alphabet() -> None:
    texts = ["The cat's hat, the HAT!", "a hat_rack: 2 ants"]
    assert words(texts[0]) == ["the", "cat's", "hat", "the", "hat"]
    vocabulary = vocabulary_of(texts, 6)
    assert vocabulary == ("<pad>", "<unknown>", "hat", "the", "2", "a")
    tokens = encode(["the a zebra hat hat", ""], vocabulary, 4)
    assert tokens.tolist() == [[3, 5, 1, 2], [0, 0, 0, 0]]
    assert tokens.dtype == np.int32


def test_newsgroups_are_the_tokens_of_what_scikit_learn_returns(
    roots: dict[str, Path], cache: Path
) -> None:
    root = roots["20newsgroups"]
    data = load(spec("20newsgroups", root, length=20, vocabulary=50), cache)
    assert data.classes == tuple(tiny_data.GROUPS)
    assert len(data.vocabulary) == 50
    removed = ("headers", "footers", "quotes")
    texts = fetch_20newsgroups(data_home=root, subset="test", shuffle=False, remove=removed)
    for tokens, text in zip(data.parts["test"].inputs, texts.data):
        known = [word if word in data.vocabulary else "<unknown>" for word in words(text)]
        assert [data.vocabulary[token] for token in tokens] == (known + ["<pad>"] * 20)[:20]
    assert not any("signed" in word for word in data.vocabulary), "footers are removed"
    other = load(spec("20newsgroups", root, length=20, vocabulary=60), cache)
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3", "data_batch_3 is missing; get cifar-10-python"),
        ("cifar100", "cifar-100-python/meta", "cifar-100-python/meta is missing; get cifar-100-python"),
        ("svhn", "test_32x32.mat", "test_32x32.mat is missing; get them from http"),
        ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte is missing; get"),
        ("fashion_mnist", "FashionMNIST", "FashionMNIST/raw/.* are missing; get"),
        ("celeba", "celeba/identity_CelebA.txt", "identity_CelebA.txt is missing; get them from https"),
        ("celeba", "celeba/img_align_celeba", "img_align_celeba/ is missing; .* unpack img_align"),
        ("imagenet", "val", "no images under val/<WordNet id>/; get ILSVRC2012_img_train.tar"),
        ("pins_faces", "105_classes_pins_dataset", "no images under pins_<name>/; get them from https"),
        ("vggface2", "train", "no images under train/<identity>/; get vggface2_train.tar.gz"),
        ("20newsgroups", "20news-bydate_py3.pkz", "pkz is missing; get it by sklearn"),
    ],
)  # fmt: skip
def test_missing_files_are_named_with_where_to_get_them(
    name: str, gone: str, message: str, roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots[name], tmp_path)
    path = root / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(ValueError, match=message) as caught:
        load(spec(name, root), cache)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(LOADERS) - {"digits"}))
def test_a_folder_that_is_not_there_is_refused_and_not_made(
    name: str, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*(there is no such folder|does not exist)"):
        load(spec(name, tmp_path / "nowhere"), cache)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match=rf"data\.root is required for {name}"):
        load(DataSpec(name, **NEEDED.get(name, {})), cache)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_2"),
        ("svhn", "train_32x32.mat"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("celeba", "celeba/list_attr_celeba.txt"),
        ("20newsgroups", "20news-bydate_py3.pkz"),
    ],
)
def test_damaged_files_are_refused_and_leave_no_cache(
    name: str, file: str, roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots[name], tmp_path)
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"copy: the (files|lists) of {name} cannot be read"):
        load(spec(name, root), cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    (root / file).write_bytes(content)
    load(spec(name, root), cache)


def test_labels_that_are_no_class_are_refused(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["cifar10"], tmp_path)
    path = root / "cifar-10-batches-py" / "test_batch"
    content = unpickled(path)
    content["labels"][0] = 10
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="test labels from 0 to 10, but 10 classes"):
        load(spec("cifar10", root), cache)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("digits", {"size": 16}, r"data\.size is not a key of digits; it takes name, subset"),
        ("cifar10", {"label": ("Male",)}, r"data\.label is not a key of cifar10"),
        ("image_folder", {"download": True}, r"data\.download is not a key of image_folder"),
        ("cifar10", {"size": 0}, r"data\.size must be at least 1, but got 0"),
        ("20newsgroups", {"vocabulary": 2}, r"data\.vocabulary must be at least 3, but got 2"),
    ],
)
def test_keys_that_mean_nothing_here_are_refused(
    name: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load(DataSpec(name, None if name == "digits" else str(tmp_path), **keys))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "key", ["size", "subset", "val", "twin", "largest", "test", "length", "vocabulary"]
)
def test_numbers_that_are_not_finite_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{key} must be finite, but got {value}$"):
        DataSpec("image_folder", **{key: value})


def test_what_is_downloaded_is_held_against_its_checksum(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar = torchvision_datasets().cifar
    monkeypatch.setattr(
        cifar,
        "download_and_extract_archive",
        lambda url, root, **_: tiny_data.make("cifar10", root),
    )
    with pytest.raises(ValueError, match=r"data\.download: cifar10 .* corrupted"):
        load(spec("cifar10", tmp_path, download=True), cache)
    load(spec("cifar10", tmp_path), cache)  # as they are, when the user says that they are there


@pytest.mark.filterwarnings("ignore:Retry downloading")  # scikit-learn's, between its attempts
@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist", "tiny_imagenet", "20newsgroups"])
def test_a_download_that_fails_is_one_line(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ValueError, match=rf"data\.download: {name} cannot be downloaded to"):
        load(spec(name, tmp_path / "files", download=True), cache)


def test_many_may_make_the_same_entry_of_the_cache_at_once(tmp_path: Path) -> None:
    together, problems = threading.Barrier(4), []

    def write(folder: Path) -> None:
        together.wait(timeout=300)
        (folder / "content").write_text("whole")

    def make() -> None:
        try:
            make_entry(tmp_path / "cache" / "entry", write)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["entry"]
    assert (tmp_path / "cache" / "entry" / "content").read_text() == "whole"


def test_reserved_images_are_trained_on_whatever_is_held_out(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    wanted = np.arange(0, 120, 7)
    np.save(tmp_path / "wanted.npy", wanted)
    keys: dict[str, Any] = {"val": 0.5, "twin": 0.2}
    root = roots["cifar10"]
    plain = load(spec("cifar10", root, **keys), cache)
    assert plain.positions is not None
    assert not np.isin(wanted, plain.positions).all()
    data = load(spec("cifar10", root, reserve=(str(tmp_path / "wanted.npy"),), **keys), cache)
    assert data.positions is not None
    assert np.isin(wanted, data.positions).all()
    assert {name: len(part) for name, part in data.parts.items()} == {
        name: len(part) for name, part in plain.parts.items()
    }
    back = data.train_positions(wanted)
    assert np.array_equal(data.all_positions(back), wanted)
    assert data.train_positions(np.setdiff1d(np.arange(120), data.positions)).max() == -1


def test_a_file_that_was_read_for_other_content_is_read_again(
    roots: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    root = copy_of(roots["mnist"], tmp_path)
    before = load(spec("mnist", root), cache).fingerprint
    tiny_data.make("mnist", root, train=13)
    assert load(spec("mnist", root), cache).fingerprint != before


def test_facts_beside_cached_arrays_are_plain_json(roots: dict[str, Path], cache: Path) -> None:
    load(spec("cifar20", roots["cifar20"]), cache)
    (entry,) = (cache / "arrays").iterdir()
    facts = json.loads((entry / "facts.json").read_text())
    assert facts["superclasses"]["people"] == tiny_data.COARSE["people"].split()
