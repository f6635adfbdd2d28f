"""Tables on robustness to knobs: the score, default knobs, over-forgetting, the whole transfer matrix."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses

from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.ranks import ranks
from reports.result_tables import average_cell, shown
from reports.robustness import (
    SUFFICIENT,
    TRANSFER,
    Score,
    mean_estimate,
    ranking_kept,
    score,
    slope,
)
from reports.stats import Estimate
from reports.summaries import TOLERANCE, CellSummary, cell_summary, changes, regret, retrained
from reports.table_cells import (
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
)


def robustness(study: RecordedStudy) -> Table | None:
    """One number per method, and what it is made of."""
    if not study.transfers and not study.sufficient_epochs:
        return None
    scores = [score(study, method) for method in study.methods]
    totals = marked_best(
        [_total_cell(study, method, found) for method, found in zip(study.methods, scores)],
        [s.total.value if s.total and s.complete else None for s in scores],
    )
    rows = tuple(
        (
            TableCell(method.name),
            total,
            _part_cell(study, method, found, TRANSFER),
            _part_cell(study, method, found, SUFFICIENT),
            _worst_cell(found),
            _own_cell(study, method),
        )
        for method, found, total in zip(study.methods, scores, totals)
    )
    return Table(
        "robustness",
        "Robustness to knobs",
        "The score is what it costs, in points of AvgGap (of means), not to have knobs tuned on the request "
        "itself: the mean of two parts, the mean regret over all transfers and that over all requests with "
        "sufficient training. Regret is AvgGap minus AvgGap with the own tuned knobs; lower is better, and "
        "below 0 the other knobs did better. In brackets 95 % intervals, from resampling the report seeds. A "
        "small score beside a large AvgGap is a method that is equally far off with any knobs.",
        "Requests",
        (
            "Method",
            "Score [95 % interval]",
            "Transfer",
            "Sufficient training",
            "Largest regret",
            "AvgGap, own knobs",
        ),
        (Group("all", "All requests", rows),),
    )


def defaults(study: RecordedStudy) -> Table | None:
    """What tuning gains over the authors' knobs."""
    asked = {forget for phase, forget, *_ in study.runs if phase == "default"}
    requests = [request for request in study.requests if request.name in asked]
    if not requests:
        return None
    rows = []
    for method in study.methods:
        gains = [_gain(study, request, method) for request in requests]
        used = [g for g, request in zip(gains, requests) if method.used_on(request.name)]
        there = [gain for gain, _ in used if gain is not None]
        mean = BLANK
        if there:
            mean = dataclasses.replace(
                _estimate_cell(mean_estimate(there)),
                runs="" if len(there) == len(used) else f"{len(there)} of {len(used)}",
            )
        rows.append((TableCell(method.name), *(cell for _, cell in gains), mean))
    return Table(
        "defaults",
        "Gain of tuning",
        "AvgGap (of means) with the authors' knobs, or those that the study fixes, minus AvgGap with tuned "
        "knobs, in percent points over the same seeds of the test view [95 % interval]. Near 0, tuning was not "
        "needed; below 0, the validation view misled it.",
        "Requests",
        ("Method", *(request.name for request in requests), "Mean"),
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


def _total_cell(study: RecordedStudy, method: RecordedMethod, found: Score) -> TableCell:
    if not found.regrets:
        return TableCell("nothing to compare", words=True)
    if found.total is None:
        return TableCell("not run", words=True)
    marks = NO_EPOCHS * _lacks_epochs(study, method) + INCOMPLETE * (not found.complete)
    return _estimate_cell(found.total, marks)


def _part_cell(study: RecordedStudy, method: RecordedMethod, found: Score, part: str) -> TableCell:
    there, asked = found.count(part)
    if not asked:
        lacks = part == SUFFICIENT and _lacks_epochs(study, method)
        return TableCell(NONE, marks=NO_EPOCHS, words=True) if lacks else BLANK
    if not there:
        return TableCell(f"0 of {asked}", words=True)
    cell = _estimate_cell(found.parts[part])
    return cell if there == asked else dataclasses.replace(cell, runs=f"{there} of {asked}")


def _lacks_epochs(study: RecordedStudy, method: RecordedMethod) -> bool:
    """Whether sufficient training is asked for and the method has nothing to extend."""
    return bool(study.sufficient_epochs) and not method.has_epochs


def _worst_cell(found: Score) -> TableCell:
    worst = found.worst
    if worst is None or worst.estimate is None:
        return BLANK
    return TableCell(f"{difference(worst.estimate.value, None).text} ({worst.place})")


def _own_cell(study: RecordedStudy, method: RecordedMethod) -> TableCell:
    """Mean AvgGap over the requests, for scale."""
    found = [
        cell_summary(study, request, method.name).average
        for request in study.requests
        if method.used_on(request.name)
    ]
    there = [value for value in found if value is not None]
    if not there:
        return BLANK
    text = percent(sum(there) / len(there))
    return TableCell(text if len(there) == len(found) else f"{text} ({len(there)} of {len(found)})")


def _gain(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> tuple[Estimate | None, TableCell]:
    """What tuning gains in a cell, and how it is shown."""
    tuned = cell_summary(study, request, method.name)
    untuned = cell_summary(study, request, method.name, "default")
    gain = regret(untuned, tuned)
    missing = untuned if untuned.reason else tuned
    return gain, shown(missing, _regret_cell(gain))


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
    reference = retrained(study, request)
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
                shown(before, average_cell(before, reference, seeds, BELOW)),
                TableCell(places[0][position]),
                shown(after, average_cell(after, reference, seeds, BELOW)),
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
