"""Time on slots that no record bills yet: of jobs that run, and of attempts that were lost."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

SECONDS = 1.0
"""How often the file is written: what a killed driver knew is at most this old."""


class Unbilled:
    """The seconds that jobs have kept their slots for without a record, in a file that outlives the driver.

    The record of a job bills its lost attempts. When the driver is killed, those that ran are lost as well, and the
    next run finds here how long they had run.

    Args:
        path: The file, ``unbilled.json``; None for jobs that leave no records.

    Attributes:
        lost: Key of a job to the seconds of its lost attempts.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.lost: Counter[str] = Counter()
        if path is not None and path.exists():
            self.lost.update(json.loads(path.read_text(encoding="utf-8")))
        self._written = 0.0

    def add(self, key: str, seconds: float) -> None:
        """Count a lost attempt of a job."""
        self.lost[key] += seconds  # type: ignore[assignment]

    def bill(self, key: str) -> float:
        """Return the seconds of a job's lost attempts, and forget them: its record bills them."""
        return self.lost.pop(key, 0.0)

    def note(self, running: Mapping[str, float], *, now: bool = False) -> None:
        """Write down what is lost if the driver is killed: at most once a second, or `now`.

        Args:
            running: Key of each running job to the seconds that it has run for.
        """
        if self.path is None or (not now and time.monotonic() - self._written < SECONDS):
            return
        seconds = Counter(self.lost)
        seconds.update(running)
        part = self.path.with_name(f".writing-{self.path.name}")
        part.write_text(json.dumps(seconds), encoding="utf-8")
        os.replace(part, self.path)
        self._written = time.monotonic()
