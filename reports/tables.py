"""Tables as data: cells hold text, every number comes from the records, and a missing one says why."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mu.metrics import METRICS
from mu.record import STATUSES
from reports.load import Request, Study
from reports.outcomes import (
    DISTANCE,
    GAP,
    TOLERANCE,
    UNEXTENDABLE,
    Outcome,
    Retrained,
    at_floor,
    changes,
    outcome,
    retrained,
)
from reports.stats import Spread

AT_FLOOR, OUTDATED, NO_EPOCHS, NONE = "†", "‡", "*", "–"
MARKS = {
    AT_FLOOR: "a gap that is not above the noise floor",
    OUTDATED: "run with other knobs than those now chosen",
    NO_EPOCHS: "the method has no epochs to extend",
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        value: The number as text, or words.
        spread: Standard deviation, without its sign.
        gap: What stands in parentheses.
        marks: Some of ``MARKS``.
        runs: Says how many runs there are when some are missing, as in `n=2`.
        best: Whether it is the best of its row.
        words: Whether `value` is words that stand for a missing number.
    """

    value: str
    spread: str = ""
    gap: str = ""
    marks: str = ""
    runs: str = ""
    best: bool = False
    words: bool = False

    @property
    def text(self) -> str:
        text = self.value
        text += f" ± {self.spread}" if self.spread else ""
        text += f" ({self.gap})" if self.gap else ""
        return text + self.marks + (f" [{self.runs}]" if self.runs else "")


Row = tuple[Cell, ...]
BLANK = Cell(NONE, words=True)


@dataclass(frozen=True)
class Group:
    """Rows that belong to one forget request, or to one pair of them.

    Args:
        name: Short name.
        title: The same with what it is, for a heading.
        rows: The rows, each as long as the table's columns.
    """

    name: str
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: File name without suffix.
        title: A few words.
        caption: How to read it.
        of: What a group is.
        columns: Heads, the first of the row's label.
        groups: The rows.
        texts: How many columns at the left hold words.
    """

    name: str
    title: str
    caption: str
    of: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    texts: int = 1

    @property
    def notes(self) -> list[str]:
        """Explanations of the marks that occur."""
        used = {mark for g in self.groups for row in g.rows for cell in row for mark in cell.marks}
        return [f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used]


def all_tables(study: Study) -> list[Table]:
    """Every table that the study has."""
    tables = [main(study)]
    if study.sufficient_epochs:
        tables.append(sufficient(study))
    if study.transfers:
        tables.append(transfer(study))
    return [*tables, cost(study), knobs(study)]


def main(study: Study) -> Table:
    """Every method with its tuned knobs, in the format of NatMU's Tables 1 to 3."""
    return Table(
        "main",
        "Tuned knobs",
        f"{_cells(study)} Knobs were tuned on the search seeds by "
        f"{label(study.objective)} of the validation view.",
        "Forget request",
        _columns(study),
        tuple(
            Group(request.name, title(request), tuple(_gap_rows(study, request, "confirm")))
            for request in study.requests
        ),
    )


def sufficient(study: Study) -> Table:
    """The same knobs with more epochs, in the format of NatMU's Tables A2 to A4."""
    groups = []
    for request in study.requests:
        rows = _gap_rows(study, request, "sufficient")
        change = [Cell("Change of AvgGap"), BLANK, BLANK, BLANK]
        for method in study.methods:
            longer = outcome(study, request, method.name, "sufficient")
            before = outcome(study, request, method.name).average
            cell = BLANK
            if longer.average is not None and before is not None:
                cell = Cell(f"{100 * (longer.average - before):+.2f}".replace("-", "−"))
            change.append(_shown(longer, cell))
        groups.append(Group(request.name, title(request), (*rows, tuple(change))))
    length = f"{study.sufficient_epochs} epochs"
    return Table(
        "sufficient",
        f"Sufficient training: {length}",
        f"The knobs of the main table, but {length}. {_cells(study)} The change is that of AvgGap (of means) "
        "against the main table; a method that over-forgets gains.",
        "Forget request",
        _columns(study),
        tuple(groups),
    )


def transfer(study: Study) -> Table:
    """Knobs tuned on one request and used on another, in the format of NatMU's Table A1."""
    groups = []
    for source, target in study.transfers:
        request = study.request(target)
        groups.append(
            Group(
                f"{source} → {target}",
                f"Knobs of {source} used on {target}",
                tuple(_transfer_rows(study, request, source)),
            )
        )
    return Table(
        "transfer",
        "Transferred knobs",
        "Cells are a (d) in percent: a is the mean with the knobs tuned on another request, d = |a − mean with "
        "the knobs tuned on this one|, which is no gap to retraining. AvgChange is the mean of d. The last two "
        "rows are gaps to the retrained models. Bold: smallest d or gap of the row.",
        "Transfer",
        ("Metric", "Retrain", "Noise floor", *(method.name for method in study.methods)),
        tuple(groups),
    )


def cost(study: Study) -> Table:
    """What unlearning and the search for its knobs took."""
    groups = []
    for request in study.requests:
        retrain_seconds = retrained(study, request).seconds
        rows = []
        for method in study.methods:
            result = outcome(study, request, method.name)
            trials = study.searched(request.name, method.name)
            ended = Counter(trial.status for trial in trials)
            taken, faster, samples = BLANK, BLANK, BLANK
            if result.seconds is not None and result.samples is not None:
                taken = Cell(seconds(result.seconds))
                samples = Cell(f"{result.samples:,.0f}")
            if retrain_seconds and result.seconds:
                faster = Cell(f"{retrain_seconds / result.seconds:.3g}×")
            rows.append(
                (
                    Cell(method.name),
                    _shown(result, taken),
                    BLANK if retrain_seconds is None else Cell(seconds(retrain_seconds)),
                    faster,
                    _shown(result, samples),
                    *(Cell(str(ended[status])) for status in STATUSES),
                    Cell(seconds(sum(trial.time_total for trial in trials))),
                )
            )
        groups.append(Group(request.name, title(request), tuple(rows)))
    return Table(
        "cost",
        "Cost",
        "Unlearning and retraining time are medians over the report seeds, without evaluation; speed-up is "
        "their ratio. Samples seen are those passed forward with gradient. Search trials are counted by how "
        "they ended; search time is the sum of the seconds they kept a slot.",
        "Forget request",
        (
            "Method",
            "Unlearning (s)",
            "Retraining (s)",
            "Speed-up",
            "Samples seen",
            *(f"Search {status}" for status in STATUSES),
            "Search time (s)",
        ),
        tuple(groups),
    )


def knobs(study: Study) -> Table:
    """The knobs that stand for each cell."""
    groups = []
    for request in study.requests:
        rows = []
        for method in study.methods:
            found = study.candidates.get((request.name, method.name), ())
            best = study.chosen(request.name, method.name)
            if best is None:
                tried = study.searched(request.name, method.name)
                why = Cell("no finished search trial" if tried else "not run", words=True)
                rest = (why, Cell(NONE), Cell(NONE), Cell("0"))
            else:
                rest = (
                    Cell(knob_text(best.knobs)),
                    Cell(number(study.objective, best.value)),
                    Cell(str(best.number)),
                    Cell(str(len(found))),
                )
            rows.append((Cell(method.name), *rest))
        groups.append(Group(request.name, title(request), tuple(rows)))
    return Table(
        "knobs",
        "Chosen knobs",
        f"The configuration with the smallest {label(study.objective)} on the validation view, averaged over "
        f"{_count(len(study.search_seeds), 'search seed')}, among the candidates: those that finished on "
        "every search seed.",
        "Forget request",
        ("Method", "Knobs", label(study.objective), "Trial", "Candidates"),
        tuple(groups),
        texts=2,
    )


def title(request: Request) -> str:
    """A request with what it is."""
    target = request.details.get("class")
    parts = [request.kind.replace("_", " ") + (f" {target}" if target is not None else "")]
    if request.forget is not None:
        parts.append(_count(request.forget, "sample"))
    text = ", ".join(part for part in parts if part)
    return f"{request.name} ({text})" if text else request.name


def label(metric: str, whole_class: bool | None = None) -> str:
    """Our label of a metric, with what the paper of the table's format calls it."""
    if metric not in METRICS:
        return metric
    names = METRICS[metric].names
    setting = "NatMU (class)" if whole_class else "NatMU (random)"
    theirs = names.get(setting) or names.get("NatMU") or next(iter(names.values()), "")
    ours = METRICS[metric].label
    return f"{ours} ({theirs})" if theirs not in ours and whole_class is not None else ours


def number(metric: str, value: float) -> str:
    """A value of a metric as tables print it: fractions in percent."""
    unit = METRICS[metric].unit if metric in METRICS else None
    if unit == "fraction":
        return percent(value)
    if unit == "s":
        return seconds(value)
    return f"{value:,.0f}" if unit == "count" else f"{value:.3f}"


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def knob_text(values: object) -> str:
    """Knobs on one line."""
    pairs = values.items() if isinstance(values, dict) else ()
    return ", ".join(
        f"{name} = {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in pairs
    )


def _cells(study: Study) -> str:
    return (
        f"Cells are mean ± standard deviation (gap) over {_count(len(study.report_seeds), 'seed')} on the test "
        "view, in percent; the gap is |mean − mean of the retrained models|. The noise floor is the mean "
        "distance of a retrained model from the others. AvgGap (of means) is the mean of the gaps above it, "
        "AvgGap (per run) that of each run's own gaps. Activation distance, in [0, √2], is itself a distance "
        "to the retrained model. Bold: smallest gap of the row."
    )


def _columns(study: Study) -> tuple[str, ...]:
    return (
        "Metric",
        "Original",
        "Retrain",
        "Noise floor",
        *(method.name for method in study.methods),
    )


def _gap_rows(study: Study, request: Request, phase: str) -> list[Row]:
    """The rows of one request: its metrics, activation distance and both AvgGaps."""
    reference, seeds = retrained(study, request), len(study.report_seeds)
    original, retrain = (
        outcome(study, request, name, "reference") for name in ("original", "retrain")
    )
    tried = [outcome(study, request, method.name, phase) for method in study.methods]
    rows = []
    for name in (*request.metrics, DISTANCE):
        first, *cells = (
            _shown(result, _metric_cell(name, result, reference, seeds))
            for result in (original, *tried)
        )
        itself = _shown(retrain, _value_cell(name, retrain.spreads.get(name), seeds))
        before = (first, itself, _floor_cell(name, reference.floors.get(name)))
        head = label(name, request.whole_class)
        rows.append(_row(head, before, cells, [_score(name, result) for result in tried]))
    floor = _floor_cell(GAP, reference.average)
    for head, values in (
        ("AvgGap (of means)", [_of_means(result) for result in (original, *tried)]),
        ("AvgGap (per run)", [result.per_run for result in (original, *tried)]),
    ):
        first, *cells = (
            _shown(result, _average_cell(value, reference, seeds))
            for result, value in zip((original, *tried), values)
        )
        scores = [value.mean if value else None for value in values[1:]]
        rows.append(_row(head, (first, BLANK, floor), cells, scores))
    return rows


def _transfer_rows(study: Study, request: Request, source: str) -> list[Row]:
    """The rows of one pair: a (d) of each metric, AvgChange, and AvgGap with either knobs."""
    reference, seeds = retrained(study, request), len(study.report_seeds)
    moved = [outcome(study, request, m.name, "transfer", source) for m in study.methods]
    own = [outcome(study, request, method.name) for method in study.methods]
    compared = [changes(after, before, request.metrics) for after, before in zip(moved, own)]
    rows = []
    for name in request.metrics:
        found = [by_metric.get(name) for by_metric, _ in compared]
        cells = [
            _shown(result, _change_cell(name, result.spreads.get(name), change, seeds))
            for result, change in zip(moved, found)
        ]
        before = (
            _value_cell(name, _single(reference.means.get(name)), 1),
            _floor_cell(name, reference.floors.get(name)),
        )
        rows.append(_row(label(name, request.whole_class), before, cells, found))
    average = [mean for _, mean in compared]
    cells = [_shown(r, _value_cell(GAP, _single(a), 1)) for r, a in zip(moved, average)]
    rows.append(_row("AvgChange", (BLANK, BLANK), cells, average))
    floor = _floor_cell(GAP, reference.average)
    for head, results in (("AvgGap, own knobs", own), ("AvgGap, transferred knobs", moved)):
        cells = [_shown(r, _average_cell(_of_means(r), reference, seeds)) for r in results]
        rows.append(_row(head, (BLANK, floor), cells, [r.average for r in results]))
    return rows


def _row(
    head: str, before: Sequence[Cell], cells: Sequence[Cell], scores: Sequence[float | None]
) -> Row:
    """A row, with the lowest score and its equals marked where there is something to compare."""
    found = [score for cell, score in zip(cells, scores) if score is not None and not cell.words]
    if len(found) > 1 and max(found) - min(found) > TOLERANCE:
        limit = min(found) + TOLERANCE
        cells = [
            dataclasses.replace(cell, best=score is not None and score <= limit and not cell.words)
            for cell, score in zip(cells, scores)
        ]
    return (Cell(head), *before, *cells)


def _shown(result: Outcome, cell: Cell) -> Cell:
    """The cell, or in its place the reason why there is no finished run."""
    if result.reason == UNEXTENDABLE:
        return Cell(NONE, marks=NO_EPOCHS, words=True)
    if result.reason:
        return Cell(result.reason, words=True)
    return dataclasses.replace(cell, marks=cell.marks + OUTDATED * result.outdated)


def _value_cell(name: str, value: Spread | None, seeds: int) -> Cell:
    if value is None:
        return BLANK
    std = "" if value.std is None else number(name, value.std)
    return Cell(number(name, value.mean), std, runs=_runs(value, seeds))


def _metric_cell(name: str, result: Outcome, reference: Retrained, seeds: int) -> Cell:
    cell = _value_cell(name, result.spreads.get(name), seeds)
    if cell.words or name == DISTANCE:
        gap = ""
    else:
        gap = number(name, result.gaps[name]) if name in result.gaps else NONE
    marked = at_floor(_score(name, result), reference.floors.get(name))
    return dataclasses.replace(cell, gap=gap, marks=AT_FLOOR * marked)


def _change_cell(name: str, value: Spread | None, change: float | None, seeds: int) -> Cell:
    if value is None:
        return BLANK
    gap = NONE if change is None else number(name, change)
    return Cell(number(name, value.mean), gap=gap, runs=_runs(value, seeds))


def _average_cell(value: Spread | None, reference: Retrained, seeds: int) -> Cell:
    marked = value is not None and at_floor(value.mean, reference.average)
    return dataclasses.replace(_value_cell(GAP, value, seeds), marks=AT_FLOOR * marked)


def _floor_cell(name: str, floor: float | None) -> Cell:
    return BLANK if floor is None else Cell(number(name, floor))


def _score(name: str, result: Outcome) -> float | None:
    """What the best of a row has least of."""
    if name == DISTANCE:
        return result.spreads[name].mean if name in result.spreads else None
    return result.gaps.get(name)


def _single(value: float | None) -> Spread | None:
    return None if value is None else Spread(value, None, 1)


def _of_means(result: Outcome) -> Spread | None:
    """AvgGap of means, with the number of runs behind it."""
    if result.average is None or result.per_run is None:
        return None
    return Spread(result.average, None, result.per_run.n)


def _runs(value: Spread, seeds: int) -> str:
    return f"n={value.n}" if value.n < seeds else ""


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
