"""Gaps of records to the retrained models of their request, worked out when records are read. Needs neither torch nor Ray.

A record holds what was measured on its own model. A gap depends on which retrained models there are as well, and a study
may get more seeds; so no gap is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mu import metrics
from mu.record import TrialRecord

Values = Mapping[str, float]
Group = tuple[str, str]
"""Forget request, and role of the seeds."""


def mean_of(runs: Sequence[Values]) -> dict[str, float]:
    """Return the mean of each metric over runs that all have it."""
    names = set.intersection(*(set(run) for run in runs)) if runs else set()
    return {name: float(np.mean([run[name] for run in runs])) for name in sorted(names)}


def gaps(
    values: Values, reference: Values, whole_class: bool, own: Sequence[str] = ()
) -> dict[str, float]:
    """Return the gaps of one view of a model; those that need costly attacks only where both sides have them.

    Args:
        values: The model's metrics.
        reference: Mean of the same over the retrained models.
        whole_class: Whether a whole class or sub-class is forgotten, which decides the lists of metrics.
        own: Metrics whose mean gap is `mean_gap`; without any, `mean_gap` is left out.
    """
    both = set(values) & set(reference)
    compared: dict[str, float] = {}
    if "acc_forget" in both:
        compared["delta_acc_forget"] = metrics.gap(values["acc_forget"], reference["acc_forget"])
    for name, needed in metrics.MEAN_GAPS[whole_class].items():
        if both.issuperset(needed) or (name == "avg_gap_natmu" and name not in values):
            compared[name] = metrics.mean_gap(values, reference, needed)
    if both.issuperset(metrics.SVC_GAP4):
        compared["mia_svc_gap_max"] = metrics.max_gap(values, reference, metrics.SVC_GAP4)
    if own:
        compared["mean_gap"] = metrics.mean_gap(values, reference, own)
    return compared


class Comparison:
    """Adds to records what follows from the retrained models that are known.

    Args:
        line: The study line: which requests forget a whole class, and the metrics of `mean_gap`.
    """

    def __init__(self, line: Mapping[str, Any]):
        definition = line.get("definition", {})
        self._own = tuple(definition.get("search", {}).get("mean_gap") or ())
        self._requests = line.get("requests", {})
        self._roles = {each["name"]: each.get("role") for each in line.get("phases", ())}
        self._retrained: dict[Group, dict[int, TrialRecord]] = defaultdict(dict)
        self._means: dict[Group, dict[str, dict[str, float]]] = {}

    def note(self, record: TrialRecord) -> None:
        """Take a retrained model into account; other records change nothing."""
        if record.phase == "reference" and record.method == "retrain" and record.finished:
            group = record.forget, record.role
            self._retrained[group][record.seed] = record
            self._means.pop(group, None)

    def complete(self, record: TrialRecord) -> TrialRecord:
        """Return a record with its gaps, as far as its request has retrained models."""
        group = record.forget, self._role(record)
        if not record.metrics or group not in self._retrained:
            return record
        means = self._mean(group)
        views = {
            view: {**values, **self._gaps(record.forget, values, means[view])}
            if view in means
            else values
            for view, values in record.metrics.items()
        }
        distance = self._distance(record, group)
        if distance is not None:
            views = {view: {**v, "activation_distance": distance} for view, v in views.items()}
        return replace(record, metrics=views)

    def _role(self, record: TrialRecord) -> str:
        if record.phase == "reference":
            return record.role
        role = self._roles.get(record.phase)
        return role or ("search" if record.phase == "search" else "report")

    def _mean(self, group: Group) -> dict[str, dict[str, float]]:
        """Return the mean metrics of the retrained models of a group, by view."""
        if group not in self._means:
            runs = [record for _, record in sorted(self._retrained[group].items())]
            views = {view for run in runs for view in run.metrics}
            self._means[group] = {
                view: mean_of([run.metrics[view] for run in runs if view in run.metrics])
                for view in views
            }
        return self._means[group]

    def _gaps(self, forget: str, values: Values, reference: Values) -> dict[str, float]:
        known = self._requests.get(forget, {}).get("whole_class", "acc_test_retain" in values)
        return gaps(values, reference, bool(known), self._own)

    def _distance(self, record: TrialRecord, group: Group) -> float | None:
        """Return the mean activation distance of a retrained model to the others; None of other models, and without others."""
        if record.phase != "reference" or record.method != "retrain":
            return None
        apart = [
            other.distances.get(record.problem, record.distances.get(other.problem))
            for seed, other in sorted(self._retrained[group].items())
            if seed != record.seed
        ]
        known = [distance for distance in apart if distance is not None]
        return float(np.mean(known)) if known else None


def compared(records: Iterable[TrialRecord], line: Mapping[str, Any]) -> list[TrialRecord]:
    """Return the records of a study with their gaps."""
    comparison, listed = Comparison(line), list(records)
    for record in listed:
        comparison.note(record)
    return [comparison.complete(record) for record in listed]
