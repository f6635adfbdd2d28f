"""Image files below a folder or inside a .zip, decoded once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
Files = Mapping[str, Sequence[tuple[str, int]]]
"""Part (`train` or `test`) to its files: relative name and label of each."""


class DataMissing(ValueError):
    """The files of a data set are not on this machine, where they may be right on another."""


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
        names = (p.relative_to(root).as_posix() for p in root.rglob("*"))
        return folder_source(root, tuple(sorted(filter(_is_image, names))))
    if not root.exists():
        raise DataMissing(f"data.root: {root} does not exist")
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


def folder_source(root: Path, names: tuple[str, ...]) -> Source:
    """Open the named files below a folder."""
    stats = ((root / name).stat() for name in names)
    identity = str([(stat.st_size, stat.st_mtime_ns) for stat in stats])
    return Source(root, names, identity, lambda name: (root / name).read_bytes())


def _is_image(name: str) -> bool:
    """Return whether a relative name is that of an image, and not hidden or a leftover of macOS."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not re.search(r"(^|/)(\.|__MACOSX)", name)


def decoded(
    source: Source, files: Files, size: int | None, cache: Path, key: Sequence[Any]
) -> dict[str, NDArray[np.uint8]]:
    """Return the images of each part as memory-mapped uint8 [N, 3, H, W]; decode them unless the cache has them.

    Args:
        size: Side in pixels to which images are resized; None keeps them, and all must then agree.
        key: What names the images besides the source's identity.
    """
    folder = cache / "images" / digest([source.identity, *key])
    if not folder.is_dir():
        decode_into(folder, source, files, size)
    return {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in files}


def digest(parts: Sequence[Any]) -> str:
    """Return the name of a cache entry: 32 hex digits of all that its content depends on."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def make_entry(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder of the cache by `write`; it appears only when complete, whoever else makes it too."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".decoding-", dir=folder.parent))
    try:
        write(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process finished the same entry first: use that one
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def decode_into(folder: Path, source: Source, files: Files, size: int | None) -> None:
    """Decode every image into `folder`/<part>.npy."""
    from tqdm import tqdm

    total = sum(map(len, files.values()))

    def write(temporary: Path) -> None:
        with tqdm(
            total=total, desc=f"decoding {source.root.name}", unit="image", mininterval=1
        ) as progress:
            for part, entries in files.items():
                _decode(temporary / f"{part}.npy", source, entries, size, progress.update)

    make_entry(folder, write)


def _decode(
    path: Path,
    source: Source,
    entries: Sequence[tuple[str, int]],
    size: int | None,
    advance: Callable[[int], Any],
) -> None:
    """Decode the images of one part into a .npy file; call `advance` with 1 after each."""
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
    """Decode one image: uint8 [3, H, W]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source.read(name))) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, zipfile.BadZipFile) as error:
        raise ValueError(f"data.root: {source.root}: cannot read image {name}: {error}") from error
    if size is not None and pixels.size != (size, size):
        pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def resized(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Resize images [N, C, H, W] to `size` on each side, as image files are."""
    from PIL import Image

    if size is None or images.shape[2:] == (size, size):
        return images
    flat = images.reshape(-1, *images.shape[2:])
    small = np.empty((len(flat), size, size), np.uint8)
    for plane, target in zip(flat, small):
        target[:] = np.asarray(
            Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)
        )
    return small.reshape(*images.shape[:2], size, size)
