"""A search over a grid, point by point: a table, and its numbers in full."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from mu.metrics import METRICS
from mu.selection import Candidate
from reports.analysis.spaces import spans
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables import cells
from reports.tables.cells import NONE, Table, Values
from reports.text import count, knob_text, label, searched_view

POINTS = ("study", "forget", "method", "number", "knob", "setting", "metric", "value", "retrain")


def is_grid(study: RecordedStudy) -> bool:
    """Return whether the search went through a grid."""
    search = study.definition.get("search")
    return isinstance(search, dict) and search.get("sampler") == "grid"


def points(study: RecordedStudy) -> Table | None:
    """Return every point of the grid with the objective, and the metrics its gaps are of."""
    if not is_grid(study):
        return None
    caption = (
        f"Means over {count(len(study.search_seeds), 'search seed')} on the {searched_view(study)}, fractions in "
        "percent, of every configuration that finished on all of them. `points.csv` has all metrics in full."
    )
    head = ("grid", "Every point of the grid", caption, "Forget request")
    return cells.table_of(
        head, cells.each_request(study, lambda request: _rows(study, request)), texts=2
    )


def values(study: RecordedStudy) -> pd.DataFrame:
    """Return ``points.csv``: each metric of each point, once for each knob that was searched, in full precision.

    `retrain` is the mean of the retrained models on the same seeds and view; NaN where they have none.
    """
    methods = {method.name: method for method in study.methods}
    rows = (
        (study.name, forget, name, point.number, knob, setting, metric, value, retrain.get(metric))
        for (forget, name), tried in study.candidates.items()
        for retrain in [study.references[forget].retrain]
        for point in tried
        for knob, setting in _searched(study, methods[name], point).items()
        for metric, value in point.metrics.items()
    )
    return pd.DataFrame(rows, columns=list(POINTS))


def metrics_of(study: RecordedStudy) -> list[str]:
    """Return the objective, and what the gaps of any request are of."""
    names = [study.objective, *(name for request in study.requests for name in request.metrics)]
    return [name for name in dict.fromkeys(names) if name in METRICS]


def _searched(study: RecordedStudy, method: RecordedMethod, point: Candidate) -> dict[str, object]:
    """Return the knobs of a point that the grid varies."""
    knobs = [span.knob for span in spans(study, method)]
    return {knob: point.knobs[knob] for knob in knobs if knob in point.knobs}


def _rows(study: RecordedStudy, request: RecordedRequest) -> Iterator[Values]:
    def row(name: str, knobs: str, of: dict[str, float]) -> Values:
        numbers = {label(m): cells.value_of(m, of.get(m)) for m in metrics_of(study)}
        return {"Method": name, "Knobs": knobs, **numbers}

    tried = [(m, study.candidates.get((request.name, m.name), ())) for m in study.methods]
    for method, points_of in tried:
        for point in points_of:
            knobs = knob_text(_searched(study, method, point)) or NONE
            yield row(method.name, knobs, {**point.metrics, study.objective: point.value})
    if any(points_of for _, points_of in tried):
        yield row("retrain", NONE, dict(study.references[request.name].retrain))
