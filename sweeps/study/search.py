"""How cells are searched: trials, sampler, objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mu.metrics import METRICS
from sweeps.errors import StudyError
from sweeps.study import space
from sweeps.study.fields import build, known, one_of
from sweeps.study.methods import MethodConfig

SAMPLERS = ("tpe", "random", "grid")
EARLY_STOPS = ("collapse", "none", "asha")
_IN_TRIALS = {name: m for name, m in METRICS.items() if m.when == "trial"}
OBJECTIVES = (*(name for name, m in _IN_TRIALS.items() if m.better == "lower"), "mean_gap")
GAPPED = tuple(
    name
    for name, m in _IN_TRIALS.items()
    if m.better == "target" and name != "entropy_median_diff"  # which is itself a comparison
)


@dataclass(frozen=True)
class Search:
    """How each cell is searched.

    Args:
        trials: Configurations per cell, the same for every method, but one for a method with nothing to search;
            of a grid, how many points it has.
        sampler: `tpe`, `random`, or `grid`, which tries every combination of `choices` and of values a `step` apart.
        objective: Metrics to minimise on the `val` view; the first decides which knobs are best.
        mean_gap: Metrics whose mean gap the objective `mean_gap` is.
        early_stop: `collapse` ends a trial whose model is destroyed; `asha` ends also those that are behind
            others of their cell, for methods that improve steadily; `none` only ends what diverged.
    """

    trials: int = 30
    sampler: str = "tpe"
    objective: tuple[str, ...] = ("avg_gap_natmu",)
    early_stop: str = "collapse"
    mean_gap: tuple[str, ...] = ()


def parse_search(raw: Any, methods: Sequence[MethodConfig], where: str) -> Search:
    """How a study searches its methods. Raises StudyError."""
    objective = raw.get("objective") if isinstance(raw, dict) else None
    if isinstance(objective, str):
        raw = {**raw, "objective": [objective]}
    elif isinstance(objective, dict):
        known(objective, ("mean_gap",), f"{where}: objective")
        raw = {**raw, "objective": ["mean_gap"], **objective}
    search = build(Search, raw, where)
    if search.trials < 1:
        raise StudyError(f"{where}: trials must be at least 1, but got {search.trials}")
    one_of(search.sampler, SAMPLERS, f"{where}: sampler")
    one_of(search.early_stop, EARLY_STOPS, f"{where}: early_stop")
    for name in search.objective:
        one_of(name, OBJECTIVES, f"{where}: objective")
    for name in search.mean_gap:
        one_of(name, GAPPED, f"{where}: mean_gap", "hold some of")
    if ("mean_gap" in search.objective) != bool(search.mean_gap):
        raise StudyError(
            f"{where}: the objective mean_gap needs its list of metrics, such as "
            "{mean_gap: [acc_test, acc_forget]}"
        )
    if not search.objective:
        raise StudyError(f"{where}: objective must name at least one metric")
    if search.early_stop == "asha" and len(search.objective) > 1:
        raise StudyError(f"{where}: early_stop asha compares one objective, but there are several")
    return _grid(search, methods, "trials" in raw, where) if search.sampler == "grid" else search


def _grid(search: Search, methods: Sequence[MethodConfig], given: bool, where: str) -> Search:
    """The search with as many trials as its grid has points."""
    sizes = {}
    for method in filter(lambda method: method.ranges, methods):
        try:
            sizes[method.name] = len(space.grid(method.ranges, method.fixed))
        except ValueError as error:
            raise StudyError(f"{where}: sampler grid: {method.name}: {error}") from error
    first = next(iter(sizes.values()), 1)
    if set(sizes.values()) - {first} or (given and search.trials != first):
        points = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise StudyError(
            f"{where}: sampler grid needs a grid of `trials` points for every method, but got {points}"
        )
    return dataclasses.replace(search, trials=first)
