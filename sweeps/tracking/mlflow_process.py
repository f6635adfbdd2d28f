"""MLflow: a parent run per cell and phase, a nested run per trial. The only module that imports MLflow.

``python -m sweeps.tracking.mlflow_process`` is the process that a sweep sends its records to (see ``mlflow``). Records that
do not arrive are in the results file; the next start or ``musweep sync`` sends them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
# Two lines for each trial, with the server's URL as it was given: with its password.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# A server that is away is noticed in seconds instead of minutes: what it missed is sent later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from mu.current import read_current
from mu.keys import content_key
from mu.record import TrialRecord, from_content
from sweeps.state.credentials import database_url
from sweeps.tracking.mlflow import END

logger = logging.getLogger(__name__)
KEY = "musweep.key"
STUDY = "musweep.study"
"""Tag with the UUID of the study that a run is of: studies of one name share an experiment."""
PARENT = "musweep.parent"
METRICS = "musweep.metrics"
"""Tag with the digest of a run's metrics: gaps change when a study gets more seeds."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
AWAY_SECONDS = 10.0
"""How long nothing is sent after MLflow did not answer."""
MAX_FAILED = 3
"""Records in a row that MLflow may not take before the others wait as well."""
MAX_METRICS, MAX_PARAMS, MAX_TEXT = 1000, 100, 5000
"""What MLflow accepts in one batch, and in one tag."""
PORTS = {"postgres": 5432, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Tracker:
    """The runs of one study in MLflow.

    Args:
        uri: Tracking URI: an MLflow server or a database.
        study: Name of the study, which is the experiment's, and its UUID, which its runs carry as a tag.
        artifacts: Where artifacts of a new experiment go; None leaves it to the server.

    Raises:
        mlflow.exceptions.MlflowException, OSError: The store cannot be written to.
    """

    def __init__(self, uri: str, study: tuple[str, str], artifacts: str | None = None):
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self.study, self.study_id = study
        _check_reachable(uri)
        _write_ahead(uri)
        self.client = MlflowClient(database_url(uri))
        name = self.study
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            self.experiment = self.client.create_experiment(name, artifact_location=artifacts)
        else:
            self.experiment = experiment.experiment_id
        # The kind of experiment that the UI shows training runs and their curves for.
        kind = ("mlflow.experimentKind", "custom_model_development")
        self.client.set_experiment_tag(self.experiment, *kind)
        self._parents: dict[tuple[str, ...], str] = {}
        self._replaced: dict[str, str] = {}
        self._versions: dict[str, tuple[int, str]] = {}

    def close(self) -> None:
        """End the parent runs."""
        try:
            for run in self._parents.values():
                self.client.set_terminated(run)
        except Exception as error:
            logger.warning("MLflow: parent runs could not be ended: %s", error)

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """Send every record that MLflow does not have yet, or has with other metrics; return how many those were."""
        self._versions = self._known()
        missing = self.outdated(records)
        for record in missing:
            self.send(record)
        return len(missing)

    def outdated(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the records that were not sent, or with other metrics."""
        return [record for record in records if self._versions.get(record.key) != _version(record)]

    def _known(self) -> dict[str, tuple[int, str]]:
        """Read what MLflow has: the version of every complete trial by key. Fills in the parent runs on the way."""
        known: dict[str, tuple[int, str]] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment],
                f"tags.`{STUDY}` = '{self.study_id}'",
                max_results=5000,
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                if PARENT in tags:
                    self._parents[tuple(tags[PARENT].split("|"))] = run.info.run_id
                elif KEY not in tags:
                    continue
                elif run.info.status == "RUNNING" or tags[KEY] in known:
                    self.client.delete_run(run.info.run_id)  # cut short, or sent twice
                else:
                    known[tags[KEY]] = run.info.end_time, tags.get(METRICS, "")
                    self._replaced[tags[KEY]] = run.info.run_id
            token = page.token
            if not token:
                return known

    def send(self, record: TrialRecord) -> None:
        """Write one record as a nested run, in one batch; it replaces an earlier run of the same trial."""
        parent = self._parent(record)
        tags = {
            KEY: record.key,
            METRICS: _version(record)[1],
            "mlflow.parentRunId": parent,
            **self._tags(record),
            "seed": str(record.seed),
            "status": record.status,
            **({"source": record.source} if record.source else {}),
            **({"number": str(record.number)} if record.number is not None else {}),
            **({"reason": record.reason[-MAX_TEXT:]} if record.reason else {}),
            **{f"env.{name}": value for name, value in record.environment.items()},
        }
        name = f"#{record.number} seed {record.seed}" if record.number is not None else None
        run = self.client.create_run(
            self.experiment,
            start_time=_milliseconds(record.started),
            run_name=name or f"{record.method} seed {record.seed}",
            tags=tags,
        ).info.run_id
        replaced, self._replaced[record.key] = self._replaced.get(record.key), run
        metrics = _metrics(record)
        params = [Param(key, str(value)) for key, value in record.knobs.items()][:MAX_PARAMS]
        for start in range(0, max(1, len(metrics)), MAX_METRICS):
            self.client.log_batch(
                run, metrics[start : start + MAX_METRICS], [] if start else params
            )
        self.client.set_terminated(run, STATUS[record.status], _milliseconds(record.ended))
        self._versions[record.key] = _version(record)
        if replaced is not None:
            self.client.delete_run(replaced)

    def _tags(self, record: TrialRecord) -> dict[str, str]:
        shared = {name: self.facts[name] for name in ("data", "model") if name in self.facts}
        return {
            STUDY: self.study_id,
            "study": self.study,
            "phase": record.phase,
            "forget": record.forget,
            "method": record.method,
            **({"alias_of": record.alias_of} if record.alias_of else {}),
            **shared,
        }

    def _parent(self, record: TrialRecord) -> str:
        names: tuple[str, ...] = (record.phase, record.forget, record.method)
        if record.phase not in ("reference", "audit") and record.cell:
            names = (
                *names,
                record.cell,
            )  # trials of a cell that has changed are not beside earlier ones
        if names not in self._parents:
            tags = {PARENT: "|".join(names), **self._tags(record), **self.facts}
            run = self.client.create_run(
                self.experiment,
                start_time=_milliseconds(record.started),
                tags=tags,
                run_name=f"{record.phase} {record.forget} {record.method}",
            )
            self._parents[names] = run.info.run_id
        return self._parents[names]

    facts: Mapping[str, str] = {}
    """Tags of every parent run: data, model and versions."""


def _metrics(record: TrialRecord) -> list[Metric]:
    """Final metrics as ``<view>/<metric>``, the curve as ``curve/<metric>`` by epoch, and the cost.

    Held-out accuracy in a curve is always on the `val` view, and is called so.
    """
    ended = _milliseconds(record.ended)
    metrics = [
        Metric(f"{view}/{name}", value, ended, 0)
        for view, values in record.metrics.items()
        for name, value in values.items()
    ]
    metrics += [
        Metric(
            f"curve/{name.replace('acc_test', 'acc_val')}",
            value,
            _milliseconds(record.started + point["seconds"]),
            epoch,
        )
        for point in record.curve
        if (epoch := int(point["epoch"])) >= 0
        for name, value in point.items()
        if name not in ("epoch", "seconds")
    ]
    costs = {
        "time_unlearn": record.time_unlearn,
        "time_total": record.time_total,
        "samples_seen": float(record.samples_seen),
        "device_memory": record.device_memory,
    }
    return metrics + [Metric(name, value, ended, 0) for name, value in costs.items()]


def _version(record: TrialRecord) -> tuple[int, str]:
    """Return what tells a run of a trial from an earlier one: its end, and a digest of its metrics."""
    return _milliseconds(record.ended), content_key(record.metrics)


def _milliseconds(seconds: float) -> int:
    return int((seconds or time.time()) * 1000)


def _check_reachable(uri: str) -> None:
    """Raise OSError when nothing listens where a database should, which MLflow finds out in two minutes."""
    parts = urlsplit(uri)
    if parts.hostname and not parts.scheme.startswith("http"):
        port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
        if port is not None:
            socket.create_connection((parts.hostname, port), timeout=10).close()


def _write_ahead(uri: str) -> None:
    """Let an SQLite file take commits without waiting for the disk, a fifth of the time: records can be sent again."""
    url = make_url(database_url(uri)) if uri.startswith("sqlite") else None
    if url is not None and url.database:
        with contextlib.closing(sqlite3.connect(url.database)) as file:
            file.execute("PRAGMA journal_mode=WAL")


@event.listens_for(Engine, "connect")
def _keep_pace(connection: Any, _: Any) -> None:
    """With a write-ahead log a crash of the machine may lose the last commits, but never breaks the file."""
    if isinstance(connection, sqlite3.Connection):
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")


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


def main(lines: TextIO, answers: TextIO) -> None:
    """Serve a ``mlflow.Tracking``: read its records from `lines`, write JSON answers to `answers`."""

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    given = json.loads(lines.readline())
    try:
        name, study_id = given["study"]
        tracker = Tracker(given["uri"], (name, study_id), given["artifacts"])
        tracker.facts = given["facts"]
        tracker.sync(read_current(Path(given["records"]))[1])
    except Exception as error:
        answer(error=str(error).splitlines()[0])
        return
    answer()
    sender = Sender(tracker)
    for line in lines:
        if line == END:
            _send_changed(sender, Path(given["records"]))
            tracker.close()
            answer(unsent=len(sender.late))
            return
        sender.put(from_content(json.loads(line)))


def _send_changed(sender: Sender, records: Path) -> None:
    """Send what waits, and the records whose gaps have changed since: retrained models came later in the run."""
    sender.send_late()
    waiting = {record.key for record in sender.late}
    current = read_current(records)[1]
    sender.late.extend(r for r in sender.tracker.outdated(current) if r.key not in waiting)
    sender.send_late()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the sweep, which then ends this
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever MLflow may print
    main(sys.stdin, answers)
