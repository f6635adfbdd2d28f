"""Progress of a running sweep: one live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mu.record import TrialRecord
from mu.selection import objective_value

LINE_SECONDS = 10.0
"""How often a line is written when the output is not a terminal."""


@dataclass
class _Phase:
    name: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)


class Progress:
    """Counts the work of a sweep and shows it.

    Args:
        study: Name of the study.
        objective: Metric whose best value is shown for each cell.
        view: The view it is read from.
        console: Where to show it.

    Attributes:
        capacity: Tells how many pieces of work fit on the cluster at this moment, once it is there.
    """

    def __init__(self, study: str, objective: str, view: str, console: Console):
        self.study = study
        self.objective = objective
        self.search_view = view
        self.console = console
        self.phase = _Phase("starting", 0)
        self.asked = 0
        self.capacity: Callable[[], int] | None = None
        self.counts: Counter[str] = Counter()
        self.best: dict[tuple[str, str], tuple[float, int]] = {}
        self._last_line = 0.0
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

    def start_phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` pieces of work."""
        with self._lock:
            self.phase, self.asked = _Phase(name, total), 0
        self._line(force=total > 0)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.console.print(f"{self.study}: {text}", highlight=False, soft_wrap=True)

    @property
    def running(self) -> int:
        """How many pieces of work run. On a cluster more are asked for, and wait for it to grow."""
        return self.asked if self.capacity is None else min(self.asked, self.capacity())

    def started(self) -> None:
        """Count a piece of work that runs or waits."""
        self.asked += 1

    def ended(self, record: TrialRecord | None = None) -> None:
        """Count a piece of work that ended, and its record."""
        with self._lock:
            self.phase.done += 1
            self.asked = max(0, self.asked - 1)
        if record is not None:
            self.note(record)
        self._line(force=self.phase.done == self.phase.total)

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
        phase = self.phase
        if not phase.done:
            return "?"
        seconds = (time.monotonic() - phase.began) / phase.done * (phase.total - phase.done)
        return duration(seconds)

    def _line(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.console.is_terminal or (not force and now - self._last_line < LINE_SECONDS):
            return
        self._last_line = now
        self.console.print(self._summary(), highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        phase = self.phase
        trouble = ", ".join(
            f"{self.counts[status]} {status}"
            for status in ("stopped", "diverged", "failed")
            if self.counts[status]
        )
        return (
            f"{self.study}: {phase.name} {phase.done}/{phase.total}"
            + (f", {self.running} running" if self.running else "")
            + (f", {trouble}" if trouble else "")
            + (f", {self._left()} left in this phase" if phase.done < phase.total else "")
        )

    def view(self) -> RenderableType:
        """Return the live view: a bar for the phase, and the best value of each cell."""
        with self._lock:
            bar = ProgressBar(total=max(1, self.phase.total), completed=self.phase.done, width=40)
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
