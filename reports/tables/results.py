"""The tables of results: tuned knobs, sufficient training, transferred and default knobs, every metric, cost."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

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
from reports.statistics.intervals import Interval, Spread
from reports.tables.cells import (
    BELOW,
    BLANK,
    NO_EPOCHS,
    NONE,
    OUTDATED,
    Group,
    Row,
    Table,
    TableCell,
    by_request,
    count,
    difference,
    ends,
    label,
    marked_best,
    measured,
    missing,
    number,
    objective,
    percent,
    possible,
    recovery_cell,
    searched_view,
    seconds,
    share,
)


def main(study: RecordedStudy) -> Table:
    """Every method with its tuned knobs, in the format of NatMU's Tables 1 to 3."""
    return Table(
        "main",
        "Tuned knobs",
        f"{_cells(study)} Knobs were tuned on the search seeds by "
        f"{objective(study)} of the {searched_view(study)}.",
        "Forget request",
        _columns(study),
        by_request(study, lambda r: [*_gap_rows(study, r, "confirm"), *_default_rows(study, r)]),
    )


def sufficient(study: RecordedStudy) -> Table | None:
    """The same knobs with more epochs, in the format of NatMU's Tables A2 to A4."""
    if not study.sufficient_epochs:
        return None
    length = f"{study.sufficient_epochs} epochs"
    return Table(
        "sufficient",
        f"Sufficient training: {length}",
        f"The knobs of the main table, but {length}. {_cells(study)} The change is that of AvgGap (of means) "
        "against the main table; a method that over-forgets gains.",
        "Forget request",
        _columns(study),
        by_request(study, lambda r: [*_gap_rows(study, r, "sufficient"), _change_row(study, r)]),
    )


def metrics(study: RecordedStudy) -> Table:
    """Every metric that was recorded, so that none is invisible."""
    return Table(
        "metrics",
        "Every recorded metric",
        "With tuned knobs: mean ± standard deviation (gap), fractions in percent. A metric whose best value is "
        "low or high has no gap. What it is, and what the papers call it, is in the glossary.",
        "Forget request",
        _columns(study),
        by_request(study, lambda request: _metric_rows(study, request)),
    )


def transfer(study: RecordedStudy) -> Table | None:
    """Knobs tuned on one request and used on another, in the format of NatMU's Table A1."""
    if not study.transfers:
        return None
    groups = tuple(
        Group(
            f"{source} → {target}",
            f"Knobs of {source} used on {target}",
            tuple(_transfer_rows(study, study.request(target), source)),
        )
        for source, target in study.transfers
    )
    return Table(
        "transfer",
        "Transferred knobs",
        "Cells are a (d) in percent: a is the mean with the knobs tuned on another request, d = |a − mean with "
        "the knobs tuned on this one|, which is no gap to retraining. AvgChange is the mean of d. The last rows "
        "are gaps to the retrained models, and recovery.",
        "Transfer",
        ("Metric", "Retrain", "Noise floor", *(method.name for method in study.methods)),
        groups,
    )


def cost(study: RecordedStudy) -> Table:
    """What unlearning and the search for its knobs took."""
    return Table(
        "cost",
        "Cost",
        "Unlearning and retraining time are medians over the report seeds, without evaluation; speed-up is "
        "their ratio. Samples seen are those passed forward with gradient. Search trials are counted by how "
        "they ended; search time is the sum of the seconds they kept a slot"
        + (", and GPU time that of the GPUs in it." if _on_gpus(study) else "."),
        "Forget request",
        (
            "Method",
            "Unlearning (s)",
            "Retraining (s)",
            "Speed-up",
            "Samples seen",
            *(f"Search {status}" for status in STATUSES),
            "Search time (s)",
            *(("Search GPU time (s)",) if _on_gpus(study) else ()),
        ),
        by_request(study, lambda request: _cost_rows(study, request)),
    )


def _on_gpus(study: RecordedStudy) -> bool:
    return any(record.resources.get("gpus") for record in study.records)


def _cells(study: RecordedStudy) -> str:
    return (
        f"Cells are mean ± standard deviation (gap) over {count(len(study.report_seeds), 'seed')} on the test "
        "view, in percent; the gap is |mean − mean of the retrained models|. The noise floor is the mean "
        "distance of a retrained model from the others. AvgGap (of means) is the mean of the gaps above it, "
        "AvgGap (per run) that of each run's own gaps. Recovery is 1 − AvgGap / AvgGap of doing nothing, in percent; "
        "in the column of the retrained models, what one of them gets against the others. Activation distance, in "
        "[0, √2], is itself a distance to the retrained model. Bold: best of the row, doing nothing included, by "
        "more than the intervals."
    )


def _columns(study: RecordedStudy) -> tuple[str, ...]:
    return (
        "Metric",
        "Original",
        "Retrain",
        "Noise floor",
        *(method.name for method in study.methods),
    )


def _gap_rows(study: RecordedStudy, request: RecordedRequest, phase: str) -> list[Row]:
    """The rows of one request: its metrics, activation distance, both AvgGaps, and recovery."""
    reference, seeds = retrained(study, request), len(study.report_seeds)
    results = _results(study, request, phase)
    rows = [_metric_row(study, request, name, phase) for name in (*request.metrics, DISTANCE)]
    floor = _floor_cell(GAP, reference.average)
    for head, make, interval in (
        ("AvgGap (of means)", average_cell, lambda result: result.average_interval),
        ("AvgGap (per run)", _per_run, lambda result: result.per_run and result.per_run.interval),
    ):
        cells = [shown(result, make(result, seeds)) for result in results]
        first, *rest = _ranked(study, request, cells, [interval(result) for result in results])
        rows.append((TableCell(head), first, BLANK, floor, *rest))
    return [*rows, _recovery_row(study, request, results)]


def _results(study: RecordedStudy, request: RecordedRequest, phase: str) -> list[CellSummary]:
    """Doing nothing, and every method."""
    original = cell_summary(study, request, "original", "reference")
    return [original, *(cell_summary(study, request, m.name, phase) for m in study.methods)]


def _ranked(
    study: RecordedStudy,
    request: RecordedRequest,
    cells: list[TableCell],
    intervals: list[Interval | None],
    highest: bool = False,
) -> list[TableCell]:
    """The cells of a row, doing nothing first, with the best marked; not where there is nothing to measure."""
    return cells if scale(study, request).nothing else marked_best(cells, intervals, highest)


def _recovery_row(
    study: RecordedStudy, request: RecordedRequest, results: Sequence[CellSummary]
) -> Row:
    """Recovery of doing nothing and of every method, and its ceiling; or that there is nothing to measure."""
    by, estimates = scale(study, request), [recovered(study, request, r) for r in results]
    cells = [
        shown(result, TableCell(by.nothing, words=True) if by.nothing else recovery_cell(estimate))
        for result, estimate in zip(results, estimates)
    ]
    intervals = [estimate.interval if estimate else None for estimate in estimates]
    first, *rest = _ranked(study, request, cells, intervals, highest=True)
    ceiling = BLANK if by.ceiling is None or by.nothing else TableCell(share(by.ceiling))
    return (TableCell("Recovery"), first, ceiling, BLANK, *rest)


def _metric_row(
    study: RecordedStudy, request: RecordedRequest, name: str, phase: str, view: str = VIEW
) -> Row:
    """A metric of the original, of the retrained models, its noise floor, and that of every method."""
    reference, seeds = retrained(study, request, view), len(study.report_seeds)
    original, retrain = (
        cell_summary(study, request, kind, "reference", view=view)
        for kind in ("original", "retrain")
    )
    tried = [
        cell_summary(study, request, method.name, phase, view=view) for method in study.methods
    ]
    results = [original, *tried]
    cells = [shown(result, _metric_cell(name, result, reference, seeds)) for result in results]
    first, *rest = _ranked(study, request, cells, [_interval(name, result) for result in results])
    itself = shown(retrain, measured(name, retrain.spreads.get(name), reference.n))
    floor = _floor_cell(name, reference.floors.get(name))
    return (TableCell(label(name, request.whole_class)), first, itself, floor, *rest)


def _default_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    """AvgGap with the authors' knobs, where they were run."""
    if not any(phase == "default" and forget == request.name for phase, forget, *_ in study.runs):
        return []
    seeds, floor = len(study.report_seeds), _floor_cell(GAP, retrained(study, request).average)
    _, *untuned = _results(study, request, "default")
    cells = [shown(result, average_cell(result, seeds)) for result in untuned]
    return [(TableCell("AvgGap, default knobs (of means)"), BLANK, BLANK, floor, *cells)]


def _change_row(study: RecordedStudy, request: RecordedRequest) -> Row:
    """How AvgGap changed with more epochs."""
    cells = []
    for method in study.methods:
        longer = cell_summary(study, request, method.name, "sufficient")
        change = regret(longer, cell_summary(study, request, method.name))
        cell = BLANK if change is None else difference(change.value, change.interval, BELOW)
        cells.append(shown(longer, cell))
    return (TableCell("Change of AvgGap"), BLANK, BLANK, BLANK, *cells)


def _metric_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    """A row for every metric of a request, known ones first; of the test view, else of another that has it."""
    views: dict[str, str] = {}
    for (phase, forget, *_), found in study.runs.items():
        if forget != request.name or phase not in ("reference", "confirm"):
            continue
        for record in found.finished:
            for view, values in record.metrics.items():
                for name in values:
                    views[name] = VIEW if VIEW in (view, views.get(name)) else view
    names = [name for name in METRICS if name in views]
    names += sorted(name for name in views if name not in METRICS)
    return [_named(study, request, name, views[name]) for name in names]


def _named(study: RecordedStudy, request: RecordedRequest, name: str, view: str) -> Row:
    """A row of every recorded metric: under its label alone, and with the reason where it is missing."""
    _, *cells = _metric_row(study, request, name, "confirm", view)
    head = label(name) + ("" if view == VIEW else f" [{view} view]")
    methods = ("original", "retrain", "", *(method.name for method in study.methods))
    reasons = (_unavailable(study, request, method, f"{view}/{name}") for method in methods)
    return (
        TableCell(head),
        *(
            TableCell(why, words=True) if why and cell == BLANK else cell
            for cell, why in zip(cells, reasons)
        ),
    )


def _unavailable(study: RecordedStudy, request: RecordedRequest, method: str, key: str) -> str:
    """Why a metric is not among those of a cell's runs; empty when nothing is said."""
    phase = "reference" if method in REFERENCE_ROLES else "confirm"
    found = (r.unavailable.get(key, "") for r in study.cell(phase, request.name, method).finished)
    return next(filter(None, found), "")


def _transfer_rows(study: RecordedStudy, request: RecordedRequest, source: str) -> list[Row]:
    """The rows of one pair: a (d) of each metric, AvgChange, and AvgGap with either knobs."""
    reference, seeds = retrained(study, request), len(study.report_seeds)
    moved = [cell_summary(study, request, m.name, "transfer", source) for m in study.methods]
    own = [cell_summary(study, request, method.name) for method in study.methods]
    compared = [changes(after, before, request.metrics) for after, before in zip(moved, own)]
    rows = []
    for name in request.metrics:
        found = [by_metric.get(name) for by_metric, _ in compared]
        cells = [
            shown(result, _change_cell(name, result.spreads.get(name), change, seeds))
            for result, change in zip(moved, found)
        ]
        mean = reference.means.get(name)
        rows.append(
            (
                TableCell(label(name, request.whole_class)),
                BLANK if mean is None else TableCell(number(name, mean)),
                _floor_cell(name, reference.floors.get(name)),
                *cells,
            )
        )
    average = [mean for _, mean in compared]
    cells = [
        shown(r, BLANK if a is None else TableCell(percent(a))) for r, a in zip(moved, average)
    ]
    rows.append((TableCell("AvgChange"), BLANK, BLANK, *cells))
    floor = _floor_cell(GAP, reference.average)
    for head, results in (("AvgGap, own knobs", own), ("AvgGap, transferred knobs", moved)):
        cells = [shown(r, average_cell(r, seeds)) for r in results]
        rows.append((TableCell(head), BLANK, floor, *cells))
    original = cell_summary(study, request, "original", "reference")
    recovery, _, ceiling, blank, *cells = _recovery_row(study, request, [original, *moved])
    return [*rows, (recovery, ceiling, blank, *cells)]


def _cost_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    retrain_seconds = retrained(study, request).seconds
    rows = []
    for method in study.methods:
        result = cell_summary(study, request, method.name)
        trials = study.searched(request.name, method.name)
        ended = Counter(trial.status for trial in trials)
        taken, faster, samples = BLANK, BLANK, BLANK
        if result.seconds is not None and result.samples is not None:
            taken = TableCell(seconds(result.seconds))
            samples = TableCell(f"{result.samples:,.0f}")
        if retrain_seconds and result.seconds:
            faster = TableCell(f"{retrain_seconds / result.seconds:.3g}×")
        rows.append(
            (
                TableCell(method.name),
                shown(result, taken),
                BLANK if retrain_seconds is None else TableCell(seconds(retrain_seconds)),
                faster,
                shown(result, samples),
                *(TableCell(str(ended[status])) for status in STATUSES),
                TableCell(seconds(sum(trial.time_total for trial in trials))),
                *(
                    (TableCell(seconds(sum(t.cost("gpus") for t in trials))),)
                    if _on_gpus(study)
                    else ()
                ),
            )
        )
    return rows


def shown(result: CellSummary, cell: TableCell) -> TableCell:
    """The cell, or in its place the reason why there is no finished run."""
    if result.reason == UNEXTENDABLE:
        return TableCell(NONE, marks=NO_EPOCHS, words=True)
    if result.reason:
        return TableCell(result.reason, words=True)
    return dataclasses.replace(cell, marks=cell.marks + OUTDATED * result.outdated)


def average_cell(result: CellSummary, seeds: int, place: str = BELOW) -> TableCell:
    """AvgGap (of means) with its interval, and the verdict on all of its metrics."""
    if result.average is None or result.estimate is None:
        return BLANK
    return TableCell(
        percent(result.average),
        verdict=result.verdict,
        runs=missing(len(result.by_seed), seeds),
        interval=ends(GAP, result.average_interval),
        place=place,
    )


def _per_run(result: CellSummary, seeds: int) -> TableCell:
    return measured(GAP, result.per_run, seeds)


def _metric_cell(name: str, result: CellSummary, reference: Retrained, seeds: int) -> TableCell:
    cell = measured(name, result.spreads.get(name), seeds)
    if cell.words or not is_target(name) or (reference.means and name not in reference.means):
        gap = ""  # such as the share of a method's own images, which no retrained model has
    else:
        gap = number(name, result.gaps[name]) if name in result.gaps else NONE
    interval = ends(name, result.gap_intervals.get(name))
    verdict = result.verdicts.get(name, "")
    return dataclasses.replace(cell, gap=gap, gap_interval=interval, verdict=verdict)


def _change_cell(name: str, value: Spread | None, change: float | None, seeds: int) -> TableCell:
    if value is None:
        return BLANK
    gap = NONE if change is None else number(name, change)
    return dataclasses.replace(measured(name, value, seeds), spread="", gap=gap)


def _floor_cell(name: str, floor: float | None) -> TableCell:
    return BLANK if floor is None else TableCell(number(name, floor))


def _interval(name: str, result: CellSummary) -> Interval | None:
    """That of what the best of a row has least of."""
    if better(name) == "lower":
        return possible(name, result.spreads[name].interval) if name in result.spreads else None
    return result.gap_intervals.get(name)
