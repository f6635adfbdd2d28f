"""Data sets of image files in folders: anyone's own, ImageNet, Tiny ImageNet, and collections of faces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mu.data.decode import DataMissing, Source, decoded, open_source
from mu.data.sampling import stratified_cut
from mu.data.spec import DataSpec, Raw
from mu.vision import datasets as torchvision_datasets

Folders = Mapping[str, list[str]]
"""Class to the names of its images."""
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_FILES = ("wnids.txt", "val/val_annotations.txt")


def image_folder(spec: DataSpec, cache: Path) -> Raw:
    """Read a folder or .zip laid out {train,test}/<class>/<image>, or {train,val}/..., or <class>/<image>.

    The last layout has no test images: `data.test` says which share of the images becomes them.
    """
    source = open_source(spec.folder)
    train = _folders(source, "train")
    test = _folders(source, "test") or _folders(source, "val")
    if spec.test is None:
        for part, folders in (("train", train), ("test", test)):
            if not folders:
                raise ValueError(
                    f"data.root: {source.root} has no images under {part}/<class>/; "
                    "the layout must be {train,test}/<class>/<image>, or <class>/<image> with "
                    "the share of test images in data.test"
                )
        return _read(spec, cache, source, train, test)
    if test:
        raise ValueError(
            f"data.test: {source.root} has test images of its own; leave data.test out"
        )
    return _cut(spec, cache, source, train or _folders(source), spec.test)


def imagenet(spec: DataSpec, cache: Path) -> Raw:
    """Read ImageNet (ILSVRC 2012) or a part of it: {train,val}/<WordNet id>/<image>; `val` is the test part."""
    source = open_source(spec.folder)
    train, test = _folders(source, "train"), _folders(source, "val")
    for part, folders in (("train", train), ("val", test)):
        if not folders:
            raise ValueError(
                f"data.root: {source.root} has no images under {part}/<WordNet id>/; get "
                "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org and sort "
                "them into {train,val}/<WordNet id>/<image>"
            )
    return _read(spec, cache, source, train, test)


def pins_faces(spec: DataSpec, cache: Path) -> Raw:
    """Read Pins Face Recognition: pins_<name>/<image> for 105 people. It has no test part: a fifth is cut off."""
    source = open_source(spec.folder)
    people = {
        name.removeprefix("pins_"): images
        for name, images in _folders(source).items()
        if name.startswith("pins_")
    }
    if not people:
        raise ValueError(
            f"data.root: {source.root} has no images under pins_<name>/; get them from "
            "https://www.kaggle.com/datasets/hereisburak/pins-face-recognition"
        )
    return _cut(spec, cache, source, people, 0.2 if spec.test is None else spec.test)


def vggface2(spec: DataSpec, cache: Path) -> Raw:
    """Read VGGFace2: train/<identity>/<image>. Its test part holds other people: three tenths of `train` are cut off.

    TMU (appendix A.1.2) cuts 7:3.
    """
    source = open_source(spec.folder)
    people = _folders(source, "train")
    if not people:
        raise ValueError(
            f"data.root: {source.root} has no images under train/<identity>/; get vggface2_train.tar.gz from "
            "https://www.robots.ox.ac.uk/~vgg/data/vgg_face2/ or one of its mirrors, and unpack it there"
        )
    return _cut(spec, cache, source, people, 0.3 if spec.test is None else spec.test)


def tiny_imagenet(spec: DataSpec, cache: Path) -> Raw:
    """Read Tiny ImageNet in the layout of its zip, unpacked or not; classes are named by WordNet id.

    Its test images have no labels: `val`, labelled by val_annotations.txt, is the test part.
    """
    root = spec.folder
    if spec.download and not (root / "tiny-imagenet-200").is_dir():
        _download_tiny(root)
    if not any((root / name).is_dir() for name in ("tiny-imagenet-200", "train")):
        root = next(root.glob("tiny-imagenet-200.zip"), root)
    other = f"get tiny-imagenet-200.zip from {TINY_URL}, or set data.download: true"
    if not root.exists():
        raise DataMissing(f"data.root: {root} does not exist; {other}")
    source = open_source(root)
    prefix = next(
        (m[1] for n in source.names if (m := re.match(r"(.*?)train/[^/]+/images/", n))), ""
    )
    texts = {}
    for name in TINY_FILES:
        try:
            texts[name] = source.read(prefix + name).decode()
        except (OSError, KeyError) as error:
            raise ValueError(
                f"data.root: {root}: tiny_imagenet is not complete there, {prefix}{name} is missing; {other}"
            ) from error
    names = sorted(texts["wnids.txt"].split())
    train: dict[str, list[str]] = {name: [] for name in names}
    for image in source.names:
        match = re.fullmatch(re.escape(prefix) + r"train/([^/]+)/images/[^/]+", image)
        if match and match[1] in train:
            train[match[1]].append(image)
    test: dict[str, list[str]] = {name: [] for name in names}
    there = set(source.names)
    for line in texts["val/val_annotations.txt"].splitlines():
        file, name, *_ = [*line.split("\t"), ""]
        image = f"{prefix}val/images/{file}"
        if name not in test or image not in there:
            problem = "is of no class of wnids.txt" if name not in test else "is missing"
            raise ValueError(
                f"data.root: {root}: {image}, which val_annotations.txt names, {problem}; {other}"
            )
        test[name].append(image)
    empty = [name for name in names if not train[name]]
    if empty or not names:
        which = f"{prefix}train/{empty[0]}/images/" if empty else f"{prefix}wnids.txt"
        raise ValueError(f"data.root: {root}: {which} is empty or missing; {other}")
    return _read(spec, cache, source, train, test)


def _download_tiny(root: Path) -> None:
    utils = torchvision_datasets().utils
    try:
        utils.download_url(TINY_URL, root, md5=TINY_MD5)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"data.download: tiny_imagenet cannot be downloaded to {root}: {error}"
        ) from error


def _folders(source: Source, part: str | None = None) -> dict[str, list[str]]:
    """Return the images by class: those below <part>/<class>/, or below any <class>/."""
    where = rf"(?:^|/){part}/([^/]+)/[^/]+$" if part else r"(?:^|/)([^/]+)/[^/]+$"
    folders: dict[str, list[str]] = {}
    for name in source.names:
        match = re.search(where, name)
        if match:
            folders.setdefault(match[1], []).append(name)
    return folders


def _kept(spec: DataSpec, train: Folders) -> tuple[str, ...]:
    """Return the names of the classes that `data.classes` and `data.largest` leave, sorted."""
    names = sorted(train)
    if spec.classes is not None:
        unknown = sorted(set(spec.classes) - set(names))
        if unknown:
            shown = ", ".join(names[:10]) + (" ..." if names[10:] else "")
            raise ValueError(f"data.classes: unknown class {unknown[0]!r}; there are {shown}")
        names = sorted(set(spec.classes))
    if spec.largest is not None:
        if spec.largest > len(names):
            raise ValueError(
                f"data.largest must be at most {len(names)}, the number of classes, "
                f"but got {spec.largest}"
            )
        names = sorted(sorted(names, key=lambda name: -len(train[name]))[: spec.largest])
    return tuple(names)


def _read(spec: DataSpec, cache: Path, source: Source, train: Folders, test: Folders) -> Raw:
    """Decode the images of the classes that are kept."""
    strange = sorted(set(test) - set(train))
    if strange:
        raise ValueError(
            f"data.root: {source.root}: test class {strange[0]!r} has no training images"
        )
    classes = _kept(spec, train)
    files = {
        part: [
            (name, label) for label, kept in enumerate(classes) for name in folders.get(kept, ())
        ]
        for part, folders in (("train", train), ("test", test))
    }
    return _decode(spec, cache, source, classes, files)


def _cut(spec: DataSpec, cache: Path, source: Source, folders: Folders, share: float) -> Raw:
    """Decode the images of the classes that are kept, with a share of each as its test images."""
    if not 0 < share < 1:
        raise ValueError(f"data.test must be in (0, 1), but got {share}")
    classes = _kept(spec, folders)
    every = [(name, label) for label, kept in enumerate(classes) for name in folders[kept]]
    if not every:
        raise ValueError(
            f"data.root: {source.root} has no images; the layout must be <class>/<image>"
        )
    labels = np.array([label for _, label in every], np.int64)
    count = round(share * len(every))
    test, train = stratified_cut(labels, np.arange(len(every)), count, "test")
    files = {
        part: [every[i] for i in chosen] for part, chosen in (("train", train), ("test", test))
    }
    return _decode(spec, cache, source, classes, files)


def _decode(
    spec: DataSpec,
    cache: Path,
    source: Source,
    classes: tuple[str, ...],
    files: dict[str, list[tuple[str, int]]],
) -> Raw:
    if not files["train"] or not files["test"]:
        raise ValueError(
            f"data.root: {source.root}: the classes kept have {len(files['train'])} training and "
            f"{len(files['test'])} test images; each must be at least 1"
        )
    images = decoded(source, files, spec.size, cache, [spec.size, classes, files])
    train, test = (
        (images[part], np.array([label for _, label in files[part]], np.int64))
        for part in ("train", "test")
    )
    return Raw(train, test, classes)
