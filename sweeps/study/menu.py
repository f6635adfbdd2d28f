"""The menu of a method: the authors' knobs and evenly spread points of its ranges, the same wherever it is tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mu.keys import derive_seed
from sweeps.study.methods import MethodConfig

DEFAULTS = "defaults"
"""Origin of the first item."""


class MenuItem(NamedTuple):
    """A configuration of a menu; `number` is its place, and `origin` as in a record, empty for a drawn point."""

    number: int
    knobs: Mapping[str, Any]
    origin: str = ""


def menu(config: MethodConfig, size: int) -> list[MenuItem]:
    """Return the knobs that the study fixes, or the authors have, and the first `size` points of a scrambled Sobol sequence.

    The points depend on the method and its ranges alone: every request, stand-in and study has the same. A larger menu begins
    with a smaller one. Points that ranges of few values make equal are there once.
    """
    from scipy.stats import qmc

    items = [MenuItem(0, dict(config.fixed), DEFAULTS)]
    if not config.ranges:
        return items
    seed = derive_seed("menu", config.method.name) % 2**32
    sequence = qmc.Sobol(len(config.ranges), rng=seed)
    points = sequence.random_base2(max(1, (size - 1).bit_length()))[:size]
    for point in points.tolist():
        knobs = dict(config.fixed)
        for span, position in zip(config.ranges, point):
            if span.applies(knobs):
                knobs[span.knob] = span.at(position)
        if knobs not in [item.knobs for item in items]:
            items.append(MenuItem(len(items), knobs))
    return items
