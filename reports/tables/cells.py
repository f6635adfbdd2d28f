"""What a table is, and how numbers are printed: a cell holds text, and a missing number says why."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mu.metrics import METRICS
from reports.analysis.summaries import OWN_GAP, TOLERANCE, better, unit
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.equivalence import DIFFERENT, SAME, UNDECIDED
from reports.statistics.intervals import Estimate, Interval, Spread

OUTDATED, NO_EPOCHS, INCOMPLETE, DOUBTFUL, NONE = "‡", "*", "§", "¶", "–"
MARKS = {
    OUTDATED: "run with other knobs than those now chosen",
    NO_EPOCHS: "the method has no epochs to extend",
    INCOMPLETE: "some of its runs are missing, so that it is not ranked",
    DOUBTFUL: "there is a remark on the printed number",
}
SIGNS = {SAME: "=", DIFFERENT: "≠", UNDECIDED: "?"}
"""What stands for the word of a test."""
TITLE, BELOW, BESIDE = "", "below", "beside"
ORACLE = "Oracle selection on the reported seeds (as the papers)."


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Args:
        value: The number as text, or words.
        spread: Standard deviation, without its sign.
        gap: What stands in parentheses.
        marks: Some of ``MARKS``.
        runs: Says how many runs there are when some are missing, as in `n=2`.
        best: Whether it is better than all others of its row: their intervals do not meet.
        verdict: The word that a test against the retrained models gives; empty without one.
        words: Whether `value` is words that stand for a missing number.
        interval: Ends of the 95 % interval of the value.
        gap_interval: Ends of that of the gap.
        place: Where the value's interval is shown: `beside` it everywhere, `below` it on the page, or on the
            page only when one points at the cell. Columns of CSV files have it always.
    """

    value: str
    spread: str = ""
    gap: str = ""
    marks: str = ""
    runs: str = ""
    best: bool = False
    verdict: str = ""
    words: bool = False
    interval: tuple[str, str] | None = None
    gap_interval: tuple[str, str] | None = None
    place: str = TITLE

    @property
    def text(self) -> str:
        text = self.value
        text += f" ± {self.spread}" if self.spread else ""
        text += f" ({self.gap})" if self.gap else ""
        text += f" {self.range}" if self.place == BESIDE and self.interval else ""
        text += self.marks + (f" [{self.runs}]" if self.runs else "")
        return text + self.sign

    @property
    def sign(self) -> str:
        """What stands for the verdict, after a space."""
        return f" {SIGNS[self.verdict]}" if self.verdict else ""

    @property
    def range(self) -> str:
        """The interval of the value, in brackets."""
        return "" if self.interval is None else f"[{self.interval[0]}, {self.interval[1]}]"


Row = tuple[TableCell, ...]
BLANK = TableCell(NONE, words=True)


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
        remarks: Notes on single cells.
    """

    name: str
    title: str
    caption: str
    of: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    texts: int = 1
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Explanations of the marks and verdicts that occur, and the remarks."""
        cells = [cell for group in self.groups for row in group.rows for cell in row]
        used = {mark for cell in cells for mark in cell.marks}
        marks = [f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used]
        if any(cell.verdict for cell in cells):
            signs = "; ".join(f"{sign} {word}" for word, sign in SIGNS.items())
            marks.insert(0, f"against the retrained models, by equivalence tests: {signs}")
        return [*marks, *self.remarks]


def by_request(
    study: RecordedStudy, rows: Callable[[RecordedRequest], Sequence[Row]]
) -> tuple[Group, ...]:
    """A group for each request that has rows."""
    made = ((request, tuple(rows(request))) for request in study.requests)
    return tuple(Group(request.name, title(request), found) for request, found in made if found)


def marked_best(
    cells: Sequence[TableCell], intervals: Sequence[Interval | None], highest: bool = False
) -> list[TableCell]:
    """The cells, with the lowest marked if its interval lies below those of all others that hold a number.

    Args:
        intervals: Of each cell; without one, a cell may be as good as any.
        highest: Whether the highest is marked instead.
    """
    ends = [
        None if interval is None else (-interval.high, -interval.low) if highest else interval
        for interval in intervals
    ]
    rivals = [at for at, cell in enumerate(cells) if not cell.words]
    known = [(pair, at) for at in rivals if (pair := ends[at]) is not None]
    if len(rivals) < 2 or len(known) < len(rivals):
        return list(cells)
    ((_, reach), best), *others = sorted(known, key=lambda item: item[0][1])
    clear = all(low > reach + TOLERANCE for (low, _), _ in others)
    return [dataclasses.replace(cell, best=clear and at == best) for at, cell in enumerate(cells)]


def searched_view(study: RecordedStudy) -> str:
    """What the search looked at, in words."""
    return "test view" if study.oracle else "validation view"


def objective(study: RecordedStudy) -> str:
    """What the search made least; a list of the study's own is spelt out."""
    names = ", ".join(map(label, study.own_list)) if study.objective == OWN_GAP else ""
    return label(study.objective) + (f" (over {names})" if names else "")


def title(request: RecordedRequest) -> str:
    """A request with what it is."""
    target = request.details.get("class")
    parts = [request.kind.replace("_", " ") + (f" {target}" if target is not None else "")]
    if request.forget is not None:
        parts.append(count(request.forget, "sample"))
    text = ", ".join(part for part in parts if part)
    return f"{request.name} ({text})" if text else request.name


def label(metric: str, whole_class: bool | None = None) -> str:
    """Our label of a metric, with what the paper of the table's format calls it."""
    if metric not in METRICS:
        return "Mean gap" if metric == OWN_GAP else metric
    names = METRICS[metric].names
    setting = "NatMU (class)" if whole_class else "NatMU (random)"
    theirs = names.get(setting) or names.get("NatMU") or next(iter(names.values()), "")
    ours = METRICS[metric].label
    return f"{ours} ({theirs})" if theirs not in ours and whole_class is not None else ours


def number(metric: str, value: float) -> str:
    """A value of a metric as tables print it: fractions in percent."""
    of = unit(metric)
    if of == "fraction":
        return percent(value)
    if of == "s":
        return seconds(value)
    return f"{value:,.0f}" if of == "count" else f"{value:.3f}"


def ends(metric: str, interval: Interval | None) -> tuple[str, str] | None:
    """The ends of an interval as tables print them."""
    return (
        None if interval is None else (number(metric, interval.low), number(metric, interval.high))
    )


def share(value: float) -> str:
    """A recovery in percent."""
    text = f"{round(100 * value, 9):.1f}"  # the same text wherever sums are rounded otherwise
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def recovery_cell(estimate: Estimate | None, place: str = BELOW, marks: str = "") -> TableCell:
    """A cell with a recovery in percent and its interval."""
    if estimate is None:
        return BLANK
    interval = estimate.interval
    span = None if interval is None else (share(interval.low), share(interval.high))
    return TableCell(share(estimate.value), interval=span, place=place, marks=marks)


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def signed(value: float) -> str:
    """A difference of fractions in percent points, with its sign."""
    text = f"{100 * value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")


def difference(
    value: float, interval: Interval | None, place: str = BESIDE, marks: str = ""
) -> TableCell:
    """A cell with a difference of fractions in percent points."""
    span = None if interval is None else (signed(interval.low), signed(interval.high))
    return TableCell(signed(value), interval=span, place=place, marks=marks)


def measured(name: str, value: Spread | None, seeds: int, place: str = TITLE) -> TableCell:
    """A cell with mean and spread of a metric; says how many runs there are when that is not all."""
    if value is None:
        return BLANK
    std = "" if value.std is None else number(name, value.std)
    interval = ends(name, possible(name, value.interval))
    return TableCell(
        number(name, value.mean), std, runs=missing(value.n, seeds), interval=interval, place=place
    )


def possible(name: str, interval: Interval | None) -> Interval | None:
    """The part of an interval that the metric can have."""
    if interval is None:
        return None
    if unit(name) == "fraction":
        return interval.within(0.0, 1.0)
    if better(name) == "lower":
        return interval.within(0.0, math.inf)
    return interval


def seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def knob_text(values: object) -> str:
    """Knobs on one line."""
    pairs = values.items() if isinstance(values, dict) else ()
    return ", ".join(f"{name} = {knob_value(value)}" for name, value in pairs)


def knob_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def missing(n: int, seeds: int) -> str:
    return f"n={n}" if n < seeds else ""


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
