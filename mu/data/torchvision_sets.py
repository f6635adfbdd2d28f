"""Data sets whose original files torchvision reads: CIFAR, SVHN, MNIST, Fashion-MNIST and CelebA.

torchvision compares a published checksum with every file before it reads it. Here that is done when files are
downloaded (``data.download: true``); files that a user put there are read as they are, and it is the fingerprint
of what was read that tells one content from another. So copies that differ (converted, cut to a part) can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.data import plain_pickle
from mu.data.decode import decoded, digest, folder_source, make_entry, resized
from mu.data.spec import DataSpec, Raw, cached, require
from mu.vision import datasets as torchvision_datasets

CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CELEBA_PARTS = ("train", "test")


def cifar(spec: DataSpec, cache: Path) -> Raw:
    """Read CIFAR-10, CIFAR-100, or CIFAR-20: CIFAR-100 with its 20 coarse labels as superclasses."""
    kind: Any = getattr(torchvision_datasets(), spec.name.upper().replace("20", "100"))
    listed = [name for name, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
    root = _above(spec.folder, kind.base_folder)
    if spec.download:
        _download(spec, lambda: kind(root, download=True))
    names = [f"{kind.base_folder}/{name}" for name in listed]
    require(spec, root, names, _get(kind.filename, kind.url))
    unchecked = {
        "train_list": [(name, None) for name, _ in kind.train_list],
        "test_list": [(name, None) for name, _ in kind.test_list],
        "meta": {**kind.meta, "md5": None},
    }
    reader = type(kind.__name__, (kind,), unchecked)

    def read() -> Raw:
        for name in names:  # torchvision would run whatever code these pickles hold
            plain_pickle.load(root / name)
        parts = [reader(root, train=train) for train in (True, False)]
        train, test = (
            (_resized(part.data.transpose(0, 3, 1, 2), spec), np.array(part.targets, np.int64))
            for part in parts
        )
        classes = tuple(map(str, parts[0].classes))
        coarse = None
        if spec.name == "cifar20":
            coarse = _coarse(root / kind.base_folder, classes)
        return Raw(train, test, classes, coarse)

    return cached(spec, cache, [root / name for name in names], [spec.size], read)


def _coarse(folder: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """Return CIFAR-100's superclasses and the classes they hold, from the coarse labels of its samples."""
    content = {}
    for name in ("meta", "train", "test"):
        content[name] = plain_pickle.load(folder / name)
    names = [str(name) for name in content["meta"]["coarse_label_names"]]
    pairs = {
        pair
        for part in ("train", "test")
        for pair in zip(content[part]["fine_labels"], content[part]["coarse_labels"])
    }
    if len(pairs) != len(classes):
        raise ValueError(
            f"its {len(classes)} classes come with {len(pairs)} pairs of fine and coarse label; "
            "each class must have one superclass"
        )
    owner = dict(pairs)
    return {
        name: [fine for label, fine in enumerate(classes) if owner[label] == number]
        for number, name in enumerate(names)
    }


def svhn(spec: DataSpec, cache: Path) -> Raw:
    """Read Street View House Numbers, cropped digits: `train` and `test`, without `extra`."""
    kind: Any = torchvision_datasets().SVHN
    root = spec.folder
    if spec.download:
        _download(spec, lambda: [kind(root, split=s, download=True) for s in ("train", "test")])
    files = [kind.split_list[split][1] for split in ("train", "test")]
    url = kind.split_list["train"][0].rpartition("/")[0]
    require(spec, root, files, f"get them from {url}")
    unchecked = {key: [*entry[:2], None] for key, entry in kind.split_list.items()}
    reader = type(kind.__name__, (kind,), {"split_list": unchecked})

    def read() -> Raw:
        parts = [reader(root, split=split) for split in ("train", "test")]
        train, test = ((_resized(p.data, spec), np.atleast_1d(p.labels)) for p in parts)
        return Raw(train, test, tuple(map(str, range(10))))

    return cached(spec, cache, [root / name for name in files], [spec.size], read)


def mnist(spec: DataSpec, cache: Path) -> Raw:
    """Read MNIST, or Fashion-MNIST with the same format: grey images of 28 x 28."""
    kind: Any = getattr(
        torchvision_datasets(), {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[spec.name]
    )
    root = _above(spec.folder, kind.__name__)
    if spec.download:
        _download(spec, lambda: kind(root, download=True))
    names = [f"{kind.__name__}/raw/{name.removesuffix('.gz')}" for name, _ in kind.resources]
    require(spec, root, names, _get("its four .gz files", kind.mirrors[0]))

    def read() -> Raw:
        train, test = (
            (_resized(part.data.numpy()[:, None], spec), part.targets.numpy())
            for part in (kind(root, train=True), kind(root, train=False))
        )
        return Raw(train, test, tuple(name.partition(" - ")[0] for name in kind.classes))

    return cached(spec, cache, [root / name for name in names], [spec.size], read)


def celeba(spec: DataSpec, cache: Path) -> Raw:
    """Read CelebA, aligned and cropped; `data.label` names the attributes whose combinations are the classes.

    The groups are the identities. Its official `valid` images are left out, since `val` is cut from `train`.
    """
    kind: Any = torchvision_datasets().CelebA
    root = _above(spec.folder, kind.base_folder)
    if not spec.label:
        raise ValueError(
            "data.label is required for celeba: a list of attributes, such as [Smiling]"
        )
    if spec.download:
        _download(spec, lambda: kind(root, download=True))
    texts = [name for *_, name in kind.file_list if name.endswith(".txt")]
    names = [f"{kind.base_folder}/{name}" for name in (*texts, "img_align_celeba/")]
    require(spec, root, names, f"get them from {CELEBA} and unpack img_align_celeba.zip")
    lists = _celeba_lists(kind, root, [root / kind.base_folder / name for name in texts], cache)
    attributes = lists["names"].tolist()
    for name in spec.label:
        if name not in attributes:
            raise ValueError(
                f"data.label: unknown attribute {name!r}; celeba has {', '.join(attributes)}"
            )
    columns = [attributes.index(name) for name in spec.label]
    weights = 2 ** np.arange(len(columns))[::-1]
    labels = {part: lists[f"{part}_attr"][:, columns] @ weights for part in CELEBA_PARTS}
    classes = tuple(
        " & ".join(name if has else f"not {name}" for name, has in zip(spec.label, answer))
        for answer in product((False, True), repeat=len(columns))
    )
    files = {
        part: [(name, 0) for name in lists[f"{part}_filename"].tolist()] for part in CELEBA_PARTS
    }
    listed = tuple(name for entries in files.values() for name, _ in entries)
    folder = root / kind.base_folder / "img_align_celeba"
    there = {path.name for path in folder.iterdir()}
    absent = [name for name in listed if name not in there]
    if absent:
        raise ValueError(
            f"data.root: {folder}: {len(absent)} of {len(listed)} images are missing, such as "
            f"{absent[0]}; unpack img_align_celeba.zip (from {CELEBA}) there"
        )
    images = decoded(folder_source(folder, listed), files, spec.size, cache, [spec.size, files])
    return Raw(
        (images["train"], labels["train"]),
        (images["test"], labels["test"]),
        classes,
        groups=(lists["train_identity"], lists["test_identity"]),
    )


def _celeba_lists(
    kind: Any, root: Path, texts: Sequence[Path], cache: Path
) -> dict[str, NDArray[Any]]:
    """Read the text files of CelebA; return by part the names of images, identities, and attributes as 0 and 1.

    Reading their 200,000 lines takes half a minute: the arrays are kept in the cache.
    """
    stats = [path.stat() for path in texts]
    identity = [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in zip(texts, stats)]
    folder = cache / "lists" / digest(["celeba", identity])

    def write(temporary: Path) -> None:
        unchecked = {"file_list": [(number, None, name) for number, _, name in kind.file_list]}
        reader = type(kind.__name__, (kind,), unchecked)
        try:
            parts = {part: reader(root, split=part) for part in CELEBA_PARTS}
        except Exception as error:  # whatever else these text files hold
            raise ValueError(
                f"data.root: {root}: the lists of celeba cannot be read: {type(error).__name__}: {error}"
            ) from error
        np.save(temporary / "names.npy", [name for name in parts["train"].attr_names if name])
        for part, images in parts.items():
            np.save(temporary / f"{part}_filename.npy", list(map(str, images.filename)))
            np.save(temporary / f"{part}_identity.npy", images.identity[:, 0].numpy())
            np.save(temporary / f"{part}_attr.npy", images.attr.numpy())

    if not folder.is_dir():
        make_entry(folder, write)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def _resized(images: NDArray[np.uint8], spec: DataSpec) -> NDArray[np.uint8]:
    return resized(images, spec.size)


def _above(root: Path, base: str) -> Path:
    """Return the folder torchvision wants, the one that holds `base`, when the user named `base` itself."""
    return root.parent if root.name == base and not (root / base).is_dir() else root


def _get(archive: str, url: str) -> str:
    return f"get {archive} from {url} and unpack there"


def _download(spec: DataSpec, action: Callable[[], object]) -> None:
    """Let torchvision download, and check, what is not there."""
    try:
        action()
    except (OSError, RuntimeError, ImportError) as error:
        raise ValueError(
            f"data.download: {spec.name} cannot be downloaded to {spec.folder}: {error}"
        ) from error
