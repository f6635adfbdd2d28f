"""A search over a grid, point by point: a table, and its numbers in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mu.metrics import METRICS
from mu.selection import Candidate
from reports.analysis.spaces import spans
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables.cells import (
    NONE,
    Row,
    Table,
    TableCell,
    by_request,
    count,
    knob_text,
    label,
    number,
    searched_view,
)

POINTS = ("study", "forget", "method", "number", "knob", "setting", "metric", "value", "retrain")


def is_grid(study: RecordedStudy) -> bool:
    search = study.definition.get("search")
    return isinstance(search, dict) and search.get("sampler") == "grid"


def points(study: RecordedStudy) -> Table | None:
    """Every point of the grid with the objective, and the metrics its gaps are of."""
    if not is_grid(study) or not any(study.candidates.values()):
        return None
    names = metrics_of(study)
    return Table(
        "grid",
        "Every point of the grid",
        f"Means over {count(len(study.search_seeds), 'search seed')} on the {searched_view(study)}, fractions in "
        "percent, of every configuration that finished on all of them. `points.csv` has all metrics in full.",
        "Forget request",
        ("Method", "Knobs", *map(label, names)),
        by_request(study, lambda request: _rows(study, request, names)),
        texts=2,
    )


def values(study: RecordedStudy) -> Iterator[tuple[str, ...]]:
    """Rows of ``points.csv``: each metric of each point, once for each knob that was searched, in full precision.

    `retrain` is the mean of the retrained models on the same seeds and view; empty where they have none.
    """
    for (forget, name), found in study.candidates.items() if is_grid(study) else ():
        method = next(method for method in study.methods if method.name == name)
        retrain = study.references[forget].retrain
        for point in found:
            for knob, setting in _searched(study, method, point).items():
                for metric, value in point.metrics.items():
                    gold = retrain.get(metric)
                    yield (
                        *(study.name, forget, name, str(point.number), knob, str(setting), metric),
                        *("" if item is None else repr(item) for item in (value, gold)),
                    )


def metrics_of(study: RecordedStudy) -> list[str]:
    """The objective, and what the gaps of any request are of."""
    names = [study.objective, *(name for request in study.requests for name in request.metrics)]
    return [name for name in dict.fromkeys(names) if name in METRICS]


def _searched(study: RecordedStudy, method: RecordedMethod, point: Candidate) -> dict[str, object]:
    """The knobs of a point that the grid varies."""
    knobs = [span.knob for span in spans(study, method)]
    return {knob: point.knobs[knob] for knob in knobs if knob in point.knobs}


def _rows(study: RecordedStudy, request: RecordedRequest, names: Sequence[str]) -> list[Row]:
    def cell(name: str, of: dict[str, float]) -> TableCell:
        return TableCell(number(name, of[name])) if name in of else TableCell(NONE, words=True)

    rows: list[Row] = []
    for method in study.methods:
        for point in study.candidates.get((request.name, method.name), ()):
            knobs = knob_text(_searched(study, method, point)) or NONE
            found = {**point.metrics, study.objective: point.value}
            rows.append(
                (TableCell(method.name), TableCell(knobs), *(cell(name, found) for name in names))
            )
    if rows:
        retrain = dict(study.references[request.name].retrain)
        rows.append(
            (TableCell("retrain"), TableCell(NONE), *(cell(name, retrain) for name in names))
        )
    return rows
