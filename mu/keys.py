"""Content keys and seeds, both hashes of named parts: adding a trial moves no other trial's randomness."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

LATER = {"added later": True}
"""Metadata of a dataclass field that was added when keys had been stored: keys leave it out at its default."""


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON can say, so that equal content gives equal text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {
            f.name: _plain(v) for f, v in fields.items() if f.metadata != LATER or v != f.default
        }
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"`{type(value).__name__}` cannot be part of a content key.")


def _digest(parts: tuple[Any, ...], size: int) -> bytes:
    text = json.dumps(_plain(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def content_key(*parts: Any) -> str:
    """Name content by its hash: 32 hex digits that change when any part changes.

    Parts are plain values, lists, mappings (order does not matter) or dataclasses of those.

    Raises:
        TypeError: A part holds something without a canonical text, such as an array.
    """
    return _digest(parts, 16).hex()


def derive_seed(*parts: Any) -> int:
    """Derive a seed in [0, 2**63) from named parts, e.g. ``derive_seed("order", problem_key)``."""
    return int.from_bytes(_digest(parts, 8), "big") >> 1
