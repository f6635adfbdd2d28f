"""Progress of a running sweep: one live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mu.record import TrialRecord
from mu.selection import objective_value
from sweeps.tracking.run_log import SHOWN

logger = logging.getLogger(__name__)
LINE_SECONDS = 10.0
"""How often a line is written when the output is not a terminal, and what is left is estimated anew."""
LACK_SECONDS = 60.0
"""How often a line is written while no node can hold work that waits."""
STAGES = {"reference": "references", "search": "search", "final": "report"}
"""Stages of a study, which overlap, to what a line calls them."""


class Progress:
    """Counts the work of a sweep and shows it.

    Args:
        study: Name of the study.
        objective: Metric whose best value is shown for each cell.
        view: The view it is read from.
        console: Where to show it.

    Attributes:
        capacity: Tells how many jobs fit on the cluster at this moment, once it is there.
        lack: Says what work no node can hold; empty while all work has a place.
        left: Estimates the seconds that are left, or None as long as this cannot be said.
        running_or_waiting: Jobs that run or wait.
    """

    def __init__(self, study: str, objective: str, view: str, console: Console):
        self.study = study
        self.objective = objective
        self.search_view = view
        self.console = console
        self.expected: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.running_or_waiting = 0
        self.capacity: Callable[[], int] | None = None
        self.lack: Callable[[], str] = lambda: ""
        self.left: Callable[[], float | None] = lambda: None
        self.counts: Counter[str] = Counter()
        self.best: dict[tuple[str, str], tuple[float, int]] = {}
        self._last_line = self._estimated = 0.0
        self._stage_ended = False
        self._estimate: float | None = None
        self._live: Live | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.view, console=self.console, refresh_per_second=2, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def expect(self, stage: str, count: int) -> None:
        """Note how many jobs of a stage are still to be done."""
        with self._lock:
            self.expected[stage] = self.done[stage] + count

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.console.print(f"{self.study}: {text}", highlight=False, soft_wrap=True)
        logger.info("%s: %s", self.study, text, extra=SHOWN)

    @property
    def running(self) -> int:
        """How many jobs run. On a cluster more are asked for, and wait for it to grow."""
        most = self.running_or_waiting
        return most if self.capacity is None else min(most, self.capacity())

    def started(self) -> None:
        """Count a job that runs or waits. A line is due here rather than at an end, when its slot is empty."""
        self.running_or_waiting += 1
        self._line(force=self._stage_ended)

    def looked(self) -> None:
        """Write a line from time to time while work has no place, since nothing may start or end then."""
        if self.lack() and time.monotonic() - self._last_line >= LACK_SECONDS:
            self._line()

    def ended(self, stage: str, record: TrialRecord | None = None) -> None:
        """Count a job that ended, and its record."""
        with self._lock:
            self.done[stage] += 1
            self.running_or_waiting = max(0, self.running_or_waiting - 1)
        if record is not None:
            self.note(record)
        self._stage_ended |= self.done[stage] == self.expected[stage]
        left = sum(self.expected.values()) - sum(self.done.values())
        if (
            left <= self.running_or_waiting
        ):  # else another job starts at once, and the line is due then
            self._line(force=self._stage_ended)

    def note(self, record: TrialRecord) -> None:
        """Count a record, also one from an earlier run."""
        with self._lock:
            self.counts[record.status] += 1
            if record.phase == "search" and record.finished:
                cell = (record.forget, record.method)
                best, tried = self.best.get(cell, (math.inf, 0))
                value = objective_value(record, self.objective, self.search_view)
                best = min(best, value) if math.isfinite(value) else best
                self.best[cell] = (best, tried + 1)

    def _left(self) -> str:
        now = time.monotonic()
        if now - self._estimated >= LINE_SECONDS:
            self._estimated, self._estimate = now, self.left()
        return "" if self._estimate is None else f", about {duration(self._estimate)} left"

    def _line(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last_line < LINE_SECONDS:
            return
        self._last_line, self._stage_ended = now, False
        summary = self._summary()
        logger.info("%s", summary, extra=SHOWN)
        if not self.console.is_terminal:
            self.console.print(summary, highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        stages = ", ".join(
            f"{name} {self.done[stage]}/{self.expected[stage]}"
            for stage, name in STAGES.items()
            if self.expected[stage]
        )
        trouble = ", ".join(
            f"{self.counts[status]} {status}"
            for status in ("stopped", "diverged", "failed")
            if self.counts[status]
        )
        return (
            f"{self.study}: {stages or 'starting'}"
            + (f", {self.running} running" if self.running else "")
            + (f", {trouble}" if trouble else "")
            + (self._left() if self.running else "")
            + (f"; {lack}" if (lack := self.lack()) else "")
        )

    def view(self) -> RenderableType:
        """Return the live view: a bar, and the best value of each cell."""
        with self._lock:
            total, done = sum(self.expected.values()), sum(self.done.values())
            bar = ProgressBar(total=max(1, total), completed=done, width=40)
            parts: list[RenderableType] = [Text(self._summary(), style="bold"), bar]
            if self.best:
                requests = list(dict.fromkeys(forget for forget, _ in self.best))
                parts += side_by_side(requests, self._best, self.console)
            return Group(*parts)

    def _best(self, requests: Sequence[str]) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column(f"best {self.objective} ({self.search_view}) x100")
        for request in requests:
            table.add_column(request, justify="right")
        for method in dict.fromkeys(method for _, method in self.best):
            cells = [self.best.get((request, method)) for request in requests]
            table.add_row(method, *(f"{100 * c[0]:.2f} ({c[1]})" if c else "" for c in cells))
        return table


def side_by_side(
    requests: Sequence[str], table: Callable[[Sequence[str]], Table], console: Console
) -> list[Table]:
    """Lay out tables with a column for each forget request, with as many columns in each as the console is wide."""
    tables: list[Table] = []
    wide = console.options.update(width=10_000)
    for count in range(len(requests), 0, -1):
        tables = [table(requests[at : at + count]) for at in range(0, len(requests), count)]
        if max(Measurement.get(console, wide, t).maximum for t in tables) <= console.width:
            break
    return tables


def duration(seconds: float) -> str:
    """Format seconds as people say them, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
