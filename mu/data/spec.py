"""``DataSpec``, what a study says of its data, and ``Raw``, what every loader makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.checks import not_finite
from mu.data.decode import DataMissing, digest, make_entry

Labelled = tuple[NDArray[Any], NDArray[np.int64]]
COMMON = ("name", "subset", "test_subset", "val", "twin", "superclasses", "reserve")
"""Keys that every data set takes."""


@dataclass(frozen=True)
class DataSpec:
    """The data that a study asks for."""

    # ``LOADERS`` has the names, and says which keys a data set takes beyond ``COMMON``.

    name: str
    """The data set."""
    root: str | None = None
    """Folder or .zip file, for loaders that read one."""
    size: int | None = None
    """Side in pixels to which images are resized; None keeps them (all must then agree)."""
    subset: int | float | None = None
    """Number of training images to keep, or the share of them, in (0, 1); stratified by class. None keeps all."""
    test_subset: int | float | None = None
    """The same of the test images, which every trial of a small model spends much of its time on."""
    val: float = 0.1
    """Share of the training images held out for the search's view, in (0, 1)."""
    twin: float = 0.0
    """Share held out for methods that need unseen labelled data (TMU), in [0, 1)."""
    superclasses: Mapping[str, tuple[str, ...]] | None = None
    """Superclass name to the classes it holds; the model then predicts superclasses."""
    reserve: tuple[str, ...] = ()
    """.npy files of positions in the training images that stay to be trained on: `val` and `twin` are cut from the
    others. For forget sets that others published."""
    download: bool = False
    """Whether missing files may be downloaded to `root`, checked against their published checksums."""
    classes: tuple[str, ...] | None = None
    """Classes to keep, by name; None keeps all."""
    largest: int | None = None
    """Number of classes to keep, those with the most training images; None keeps all."""
    test: float | None = None
    """Share of the images cut off as test part, stratified by class, in (0, 1), where a folder has no test images of
    its own."""
    label: tuple[str, ...] | None = None
    """Attributes of CelebA whose combinations are the classes."""
    length: int | None = None
    """Tokens of a text: longer ones are cut, shorter ones padded."""
    vocabulary: int | None = None
    """Number of words that are told apart, the most frequent of the training texts."""

    def __post_init__(self) -> None:
        for name in not_finite(self):
            raise ValueError(f"data.{name} must be finite, but got {getattr(self, name)!r}")

    def kept(self, key: str, total: int) -> int:
        """Return how many of so many images `subset` or `test_subset` keeps. Raises ValueError when there are not so many."""
        amount = getattr(self, key)
        if amount is None:
            return total
        if 0 < amount < 1:
            return max(1, round(amount * total))
        if amount != int(amount) or not 0 < amount <= total:
            part = "test" if key == "test_subset" else "training"
            raise ValueError(
                f"data.{key} must be in [1, {total}] (the {part} images of {self.name}), or a share in (0, 1), "
                f"but got {amount}"
            )
        return int(amount)

    @property
    def folder(self) -> Path:
        """`root` as a path; raises ValueError when it is not given."""
        if self.root is None:
            raise ValueError(f"data.root is required for {self.name}: where its files are")
        return Path(self.root).expanduser()


@dataclass(frozen=True)
class Raw:
    """The whole content of a data set, as a loader returns it.

    Args:
        train, test: Inputs and labels: uint8 [N, C, H, W] images, or int32 [N, L] tokens (0 is padding).
        classes: Names of the labels.
        superclasses: Superclass name to the classes it holds, where the data set has them itself.
        groups: For train and test, who or what each sample belongs to (int64 [N]), such as the identity of a
            face; None where nobody says.
        vocabulary: What each token stands for; empty for images.
    """

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]
    superclasses: Mapping[str, Sequence[str]] | None = None
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loader:
    """A data set by name.

    Args:
        read: From the spec and the cache's folder to its content.
        keys: The keys it takes beyond ``COMMON``.
        samples: Number of training samples as published; None where it depends on the files.
    """

    read: Callable[[DataSpec, Path], Raw]
    keys: tuple[str, ...] = ()
    samples: int | None = None

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError when the spec has a key that means nothing here, or a value out of range."""
        takes = (*COMMON, *self.keys)
        for field in fields(spec):
            if field.name not in takes and getattr(spec, field.name) != field.default:
                raise ValueError(
                    f"data.{field.name} is not a key of {spec.name}; it takes {', '.join(takes)}"
                )
        for key in ("size", "largest", "length", "vocabulary"):
            value = getattr(spec, key)
            if value is not None and value < 1:
                raise ValueError(f"data.{key} must be at least 1, but got {value}")


def require(
    spec: DataSpec, root: Path, names: Iterable[str], where: str, downloads: bool = True
) -> None:
    """Raise DataMissing unless all files are there.

    Args:
        names: Relative names of files, or, with a slash at the end, of folders.
        where: Where to get them.
        downloads: Whether `data.download: true` is another way.

    Raises:
        DataMissing: The message names what is missing, and where to get it.
    """
    missing = [
        name
        for name in names
        if not ((root / name).is_dir() if name.endswith("/") else (root / name).is_file())
    ]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if missing[4:] else "")
        other = ", or set data.download: true" if downloads else ""
        state = "" if root.exists() else " (there is no such folder)"
        raise DataMissing(
            f"data.root: {root}{state}: {spec.name} is not complete there, "
            f"{shown} {'is' if len(missing) == 1 else 'are'} missing; {where}{other}"
        )


def cached(
    spec: DataSpec, cache: Path, files: Sequence[Path], key: Sequence[Any], read: Callable[[], Raw]
) -> Raw:
    """Return what `read` returns, kept in the cache as memory-mapped arrays.

    Args:
        files: The files it is read from: other sizes or times mean other content.
        key: What else changes the result.
    """
    stats = [(path.name, stat.st_size, stat.st_mtime_ns) for path in files if (stat := path.stat())]
    folder = cache / "arrays" / digest([spec.name, stats, list(key)])
    if not folder.is_dir():
        make_entry(folder, lambda temporary: _write(temporary, _checked(spec, read)))
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    train, test = (
        (
            np.load(folder / f"{part}.npy", mmap_mode="r"),
            np.load(folder / f"{part}_labels.npy"),
        )
        for part in ("train", "test")
    )
    return Raw(
        train,
        test,
        tuple(facts["classes"]),
        facts["superclasses"],
        None,
        tuple(facts["vocabulary"]),
    )


def _write(folder: Path, raw: Raw) -> None:
    for part, (inputs, labels) in (("train", raw.train), ("test", raw.test)):
        np.save(folder / f"{part}.npy", inputs)
        np.save(folder / f"{part}_labels.npy", np.asarray(labels, np.int64))
    facts = {
        "classes": raw.classes,
        "superclasses": raw.superclasses,
        "vocabulary": raw.vocabulary,
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _checked(spec: DataSpec, read: Callable[[], Raw]) -> Raw:
    """Return what `read` returns; raise a ValueError that names the files where their content is not what it should be."""
    try:
        raw = read()
    except Exception as error:  # files of any content raise anything: pickles, headers, archives
        raise ValueError(
            f"data.root: {spec.folder}: the files of {spec.name} cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    for part, (inputs, labels) in (("train", raw.train), ("test", raw.test)):
        if len(inputs) != len(labels):
            raise ValueError(
                f"data.root: {spec.folder}: {spec.name} has {len(inputs)} {part} samples, "
                f"but {len(labels)} labels"
            )
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(raw.classes):
            raise ValueError(
                f"data.root: {spec.folder}: {spec.name} has {part} labels from {np.min(labels)} to "
                f"{np.max(labels)}, but {len(raw.classes)} classes"
            )
    return raw
