"""How sure the numbers are: the noise floor as a distribution, pairs of methods, and ``cells.csv``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd

from reports.analysis.comparison import ENOUGH, pairs
from reports.analysis.summaries import (
    DISTANCE,
    GAP,
    VIEW,
    CellSummary,
    Retrained,
    cell_summary,
    is_target,
    recovered,
    retrained,
)
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Interval, Spread
from reports.tables.cells import (
    BESIDE,
    BLANK,
    Group,
    Row,
    Table,
    TableCell,
    by_request,
    count,
    label,
    number,
    p_value,
    possible,
    recovery_cell,
)

CELLS = [
    *(
        "study",
        "phase",
        "forget",
        "source",
        "method",
        "view",
        "metric",
        "n",
        "mean",
        "std",
        "low",
        "high",
    ),
    *("gap", "gap_low", "gap_high", "floor", "verdict"),
]


def noise_floor(study: RecordedStudy) -> Table | None:
    """How far retrained models are from each other, from which a gap must be told."""
    groups = by_request(study, lambda request: _floor_rows(study, request))
    if not groups:
        return None
    return Table(
        "noise_floor",
        "Noise floor",
        "Distances between retrained models on the test view, in percent points. Leave one out: of each model to the "
        "mean of the others, all of them in order; their mean is the floor. Where doing nothing has less than three "
        "times the floor of AvgGap, there is nothing to measure. A gap between the mean and the largest is one that "
        "some retrained model had, too.",
        "Forget request",
        ("Metric", "Leave one out", "Mean", "Largest"),
        groups,
    )


def comparison(study: RecordedStudy) -> Table | None:
    """Every two methods over the requests that both have finished."""
    every = pairs(study)
    if not every:
        return None
    tested = any(pair.p is not None for pair in every)
    rows = tuple(
        (
            TableCell(pair.first),
            TableCell(pair.second),
            recovery_cell(pair.difference, BESIDE),
            TableCell(str(pair.requests)),
            *([BLANK if pair.p is None else TableCell(p_value(pair.p))] if tested else []),
            TableCell(pair.closer or "cannot be told"),
        )
        for pair in every
    )
    test = (
        f"p is of Wilcoxon's signed-rank test over the requests, after Holm's correction for {count(len(every), 'pair')}."
        if tested
        else f"A test over requests needs {ENOUGH} of them."
    )
    return Table(
        "comparison",
        "Methods in pairs",
        "Recovery with tuned knobs in percent, first minus second, the mean over the requests that both have finished, "
        "with its interval: requests are resampled, then seeds. With a single request it is of the seeds alone, and "
        f"says nothing of other requests. {test}",
        "Requests",
        (
            "First",
            "Second",
            "Difference [95 % interval]",
            "Requests",
            *(["p (Holm)"] if tested else []),
            "Closer to retraining",
        ),
        (Group("all", "All requests", rows),),
        texts=2,
    )


def cells(study: RecordedStudy) -> pd.DataFrame:
    """Return ``cells.csv``: a row for each metric of each cell, in full precision, fractions in [0, 1].

    `low` and `high` are the ends of Student's interval of the mean, `gap_low` and `gap_high` those of the gap;
    both are empty for a single run. `floor` is the noise floor of the metric, `verdict` the word of the equivalence test.
    AvgGap of means (`avg_gap_natmu_of_means`) and per run (`avg_gap_natmu_per_run`) and `recovery` are rows of their own
    on the test view.
    """
    return pd.DataFrame(_cells(study), columns=CELLS)


def _cells(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    for (phase, forget, method, source), runs in study.runs.items():
        request = study.request(forget)
        for view in dict.fromkeys(v for record in runs.finished for v in record.metrics):
            head = dict(zip(CELLS, (study.name, phase, forget, source, method, view)))
            result = cell_summary(study, request, method, phase, source, view)
            rows = _metric_rows(result, retrained(study, request, view), method != "retrain")
            if view == VIEW and method != "retrain":
                rows = itertools.chain(rows, _average_rows(study, request, result))
            yield from (head | row for row in rows)


def _metric_rows(
    result: CellSummary, reference: Retrained, tested: bool
) -> Iterator[dict[str, Any]]:
    for name, value in result.spreads.items():
        yield {
            **_spread(name, value),
            **_gap(
                result.gaps.get(name), result.gap_intervals.get(name), reference.floors.get(name)
            ),
            "verdict": result.verdicts.get(name) if tested and is_target(name) else None,
        }


def _average_rows(
    study: RecordedStudy, request: RecordedRequest, result: CellSummary
) -> Iterator[dict[str, Any]]:
    per_run, floor = result.per_run, retrained(study, request).average
    if per_run is None or result.average is None:
        return
    gap = _gap(result.average, result.average_interval, floor)
    yield {"metric": f"{GAP}_of_means", "n": per_run.n, "verdict": result.verdict, **gap}
    spread = _spread(GAP, per_run)
    yield {
        **spread,
        "metric": f"{GAP}_per_run",
        **_gap(per_run.mean, possible(GAP, per_run.interval), floor),
    }
    if share := recovered(study, request, result):
        low, high = share.interval or (None, None)
        yield {"metric": "recovery", "n": per_run.n, "mean": share.value, "low": low, "high": high}


def _spread(name: str, value: Spread) -> dict[str, Any]:
    low, high = possible(name, value.interval) or (None, None)
    numbers = {"mean": value.mean, "std": value.std, "low": low, "high": high}
    return {"metric": name, "n": value.n, **numbers}


def _gap(gap: float | None, interval: Interval | None, floor: float | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"gap": gap, "gap_low": low, "gap_high": high, "floor": floor}


def _floor_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    reference = retrained(study, request)
    rows: list[Row] = []
    for name in (*request.metrics, DISTANCE, GAP):
        if singles := sorted(reference.singles.get(name, ())):
            head = "AvgGap" if name == GAP else label(name, request.whole_class)
            each = ", ".join(number(name, value) for value in singles)
            ends = (number(name, value) for value in (reference.floors[name], singles[-1]))
            rows.append((TableCell(head), TableCell(each), *map(TableCell, ends)))
    return rows
