"""Dataclasses from plain data, every key known and every value of its field's type, and plain data from dataclasses."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from sweeps.errors import StudyError


def known(raw: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """Raise a StudyError that names the first key which is not allowed."""
    for key in raw:
        if key not in allowed:
            raise StudyError(f"{where}: unknown key `{key}`; allowed are {', '.join(allowed)}")


def build(cls: type[Any], raw: Any, where: str, renamed: Mapping[str, str] | None = None) -> Any:
    """A dataclass from a mapping, with every value checked against its field's type."""
    renamed = renamed or {}
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be a mapping, but got {raw!r}")
    hints = get_type_hints(cls)
    allowed = [renamed.get(f.name, f.name) for f in dataclasses.fields(cls)]
    known({renamed.get(key, key): None for key in raw}, allowed, where)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in raw
    ]
    if missing:
        raise StudyError(f"{where}: `{missing[0]}` is required")
    values = {
        key: _typed(value, hints[key], f"{where}: {renamed.get(key, key)}")
        for key, value in raw.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _typed(value, next(arg for arg in args if arg is not type(None)), where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise StudyError(f"{where}: must be a list, but got {value!r}")
        return tuple(_typed(item, args[0], where) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise StudyError(f"{where}: must be a mapping, but got {value!r}")
        return {str(key): _typed(item, args[1], where) for key, item in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, list):
            raise StudyError(f"{where}: must be a list, but got {value!r}")
        return tuple(str(item) for item in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        return float(value)
    if hint is int and number and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    raise StudyError(f"{where}: must be {names[hint]}, but got {value!r}")


def one_of(value: Any, allowed: Sequence[str], where: str, must: str = "be one of") -> None:
    """Raise StudyError unless a value is allowed; `must` says what the key demands, such as `hold some of`."""
    if value not in allowed:
        raise StudyError(f"{where} must {must} {', '.join(allowed)}, but got {value!r}")


def plain(value: Any) -> Any:
    """Dataclasses and tuples as mappings and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
