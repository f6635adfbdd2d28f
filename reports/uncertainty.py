"""How sure the numbers are: the noise floor as a distribution, pairs of methods, and ``cells.csv``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reports.comparison import ENOUGH, pairs
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Interval, Spread
from reports.summaries import (
    DISTANCE,
    GAP,
    VIEW,
    CellSummary,
    cell_summary,
    is_target,
    recovered,
    retrained,
)
from reports.table_cells import (
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

CELLS = (
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
    "gap",
    "gap_low",
    "gap_high",
    "floor",
    "verdict",
)


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
        "some retrained model had, too. Pairs: of every two models.",
        "Forget request",
        ("Metric", "Leave one out", "Mean", "Largest", "Pairs, mean", "Largest pair"),
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


def cells(study: RecordedStudy) -> Iterator[tuple[str, ...]]:
    """Rows of ``cells.csv``: one for each metric of each cell, in full precision, fractions in [0, 1].

    `low` and `high` are the ends of Student's interval of the mean, `gap_low` and `gap_high` those of the gap;
    both are empty for a single run. `floor` is the noise floor of the metric, `verdict` the word of the equivalence test.
    AvgGap of means (`avg_gap_natmu_of_means`) and per run (`avg_gap_natmu_per_run`) and `recovery` are rows of their own
    on the test view.
    """
    for phase, forget, method, source in study.runs:
        request = study.request(forget)
        runs = study.cell(phase, forget, method, source)
        head = (study.name, phase, forget, source, method)
        for view in dict.fromkeys(v for record in runs.finished for v in record.metrics):
            result = cell_summary(study, request, method, phase, source, view)
            floors = retrained(study, request, view).floors
            for name, value in result.spreads.items():
                gap, interval = result.gaps.get(name), result.gap_intervals.get(name)
                tested = method != "retrain" and is_target(name)
                verdict = result.verdicts.get(name, "") if tested else ""
                compared = _gap(gap, interval, floors.get(name), verdict)
                yield (*head, view, name, *_spread(name, value), *compared)
            if view == VIEW and result.per_run is not None and method != "retrain":
                yield from _averages(study, request, result, head)


def _averages(
    study: RecordedStudy, request: RecordedRequest, result: CellSummary, head: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    per_run, average = result.per_run, result.average
    if per_run is None or average is None:
        return
    floor, n = retrained(study, request).average, str(per_run.n)
    gap = _gap(average, result.average_interval, floor, result.verdict)
    yield (*head, VIEW, f"{GAP}_of_means", n, "", "", "", "", *gap)
    gap = _gap(per_run.mean, possible(GAP, per_run.interval), floor, "")
    yield (*head, VIEW, f"{GAP}_per_run", *_spread(GAP, per_run), *gap)
    if (share := recovered(study, request, result)) is not None:
        low, high = share.interval or (None, None)
        numbers = _text(share.value), "", _text(low), _text(high)
        yield (*head, VIEW, "recovery", n, *numbers, "", "", "", "", "")


def _spread(name: str, value: Spread) -> tuple[str, ...]:
    low, high = possible(name, value.interval) or (None, None)
    return (str(value.n), *map(_text, (value.mean, value.std, low, high)))


def _gap(
    gap: float | None, interval: Interval | None, floor: float | None, verdict: str
) -> tuple[str, ...]:
    return (*map(_text, (gap, *(interval or (None, None)), floor)), verdict)


def _text(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(value)


def _floor_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    found = retrained(study, request)
    rows: list[Row] = []
    for name in (*request.metrics, DISTANCE, GAP):
        singles, pairs_of = found.singles.get(name), found.pairs.get(name)
        if singles:
            head = "AvgGap" if name == GAP else label(name, request.whole_class)
            each = ", ".join(number(name, value) for value in sorted(singles))
            rows.append(
                (
                    TableCell(head),
                    TableCell(each),
                    *_extent(name, singles),
                    *_extent(name, pairs_of),
                )
            )
    return rows


def _extent(name: str, values: Sequence[float] | None) -> tuple[TableCell, TableCell]:
    """Mean and largest."""
    if not values:
        return BLANK, BLANK
    return TableCell(number(name, math.fsum(values) / len(values))), TableCell(
        number(name, max(values))
    )
