"""A user's own network by import path, such as ``mypkg.nets:build``, and the source that decides what it is.

The function takes the number of classes and the shape of one input, and returns the network. Its module is
imported as any other; who runs the program decides which folders are on the path.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from torch import nn

from mu.keys import content_key


@dataclass(frozen=True)
class OwnModel:
    """A network of a user's own, as its import path leads to it.

    Args:
        factory: From the shape of an input and the number of classes to the network.
        fingerprint: Of the source of its module and of the modules that this imports, installed ones left out.
        modules: Names of those modules that are not installed, which other machines do not have.
    """

    factory: Callable[[Sequence[int], int], nn.Module]
    fingerprint: str
    modules: tuple[str, ...]


def load(path: str) -> OwnModel:
    """Import ``module:function``.

    Raises:
        ValueError: The module cannot be found or imported, or has no such function.
    """
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise ValueError(f"must be module:function, such as mypkg.nets:build, but got {path!r}")
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"there is no module {error.name!r}; it must be installed, or lie in a folder given "
                "with --code-path"
            ) from error
        raise ValueError(f"{module_name} cannot be imported: {error}") from error
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{module_name} cannot be imported: {kind}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{module.__file__} has no function {name!r}")
    used = sorted(_used(module), key=lambda each: each.__name__)
    return OwnModel(
        partial(_call, function, path),
        content_key(path, [(each.__name__, _digest(each)) for each in used]),
        tuple(each.__name__ for each in used if not _installed(each.__file__)),
    )


def _call(
    function: Callable[..., nn.Module], path: str, shape: Sequence[int], num_classes: int
) -> nn.Module:
    network = function(num_classes, tuple(shape))
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{path} must return a torch.nn.Module, but returned {type(network).__name__}"
        )
    return network


def _used(start: ModuleType) -> set[ModuleType]:
    """Return a module and what it imports, directly or not, of its own package or from outside of the installation."""
    package = start.__name__.partition(".")[0]
    used: set[ModuleType] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in used:
            continue
        used.add(module)
        for name in _imported_names(module):
            top = name.partition(".")[0]
            if top == package or not _from_installation(top):
                waiting += _module(name)
    return used


def _imported_names(module: ModuleType) -> Iterator[str]:
    """Yield the full names in a module's import statements, with the packages around each and around itself.

    A name after ``from x import`` may be a module or not.
    """
    names = [module.__name__]
    source = Path(module.__file__ or "")
    if source.suffix == ".py" and source.is_file():
        for node in ast.walk(ast.parse(source.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                relative = "." * node.level + (node.module or "")
                base = importlib.util.resolve_name(relative, module.__package__)
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _module(name: str) -> list[ModuleType]:
    """Return the module of a name, as a list; empty where the name is something else, or an import that may be missing."""
    try:
        return [importlib.import_module(name)]
    except ImportError:
        return []


@cache
def _from_installation(package: str) -> bool:
    """Return whether a top-level package is part of Python, of what is installed, or of this program."""
    if package == __name__.partition(".")[0] or package in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return True
    if spec is None:
        return True
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    return all(_installed(place) for place in places)


def _installed(file: str | None) -> bool:
    """Return whether a file lies where Python or pip puts what is installed."""
    if file is None:
        return True
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {*site.getsitepackages(), site.getusersitepackages()}
    return any(Path(file).resolve().is_relative_to(Path(root).resolve()) for root in roots)


def _digest(module: ModuleType) -> str:
    """Return the digest of a module's file; empty for a package without one."""
    if module.__file__ is None:
        return ""
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
