"""What a table is, and how numbers are printed: a cell holds a number with what is known of it, or says why there is none."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.analysis.summaries import TOLERANCE, better, unit
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.equivalence import DIFFERENT, SAME, UNDECIDED
from reports.statistics.intervals import Estimate, Interval, Spread
from reports.text import Form, form_of, missing, percent, share, signed, title

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


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Args:
        label: Text; empty where there is a number.
        number: The number in full, fractions in [0, 1].
        form: How it and all that belongs to it are printed.
        std: Standard deviation.
        distance: What stands in parentheses, the gap; NaN where it is unknown.
        marks: Some of ``MARKS``.
        runs: Says how many runs there are when some are missing, as in `n=2`.
        best: Whether it is better than all others of its row: their intervals do not meet.
        verdict: The word that a test against the retrained models gives; empty without one.
        words: Whether the label stands for a missing number.
        ends, gap_ends: 95 % intervals of the number and of the gap.
        place: Where the interval is shown: `beside` the number everywhere, `below` it on the page, or on the page only when
            one points at the cell. Columns of CSV files have it always.
        suffix: Text after the number.
    """

    label: str = ""
    number: float | None = None
    form: Form = percent
    std: float | None = None
    distance: float | None = None
    marks: str = ""
    runs: str = ""
    best: bool = False
    verdict: str = ""
    words: bool = False
    ends: Interval | None = None
    gap_ends: Interval | None = None
    place: str = TITLE
    suffix: str = ""

    @property
    def value(self) -> str:
        return self.label if self.number is None else self.form(self.number) + self.suffix

    @property
    def spread(self) -> str:
        """The standard deviation, without its sign."""
        return "" if self.std is None else self.form(self.std)

    @property
    def gap(self) -> str:
        if self.distance is None:
            return ""
        return self.form(self.distance) if math.isfinite(self.distance) else NONE

    @property
    def interval(self) -> tuple[str, str] | None:
        return self.ends and (self.form(self.ends.low), self.form(self.ends.high))

    @property
    def gap_interval(self) -> tuple[str, str] | None:
        return self.gap_ends and (self.form(self.gap_ends.low), self.form(self.gap_ends.high))

    @property
    def range(self) -> str:
        """The interval of the value, in brackets."""
        return f"[{self.interval[0]}, {self.interval[1]}]" if self.interval else ""

    @property
    def sign(self) -> str:
        """What stands for the verdict, after a space."""
        return f" {SIGNS[self.verdict]}" if self.verdict else ""

    @property
    def text(self) -> str:
        text = self.value
        text += f" ± {self.spread}" if self.spread else ""
        text += f" ({self.gap})" if self.gap else ""
        text += f" {self.range}" if self.place == BESIDE and self.range else ""
        return text + self.marks + (f" [{self.runs}]" if self.runs else "") + self.sign

    @property
    def note(self) -> str:
        """Why there is no number, or what is to be known of it, in words."""
        why = self.label if self.words and self.label != NONE else ""
        marks = (MARKS[mark] for mark in self.marks)
        return "; ".join(filter(None, [why, self.suffix.strip(" ()"), self.runs, *marks]))


Row = tuple[TableCell, ...]
BLANK = TableCell(NONE, words=True)


def missing_because(why: str) -> TableCell:
    """Return a cell that says why there is no number; a dash where nothing is said."""
    return TableCell(why or NONE, words=True)


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
        compared: Whether the other columns are methods and models, so that each number has a row in the CSV file.
    """

    name: str
    title: str
    caption: str
    of: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    texts: int = 1
    remarks: tuple[str, ...] = ()
    compared: bool = False

    @property
    def notes(self) -> list[str]:
        """Explanations of the marks and verdicts that occur, and the remarks."""
        cells = [cell for group in self.groups for row in group.rows for cell in row]
        used = {mark for cell in cells for mark in cell.marks}
        marks = [f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used]
        if any(cell.verdict for cell in cells):
            signs = "; ".join(f"{sign} {word}" for word, sign in SIGNS.items())
            marks.insert(0, f"Signs, by equivalence tests against the retrained models: {signs}")
        return [*marks, *self.remarks]


Values = Mapping[str, TableCell | str | None]
"""Column to cell, text, or None for a dash."""


def table_of(
    head: tuple[str, str, str, str],
    groups: Iterable[tuple[str, str, Iterable[Values]]],
    texts: int = 1,
) -> Table | None:
    """Return a table of rows that name their columns; None without any row.

    Args:
        head: Name, title, caption, and what a group is.
        groups: Name, title, and rows, which all have the same columns.
    """
    listed = [(name, title, found) for name, title, rows in groups if (found := list(rows))]
    if not listed:
        return None
    made = [
        Group(name, title, tuple(tuple(map(_cell, row.values())) for row in rows))
        for name, title, rows in listed
    ]
    return Table(*head, tuple(listed[0][2][0]), tuple(made), texts)


def _cell(content: TableCell | str | None) -> TableCell:
    return BLANK if content is None else TableCell(content) if isinstance(content, str) else content


def each_request(
    study: RecordedStudy, rows: Callable[[RecordedRequest], Iterable[Values]]
) -> list[tuple[str, str, Iterable[Values]]]:
    """Return the groups of ``table_of`` with a group for each request."""
    return [(request.name, title(request), rows(request)) for request in study.requests]


def by_request(
    study: RecordedStudy, rows: Callable[[RecordedRequest], Sequence[Row]]
) -> tuple[Group, ...]:
    """Return a group for each request that has rows."""
    made = ((request, tuple(rows(request))) for request in study.requests)
    return tuple(Group(request.name, title(request), found) for request, found in made if found)


def marked_best(
    cells: Sequence[TableCell], intervals: Sequence[Interval | None], highest: bool = False
) -> list[TableCell]:
    """Return the cells, the lowest marked if its interval lies below those of all others that hold a number.

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


def value_of(metric: str, value: float | None) -> TableCell:
    """Return a cell with a value of a metric; a dash for None."""
    return BLANK if value is None else TableCell(number=value, form=form_of(metric))


def recovery_cell(
    estimate: Estimate | None, place: str = BELOW, marks: str = "", runs: str = ""
) -> TableCell:
    """Return a cell with a recovery and its interval."""
    if estimate is None:
        return BLANK
    shown = TableCell(number=estimate.value, form=share, marks=marks, runs=runs)
    return dataclasses.replace(shown, ends=estimate.interval, place=place)


def difference(value: float | None, ends: Interval | None = None, place: str = BESIDE) -> TableCell:
    """Return a cell with a difference of fractions in percent points; a dash for None."""
    return BLANK if value is None else TableCell(number=value, form=signed, ends=ends, place=place)


def regret_cell(found: Estimate | None, place: str = BESIDE) -> TableCell:
    """Return a cell with a difference of AvgGaps and its interval."""
    return difference(found.value, found.interval, place) if found else BLANK


def measured(name: str, value: Spread | None, seeds: int) -> TableCell:
    """Return a cell with mean and spread of a metric; it says how many runs there are when that is not all."""
    if value is None:
        return BLANK
    ends, runs = possible(name, value.interval), missing(value.n, seeds)
    return TableCell(number=value.mean, form=form_of(name), std=value.std, runs=runs, ends=ends)


def possible(name: str, interval: Interval | None) -> Interval | None:
    """Return the part of an interval that the metric can have."""
    if interval is None:
        return None
    if unit(name) == "fraction":
        return interval.within(0.0, 1.0)
    return interval.within(0.0, math.inf) if better(name) == "lower" else interval


def counted(n: float | None) -> TableCell:
    """Return a cell with a number of things; a dash for None."""
    return BLANK if n is None else TableCell(number=n, form="{:,.0f}".format)


def correlation(tau: float | None, head: str = "") -> TableCell:
    """Return a cell with Kendall's tau-b; a dash for None."""
    if tau is None:
        return BLANK
    return TableCell(number=tau, form=lambda value: f"{head}{value:.2f}".replace("-", "−"))
