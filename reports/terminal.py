"""The methods of a study as tables for a terminal of 80 columns: recovery, cost, and the words of the tests."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.analysis.methods_rows import rows
from reports.load import RecordedStudy
from reports.statistics.equivalence import DIFFERENT, SAME, UNDECIDED
from reports.text import share

COLOURS = {SAME: "green", DIFFERENT: "red", UNDECIDED: "yellow"}
RECOVERIES = {
    "recovery_tuned": "recovery",
    "recovery_transferred": "transferred",
    "recovery_defaults": "defaults",
    "recovery_longer": "longer",
}
"""Column of a method's row to its head; those that no method has are left out."""


def show(study: RecordedStudy, console: Console) -> None:
    """Print a table for each request on which a method has finished its runs of the report; nothing before."""
    every = rows(study)
    for request in study.requests:
        here = [row for row in every if row["forget"] == request.name]
        if any(row["role"] == "method" and not row["reason"] for row in here):
            about = "recovery and time in % of retraining, AvgGap in points"
            if not any(row["measurable"] for row in here):
                about = "nothing to measure, doing nothing is as good as retraining"
            title = Text(f"{' '.join(request.name.split())}: ", style="bold")
            console.print(
                title.append(about, "default not bold"), no_wrap=True, overflow="ellipsis"
            )
            console.print(_table(here))


def plain(study: RecordedStudy) -> str:
    """Return the same as text, for a log."""
    text = io.StringIO()
    show(study, Console(file=text, width=80))
    return text.getvalue()


def _table(here: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    known = [name for name in RECOVERIES if not all(math.isnan(row[name]) for row in here)]
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=20)
    for head in (*(RECOVERIES[name] for name in known), "AvgGap", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("as retrained", no_wrap=True, overflow="ellipsis", max_width=24)
    for row in here:
        shares = (_number(row[name], share) for name in known)
        gap = _number(row["avg_gap"], lambda value: f"{100 * value:.2f}")
        ratio = _number(row["time_ratio"], lambda value: f"{100 * value:.0f}")
        word = str(row["verdict"] or row["reason"])
        name = Text(" ".join(str(row["method"]).split()))
        table.add_row(name, *shares, gap, ratio, Text(word, COLOURS.get(word, "dim")))
    return table


def _number(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None or math.isnan(value) else form(value)
