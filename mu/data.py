"""Data sets as uint8 arrays, and ``Examples``: tensors on a device. No workers, no per-image Python.

A ``Dataset`` has four disjoint parts: `train` (what models are trained on and forget requests choose
from), `val` (what the search may look at), `twin` (held-out data for methods that declare it, empty by
default) and `test` (what only the report looks at). `val` and `twin` are cut from the training images,
stratified, in the same way for every seed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mu.keys import derive_seed

logger = logging.getLogger(__name__)
PARTS = ("train", "val", "twin", "test")
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Examples:
    """Inputs and labels of a named set, on one device.

    Args:
        inputs: uint8 [N, C, H, W] (pixels 0..255), or float [N, ...] used as it is.
        labels: int64 [N].
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Examples:
        """The examples at `index` (int64 [M]), in that order."""
        return Examples(self.inputs[index], self.labels[index])

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Model inputs (float; pixels in [0, 1]) and labels of the examples at `index`."""
        return as_float(self.inputs[index]), self.labels[index]

    @property
    def device(self) -> torch.device:
        return self.labels.device


def as_float(inputs: Tensor) -> Tensor:
    """Pixels 0..255 as float32 in [0, 1]; inputs that are not uint8 stay as they are."""
    return inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs


def concat(*sets: Examples) -> Examples:
    """Several sets, one after the other."""
    return Examples(torch.cat([s.inputs for s in sets]), torch.cat([s.labels for s in sets]))


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Args:
        inputs: uint8 [N, C, H, W].
        labels: int64 [N], the class a model predicts.
        fine: int64 [N], the sub-class; equal to `labels` where the data has no superclasses.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.int64]
    fine: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Part:
        return Part(self.inputs[index], self.labels[index], self.fine[index])

    def examples(self, device: torch.device | str = "cpu") -> Examples:
        """This part as tensors on `device`; on the CPU they share the arrays' memory, never written to."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return Examples(
                torch.from_numpy(self.inputs).to(device), torch.from_numpy(self.labels).to(device)
            )


@dataclass(frozen=True)
class Dataset:
    """A data set, split into its four parts.

    Args:
        name: Where it came from, for reports.
        parts: The four parts of ``PARTS``.
        classes: Names of the classes a model predicts.
        fine_classes: Names of the sub-classes; the same as `classes` without superclasses.
    """

    name: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    fine_classes: tuple[str, ...] = field(default=())

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.parts["train"].inputs.shape[1:]

    @cached_property
    def channel_stats(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the training images, in [0, 1] pixel units."""
        images = self.parts["train"].inputs
        counts = np.stack(
            [np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])]
        )
        values = np.arange(256) / 255
        weights = counts / counts.sum(1, keepdims=True)
        mean = weights @ values
        std = np.sqrt(np.maximum(weights @ values**2 - mean**2, 1e-12))
        return tuple(mean.tolist()), tuple(std.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """Content key of all inputs, labels and class names: 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.classes, self.fine_classes]).encode())
        for name in PARTS:
            part = self.parts[name]
            digest.update(f"{name}{part.inputs.shape}".encode())
            for array in (part.inputs, part.labels, part.fine):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class DataSpec:
    """What to load, as a study says it.

    Args:
        name: A key of ``LOADERS``.
        root: Folder or .zip file, for loaders that read one.
        size: Side in pixels to which images are resized; None keeps them (all must then agree).
        subset: Number of training images to keep, stratified by class; None keeps all.
        val: Share of the training images held out for the search's view, in (0, 1).
        twin: Share held out for methods that need unseen labelled data (TMU), in [0, 1).
        superclasses: Superclass name to the classes it holds; the model then predicts superclasses.
    """

    name: str
    root: str | None = None
    size: int | None = None
    subset: int | None = None
    val: float = 0.1
    twin: float = 0.0
    superclasses: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class Raw:
    """What a loader returns: training and test images with labels, and class names."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    classes: tuple[str, ...]


def load(spec: DataSpec, cache: Path | None = None) -> Dataset:
    """Load a data set and cut it into its parts.

    Args:
        cache: Folder for decoded images; ``$MUSWEEP_CACHE`` or ``~/.cache/musweep`` when None.

    Raises:
        ValueError: The spec names an unknown data set, class, folder, or leaves a part empty.
    """
    if spec.name not in LOADERS:
        raise ValueError(f"data.name must be one of {', '.join(LOADERS)}, but got {spec.name!r}")
    for key, share in (("val", spec.val), ("twin", spec.twin)):
        if not 0 <= share < 1:
            raise ValueError(f"data.{key} must be in [0, 1), but got {share}")
    raw = LOADERS[spec.name](spec, cache or default_cache())
    labels, classes = _superclass_labels(spec, raw.classes)
    train, test = (
        Part(images, labels[fine], fine.astype(np.int64)) for images, fine in (raw.train, raw.test)
    )
    keep = np.arange(len(train))
    if spec.subset is not None:
        if not 0 < spec.subset <= len(train):
            raise ValueError(
                f"data.subset must be in [1, {len(train)}] (the training images of {spec.name}), "
                f"but got {spec.subset}"
            )
        keep, _ = _stratified(train.fine, keep, spec.subset, "subset")
    held_out = {}
    total = len(keep)
    for name, share in (("val", spec.val), ("twin", spec.twin)):
        held_out[name], keep = _stratified(train.fine, keep, round(share * total), name)
    if len(held_out["val"]) == 0 or len(keep) == 0 or len(test) == 0:
        raise ValueError(
            f"data: {total} training images with val={spec.val}, twin={spec.twin} leave "
            f"{len(keep)} to train on, {len(held_out['val'])} for val, {len(test)} for test; "
            "each must be at least 1"
        )
    parts = {
        "train": train.take(keep),
        "val": train.take(held_out["val"]),
        "twin": train.take(held_out["twin"]),
        "test": test,
    }
    missing = np.setdiff1d(np.arange(len(classes)), parts["train"].labels)
    if len(missing):
        raise ValueError(
            f"data: no training image is left of class {classes[missing[0]]!r}; raise data.subset"
        )
    return Dataset(spec.name, parts, classes, raw.classes)


def _superclass_labels(
    spec: DataSpec, fine: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Map from sub-class to label, and the names of the labels."""
    if spec.superclasses is None:
        return np.arange(len(fine)), fine
    members = [name for names in spec.superclasses.values() for name in names]
    unknown = sorted(set(members) - set(fine))
    absent = sorted(set(fine) - set(members))
    repeated = sorted({name for name in members if members.count(name) > 1})
    for problem, names in (
        ("unknown class", unknown),
        ("no superclass for", absent),
        ("more than one superclass for", repeated),
    ):
        if names:
            raise ValueError(
                f"data.superclasses: {problem} {names[0]!r}; {spec.name} has {', '.join(fine)}"
            )
    owner = {name: i for i, names in enumerate(spec.superclasses.values()) for name in names}
    return np.array([owner[name] for name in fine]), tuple(spec.superclasses)


def _stratified(
    classes: NDArray[np.int64], pool: NDArray[np.int64], count: int, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` of `pool` with every class in its share; return (chosen, rest), both sorted."""
    rng = np.random.default_rng(derive_seed("stratified", purpose))
    chosen = stratified_choice(classes[pool], count, rng)
    mask = np.zeros(len(pool), bool)
    mask[chosen] = True
    return pool[mask], pool[~mask]


def stratified_choice(
    classes: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose `count` positions so that each class has its share, to within one sample.

    Returns:
        Sorted positions into `classes`.
    """
    names, sizes = np.unique(classes, return_counts=True)
    exact = sizes * (count / max(1, len(classes)))
    quota = np.floor(exact).astype(int)
    # The samples that rounding left over go to the largest remainders; ties are drawn.
    order = np.lexsort((rng.random(len(names)), -(exact - quota)))
    quota[order[: count - quota.sum()]] += 1
    picks = [rng.permutation(np.flatnonzero(classes == name))[:n] for name, n in zip(names, quota)]
    return np.sort(np.concatenate(picks)) if picks else np.empty(0, np.int64)


def default_cache() -> Path:
    return Path(os.environ.get("MUSWEEP_CACHE") or Path.home() / ".cache" / "musweep")


def _digits(spec: DataSpec, cache: Path) -> Raw:
    """Handwritten digits shipped with scikit-learn: 1,797 grey images of 8 x 8, one fifth for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    test, train = _stratified(labels, np.arange(len(labels)), len(labels) // 5, "digits test")
    classes = tuple(str(name) for name in bunch.target_names)
    return Raw((images[train], labels[train]), (images[test], labels[test]), classes)


def _image_folder(spec: DataSpec, cache: Path) -> Raw:
    """A folder or .zip laid out {train,test}/<class>/<image>, decoded once into a memory-mapped cache."""
    if spec.root is None:
        raise ValueError("data.root is required for image_folder: a folder or a .zip file")
    source = open_source(Path(spec.root).expanduser())
    classes, files = _layout(source)
    key = hashlib.blake2b(
        json.dumps([source.identity, spec.size, classes, files]).encode(), digest_size=16
    ).hexdigest()
    folder = cache / "images" / key
    if not folder.is_dir():
        _decode_into(folder, source, files, spec.size)
    arrays = {
        split: (
            np.load(folder / f"{split}.npy", mmap_mode="r"),
            np.array([label for _, label in files[split]], np.int64),
        )
        for split in ("train", "test")
    }
    return Raw(arrays["train"], arrays["test"], classes)


LOADERS: dict[str, Callable[[DataSpec, Path], Raw]] = {
    "digits": _digits,
    "image_folder": _image_folder,
}


@dataclass(frozen=True)
class Source:
    """Files below a folder or inside a .zip, read in memory: nothing is ever extracted to a path.

    Args:
        root: The folder or .zip file.
        names: Relative names of all image files, sorted.
        identity: What changes when the content changes: names, sizes and times.
        read: Returns the bytes of one name.
    """

    root: Path
    names: tuple[str, ...]
    identity: str
    read: Callable[[str], bytes]


def open_source(root: Path) -> Source:
    """List the image files of a folder or .zip.

    Raises:
        ValueError: Nothing is there, or it is neither a folder nor a .zip file.
    """
    if root.is_dir():
        names = tuple(
            sorted(filter(_is_image, (p.relative_to(root).as_posix() for p in root.rglob("*"))))
        )
        stats = ((root / name).stat() for name in names)
        identity = str([(stat.st_size, stat.st_mtime_ns) for stat in stats])
        return Source(root, names, identity, lambda name: (root / name).read_bytes())
    if not root.exists():
        raise ValueError(f"data.root: {root} does not exist")
    if not zipfile.is_zipfile(root):
        raise ValueError(f"data.root: {root} is neither a folder nor a .zip file")
    archive = zipfile.ZipFile(root)
    entries = [info for info in archive.infolist() if _is_image(info.filename)]
    entries.sort(key=lambda info: info.filename)
    return Source(
        root,
        tuple(info.filename for info in entries),
        str([(info.file_size, info.CRC) for info in entries]),
        archive.read,
    )


def _is_image(name: str) -> bool:
    """Whether a relative name is that of an image, and not hidden or a leftover of macOS."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not re.search(r"(^|/)(\.|__MACOSX)", name)


def _layout(source: Source) -> tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]:
    """Class names, and (file name, label) of the train and test images."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name in source.names:
        match = re.search(r"(?:^|/)(train|test)/([^/]+)/[^/]+$", name)
        if match:
            found[match[1]].setdefault(match[2], []).append(name)
    for split, classes in found.items():
        if not classes:
            raise ValueError(
                f"data.root: {source.root} has no images under {split}/<class>/; "
                "the layout must be {train,test}/<class>/<image>"
            )
    names = tuple(sorted(found["train"]))
    strange = sorted(set(found["test"]) - set(names))
    if strange:
        raise ValueError(
            f"data.root: {source.root}: test class {strange[0]!r} has no training images"
        )
    files = {
        split: [(name, names.index(c)) for c in sorted(found[split]) for name in found[split][c]]
        for split in found
    }
    return names, files


def _decode_into(
    folder: Path, source: Source, files: Mapping[str, list[tuple[str, int]]], size: int | None
) -> None:
    """Decode every image into `folder`/{train,test}.npy; the folder appears only when complete."""
    from tqdm import tqdm

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".decoding-", dir=folder.parent))
    total = sum(map(len, files.values()))
    try:
        with tqdm(
            total=total, desc=f"decoding {source.root.name}", unit="image", mininterval=1
        ) as progress:
            for split, entries in files.items():
                _decode(temporary / f"{split}.npy", source, entries, size, progress.update)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process finished the same cache first: use that one
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode(
    path: Path,
    source: Source,
    entries: Sequence[tuple[str, int]],
    size: int | None,
    advance: Callable[[int], Any],
) -> None:
    first = _decode_one(source, entries[0][0], size)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (len(entries), *first.shape))

    def put(position: int) -> None:
        name = entries[position][0]
        image = _decode_one(source, name, size)
        if image.shape != first.shape:
            raise ValueError(
                f"data.root: {source.root}: {name} is {image.shape[2]}x{image.shape[1]} pixels, "
                f"{entries[0][0]} is {first.shape[2]}x{first.shape[1]}; set data.size to resize all"
            )
        array[position] = image
        advance(1)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(put, range(len(entries))):
            pass
    array.flush()


def _decode_one(source: Source, name: str, size: int | None) -> NDArray[np.uint8]:
    """One image as uint8 [3, H, W]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, zipfile.BadZipFile) as error:
        raise ValueError(f"data.root: {source.root}: cannot read image {name}: {error}") from error
    if size is not None and pixels.size != (size, size):
        pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def batches(
    count: int, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Index batches (int64) over `count` examples, shuffled when a generator is given.

    A last batch of one example joins the batch before it, because batch normalisation cannot train on one.
    """
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        yield order[start : starts[i + 1] if i + 1 < len(starts) else count]
