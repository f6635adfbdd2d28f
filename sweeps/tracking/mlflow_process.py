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
from mu.record import TrialRecord, from_line
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


def write_results(tracker: Tracker, folder: Path) -> str:
    """Write what a study and its cells came to, and the figures of its methods.

    Args:
        folder: The study's results.

    Returns:
        Why that did not work; empty when it did. Nothing that happens here ends a run.
    """
    try:
        # Here, so that a study starts without pandas, SciPy and Altair.
        from reports import load
        from sweeps.tracking import artifacts, study_summary

        study = load.read(folder)
        tracker.write_cells(study_summary.cell_contents(study))
        tracker.write_study(study_summary.study_content(study))
        tracker.write_figures(artifacts.method_figures(study))
    except Exception as error:
        return _reason(error)
    return ""


def write_files(tracker: Tracker, folder: Path) -> str:
    """Store report, study file and splits as artifacts of the study.

    Args:
        folder: The study's results.

    Returns:
        Why that did not work, as of the first file that could not be stored; empty when it did.
    """
    try:
        from sweeps.tracking import artifacts

        tracker.write_files(artifacts.study_files(folder))
    except Exception as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


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
    sender, written = Sender(tracker), False
    for line in lines:
        if line not in (SUMMARIZE, END):
            sender.put(from_line(line))
            continue
        if not written:
            sender.send_changed(records)
        # With records that MLflow does not take, the rest would only wait for it again.
        failed = "" if written or sender.late else write_results(tracker, records.parent)
        written = not failed and not sender.late
        if line == END:
            failed = failed or ("" if sender.late else write_files(tracker, records.parent))
            tracker.close()
        if failed:
            logger.warning("MLflow did not take all of the results: %s", failed)
        if line == END:
            answer(unsent=len(sender.late))
            return


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the sweep, which then ends this
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever MLflow may print
    main(sys.stdin, answers)
