"""``python -m sweeps.tracking.mlflow_process``: the process that a sweep sends its records to (see ``mlflow``).

Records that do not arrive are in the results file; the next start or ``musweep sync`` sends them.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO

from mu.current import read_current
from mu.record import TrialRecord, from_content
from sweeps.tracking.mlflow import END, SUMMARIZE
from sweeps.tracking.mlflow_runs import Tracker

logger = logging.getLogger(__name__)
AWAY_SECONDS = 10.0
"""How long nothing is sent after MLflow did not answer."""
MAX_FAILED = 3
"""Records in a row that MLflow may not take before the others wait as well."""


class Sender:
    """A queue of records for MLflow: those that it did not take are sent again later."""

    def __init__(self, tracker: Tracker):
        self.tracker = tracker
        self.late: deque[TrialRecord] = deque()
        self._again = 0.0

    def put(self, record: TrialRecord) -> None:
        """Send a record and those that wait; when MLflow does not answer, the next try is AWAY_SECONDS later."""
        self.late.append(record)
        if time.monotonic() >= self._again:
            self.send_late()

    def send_late(self) -> None:
        """Send the records that wait."""
        failed = 0
        for _ in range(len(self.late)):
            try:
                self.tracker.send(self.late[0])
            except Exception as error:
                if not self._again:
                    logger.warning("MLflow does not answer, the sweep goes on: %s", error)
                self._again = time.monotonic() + AWAY_SECONDS
                # The next try begins with another, should this one be at fault.
                self.late.rotate(-1)
                failed += 1
                if failed == MAX_FAILED:
                    return
            else:
                self.late.popleft()

    def send_changed(self, records: Path) -> None:
        """Send what waits, and the records whose gaps have changed since: retrained models came later in the run."""
        self.send_late()
        waiting = {record.key for record in self.late}
        current = read_current(records)[1]
        self.late.extend(r for r in self.tracker.outdated(current) if r.key not in waiting)
        self.send_late()


def summarize(tracker: Tracker, folder: Path, files: bool = True) -> str:
    """Write what a study and its cells came to, and store its files as artifacts.

    Args:
        folder: The study's results.
        files: Whether to store files.

    Returns:
        Why that did not work; empty when it did. Nothing that happens here ends a run.
    """
    try:
        from sweeps.tracking import study_summary  # pandas and SciPy, at the end alone

        study = study_summary.read(folder)
        contents = study_summary.cell_contents(study)
        tracker.write_cells(contents)
        tracker.write_study(study_summary.study_content(study))
        if files:
            figures = study_summary.cell_files(folder, list(contents))
            tracker.write_files(study_summary.study_files(folder), figures)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def main(lines: TextIO, answers: TextIO) -> None:
    """Serve a ``mlflow.Tracking``: read its records from `lines`, write JSON answers to `answers`."""

    def answer(**content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    given = json.loads(lines.readline())
    records = Path(given["records"])
    try:
        name, study_id = given["study"]
        tracker = Tracker(given["uri"], (name, study_id), given["artifacts"])
        tracker.facts = given["facts"]
        tracker.sync(read_current(records)[1])
    except Exception as error:
        answer(error=str(error).splitlines()[0])
        return
    answer(pages=tracker.pages)
    sender = Sender(tracker)
    for line in lines:
        if line in (SUMMARIZE, END):
            sender.send_changed(records)
            # With records that MLflow does not take, files would only wait for it again.
            if not sender.late:
                failed = summarize(tracker, records.parent, files=line == END)
                if failed:
                    logger.warning("MLflow did not take all of the summary: %s", failed)
        if line == END:
            tracker.close()
            answer(unsent=len(sender.late))
            return
        if line != SUMMARIZE:
            sender.put(from_content(json.loads(line)))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the sweep, which then ends this
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever MLflow may print
    main(sys.stdin, answers)
