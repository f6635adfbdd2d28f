"""How sure the numbers are: the noise floor as a distribution, pairs of methods, and ``cells.csv``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reports.comparison import ALPHA, pairs, smallest_corrected
from reports.load import RecordedRequest, RecordedStudy
from reports.stats import Interval, Spread
from reports.summaries import (
    DISTANCE,
    GAP,
    VIEW,
    CellSummary,
    at_floor,
    cell_summary,
    is_target,
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
    difference,
    label,
    number,
    p_value,
    possible,
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
    "above_floor",
)


def noise_floor(study: RecordedStudy) -> Table | None:
    """How far retrained models are from each other, from which a gap must be told."""
    groups = by_request(study, lambda request: _floor_rows(study, request))
    if not groups:
        return None
    return Table(
        "noise_floor",
        "Noise floor",
        "Distances between retrained models of the report seeds on the test view, in percent points. Leave one "
        "out: of each model to the mean of the others, all of them in order; their mean is the floor, and a gap "
        "that is not above it is marked † in every table. A gap between the mean and the largest is one that "
        "some retrained model had, too. Pairs: of every two models.",
        "Forget request",
        ("Metric", "Leave one out", "Mean", "Largest", "Pairs, mean", "Largest pair"),
        groups,
    )


def comparison(study: RecordedStudy) -> Table | None:
    """Every two methods over the problems that both have finished."""
    found = pairs(study)
    if not found:
        return None
    n, smallest, corrected = smallest_corrected(study)
    rows = tuple(
        (
            TableCell(pair.first),
            TableCell(pair.second),
            difference(pair.difference.mean, pair.difference.interval, BESIDE),
            TableCell(f"{pair.difference.n} ({count(pair.requests, 'request')})"),
            TableCell(p_value(pair.p)),
            TableCell(p_value(pair.p_holm)),
            TableCell(pair.closer if pair.told_apart else "cannot be told"),
        )
        for pair in found
    )
    return Table(
        "comparison",
        "Methods in pairs",
        "AvgGap per run with tuned knobs, first minus second, over the problems (request and seed) that both "
        "have finished: mean difference in percent points with Student's interval, p of Wilcoxon's signed-rank "
        f"test (two-sided, exact), and p after Holm's correction for {count(len(found), 'pair')}. "
        f"{power(n, smallest, corrected)} Seeds of a request share its knobs and its forgotten samples, so a "
        "difference holds for these requests with these knobs, and says little of others.",
        "Requests",
        (
            "First",
            "Second",
            "Difference [95 % interval]",
            "Problems",
            "p",
            "p (Holm)",
            "Closer to retraining",
        ),
        (Group("all", "All requests", rows),),
        texts=2,
    )


def power(n: int, smallest: float, corrected: float) -> str:
    """What so many problems can show at best."""
    text = (
        f"The smallest p that {count(n, 'problem')} can give is {_plain(smallest)} (every difference with "
        f"the same sign), and {_plain(corrected)} after correction"
    )
    if corrected >= ALPHA:
        return f"{text}: too few to tell any two of the methods apart, whatever the differences."
    return f"{text}."


def cells(study: RecordedStudy) -> Iterator[tuple[str, ...]]:
    """Rows of ``cells.csv``: one for each metric of each cell, in full precision, fractions in [0, 1].

    `low` and `high` are the ends of Student's interval of the mean, `gap_low` and `gap_high` those of the gap;
    both are empty for a single run. `floor` is the noise floor of the metric; `above_floor` is 1 when the gap,
    or the value of a metric that is a distance itself, is above it, and 0 when it may be chance. AvgGap of means
    (`avg_gap_natmu_of_means`) and per run (`avg_gap_natmu_per_run`) are rows of their own on the test view.
    """
    for phase, forget, method, source in study.runs:
        request = study.request(forget)
        runs = study.cell(phase, forget, method, source)
        head = (study.name, phase, forget, source, method)
        for view in dict.fromkeys(v for record in runs.finished for v in record.metrics):
            result = cell_summary(study, request, method, phase, source, view)
            floors = retrained(study, request, view).floors
            for name, value in result.spreads.items():
                gap, gap_interval = result.gaps.get(name), result.gap_intervals.get(name)
                itself = gap if is_target(name) else value.mean
                yield (
                    *(*head, view, name, *_spread(name, value)),
                    *_gap(gap, gap_interval, itself, floors.get(name)),
                )
            if view == VIEW and result.per_run is not None and method != "retrain":
                yield from _averages(result, head, floors.get(GAP))


def _averages(
    result: CellSummary, head: tuple[str, ...], floor: float | None
) -> Iterator[tuple[str, ...]]:
    per_run, average = result.per_run, result.average
    if per_run is None or average is None:
        return
    of_means = ("", "", "", "")
    gap = _gap(average, result.average_interval, average, floor)
    yield (*head, VIEW, f"{GAP}_of_means", str(per_run.n), *of_means, *gap)
    gap = _gap(per_run.mean, possible(GAP, per_run.interval), per_run.mean, floor)
    yield (*head, VIEW, f"{GAP}_per_run", *_spread(GAP, per_run), *gap)


def _spread(name: str, value: Spread) -> tuple[str, ...]:
    low, high = possible(name, value.interval) or (None, None)
    return (str(value.n), *map(_text, (value.mean, value.std, low, high)))


def _gap(
    gap: float | None, interval: Interval | None, compared: float | None, floor: float | None
) -> tuple[str, ...]:
    known = compared is not None and floor is not None
    above = str(int(not at_floor(compared, floor))) if known else ""
    return (*map(_text, (gap, *(interval or (None, None)), floor)), above)


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


def _plain(value: float) -> str:
    return f"{value:.3g}"
