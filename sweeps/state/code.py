"""Which code this process runs: the version of the program and a digest of its source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

PACKAGES = ("mu", "search_spaces", "sweeps")
"""What workers run. Reports are written by the driver alone."""


def folders() -> list[Path]:
    """Return where each package of ``PACKAGES`` lies, an installed one or that of a checkout."""
    found = []
    for name in PACKAGES:
        spec = util.find_spec(name)
        assert spec is not None and spec.submodule_search_locations
        found.append(Path(next(iter(spec.submodule_search_locations))))
    return found


@cache
def digest() -> str:
    """Return a digest of the source of all packages, the same wherever they lie."""
    content = hashlib.sha256()
    for folder in folders():
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            content.update(f"{name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return content.hexdigest()[:12]


@dataclass(frozen=True)
class Code:
    """What a process runs.

    Args:
        version: Of the installed program.
        digest: Of the source that is imported, which may be another than the installed one.
    """

    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.version} (source {self.digest})"


def running() -> Code:
    """Return what this process runs."""
    try:
        version = metadata.version("musweep")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return Code(version, digest())
