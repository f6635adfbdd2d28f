"""Checks that several dataclasses share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def not_finite(record: Any) -> list[str]:
    """Return the names of a dataclass's fields that hold infinity or NaN, alone or in a sequence."""
    return [field.name for field in fields(record) if _has_infinite(getattr(record, field.name))]


def _has_infinite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(_has_infinite(each) for each in value)
    )
