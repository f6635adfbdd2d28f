"""The tables of results: tuned knobs, sufficient training, transferred and default knobs, every metric, cost."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from mu.metrics import METRICS
from mu.record import REFERENCE_ROLES, STATUSES
from reports.analysis.summaries import (
    DISTANCE,
    GAP,
    UNEXTENDABLE,
    VIEW,
    CellSummary,
    Retrained,
    better,
    cell_summary,
    changes,
    is_target,
    recovered,
    regret,
    retrained,
    scale,
)
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Interval
from reports.tables import cells
from reports.tables.cells import BELOW, BLANK, Group, Row, Table, TableCell, Values, measured
from reports.text import count, label, missing, objective, searched_view, seconds, share

MODELS = ("Original", "Retrain", "Noise floor")


def main(study: RecordedStudy) -> Table:
    """Return every method with its tuned knobs, in the format of NatMU's Tables 1 to 3."""
    caption = (
        f"{_caption(study)} Knobs were tuned on the search seeds by {objective(study)} of the "
        f"{searched_view(study)}."
    )
    groups = cells.by_request(
        study, lambda r: [*_gap_rows(study, r, "confirm"), *_default_rows(study, r)]
    )
    return _by_method(study, ("main", "Tuned knobs", caption), groups)


def sufficient(study: RecordedStudy) -> Table | None:
    """Return the same knobs with more epochs, in the format of NatMU's Tables A2 to A4."""
    if not study.sufficient_epochs:
        return None
    length = f"{study.sufficient_epochs} epochs"
    caption = (
        f"The knobs of the main table, but {length}. {_caption(study)} The change is that of AvgGap (of means) "
        "against the main table; a method that over-forgets gains."
    )
    groups = cells.by_request(
        study, lambda r: [*_gap_rows(study, r, "sufficient"), _change_row(study, r)]
    )
    return _by_method(study, ("sufficient", f"Sufficient training: {length}", caption), groups)


def metrics(study: RecordedStudy) -> Table:
    """Return every metric that was recorded, so that none is invisible."""
    caption = (
        "With tuned knobs: mean ± standard deviation (gap), fractions in percent. A metric whose best value is "
        "low or high has no gap. What it is, and what the papers call it, is in the glossary."
    )
    groups = cells.by_request(study, lambda request: _metric_rows(study, request))
    return _by_method(study, ("metrics", "Every recorded metric", caption), groups)


def transfer(study: RecordedStudy) -> Table | None:
    """Return knobs tuned on one request and used on another, in the format of NatMU's Table A1."""
    if not study.transfers:
        return None
    caption = (
        "Cells are a (d) in percent: a is the mean with the knobs tuned on another request, d = |a − mean with "
        "the knobs tuned on this one|, which is no gap to retraining. AvgChange is the mean of d. The last rows "
        "are gaps to the retrained models, and recovery."
    )
    groups = tuple(
        Group(
            f"{source} → {target}",
            f"Knobs of {source} used on {target}",
            tuple(_transfer_rows(study, study.request(target), source)),
        )
        for source, target in study.transfers
    )
    columns = ("Metric", *MODELS[1:], *(method.name for method in study.methods))
    of = "Transfer"
    return Table("transfer", "Transferred knobs", caption, of, columns, groups, compared=True)


def cost(study: RecordedStudy) -> Table | None:
    """Return what unlearning and the search for its knobs took."""
    on_gpus = any(record.resources.get("gpus") for record in study.records)
    caption = (
        "Unlearning and retraining time are medians over the report seeds, without evaluation; speed-up is "
        "their ratio. Samples seen are those passed forward with gradient. Search trials are counted by how "
        "they ended; search time is the sum of the seconds they kept a slot"
        + (", and GPU time that of the GPUs in it." if on_gpus else ".")
    )
    head = ("cost", "Cost", caption, "Forget request")
    return cells.table_of(
        head, cells.each_request(study, lambda request: _cost_rows(study, request, on_gpus))
    )


def _by_method(
    study: RecordedStudy, head: tuple[str, str, str], groups: tuple[Group, ...]
) -> Table:
    """Return a table whose columns are the reference models and the methods."""
    columns = ("Metric", *MODELS, *(method.name for method in study.methods))
    return Table(*head, "Forget request", columns, groups, compared=True)


def _caption(study: RecordedStudy) -> str:
    return (
        f"Cells are mean ± standard deviation (gap) over {count(len(study.report_seeds), 'seed')} on the test "
        "view, in percent; the gap is |mean − mean of the retrained models|. The noise floor is the mean "
        "distance of a retrained model from the others. AvgGap (of means) is the mean of the gaps above it, "
        "AvgGap (per run) that of each run's own gaps. Recovery is 1 − AvgGap / AvgGap of doing nothing, in percent; "
        "in the column of the retrained models, what one of them gets against the others. Activation distance, in "
        "[0, √2], is itself a distance to the retrained model. Bold: best of the row, doing nothing included, by "
        "more than the intervals."
    )


def _gap_rows(study: RecordedStudy, request: RecordedRequest, phase: str) -> list[Row]:
    """Return the rows of one request: its metrics, activation distance, both AvgGaps, and recovery."""
    results, seeds = _results(study, request, phase), len(study.report_seeds)
    floor = cells.value_of(GAP, retrained(study, request).average)
    means = [shown(result, average_cell(result, seeds)) for result in results]
    first, *rest = _ranked(study, request, means, [r.average_interval for r in results])
    of_means = (TableCell("AvgGap (of means)"), first, BLANK, floor, *rest)
    per_run = [shown(result, measured(GAP, result.per_run, seeds)) for result in results]
    intervals = [r.per_run.interval if r.per_run else None for r in results]
    first, *rest = _ranked(study, request, per_run, intervals)
    return [
        *(_metric_row(study, request, name, phase) for name in (*request.metrics, DISTANCE)),
        of_means,
        (TableCell("AvgGap (per run)"), first, BLANK, floor, *rest),
        _recovery_row(study, request, results),
    ]


def _results(
    study: RecordedStudy, request: RecordedRequest, phase: str, view: str = VIEW, source: str = ""
) -> list[CellSummary]:
    """Return what doing nothing comes to, and every method."""
    original = cell_summary(study, request, "original", "reference", view=view)
    methods = (method.name for method in study.methods)
    return [original, *(cell_summary(study, request, m, phase, source, view) for m in methods)]


def _ranked(
    study: RecordedStudy,
    request: RecordedRequest,
    row: list[TableCell],
    intervals: list[Interval | None],
    highest: bool = False,
) -> list[TableCell]:
    """Return the cells of a row, doing nothing first, with the best marked; not where there is nothing to measure."""
    return row if scale(study, request).nothing else cells.marked_best(row, intervals, highest)


def _recovery_row(
    study: RecordedStudy, request: RecordedRequest, results: Sequence[CellSummary]
) -> Row:
    """Return recovery of doing nothing and of every method, and its ceiling; or that there is nothing to measure."""
    by, shares = scale(study, request), [recovered(study, request, r) for r in results]
    nothing = TableCell(by.nothing, words=True) if by.nothing else None
    row = [shown(r, nothing or cells.recovery_cell(s)) for r, s in zip(results, shares)]
    intervals = [each.interval if each else None for each in shares]
    first, *rest = _ranked(study, request, row, intervals, highest=True)
    known = by.ceiling is not None and not nothing
    ceiling = TableCell(number=by.ceiling, form=share) if known else BLANK
    return (TableCell("Recovery"), first, ceiling, BLANK, *rest)


def _metric_row(
    study: RecordedStudy, request: RecordedRequest, name: str, phase: str, view: str = VIEW
) -> Row:
    """Return a metric of the original, of the retrained models, its noise floor, and that of every method."""
    reference, seeds = retrained(study, request, view), len(study.report_seeds)
    retrain = cell_summary(study, request, "retrain", "reference", view=view)
    results = _results(study, request, phase, view)
    row = [shown(result, _metric_cell(name, result, reference, seeds)) for result in results]
    first, *rest = _ranked(study, request, row, [_interval(name, result) for result in results])
    itself = shown(retrain, measured(name, retrain.spreads.get(name), reference.n))
    floor = cells.value_of(name, reference.floors.get(name))
    return (TableCell(label(name, request.whole_class)), first, itself, floor, *rest)


def _default_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    """Return AvgGap with the authors' knobs, where they were run."""
    if not any(phase == "default" and forget == request.name for phase, forget, *_ in study.runs):
        return []
    seeds, floor = len(study.report_seeds), retrained(study, request).average
    _, *untuned = _results(study, request, "default")
    row = [shown(result, average_cell(result, seeds)) for result in untuned]
    head = TableCell("AvgGap, default knobs (of means)")
    return [(head, BLANK, BLANK, cells.value_of(GAP, floor), *row)]


def _change_row(study: RecordedStudy, request: RecordedRequest) -> Row:
    """Return how AvgGap changed with more epochs."""
    _, *longer = _results(study, request, "sufficient")
    _, *tuned = _results(study, request, "confirm")
    row = [shown(r, cells.regret_cell(regret(r, own), BELOW)) for r, own in zip(longer, tuned)]
    return (TableCell("Change of AvgGap"), BLANK, BLANK, BLANK, *row)


def _metric_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    """Return a row for every metric of a request, known ones first; of the test view, else of another that has it."""
    views: dict[str, str] = {}
    for (phase, forget, *_), counting in study.runs.items():
        if forget != request.name or phase not in ("reference", "confirm"):
            continue
        for record in counting.finished:
            for view, values in record.metrics.items():
                for name in values:
                    views[name] = VIEW if VIEW in (view, views.get(name)) else view
    names = [name for name in METRICS if name in views]
    names += sorted(name for name in views if name not in METRICS)
    return [_named(study, request, name, views[name]) for name in names]


def _named(study: RecordedStudy, request: RecordedRequest, name: str, view: str) -> Row:
    """Return a row of every recorded metric: under its label alone, and with the reason where it is missing."""
    _, *row = _metric_row(study, request, name, "confirm", view)
    for place, method in enumerate(("original", "retrain", "", *(m.name for m in study.methods))):
        phase = "reference" if method in REFERENCE_ROLES else "confirm"
        runs = study.cell(phase, request.name, method).finished if row[place] == BLANK else ()
        said = (run.unavailable.get(f"{view}/{name}", "") for run in runs)
        if why := next(filter(None, said), ""):
            row[place] = TableCell(why, words=True)
    return (TableCell(label(name) + ("" if view == VIEW else f" [{view} view]")), *row)


def _transfer_rows(study: RecordedStudy, request: RecordedRequest, source: str) -> Iterator[Row]:
    """Yield the rows of one pair: a (d) of each metric, AvgChange, AvgGap with either knobs, and recovery."""
    reference, seeds = retrained(study, request), len(study.report_seeds)
    results = _results(study, request, "transfer", source=source)
    _, *moved = results
    _, *own = _results(study, request, "confirm")
    compared = [changes(after, before, request.metrics) for after, before in zip(moved, own)]
    for name in request.metrics:
        row = []
        for result, (by_metric, _) in zip(moved, compared):
            cell = measured(name, result.spreads.get(name), seeds)
            change = None if cell.words else by_metric.get(name, math.nan)
            row.append(shown(result, dataclasses.replace(cell, std=None, distance=change)))
        known = (reference.means.get(name), reference.floors.get(name))
        head = TableCell(label(name, request.whole_class))
        yield (head, *(cells.value_of(name, value) for value in known), *row)
    averages = [cells.value_of(GAP, average) for _, average in compared]
    yield (TableCell("AvgChange"), BLANK, BLANK, *map(shown, moved, averages))
    floor = cells.value_of(GAP, reference.average)
    for text, either in (("AvgGap, own knobs", own), ("AvgGap, transferred knobs", moved)):
        row = [shown(result, average_cell(result, seeds)) for result in either]
        yield (TableCell(text), BLANK, floor, *row)
    recovery, _, ceiling, blank, *row = _recovery_row(study, request, results)
    yield (recovery, ceiling, blank, *row)


def _cost_rows(study: RecordedStudy, request: RecordedRequest, on_gpus: bool) -> Iterator[Values]:
    retraining = retrained(study, request).seconds
    for method in study.methods:
        result = cell_summary(study, request, method.name)
        trials = study.searched(request.name, method.name)
        ended = Counter(trial.status for trial in trials)
        taken, times = result.seconds, "{:.3g}×".format
        faster = TableCell(number=retraining / taken, form=times) if retraining and taken else BLANK
        searched, on_gpu = sum(t.time_total for t in trials), sum(t.cost("gpus") for t in trials)
        yield {
            "Method": method.name,
            "Unlearning (s)": shown(result, cells.value_of("time_unlearn", taken)),
            "Retraining (s)": cells.value_of("time_unlearn", retraining),
            "Speed-up": faster,
            "Samples seen": shown(result, cells.counted(result.samples)),
            **{f"Search {status}": cells.counted(ended[status]) for status in STATUSES},
            "Search time (s)": TableCell(number=searched, form=seconds),
            **({"Search GPU time (s)": TableCell(number=on_gpu, form=seconds)} if on_gpus else {}),
        }


def shown(result: CellSummary, cell: TableCell) -> TableCell:
    """Return the cell, or in its place the reason why there is no finished run."""
    if result.reason == UNEXTENDABLE:
        return TableCell(cells.NONE, marks=cells.NO_EPOCHS, words=True)
    if result.reason:
        return TableCell(result.reason, words=True)
    return dataclasses.replace(cell, marks=cell.marks + cells.OUTDATED * result.outdated)


def average_cell(result: CellSummary, seeds: int, place: str = BELOW) -> TableCell:
    """Return AvgGap (of means) with its interval, and the verdict on all of its metrics."""
    if result.average is None or result.estimate is None:
        return BLANK
    return TableCell(
        number=result.average,
        verdict=result.verdict,
        runs=missing(len(result.by_seed), seeds),
        ends=result.average_interval,
        place=place,
    )


def _metric_cell(name: str, result: CellSummary, reference: Retrained, seeds: int) -> TableCell:
    cell = measured(name, result.spreads.get(name), seeds)
    distance: float | None = result.gaps.get(name, math.nan)
    if cell.words or not is_target(name) or (reference.means and name not in reference.means):
        distance = None  # such as the share of a method's own images, which no retrained model has
    ends, verdict = result.gap_intervals.get(name), result.verdicts.get(name, "")
    return dataclasses.replace(cell, distance=distance, gap_ends=ends, verdict=verdict)


def _interval(name: str, result: CellSummary) -> Interval | None:
    """Return the interval of what the best of a row has least of."""
    if better(name) == "lower":
        spread = result.spreads.get(name)
        return cells.possible(name, spread.interval) if spread else None
    return result.gap_intervals.get(name)
