"""Tables on robustness to knobs: recovery with others than the own, over-forgetting, the whole transfer matrix."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses

from reports.analysis.comparison import NOTHING
from reports.analysis.robustness import (
    PARTS,
    SUFFICIENT,
    TRANSFER,
    Robustness,
    asked_parts,
    mean_estimate,
    ranking_kept,
    slope,
)
from reports.analysis.robustness import robustness as of_method
from reports.analysis.summaries import (
    TOLERANCE,
    CellSummary,
    cell_summary,
    changes,
    regret,
    retrained,
)
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, Interval
from reports.statistics.rankings import ranks
from reports.tables.cells import (
    BELOW,
    BESIDE,
    BLANK,
    INCOMPLETE,
    NO_EPOCHS,
    NONE,
    Group,
    Row,
    Table,
    TableCell,
    by_request,
    count,
    difference,
    marked_best,
    measured,
    percent,
    recovery_cell,
    share,
)
from reports.tables.results import average_cell, shown


def robustness(study: RecordedStudy) -> Table | None:
    """How far each method gets with knobs that were not tuned on the request."""
    if not asked_parts(study):
        return None
    every = [of_method(study, method) for method in study.methods]
    nothing = TableCell(share(0.0), interval=(share(0.0), share(0.0)), place=BESIDE)
    totals = [_total_cell(study, *pair) for pair in zip(study.methods, every)]
    whole = [at for at, found in enumerate(every) if found.whole and found.total]
    intervals = [found.total.interval for found in every if found.whole and found.total]
    first, *best = marked_best(
        [nothing, *(totals[at] for at in whole)], [Interval(0.0, 0.0), *intervals], highest=True
    )
    for at, cell in zip(whole, best):
        totals[at] = cell
    zeros = [nothing if part in asked_parts(study) else BLANK for part in PARTS]
    rows = [
        (
            TableCell(method.name),
            total,
            *(_part_cell(study, method, found, part) for part in PARTS),
            recovery_cell(found.tuned, BESIDE),
            *_regret_cells(found),
        )
        for method, found, total in zip(study.methods, every, totals)
    ]
    rows.append((TableCell(f"{NOTHING} (doing nothing)"), first, *zeros, nothing, BLANK, BLANK))
    return Table(
        "robustness",
        "Robustness to knobs",
        "Recovery in percent with knobs that were not tuned on the request, higher is better: transferred from "
        "other requests of the same kind, the authors' defaults, and the own knobs with more epochs; each is a mean "
        "over the requests on which there is something to measure, and the first column the mean of the three. In "
        "brackets 95 % intervals, from resampling the report seeds. Bold: best by more than the intervals, of what "
        "lacks nothing. Regret is AvgGap (of means) with these knobs minus that with own knobs, in points: it rewards "
        "methods that were badly tuned.",
        "Requests",
        (
            "Method",
            "Untuned recovery [95 % interval]",
            "Transferred",
            "Defaults",
            "More epochs",
            "Tuned",
            "Mean regret",
            "Largest regret",
        ),
        (Group("all", "All requests", tuple(rows)),),
    )


def overforgetting(study: RecordedStudy) -> Table | None:
    """Whether forget accuracy goes on falling after the tuned number of epochs."""
    if not study.sufficient_epochs:
        return None
    return Table(
        "overforgetting",
        "Over-forgetting",
        "Forget accuracy in percent on the test seeds after the tuned number of epochs and after sufficient "
        "training; the slope between them in points per epoch, with Student's interval over the seeds that "
        "have both. Retraining does not depend on these epochs: its slope is 0, and a method over-forgets when "
        "its own is negative and ends below retraining.",
        "Forget request",
        (
            "Method",
            "Epochs",
            "Tuned",
            "Sufficient",
            "Retrain",
            "Sufficient − retrain",
            "Slope [95 % interval]",
            "Reading",
        ),
        by_request(study, lambda request: _slope_rows(study, request)),
    )


def transfer_matrix(study: RecordedStudy) -> Table | None:
    """Every pair of requests whose knobs were exchanged: values, regret, and whether the ranking is kept."""
    if not study.transfers:
        return None
    groups = tuple(
        Group(f"{source} → {target}", f"Knobs of {source} used on {target}", rows)
        for source, target in study.transfers
        if (rows := _matrix_rows(study, source, target))
    )
    return Table(
        "transfer_matrix",
        "Transfer matrix",
        "AvgGap (of means) on the target in percent points with own and with transferred knobs, each with its "
        "rank among the methods. Regret is their difference, AvgChange NatMU's mean change of the metrics, "
        "whichever the direction. Kendall's τ compares the two rankings: 1 is the same order, 0 unrelated, −1 "
        "reversed.",
        "Transfer",
        ("Method", "Own knobs", "Rank", "Transferred", "Rank", "Regret", "AvgChange"),
        groups,
    )


def _total_cell(study: RecordedStudy, method: RecordedMethod, found: Robustness) -> TableCell:
    if found.total is None:
        return TableCell("not run" if found.runs else "nothing to compare", words=True)
    marks = NO_EPOCHS * _lacks_epochs(study, method)
    missing = not all(run.recovery for run in found.runs)
    return recovery_cell(found.total, BESIDE, marks + INCOMPLETE * missing)


def _part_cell(
    study: RecordedStudy, method: RecordedMethod, found: Robustness, part: str
) -> TableCell:
    there, asked = found.count(part)
    if not asked:
        lacks = part == SUFFICIENT and _lacks_epochs(study, method)
        return TableCell(NONE, marks=NO_EPOCHS, words=True) if lacks else BLANK
    if not there:
        return TableCell(f"0 of {asked}", words=True)
    cell = recovery_cell(found.parts[part], BESIDE)
    return cell if there == asked else dataclasses.replace(cell, runs=f"{there} of {asked}")


def _lacks_epochs(study: RecordedStudy, method: RecordedMethod) -> bool:
    """Whether sufficient training is asked for and the method has nothing to extend."""
    return bool(study.sufficient_epochs) and not method.has_epochs


def _regret_cells(found: Robustness) -> tuple[TableCell, TableCell]:
    """The mean regret, and the largest with its place."""
    regrets = [(run.place, run.regret) for run in found.regrets if run.regret is not None]
    if not regrets:
        return BLANK, BLANK
    place, largest = regrets[-1]
    mean = _estimate_cell(mean_estimate([regret for _, regret in regrets]))
    return mean, TableCell(f"{difference(largest.value, None).text} ({place})")


def _slope_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    seeds, floor = len(study.report_seeds), retrained(study, request).floors.get("acc_forget")
    rows: list[Row] = []
    for method in study.methods:
        found = slope(study, request, method)
        if found is None:
            longer = cell_summary(study, request, method.name, SUFFICIENT)
            why = shown(longer, TableCell("no shorter run", words=True))
            rows.append((TableCell(method.name), why, *[BLANK] * 6))
            continue
        change, interval = found.per_epoch.mean, found.per_epoch.interval
        below = None if found.level is None else found.after.mean - found.level
        rows.append(
            (
                TableCell(method.name),
                TableCell(f"{found.start} → {found.end}"),
                measured("acc_forget", found.before, seeds),
                measured("acc_forget", found.after, seeds),
                BLANK if found.level is None else TableCell(percent(found.level)),
                BLANK if below is None else difference(below, None),
                difference(change, interval),
                TableCell(_reading(below, floor, change, interval)),
            )
        )
    return rows


def _reading(
    below: float | None, floor: float | None, change: float, interval: tuple[float, float] | None
) -> str:
    """What a slope and its end say."""
    if interval is None:
        return "one seed: no interval"
    if interval[0] <= TOLERANCE and interval[1] >= -TOLERANCE and abs(change) > TOLERANCE:
        return "no slope that can be told from 0"
    if change >= -TOLERANCE:
        return "does not fall"
    if below is None:
        return "falls"
    return "over-forgets" if below < -(floor or 0.0) - TOLERANCE else "falls, not below retraining"


def _matrix_rows(study: RecordedStudy, source: str, target: str) -> tuple[Row, ...]:
    request, seeds = study.request(target), len(study.report_seeds)
    used = [m for m in study.methods if m.used_on(source) and m.used_on(target)]
    own = [cell_summary(study, request, method.name) for method in used]
    moved = [cell_summary(study, request, method.name, TRANSFER, source) for method in used]
    places = [_places(results) for results in (own, moved)]
    rows: list[Row] = []
    for position, method in enumerate(used):
        before, after = own[position], moved[position]
        _, change = changes(after, before, request.metrics)
        rows.append(
            (
                TableCell(method.name),
                shown(before, average_cell(before, seeds, BELOW)),
                TableCell(places[0][position]),
                shown(after, average_cell(after, seeds, BELOW)),
                TableCell(places[1][position]),
                _regret_cell(regret(after, before)),
                BLANK if change is None else TableCell(percent(change)),
            )
        )
    if not rows:
        return ()
    tau, n = ranking_kept(study, source, target)
    kept = TableCell(NONE if tau is None else f"τ = {tau:.2f}".replace("-", "−"), words=tau is None)
    head = TableCell(f"Ranking kept ({count(n, 'method')})")
    return (*rows, (head, BLANK, BLANK, BLANK, kept, BLANK, BLANK))


def _places(results: list[CellSummary]) -> list[str]:
    """Rank of each AvgGap, 1 for the smallest."""
    found = [position for position, result in enumerate(results) if result.average is not None]
    ranked = ranks([results[position].average or 0.0 for position in found])
    texts = [NONE] * len(results)
    for position, rank in zip(found, ranked):
        texts[position] = f"{rank:g}"
    return texts


def _regret_cell(found: Estimate | None) -> TableCell:
    return BLANK if found is None else _estimate_cell(found)


def _estimate_cell(found: Estimate, marks: str = "") -> TableCell:
    return difference(found.value, found.interval, BESIDE, marks)
