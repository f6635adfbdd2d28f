"""What the contract suite needs to know about single methods: short budgets, and reasoned exceptions.

A method that needs no entry here is the normal case; the tables name knobs, so that an entry for a common
name such as `momentum` serves every method that has it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

import search_spaces
from mu.knobs import Knob
from mu.methods import Method

REQUEST_ORDER = ("full_class", "random", "class_subset", "sub_class")
"""The first that a method supports is the request it is tested on."""

CAPS = {"epochs": 2, "batch_size": 16, "twin_epochs": 300}
"""Largest value of a whole-number knob in a test: two epochs, two batches of a forgotten class, and until a twin is trained."""
CAP = 4
"""The same for every other whole-number knob: repetitions, inner steps, noise draws."""

SCALED: dict[str, dict[str, Any]] = {
    # 200 is for batches of 128: ratios of importances grow with the batch.
    "ssd": {"alpha": 10.0},
}
"""By method: defaults that go with a larger batch than ``CAPS`` allows, at the batch of a test."""

CONDITIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd"},
    "optimizer": {"weight_decay": 0.01},  # decay is all that tells adam from adamw
    "schedule": {"epochs": 4},  # a step schedule first falls after 80% of the steps
    "beta": {"adaptive": True},
    "distance": {"adaptive": True, "beta": 0.01},  # about their median both distances order alike
    "adaptive_sign": {"adaptive": True},
    "activation_prune.*": {"epochs": 2},  # every second epoch prunes
    "activation_prune.reset_mask": {"prune_epochs": 1},  # lifted in epochs that do not prune
    "gradient_surgery.*": {"epochs": 2},  # its rate falls after each epoch
    "mu_mis.*": {"epochs": 2},  # of one epoch it judges nothing
    "mu_mis.recovery": {"epochs": 30, "lr": 0.01},  # the sensitivity falls before it rises
    "mu_mis.collapse": {
        "epochs": 12,
        "lr": 0.003,
    },  # 128 samples are seen before anything is judged
    "pabi.undecayed": {"shrink": 0.0},
    "salun.redraw": {"epochs": 2},  # labels are drawn anew in the second epoch
    "scrub.max_epochs": {"epochs": 2},
    "scrub.decay": {"epochs": 4},  # the first milestone is the end of epoch 3
    "ssd.batches": {"alpha": 1.0},  # so that weights are selected however D is cut
    # Most of its knobs decide which samples are hard, and show where that is decided for many on both sides.
    "tmu.*": {"threshold": 0.2, "classifier_epochs": 20},
}
"""By knob, method.knob or method.*: other knobs to set where it can only then matter. YAML says `when:` for the same."""

REQUEST_FOR: dict[str, str] = {
    "amnesiac.labels": "uneven",  # a class less leaves the others equally frequent
    "mu_mis.collapse": "random",  # a single class is not judged by it
    "soft_relabel.exclude_own_class": "random",  # of a forgotten class no sample is retained
    "tmu.*": "uneven",
}
"""By method.knob or method.*: a request on which it matters, where it cannot on the usual one."""

VALUES: dict[str, tuple[Any, Any]] = {
    "activation_prune.q_shallow": (0.5, 0.95),  # of four channels, as the first layer has here
    "tmu.classifier_epochs": (4, 20),
}
"""By method.knob: two values to tell apart, where the ends of its range or the derived ones do not serve."""

DEAD: dict[str, str] = {}
"""By method.knob: why it cannot change the weights of the toy problem."""

REBUILDS: dict[str, str] = {
    "activation_prune": "its activation masks are part of the network; see its `restore`",
}
"""By method: why its result does not load into a freshly built network."""

FORGETTING: dict[str, dict[str, Any]] = {
    "amnesiac": {"lr": 1e-3, "epochs": 20},  # published rates are for thousands of steps
    "badteacher": {"lr": 1e-3, "epochs": 40, "retain_fraction": 1.0},
    "boundary_expand": {"lr": 1e-2, "epochs": 8},
    "boundary_shrink": {"lr": 1e-2, "epochs": 8},
    "cf_k": {"lr": 0.1, "k": 4, "epochs": 5},
    "delete": {"lr": 1e-2, "epochs": 20},
    "ga": {"lr": 1e-2, "epochs": 4},
    "jit": {"lr_per_sigma": 2e-2, "batch_size": 4},
    "lotus": {"lr": 3e-3, "epochs": 20, "retain_fraction": 1.0},
    "mu_mis": {"lr": 1e-2, "epochs": 30},
    "natmu": {"lr": 3e-3, "epochs": 5},
    "natmu_nri": {"lr": 3e-3, "epochs": 10},
    "natmu_rl": {"lr": 3e-3, "epochs": 10},
    "neggrad_plus": {"lr": 0.05},
    "rum": {"lr_factor": 10.0, "epochs": 10},
    "scrub": {"lr": 1e-2},
    "sfron": {"lr": 0.1},
    "soft_relabel": {"relabel_lr": 1e-3, "relabel_epochs": 20, "lr": 1e-2},
    "ssd": {"alpha": 10.0},
    "ugradsl": {"lr": 3e-2, "epochs": 4},
    "tmu": {"lr": 1e-3, "epochs": 40, "threshold": 0.2, "classifier_epochs": 20},
    "unsir": {"retain_per_class": 32, "noise_samples": 20, "noise_images": 16, "noise_steps": 40},
}
"""By method: knobs with which it forgets visibly within a test's budget; all but counts within their ranges."""

DRIFTING: dict[str, str] = {
    "emmn": "trained on noise alone, four rounds of it, the toy network calls everything by the forgotten class",
}
"""By method: why its outputs on the forgotten data move away from the original's, but not to a higher loss."""


@cache
def search_space(name: str) -> dict[str, dict[str, Any]]:
    """Return the ranges of a method's YAML, by knob."""
    path = Path(search_spaces.__file__).parent / f"{name}.yaml"
    content = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
    return {knob: section for knob, section in content.items() if knob != "portfolio"}


def shorten(knob: Knob, value: Any) -> Any:
    """Return `value`, or the largest affordable one of a whole-number knob."""
    if knob.kind != "int" or value is None:
        return value
    least = 0 if knob.bounds.low is None else int(knob.bounds.low)
    return max(least, min(value, CAPS.get(knob.name, 16 if "batch" in knob.name else CAP)))


def short_knobs(method: Method, **given: Any) -> dict[str, Any]:
    """Return all knobs of a method: those given, and defaults on a budget of milliseconds."""
    defaults = {name: shorten(knob, knob.default) for name, knob in method.knobs.items()}
    return method.check({**defaults, **SCALED.get(method.name, {}), **given})


def values_to_tell_apart(method: Method, name: str) -> list[Any]:
    """Return all choices of a knob, the ends of its range, or two values it accepts: one of them the default."""
    knob, key = method.knobs[name], f"{method.name}.{name}"
    if key in VALUES:
        return list(VALUES[key])
    space = search_space(method.name).get(name, {})
    if knob.kind == "choice":
        return list(knob.choices) + ([None] if knob.optional else [])
    if knob.kind == "bool":
        return [False, True]
    choices = {shorten(knob, knob.check(value)) for value in space.get("choices", ())}
    if len(choices) > 1:
        return sorted(choices)
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
    """Return what must be set for a knob to matter, of the knobs that the method has."""
    when: dict[str, Any] = dict(search_space(method.name).get(name, {}).get("when", {}))
    needed: dict[str, Any] = {"epochs": 1}  # which shows what most knobs change
    for key in (name, f"{method.name}.*", f"{method.name}.{name}"):
        needed |= CONDITIONS.get(key, {})
    return {**when, **{other: v for other, v in needed.items() if other in method.knobs}}


def request_for(method: Method, name: str) -> str:
    """Return the kind of forget request on which a knob is tested."""
    default = REQUEST_FOR.get(f"{method.name}.*", request_kind(method))
    return REQUEST_FOR.get(f"{method.name}.{name}", default)


def request_kind(method: Method) -> str:
    """Return the kind of forget request a method is tested on."""
    return next(kind for kind in REQUEST_ORDER if kind in method.requests)
