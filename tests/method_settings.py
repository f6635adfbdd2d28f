"""What the contract suite needs to know about single methods: short budgets, and reasoned exceptions.

A method that needs no entry here is the normal case; the tables name knobs, so that an entry for a common
name such as `momentum` serves every method that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import search_spaces
from mu.knobs import Knob
from mu.methods import Method

REQUEST_ORDER = ("full_class", "random", "class_subset", "sub_class")
"""The first that a method supports is the request it is tested on."""

CAPS = {"epochs": 2, "batch_size": 16}
"""Largest value of a whole-number knob in a test: two epochs, and two batches of a forgotten class."""
CAP = 4
"""The same for every other whole-number knob: repetitions, inner steps, noise draws."""

CONDITIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd"},
    "optimizer": {"weight_decay": 0.01},  # decay is all that tells adam from adamw
    "ugradsl_plus.beta": {"adaptive": True},
    "ugradsl_plus.distance": {"adaptive": True, "beta": 0.01},  # at the median both order alike
    "ugradsl_plus.adaptive_sign": {"adaptive": True},
}
"""By knob, or method.knob: other knobs to set where it can only then matter. YAML says `when:` for the same."""

REQUEST_FOR: dict[str, str] = {
    "amnesiac.labels": "uneven",  # a class less leaves the others equally frequent
}
"""By method.knob: a request on which it matters, where it cannot on the usual one."""

VALUES: dict[str, tuple[Any, Any]] = {}
"""By method.knob: two values to tell apart, where the ends of its range or the derived ones do not serve."""

DEAD: dict[str, str] = {}
"""By method.knob: why it cannot change the weights of the toy problem."""

FORGETTING: dict[str, dict[str, Any]] = {
    "amnesiac": {"lr": 1e-3, "epochs": 10},  # the defaults are for thousands of steps
    "jit": {"lr": 1e-2, "batch_size": 4, "accumulate": True},  # one pass is few steps of 32 samples
    "natmu": {"lr": 3e-3, "epochs": 5},
}
"""By method: knobs, within their ranges, with which it forgets visibly within a test's budget."""


def search_space(name: str) -> dict[str, dict[str, Any]]:
    """The ranges of a method's YAML, by knob."""
    path = Path(search_spaces.__file__).parent / f"{name}.yaml"
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def shorten(knob: Knob, value: Any) -> Any:
    """`value`, or the largest affordable one of a whole-number knob."""
    if knob.kind != "int" or value is None:
        return value
    least = 0 if knob.bounds.low is None else int(knob.bounds.low)
    return max(least, min(value, CAPS.get(knob.name, 16 if "batch" in knob.name else CAP)))


def short_knobs(method: Method, **given: Any) -> dict[str, Any]:
    """All knobs of a method: those given, and defaults on a budget of milliseconds."""
    defaults = {name: shorten(knob, knob.default) for name, knob in method.knobs.items()}
    return method.check({**defaults, **given})


def values_to_tell_apart(method: Method, name: str) -> list[Any]:
    """All choices of a knob, the ends of its range, or two values it accepts: one of them the default."""
    knob, key = method.knobs[name], f"{method.name}.{name}"
    if key in VALUES:
        return list(VALUES[key])
    space = search_space(method.name).get(name, {})
    if knob.kind == "choice":
        return list(knob.choices) + ([None] if knob.optional else [])
    if knob.kind == "bool":
        return [False, True]
    if "choices" in space:
        return [shorten(knob, knob.check(value)) for value in space["choices"]]
    if "low" in space:
        low, high = (knob.check(space[end]) for end in ("low", "high"))
        if knob.kind == "int":
            low, high = min(low, shorten(knob, high) - 1), shorten(knob, high)
            if low not in knob.bounds:
                low, high = high, high + 1
        return [low, high]
    base = shorten(knob, knob.default)
    whole = knob.kind == "int"
    near = [] if base is None else [base // 2, base + 1] if whole else [2 * base, base / 2]
    others = [*near, 1, 2] if whole else [*near, 0.01, 0.1, 0.5, 1.0]
    return [base, next(v for v in others if v != base and v in knob.bounds)]


def conditions(method: Method, name: str) -> dict[str, Any]:
    """What must be set for a knob to matter, of the knobs that the method has."""
    found: dict[str, Any] = dict(search_space(method.name).get(name, {}).get("when", {}))
    needed: Mapping[str, Any] = {
        **CONDITIONS.get(name, {}),
        **CONDITIONS.get(f"{method.name}.{name}", {}),
    }
    return {**found, **{other: v for other, v in needed.items() if other in method.knobs}}


def request_kind(method: Method) -> str:
    """The kind of forget request a method is tested on."""
    return next(kind for kind in REQUEST_ORDER if kind in method.requests)
