"""The driver's side of MLflow: records go to a process of their own (``tracker``), for which nothing ever waits.

MLflow's client spends more of a processor on a record than all else the driver does for a trial. In a process of its
own it leaves the driver alone, and may hang or crash without harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.record import TrialRecord, trial_line
from sweeps.state.credentials import database_url

END = "end\n"
"""What the process is told last; without it the driver was lost, and the next run sends what is missing."""
CLOSE_SECONDS = 60.0
"""How long the end of a run waits for MLflow."""


class Tracking:
    """Starts the process, which connects and sends what MLflow lacks of the records so far.

    Args:
        uri: Tracking URI: an MLflow server or a database.
        study: Name of the study.
        facts: Tags of every parent run.
        records: The results file.
        artifacts: Where artifacts of a new experiment go; None leaves it to the server.
    """

    def __init__(
        self,
        uri: str,
        study: str,
        facts: Mapping[str, str],
        records: Path,
        artifacts: str | None = None,
    ):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweeps.tracking.mlflow_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        first = {"uri": uri, "study": study, "facts": dict(facts), "artifacts": artifacts}
        self._lines: queue.Queue[str] = queue.Queue()
        self._lines.put(json.dumps({**first, "records": str(records)}) + "\n")
        self._writer = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._writer.start()

    def wait(self) -> None:
        """Return when MLflow has all records so far.

        Raises:
            OSError: It cannot be written to; the message says why.
        """
        error = self._answer().get("error")
        if error is not None:
            raise OSError(error)

    def put(self, record: TrialRecord) -> None:
        """Queue a record; returns at once."""
        self._lines.put(trial_line(record) + "\n")

    def close(self) -> int | None:
        """Wait for what is queued; returns how many records did not arrive, None when that is not known."""
        self._lines.put(END)
        killer = threading.Timer(CLOSE_SECONDS, self._process.kill)
        killer.start()
        try:
            return self._answer().get("unsent")
        finally:
            killer.cancel()
            self._process.kill()
            self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "its process ended"}

    def _write(self) -> None:
        assert self._process.stdin is not None
        line = ""
        with contextlib.suppress(OSError, ValueError):  # the process has ended, which `close` finds
            while line != END:
                line = self._lines.get()
                self._process.stdin.write(line)
                if self._lines.empty():
                    self._process.stdin.flush()


def local_uri(folder: Path) -> str:
    """The default store of a study: ``mlflow.db`` in its results folder."""
    return f"sqlite:///{(folder / 'mlflow.db').resolve()}"


def describe(study_line: Mapping[str, Any]) -> dict[str, str]:
    """Facts of a study as tags."""
    return {
        "data": f"{study_line['data']['name']} {study_line['data']['fingerprint']}",
        "model": str(study_line["definition"]["model"]),
        **{f"version.{name}": value for name, value in study_line["versions"].items()},
    }


def ui_command(host: str, port: int) -> list[str]:
    """The command that serves the UI of a store, with one worker: more only slow it down."""
    return ["mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment(uri: str) -> dict[str, str]:
    """What the UI's process needs besides its command: the store, which may hold a password that a list of
    processes would show, and nothing that weakens its host checks."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"
    }
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        **inherited,
        "MLFLOW_BACKEND_STORE_URI": database_url(uri),
    }
