"""Unlearning methods, found by file name. A new method is one file here and one YAML of ranges.

Other packages bring methods by entry points, each with its ranges beside it as ``<module>.yaml``; see ``mu.plugins``.

A method is a module with

``unlearn(model, split, generator, *, <knobs>)``
    A generator that edits `model` in place and yields after each epoch (one-shot methods yield once). The
    model arrives with the original's weights. `split` is a ``mu.split.Split``; `generator` is the only
    source of randomness. Knobs are keyword-only, typed (see ``mu.knobs``) and have the authors' defaults.

``NEEDS``
    Which data it reads: some of `retain`, `forget`, `twin`, and `original` if it keeps a frozen copy of the
    model it is given. A method without `retain` is zero-shot and is handed no retained data.

``REQUESTS`` (optional)
    Kinds of forget request it supports; all when absent.

``IMPAIRS_FIRST`` (optional)
    True for a method that destroys the model, or part of it, before it repairs it: early stopping of destroyed
    models leaves it alone.

``STEADY`` (optional)
    True for a method of which the first epochs of a configuration tell how good it is after the last one, so that
    `early_stop: asha` may stop it. `benchmarks/early_stop.py` measures it.

``NO_BATCH_NORM`` (optional)
    Why it cannot work on a model with batch norm: such a model is refused before anything starts.

``check(model, split)`` (optional)
    Raises ValueError with the reason when it cannot work on a problem. Called with an untrained model, which it
    leaves as it is, for every request of a study before anything starts.

``restore(model, state)`` (optional)
    Loads the state of its result into a freshly built network, for a method that changes the network's layers.

What works, but not as its user may think, it tells with `split.warn(text)`: in `check` before the start, in `unlearn` in
the record of the trial.

Its docstring opens with a one-line summary and says `Paper:`, `Reference:` and `Differs:`. At each yield the
caller may evaluate, report or stop; only the time between yields is billed. No callback, logger or Ray.

A loop over epochs takes its numbers from ``mu.snapshot.resumable`` (``mu.training.fit`` does), so that a long trial
whose worker is lost goes on there. What comes before the loop runs again, and must follow from its arguments.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from mu.forget import KINDS
from mu.knobs import Knob, knobs_of
from mu.models import batch_norms
from mu.plugins import METHODS, load_module, plugins
from mu.source import code_digest

NEEDS = ("retain", "forget", "original", "twin")


@dataclass(frozen=True)
class Method:
    """A loaded method.

    Args:
        name: File name without suffix.
        unlearn: The generator function.
        knobs: Its hyperparameters, by name.
        needs: Some of ``NEEDS``.
        requests: Kinds of forget request it supports.
        doc: The module's docstring.
        check_problem: Its `check`, or None.
        impairs_first: Whether a model near chance may still be on its way.
        steady: Whether the first epochs of a configuration tell how good it is after the last one.
        file: The module's file.
        no_batch_norm: Why it cannot work on a model with batch norm; empty where it can.
        restore: Its `restore`, or None.
        package: The package of its module, whose code counts as its own.
    """

    name: str
    unlearn: Callable[..., Generator[None, None, None]]
    knobs: Mapping[str, Knob]
    needs: tuple[str, ...]
    requests: tuple[str, ...]
    doc: str
    check_problem: Callable[..., None] | None = None
    impairs_first: bool = False
    steady: bool = False
    file: Path | None = None
    no_batch_norm: str = ""
    restore: Callable[..., None] | None = None
    package: str = "mu.methods"

    @property
    def code(self) -> str:
        """The digest of its code as it is on disk; see ``mu.source``."""
        return "" if self.file is None else code_digest(self.file, self.package)

    @property
    def zero_shot(self) -> bool:
        """Whether it works without retained data."""
        return "retain" not in self.needs

    @property
    def data(self) -> tuple[str, ...]:
        """The parts of a split it is handed."""
        return tuple(need for need in self.needs if need != "original")

    @property
    def summary(self) -> str:
        """First line of its docstring, without the full stop."""
        return self.doc.strip().splitlines()[0].rstrip(".")

    def refusal(self, model: nn.Module) -> str:
        """Return what it needs that a model is not, for messages; empty where the model will do."""
        layer = next(iter(batch_norms(model)), None)
        if not self.no_batch_norm or layer is None:
            return ""
        return f"needs a model without batch norm, but layer `{layer}` is one: {self.no_batch_norm}"

    def field(self, name: str) -> str:
        """Return one field of its docstring, such as `Paper`, on one line; empty when absent."""
        match = re.search(rf"^{name}: (.+?)(?=^\S|\Z)", self.doc, re.MULTILINE | re.DOTALL)
        return " ".join(match[1].split()) if match else ""

    def defaults(self) -> dict[str, Any]:
        """Return every knob with its default."""
        return {name: knob.default for name, knob in self.knobs.items()}

    def check(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all knobs with their values: those given, checked, and the defaults of the rest.

        Raises:
            ValueError: A name is not a knob of this method, or a value is not accepted.
        """
        for name in knobs:
            if name not in self.knobs:
                raise ValueError(
                    f"unknown knob `{name}`; {self.name} has {', '.join(sorted(self.knobs)) or 'none'}"
                )
        return {
            name: knob.check(knobs[name]) if name in knobs else knob.default
            for name, knob in self.knobs.items()
        }


def names(folders: Sequence[Path] = ()) -> list[str]:
    """Return the names of all methods, sorted: those of ``shipped_names``, and those of other packages."""
    return sorted({*shipped_names(folders), *plugins(METHODS)})


def shipped_names(folders: Sequence[Path] = ()) -> list[str]:
    """Return the names of files of this package and of `folders` without a leading underscore, sorted."""
    return sorted(_own_names().union(*map(_stems, folders)))


@cache
def _own_names() -> frozenset[str]:
    """Return the names of this package's files; a study with published numbers asks a thousand times."""
    return _stems(Path(__file__).parent)


def _stems(folder: Path) -> frozenset[str]:
    names = (path.stem for path in folder.glob("*.py"))
    return frozenset(name for name in names if not name.startswith("_"))


def load(name: str, folders: Sequence[Path] = ()) -> Method:
    """Load a method by name; a file in one of `folders` comes before one of this package, and that before other packages.

    Raises:
        ValueError: There is no such method, or its file breaks the contract.
    """
    if name not in names(folders):
        raise ValueError(f"unknown method {name!r}; there are {', '.join(names(folders))}")
    module = _module(name, folders)
    if not inspect.isgeneratorfunction(getattr(module, "unlearn", None)):
        raise ValueError(f"{module.__file__}: a method must define a generator `unlearn`")
    needs, requests = (
        tuple(getattr(module, attribute, default))
        for attribute, default in (("NEEDS", ()), ("REQUESTS", tuple(KINDS)))
    )
    for attribute, given, allowed in (
        ("NEEDS", needs, NEEDS),
        ("REQUESTS", requests, tuple(KINDS)),
    ):
        if not given or not set(given) <= set(allowed):
            raise ValueError(
                f"{module.__file__}: {attribute} must hold some of {', '.join(allowed)}, "
                f"but is {given!r}"
            )
    try:
        knobs = knobs_of(module.unlearn)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{module.__file__}: {error}") from error
    impairs, steady = (bool(getattr(module, flag, False)) for flag in ("IMPAIRS_FIRST", "STEADY"))
    reason = getattr(module, "NO_BATCH_NORM", "")
    if not isinstance(reason, str):
        raise ValueError(f"{module.__file__}: NO_BATCH_NORM must be a reason, but is {reason!r}")
    doc = module.__doc__ or ""
    file = Path(module.__file__) if module.__file__ else None
    return Method(
        name,
        module.unlearn,
        knobs,
        needs,
        requests,
        doc,
        getattr(module, "check", None),
        impairs,
        steady,
        file,
        reason,
        getattr(module, "restore", None),
        module.__package__ or "mu.methods",
    )


def _module(name: str, folders: Sequence[Path]) -> ModuleType:
    for folder in folders:
        path = folder / f"{name}.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(f"musweep_method_{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up there
            spec.loader.exec_module(module)
            return module
    if name not in shipped_names():
        return load_module(plugins(METHODS)[name])
    return importlib.import_module(f"mu.methods.{name}")
