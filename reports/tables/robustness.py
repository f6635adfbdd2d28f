"""Tables on robustness to knobs: recovery with others than the own, over-forgetting, the whole transfer matrix."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from reports.analysis.comparison import NOTHING
from reports.analysis.robustness import (
    PARTS,
    SUFFICIENT,
    TRANSFER,
    Robustness,
    asked_parts,
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
from reports.statistics.intervals import Estimate, Interval, mean_estimate
from reports.statistics.rankings import ranks
from reports.tables import cells
from reports.tables.cells import BESIDE, BLANK, NO_EPOCHS, NONE, Table, TableCell, Values
from reports.tables.results import average_cell, shown
from reports.text import count, share

SLOPES = (
    *("Tuned", "Sufficient", "Retrain", "Sufficient − retrain"),
    *("Slope [95 % interval]", "Reading"),
)
HEADS = dict(zip(PARTS, ("Transferred", "Defaults", "More epochs")))


def robustness(study: RecordedStudy) -> Table | None:
    """Return how far each method gets with knobs that were not tuned on the request."""
    if not asked_parts(study):
        return None
    caption = (
        "Recovery in percent with knobs that were not tuned on the request, higher is better: transferred from "
        "other requests of the same kind, the authors' defaults, and the own knobs with more epochs; each is a mean "
        "over the requests on which there is something to measure, and the first column the mean of the three. In "
        "brackets 95 % intervals, from resampling the report seeds. Bold: best by more than the intervals, of what "
        "lacks nothing. Regret is AvgGap (of means) with these knobs minus that with own knobs, in points: it rewards "
        "methods that were badly tuned."
    )
    head = ("robustness", "Robustness to knobs", caption, "Requests")
    return cells.table_of(head, [("all", "All requests", _robustness_rows(study))])


def overforgetting(study: RecordedStudy) -> Table | None:
    """Return whether forget accuracy goes on falling after the tuned number of epochs."""
    if not study.sufficient_epochs:
        return None
    caption = (
        "Forget accuracy in percent on the test seeds after the tuned number of epochs and after sufficient "
        "training; the slope between them in points per epoch, with Student's interval over the seeds that "
        "have both. Retraining does not depend on these epochs: its slope is 0, and a method over-forgets when "
        "its own is negative and ends below retraining."
    )
    head = ("overforgetting", "Over-forgetting", caption, "Forget request")
    return cells.table_of(
        head,
        cells.each_request(
            study, lambda request: [_slope_row(study, request, m) for m in study.methods]
        ),
    )


def transfer_matrix(study: RecordedStudy) -> Table | None:
    """Return every pair of requests whose knobs were exchanged: values, regret, and whether the ranking is kept."""
    caption = (
        "AvgGap (of means) on the target in percent points with own and with transferred knobs, each with its "
        "rank among the methods. Regret is their difference, AvgChange NatMU's mean change of the metrics, "
        "whichever the direction. Kendall's τ compares the two rankings: 1 is the same order, 0 unrelated, −1 "
        "reversed."
    )
    groups = [
        (f"{source} → {target}", f"Knobs of {source} used on {target}", rows)
        for source, target in study.transfers
        if (rows := list(_matrix_rows(study, source, target)))
    ]
    return cells.table_of(("transfer_matrix", "Transfer matrix", caption, "Transfer"), groups)


def _robustness_rows(study: RecordedStudy) -> Iterator[Values]:
    """Yield a row for each method, and that of doing nothing; only what lacks nothing may be the best."""
    every = {method.name: of_method(study, method) for method in study.methods}
    nothing = TableCell(number=0.0, form=share, ends=Interval(0.0, 0.0), place=BESIDE)
    totals = {m.name: _total_cell(study, m, every[m.name]) for m in study.methods}
    whole = {name: robust.total for name, robust in every.items() if robust.whole and robust.total}
    first, *best = cells.marked_best(
        [nothing, *(totals[name] for name in whole)],
        [nothing.ends, *(total.interval for total in whole.values())],
        highest=True,
    )
    totals |= zip(whole, best)
    for method in study.methods:
        robust = every[method.name]
        mean, largest = _regret_cells(robust)
        yield {
            "Method": method.name,
            "Untuned recovery [95 % interval]": totals[method.name],
            **{HEADS[part]: _part_cell(study, method, robust, part) for part in PARTS},
            "Tuned": cells.recovery_cell(robust.tuned, BESIDE),
            "Mean regret": mean,
            "Largest regret": largest,
        }
    zeros = {HEADS[part]: nothing if part in asked_parts(study) else None for part in PARTS}
    row = {"Method": f"{NOTHING} (doing nothing)", "total": first, **zeros, "Tuned": nothing}
    yield {**row, **dict.fromkeys(("mean", "largest"))}


def _total_cell(study: RecordedStudy, method: RecordedMethod, robust: Robustness) -> TableCell:
    if robust.total is None:
        return TableCell("not run" if robust.runs else "nothing to compare", words=True)
    marks = NO_EPOCHS * _lacks_epochs(study, method)
    missing = not all(run.recovery for run in robust.runs)
    return cells.recovery_cell(robust.total, BESIDE, marks + cells.INCOMPLETE * missing)


def _part_cell(
    study: RecordedStudy, method: RecordedMethod, robust: Robustness, part: str
) -> TableCell:
    there, asked = robust.count(part)
    if not asked:
        lacks = part == SUFFICIENT and _lacks_epochs(study, method)
        return TableCell(NONE, marks=NO_EPOCHS, words=True) if lacks else BLANK
    if not there:
        return TableCell(f"0 of {asked}", words=True)
    cell = cells.recovery_cell(robust.parts[part], BESIDE)
    return cell if there == asked else dataclasses.replace(cell, runs=f"{there} of {asked}")


def _lacks_epochs(study: RecordedStudy, method: RecordedMethod) -> bool:
    """Return whether sufficient training is asked for and the method has nothing to extend."""
    return bool(study.sufficient_epochs) and not method.has_epochs


def _regret_cells(robust: Robustness) -> tuple[TableCell, TableCell]:
    """Return the mean regret, and the largest with its place."""
    regrets: list[tuple[str, Estimate]] = [(r.place, r.regret) for r in robust.regrets if r.regret]
    if not regrets:
        return BLANK, BLANK
    place, largest = regrets[-1]
    mean = cells.regret_cell(mean_estimate([regret for _, regret in regrets]))
    return mean, dataclasses.replace(cells.difference(largest.value), suffix=f" ({place})")


def _slope_row(study: RecordedStudy, request: RecordedRequest, method: RecordedMethod) -> Values:
    slopes, seeds = slope(study, request, method), len(study.report_seeds)
    if slopes is None:
        longer = cell_summary(study, request, method.name, SUFFICIENT)
        why = shown(longer, TableCell("no shorter run", words=True))
        return {"Method": method.name, "Epochs": why, **dict.fromkeys(SLOPES)}
    change, ends = slopes.per_epoch.mean, slopes.per_epoch.interval
    below = None if slopes.level is None else slopes.after.mean - slopes.level
    floor = retrained(study, request).floors.get("acc_forget")
    values = (
        cells.measured("acc_forget", slopes.before, seeds),
        cells.measured("acc_forget", slopes.after, seeds),
        cells.value_of("acc_forget", slopes.level),
        cells.difference(below),
        cells.difference(change, ends),
        _reading(below, floor, change, ends),
    )
    epochs = f"{slopes.start} → {slopes.end}"
    return {"Method": method.name, "Epochs": epochs, **dict(zip(SLOPES, values))}


def _reading(below: float | None, floor: float | None, change: float, ends: Interval | None) -> str:
    """Return what a slope and its end say."""
    if ends is None:
        return "one seed: no interval"
    if ends.low <= TOLERANCE and ends.high >= -TOLERANCE and abs(change) > TOLERANCE:
        return "no slope that can be told from 0"
    if change >= -TOLERANCE:
        return "does not fall"
    if below is None:
        return "falls"
    return "over-forgets" if below < -(floor or 0.0) - TOLERANCE else "falls, not below retraining"


def _matrix_rows(study: RecordedStudy, source: str, target: str) -> Iterator[Values]:
    request, seeds = study.request(target), len(study.report_seeds)
    names = [m.name for m in study.methods if m.used_on(source) and m.used_on(target)]
    own = [cell_summary(study, request, name) for name in names]
    moved = [cell_summary(study, request, name, TRANSFER, source) for name in names]
    for name, before, after, *places in zip(names, own, moved, _places(own), _places(moved)):
        yield {
            "Method": name,
            "Own knobs": shown(before, average_cell(before, seeds)),
            "Own rank": places[0],
            "Transferred": shown(after, average_cell(after, seeds)),
            "Rank": places[1],
            "Regret": cells.regret_cell(regret(after, before)),
            "AvgChange": cells.value_of("acc_forget", changes(after, before, request.metrics)[1]),
        }
    if names:
        tau, n = ranking_kept(study, source, target)
        yield {
            "Method": f"Ranking kept ({count(n, 'method')})",
            **dict.fromkeys(("Own knobs", "Own rank", "Transferred")),
            "Rank": cells.correlation(tau, "τ = "),
            **dict.fromkeys(("Regret", "AvgChange")),
        }


def _places(results: list[CellSummary]) -> list[TableCell]:
    """Return the rank of each AvgGap, 1 for the smallest."""
    known = [at for at, result in enumerate(results) if result.average is not None]
    places = [BLANK] * len(results)
    for at, rank in zip(known, ranks([results[at].average or 0.0 for at in known])):
        places[at] = TableCell(number=float(rank), form="{:g}".format)
    return places
