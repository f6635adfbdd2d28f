"""Methods and models of other installed packages, by their entry points.

A package names them in its ``pyproject.toml``, and nothing of it is imported before one of its names is used:

    [project.entry-points."musweep.methods"]
    gentle = "mypkg.gentle"

    [project.entry-points."musweep.models"]
    mynet = "mypkg.nets:build"

A method is a module as ``mu.methods`` says, a model a function as ``mu.models.own_models`` says. Names that ship go first.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

METHODS, MODELS = "musweep.methods", "musweep.models"


def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name, as far as packages that are installed have any."""
    return _plugins(group, tuple(sys.path))


@cache
def _plugins(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Return the entry points that there are while the import path is `path`."""
    return {entry.name: entry for entry in sorted(entry_points(group=group))}


def load_module(entry: EntryPoint) -> ModuleType:
    """Import the module that an entry point names.

    Raises:
        ValueError: It names something else, or cannot be imported; the message names its package.
    """
    try:
        loaded = entry.load()
    except Exception as error:  # a package's code may raise anything
        raise ValueError(
            f"{origin(entry)}: {entry.value} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, ModuleType):
        raise ValueError(
            f"{origin(entry)}: {entry.name!r} of {entry.group} must name a module, but {entry.value} is "
            f"{type(loaded).__name__}"
        )
    return loaded


def source_file(entry: EntryPoint) -> Path | None:
    """Return the file of the module that an entry point names; None where it cannot be found. The module is not imported."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except Exception:  # its package may fail to import; who uses the name is told
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def origin(entry: EntryPoint) -> str:
    """Return which package an entry point is of, for messages."""
    dist = entry.dist
    return "a package" if dist is None else f"package {dist.name} {dist.version}"
