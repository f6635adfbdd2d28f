"""Trained models by content key, under a folder or any fsspec URL. A file is written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)
Arrays = Mapping[str, NDArray[Any]]


class Store:
    """Named arrays by key, each a checksum followed by an .npz. Every method raises OSError when it cannot be reached.

    A file that is cut short or corrupted counts as absent, so that it is made again.

    Args:
        location: Local folder or fsspec URL (such as ``s3://bucket/models``).
    """

    def __init__(self, location: str):
        import fsspec  # here, as commands that open no store would wait for it

        self.location = location
        self.files, self.root = fsspec.core.url_to_fs(os.path.expanduser(location))
        self.local = "file" in self.files.protocol or "local" in self.files.protocol

    def _path(self, key: str) -> str:
        return f"{self.root}/{key[:2]}/{key}.npz"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Each protocol has errors of its own for a server that is away: all of them are OSError here."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self.location}: {error}") from error

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a key; None when there is no intact file."""
        try:
            with self._errors():
                content = self.files.cat_file(self._path(key))
        except FileNotFoundError:
            return None
        checksum, _, payload = content.partition(b"\n")
        if hashlib.sha256(payload).hexdigest().encode() != checksum:
            logger.warning("%s is damaged and will be made again", self._path(key))
            return None
        return unpack(payload)

    def has(self, key: str) -> bool:
        """Return whether a key has a file, which may be damaged."""
        with self._errors():
            return bool(self.files.exists(self._path(key)))

    def put(self, key: str, arrays: Arrays) -> None:
        """Store arrays under a key: written, synced and renamed on a local disk, one upload elsewhere."""
        payload = pack(arrays)
        content = hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
        path = self._path(key)
        if not self.local:
            with self._errors():
                self.files.pipe_file(path, content)
            return
        write_atomically(Path(path), content)

    def delete(self, key: str) -> None:
        """Remove a key, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._errors():
            self.files.rm_file(self._path(key))

    def keys(self) -> set[str]:
        """Return every key that has a file."""
        with self._errors():
            paths = self.files.find(self.root) if self.files.exists(self.root) else []
        return {Path(path).stem for path in paths if path.endswith(".npz")}

    def check(self) -> None:
        """Raise OSError unless something can be written and read here."""
        key = "0" * 32
        self.put(key, {"check": np.zeros(1)})
        if self.get(key) is None:
            raise OSError(f"{self.location}: what was written cannot be read back")
        self.files.rm_file(self._path(key))


def pack(arrays: Arrays) -> bytes:
    """Pack named arrays into the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(payload: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays that ``pack`` packed."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return dict(arrays)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent after a crash: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
