"""Typed hyperparameters: the keyword-only parameters of a method's ``unlearn`` are its schema.

A knob is annotated with ``float``, ``int``, ``bool`` or ``Literal[...]``, optionally ``| None``, and with
``Bounds`` through ``Annotated`` where its range is limited. The aliases below cover the usual cases.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mu.checks import not_finite


@dataclass(frozen=True)
class Bounds:
    """An interval of finite numbers.

    Args:
        low: Least accepted value; None is no limit.
        high: Greatest accepted value; None is no limit.
        low_open: Whether ``low`` itself is refused.
        high_open: Whether ``high`` itself is refused.
    """

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def __post_init__(self) -> None:
        for name in not_finite(self):
            raise ValueError(
                f"{name} of a knob's bounds must be finite or None, but got {getattr(self, name)}"
            )

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        return self.high is None or not (
            value > self.high or (self.high_open and value == self.high)
        )

    def __str__(self) -> str:
        if self.high is None:
            return "" if self.low is None else f"{'>' if self.low_open else '>='} {self.low:g}"
        low = "-inf" if self.low is None else f"{self.low:g}"
        left = "(" if self.low_open or self.low is None else "["
        return f"in {left}{low}, {self.high:g}{')' if self.high_open else ']'}"


Positive = Annotated[float, Bounds(low=0, low_open=True)]
NonNegative = Annotated[float, Bounds(low=0)]
UnitInterval = Annotated[float, Bounds(low=0, high=1)]
Fraction = Annotated[float, Bounds(low=0, high=1, low_open=True)]
Momentum = Annotated[float, Bounds(low=0, high=1, high_open=True)]
Count = Annotated[int, Bounds(low=1)]
CountOrZero = Annotated[int, Bounds(low=0)]


@dataclass(frozen=True)
class Knob:
    """One hyperparameter: its name, what it accepts, and the authors' default.

    Args:
        kind: ``float``, ``int``, ``bool`` or ``choice``.
        choices: Accepted values of a ``choice``.
        optional: Whether ``None`` is accepted.
    """

    name: str
    kind: str
    default: Any
    bounds: Bounds = field(default_factory=Bounds)
    choices: tuple[Any, ...] = ()
    optional: bool = False

    @property
    def accepts(self) -> str:
        """What the knob accepts, in words, for error messages and documentation."""
        if self.kind == "choice":
            text = "one of " + ", ".join(map(str, self.choices))
        elif self.kind == "bool":
            text = "true or false"
        else:
            text = f"{'an int' if self.kind == 'int' else 'a float'} {self.bounds}".rstrip()
        return f"{text}, or null" if self.optional else text

    def check(self, value: Any) -> Any:
        """Return `value` as this knob's type.

        Raises:
            ValueError: The value has the wrong type or lies outside what the knob accepts.
        """
        if value is None and self.optional:
            return None
        if self.kind == "choice" and value in self.choices:
            return value
        if self.kind == "bool" and isinstance(value, bool):
            return value
        if self.kind in ("int", "float") and not isinstance(value, bool):
            number = _number(value)
            whole = number is not None and number == int(number)
            if number is not None and number in self.bounds and (self.kind == "float" or whole):
                return int(number) if self.kind == "int" else number
        raise ValueError(f"knob `{self.name}` must be {self.accepts}, but got {value!r}")


def _number(value: Any) -> float | None:
    """Return a finite number, also from text such as ``1e-5``, which YAML reads as a string; else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def knobs_of(unlearn: Callable[..., Any]) -> dict[str, Knob]:
    """Read the knobs of a method from its keyword-only parameters.

    Raises:
        TypeError: A knob has no default or no supported annotation, or the method takes ``**kwargs``.
        ValueError: A default is infinite or NaN.
    """
    hints = get_type_hints(unlearn, include_extras=True)
    knobs = {}
    for name, parameter in inspect.signature(unlearn).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"`{unlearn.__module__}.unlearn` takes **{name}: name every knob")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise TypeError(f"`{unlearn.__module__}.unlearn`: knob `{name}` has no default")
        if isinstance(parameter.default, float) and not math.isfinite(parameter.default):
            raise ValueError(
                f"`{unlearn.__module__}.unlearn`: the default of knob `{name}` must be finite, "
                f"but is {parameter.default}"
            )
        knobs[name] = _knob(name, hints.get(name), parameter.default)
    return knobs


def _knob(name: str, hint: Any, default: Any, optional: bool = False) -> Knob:
    origin, bounds = get_origin(hint), Bounds()
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(inner) == 1:
            return _knob(name, inner[0], default, optional=True)
    if origin is Annotated:
        hint, *extras = get_args(hint)
        if get_origin(hint) is not None:
            return _knob(name, hint, default, optional)
        bounds = next((extra for extra in extras if isinstance(extra, Bounds)), bounds)
    if origin is Literal:
        return Knob(name, "choice", default, choices=get_args(hint), optional=optional)
    kinds: dict[Any, str] = {float: "float", int: "int", bool: "bool"}
    if hint not in kinds:
        raise TypeError(f"knob `{name}` is annotated {hint!r}; use float, int, bool or Literal")
    return Knob(name, kinds[hint], default, bounds=bounds, optional=optional)
