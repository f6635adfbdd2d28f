"""How good every configuration was that a method tried on a request, with all that a choice among studies needs to know.

A menu is read where a study has one: its configurations are the same on every request, are tried on report seeds, and are
judged on the `test` view. Without a menu it is the search, on its seeds and the `val` view; its sampler drew other
configurations on each request, so that few can be compared.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from mu.menu import JUDGED, MENU, VIEW
from mu.record import TrialRecord
from mu.relative import mean_of
from mu.rules import average_gap
from reports.analysis.regret import noise_floor
from reports.load import RecordedStudy
from reports.load.study import RecordedMethod, RecordedRequest, mapping

Point = tuple[tuple[str, Any], ...]
"""The searched knobs of a configuration with their values, by name."""
SEARCH, IMAGE_FOLDER = "search", "image_folder"


def point(knobs: Mapping[str, Any]) -> Point:
    """Return knobs as a point."""
    return tuple(sorted(knobs.items()))


@dataclass(frozen=True)
class Landscape:
    """What a method tried on a request of a study.

    Args:
        study, uuid, data, model, request, method: Where.
        seeds: On which seeds.
        phase: `menu` or `search`.
        fixed: Knobs that the study did not search.
        gaps: Point to AvgGap (of means), a fraction; one that did not finish has the largest.
        noise: Noise floor of AvgGap; 0 where there are not two retrained models.
        defaults: The authors' point; None where it was not tried.
    """

    study: str
    uuid: str
    data: str
    model: str
    request: str
    method: str
    seeds: tuple[int, ...]
    phase: str
    fixed: Mapping[str, Any]
    gaps: Mapping[Point, float]
    noise: float = 0.0
    defaults: Point | None = None

    @cached_property
    def best(self) -> float:
        """The smallest AvgGap."""
        return min(self.gaps.values())

    @cached_property
    def scale(self) -> float:
        """How far the median is above the best, or a noise floor where that is more; 0 where all is the same."""
        return max(statistics.median(self.gaps.values()) - self.best, self.noise)

    def regret(self, of: Point) -> float:
        """Return the normalised regret of a configuration, 1 where it was not tried: 0 is the best, 1 is the median."""
        if of not in self.gaps:
            return 1.0
        return (self.gaps[of] - self.best) / self.scale if self.scale > 0 else 0.0

    @cached_property
    def good(self) -> frozenset[Point]:
        """The configurations within a noise floor of the best."""
        return frozenset(p for p, gap in self.gaps.items() if gap <= self.best + self.noise)


def landscapes(study: RecordedStudy) -> list[Landscape]:
    """Return what the records of a study say of each of its cells; of methods under their own name only."""
    phase = MENU if any(record.phase == MENU for record in study.records) else SEARCH
    role = "report" if phase == MENU else SEARCH
    cells: dict[tuple[str, str], dict[int, dict[int, TrialRecord]]] = defaultdict(dict)
    for record in study.records:
        if record.phase == phase and record.number is not None and not record.lost:
            cell = cells[record.forget, record.method]
            cell.setdefault(record.number, {})[record.seed] = record
    retrained = [
        record
        for record in study.records
        if (record.phase, record.method, record.role) == ("reference", "retrain", role)
        and record.finished
    ]
    found = []
    for request in study.requests:
        models = [record for record in retrained if record.forget == request.name]
        judge = _Judge(request, models, JUDGED if phase == MENU else VIEW)
        found += [
            _landscape(study, judge, method, phase, cells[request.name, method.name])
            for method in study.methods
            if method.space and not method.alias_of
        ]
    return [one for one in found if one is not None]


class _Judge:
    """The retrained models of a request, on a view."""

    def __init__(self, request: RecordedRequest, retrained: Sequence[TrialRecord], view: str):
        self.request, self._view = request, view
        self._models = [record.metrics[view] for record in retrained if view in record.metrics]
        self._mean = mean_of(self._models)

    @property
    def noise(self) -> float:
        """The noise floor of AvgGap; 0 where there are not two models."""
        if len(self._models) < 2:
            return 0.0
        return noise_floor(self._models, self._mean, self.request.whole_class)

    def gap(self, runs: Iterable[TrialRecord]) -> float:
        """Return AvgGap of the means of a configuration; NaN where a metric is missing."""
        mean = mean_of([record.metrics.get(self._view, {}) for record in runs])
        return average_gap(mean, self._mean, self.request.whole_class)


def _landscape(
    study: RecordedStudy,
    judge: _Judge,
    method: RecordedMethod,
    phase: str,
    runs: Mapping[int, Mapping[int, TrialRecord]],
) -> Landscape | None:
    """Return the landscape of a cell, given number and seed to trial; None where nothing can be judged."""
    seeds = tuple(sorted({seed for by_seed in runs.values() for seed in by_seed}))
    gaps: dict[Point, float] = {}
    bad: list[Point] = []
    defaults = None
    for _, by_seed in sorted(runs.items()):
        listed = list(by_seed.values())
        here = point(_searched(method, listed[0].knobs))
        if listed[0].origin == "defaults":
            defaults = here
        if not all(record.finished for record in listed):
            bad.append(here)
        elif len(listed) == len(seeds) and math.isfinite(gap := judge.gap(listed)):
            gaps.setdefault(here, gap)
    if not gaps:
        return None
    gaps |= {each: max(gaps.values()) for each in bad if each not in gaps}
    model = str(mapping(study.definition.get("model")).get("name"))
    return Landscape(
        study.name,
        str(study.line.get("uuid", "")),
        data_name(study),
        model,
        judge.request.name,
        method.name,
        seeds,
        phase,
        {name: value for name, value in method.fixed.items() if name not in method.space},
        gaps,
        judge.noise,
        defaults if defaults in gaps else None,
    )


def data_name(study: RecordedStudy) -> str:
    """Return the name of a study's data set; of a folder of images, also that of the folder, which alone says what they are."""
    data = mapping(study.definition.get("data"))
    name, folder = str(data.get("name")), PurePath(str(data.get("root") or "")).stem
    return f"{name} {folder}" if name == IMAGE_FOLDER and folder else name


def _searched(method: RecordedMethod, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs that are searched and matter beside the values of others."""
    return {
        name: knobs[name]
        for name, span in method.space.items()
        if name in knobs
        and all(knobs.get(other) == value for other, value in mapping(span.get("when")).items())
    }
