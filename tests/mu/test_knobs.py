"""Knobs: what a signature means, what each type accepts, and how a wrong value is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Optional

import pytest

from mu.knobs import (
    Bounds,
    Count,
    CountOrZero,
    Fraction,
    Knob,
    Momentum,
    NonNegative,
    Positive,
    UnitInterval,
    knobs_of,
)


def unlearn(
    model: Any,
    split: Any,
    generator: Any,
    *,
    lr: Positive = 0.1,
    decay: NonNegative = 0.0,
    p: UnitInterval = 0.9,
    beta: Fraction | None = None,
    momentum: Momentum = 0.9,
    epochs: Count = 5,
    pad: CountOrZero = 0,
    delta: Annotated[float, Bounds(-1, 1)] = 0.0,
    alpha: Annotated[float, Bounds(high=1)] = -0.4,
    free: float = 1.0,
    old_style: Optional[int] = 3,  # noqa: UP045
    flag: bool = False,
    mode: Literal["eval", "train"] = "eval",
    maybe: Literal["a", "b"] | None = None,
) -> Iterator[None]:
    yield


KNOBS = knobs_of(unlearn)


def test_knobs_are_the_keyword_only_parameters_in_order() -> None:
    assert list(KNOBS)[:3] == ["lr", "decay", "p"]
    assert not {"model", "split", "generator"} & set(KNOBS)
    assert KNOBS["epochs"] == Knob("epochs", "int", 5, Bounds(low=1))
    assert KNOBS["mode"] == Knob("mode", "choice", "eval", choices=("eval", "train"))
    assert KNOBS["flag"] == Knob("flag", "bool", False)
    assert KNOBS["beta"].optional
    assert KNOBS["beta"].default is None
    assert KNOBS["old_style"] == Knob("old_style", "int", 3, optional=True)
    assert KNOBS["maybe"].optional
    assert KNOBS["maybe"].choices == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", 0.5, 0.5),
        ("lr", 1, 1.0),
        ("lr", "1e-5", 1e-5),
        ("lr", " 3E-2 ", 0.03),
        ("epochs", 3, 3),
        ("epochs", 3.0, 3),
        ("epochs", "4", 4),
        ("pad", 0, 0),
        ("p", 0, 0.0),
        ("p", 1, 1.0),
        ("beta", None, None),
        ("beta", 1.0, 1.0),
        ("momentum", 0, 0.0),
        ("delta", -1, -1.0),
        ("alpha", -1e9, -1e9),
        ("free", -3.5, -3.5),
        ("old_style", None, None),
        ("flag", True, True),
        ("mode", "train", "train"),
        ("maybe", None, None),
        ("maybe", "b", "b"),
    ],
)
def test_accepted_values_become_the_knobs_type(name: str, value: Any, expected: Any) -> None:
    checked = KNOBS[name].check(value)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("lr", -1.0),
        ("lr", None),
        ("lr", "fast"),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "nan"),
        ("lr", 10**400),
        ("lr", True),
        ("lr", [0.1]),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", "2.5"),
        ("epochs", True),
        ("epochs", math.inf),
        ("free", math.inf),
        ("free", -math.inf),
        ("free", math.nan),
        ("alpha", -math.inf),
        ("old_style", math.nan),
        ("pad", -1),
        ("p", 1.0001),
        ("p", -0.0001),
        ("beta", 0.0),
        ("momentum", 1.0),
        ("delta", 1.5),
        ("alpha", 1.01),
        ("flag", 1),
        ("flag", "true"),
        ("flag", None),
        ("mode", "EVAL"),
        ("mode", None),
        ("mode", ["eval"]),
        ("maybe", "c"),
    ],
)
def test_other_values_are_refused_with_the_rule_and_the_value(name: str, value: Any) -> None:
    knob = KNOBS[name]
    with pytest.raises(ValueError, match=f"^knob `{name}` must be ") as caught:
        knob.check(value)
    assert knob.accepts in str(caught.value)
    assert str(caught.value).endswith(f"but got {value!r}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lr", "a float > 0"),
        ("decay", "a float >= 0"),
        ("p", "a float in [0, 1]"),
        ("beta", "a float in (0, 1], or null"),
        ("momentum", "a float in [0, 1)"),
        ("epochs", "an int >= 1"),
        ("delta", "a float in [-1, 1]"),
        ("alpha", "a float in (-inf, 1]"),
        ("free", "a float"),
        ("old_style", "an int, or null"),
        ("flag", "true or false"),
        ("mode", "one of eval, train"),
        ("maybe", "one of a, b, or null"),
    ],
)
def test_what_a_knob_accepts_in_words(name: str, text: str) -> None:
    assert KNOBS[name].accepts == text


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(), [-1e300, 0, 1e300], []),
        (Bounds(low=0), [0, 5], [-1]),
        (Bounds(low=0, low_open=True), [1e-300], [0, -1]),
        (Bounds(high=1), [-5, 1], [1.1]),
        (Bounds(high=1, high_open=True), [0.999], [1]),
        (Bounds(0, 1, True, True), [0.5], [0, 1, 2, -1]),
    ],
)
def test_bounds_contain_what_they_say(
    bounds: Bounds, inside: list[float], outside: list[float]
) -> None:
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in [*outside, math.nan, math.inf, -math.inf])


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_limits_and_defaults_that_are_not_finite_are_refused(limit: float) -> None:
    for side in ("low", "high"):
        with pytest.raises(ValueError, match=f"^{side} of a knob's bounds must be finite"):
            Bounds(**{side: limit})

    def unlearn(model: Any, *, lr: Positive = limit) -> Iterator[None]:
        yield

    with pytest.raises(ValueError, match="the default of knob `lr` must be finite, but is"):
        knobs_of(unlearn)


def test_catch_all_parameters_are_refused() -> None:
    def unlearn(model: Any, *, lr: Positive = 0.1, **others: Any) -> Iterator[None]:
        yield

    with pytest.raises(TypeError, match=r"takes \*\*others: name every knob"):
        knobs_of(unlearn)


def test_knob_without_default_is_refused() -> None:
    def unlearn(model: Any, *, lr: Positive) -> Iterator[None]:
        yield

    with pytest.raises(TypeError, match="knob `lr` has no default"):
        knobs_of(unlearn)


def test_unsupported_annotations_are_refused() -> None:
    def text(model: Any, *, name: str = "x") -> Iterator[None]:
        yield

    def either(model: Any, *, value: int | float = 1) -> Iterator[None]:
        yield

    def bare(model: Any, *, value=1) -> Iterator[None]:  # type: ignore[no-untyped-def]
        yield

    for unlearn, name in ((text, "name"), (either, "value"), (bare, "value")):
        with pytest.raises(TypeError, match=f"knob `{name}` is annotated .*; use float, int"):
            knobs_of(unlearn)
