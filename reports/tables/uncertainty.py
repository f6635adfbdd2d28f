"""How sure the numbers are: the noise floor as a distribution, pairs of methods, and ``cells.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from reports.analysis.comparison import ENOUGH, pairs
from reports.analysis.summaries import (
    DISTANCE,
    GAP,
    VIEW,
    cell_summary,
    is_target,
    recovered,
    retrained,
)
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Interval, Spread
from reports.tables import cells
from reports.tables.cells import BESIDE, Table, TableCell, Values
from reports.text import count, form_of, label, p_value

CELLS = (
    *("study", "phase", "forget", "source", "method", "view", "metric", "n", "mean", "std", "low"),
    *("high", "gap", "gap_low", "gap_high", "floor", "verdict"),
)


def noise_floor(study: RecordedStudy) -> Table | None:
    """Return how far retrained models are from each other, from which a gap must be told."""
    caption = (
        "Distances between retrained models on the test view, in percent points. Leave one out: of each model to the "
        "mean of the others, all of them in order; their mean is the floor. Where doing nothing has less than three "
        "times the floor of AvgGap, there is nothing to measure. A gap between the mean and the largest is one that "
        "some retrained model had, too."
    )
    head = ("noise_floor", "Noise floor", caption, "Forget request")
    return cells.table_of(head, cells.each_request(study, lambda r: _floor_rows(study, r)))


def comparison(study: RecordedStudy) -> Table | None:
    """Return every two methods over the requests that both have finished."""
    every = pairs(study)
    tested = any(pair.p is not None for pair in every)
    test = (
        f"p is of Wilcoxon's signed-rank test over the requests, after Holm's correction for {count(len(every), 'pair')}."
        if tested
        else f"A test over requests needs {ENOUGH} of them."
    )
    caption = (
        "Recovery with tuned knobs in percent, first minus second, the mean over the requests that both have finished, "
        "with its interval: requests are resampled, then seeds. With a single request it is of the seeds alone, and "
        f"says nothing of other requests. {test}"
    )
    rows: list[Values] = [
        {
            "First": pair.first,
            "Second": pair.second,
            "Difference [95 % interval]": cells.recovery_cell(pair.difference, BESIDE),
            "Requests": cells.counted(pair.requests),
            **({"p (Holm)": _p_cell(pair.p)} if tested else {}),
            "Closer to retraining": pair.closer or "cannot be told",
        }
        for pair in every
    ]
    head = ("comparison", "Methods in pairs", caption, "Requests")
    return cells.table_of(head, [("all", "All requests", rows)], texts=2)


def cells_frame(study: RecordedStudy) -> pd.DataFrame:
    """Return ``cells.csv``: a row for each metric of each cell, in full precision, fractions in [0, 1].

    `low` and `high` are the ends of Student's interval of the mean, `gap_low` and `gap_high` those of the gap;
    both are empty for a single run. `floor` is the noise floor of the metric, `verdict` the word of the equivalence test.
    AvgGap of means (`avg_gap_natmu_of_means`) and per run (`avg_gap_natmu_per_run`) and `recovery` are rows of their own
    on the test view.
    """
    return pd.DataFrame(_cells(study), columns=list(CELLS))


def _cells(study: RecordedStudy) -> Iterator[dict[str, Any]]:
    for (phase, forget, method, source), runs in study.runs.items():
        request = study.request(forget)
        for view in dict.fromkeys(v for record in runs.finished for v in record.metrics):
            head = dict(zip(CELLS, (study.name, phase, forget, source, method, view)))
            result = cell_summary(study, request, method, phase, source, view)
            reference, tested = retrained(study, request, view), method != "retrain"
            for name, value in result.spreads.items():
                gap = result.gaps.get(name), result.gap_intervals.get(name)
                word = result.verdicts.get(name) if tested and is_target(name) else None
                row = _spread(name, value) | _gap(*gap, reference.floors.get(name))
                yield {**head, **row, "verdict": word}
            if view != VIEW or not tested or result.per_run is None or result.average is None:
                continue
            n, floor = result.per_run.n, reference.average
            of_means = _gap(result.average, result.average_interval, floor)
            tested_at_once = {"metric": f"{GAP}_of_means", "n": n, "verdict": result.verdict}
            yield {**head, **tested_at_once, **of_means}
            mean, ends = result.per_run.mean, cells.possible(GAP, result.per_run.interval)
            row = _spread(GAP, result.per_run) | _gap(mean, ends, floor)
            yield {**head, **row, "metric": f"{GAP}_per_run"}
            if share := recovered(study, request, result):
                low, high = share.interval or (None, None)
                row = {"n": n, "mean": share.value, "low": low, "high": high}
                yield {**head, "metric": "recovery", **row}


def _spread(name: str, value: Spread) -> dict[str, Any]:
    low, high = cells.possible(name, value.interval) or (None, None)
    numbers = {"mean": value.mean, "std": value.std, "low": low, "high": high}
    return {"metric": name, "n": value.n, **numbers}


def _gap(gap: float | None, interval: Interval | None, floor: float | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"gap": gap, "gap_low": low, "gap_high": high, "floor": floor}


def _p_cell(p: float | None) -> TableCell | None:
    return None if p is None else TableCell(number=p, form=p_value)


def _floor_rows(study: RecordedStudy, request: RecordedRequest) -> Iterator[Values]:
    reference = retrained(study, request)
    for name in (*request.metrics, DISTANCE, GAP):
        if singles := sorted(reference.singles.get(name, ())):
            yield {
                "Metric": "AvgGap" if name == GAP else label(name, request.whole_class),
                "Leave one out": ", ".join(map(form_of(name), singles)),
                "Mean": cells.value_of(name, reference.floors[name]),
                "Largest": cells.value_of(name, singles[-1]),
            }
