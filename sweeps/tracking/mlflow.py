"""The driver's side of MLflow: it sends records to a process of their own (``mlflow_process``) and never waits for it.

MLflow's client spends more CPU time on a record than everything else that the driver does for a trial. In a process of
its own it does not slow the driver, and may hang or crash without harm.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mu.record import TrialRecord, trial_line

logger = logging.getLogger(__name__)
SUMMARIZE = "summarize\n"
"""The line to the process after the last record: write what the cells came to, while the report is built."""
END = "end\n"
"""The last line to the process: store the report, and end. Without it the driver was lost, and the next run sends the
missing records."""
LISTEN_SECONDS = 5.0
"""How long the last words of a process that has ended may take to arrive."""
ARTIFACTS = "mlartifacts"
"""Folder of the artifacts of a study with a database of its own, beside its records."""
CLOSE_SECONDS = 60.0
"""How long the end of a run waits for MLflow."""


class Tracking:
    """The process that writes to MLflow. It starts by sending the records that MLflow lacks.

    Args:
        uri: Tracking URI: an MLflow server or a database.
        study: Name and UUID of the study.
        facts: Tags of every parent run.
        records: The results file.
        artifacts: Where artifacts of a new experiment go; None leaves it to the server.

    Attributes:
        pages: Addresses in MLflow's UI, after that of the server: `runs`, `charts` and `study`; empty before ``wait``.
    """

    def __init__(
        self,
        uri: str,
        study: tuple[str, str],
        facts: Mapping[str, str],
        records: Path,
        artifacts: str | None = None,
    ):
        self.pages: dict[str, str] = {}
        self._server = server_address(uri)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweeps.tracking.mlflow_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._awaited = False
        first = {"uri": uri, "study": study, "facts": dict(facts), "artifacts": artifacts}
        self._lines: queue.Queue[str] = queue.Queue()
        self._lines.put(json.dumps({**first, "records": str(records)}) + "\n")
        self._writer = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._writer.start()
        self._listener = threading.Thread(target=self._listen, name="mlflow warnings", daemon=True)
        self._listener.start()

    def wait(self) -> None:
        """Wait until MLflow has all records so far.

        Raises:
            OSError: It cannot be written to; the message says why.
        """
        self._awaited = True
        answer = self._answer()
        if "error" in answer:
            raise OSError(answer["error"])
        self.pages = answer.get("pages", {})

    @property
    def runs_address(self) -> str:
        """Address of the study's runs on a server, without query; empty before ``wait``, and where MLflow is a database."""
        page = self.pages.get("runs", "").partition("?")[0]
        return f"{self._server}/{page}" if self._server and page else ""

    def put(self, record: TrialRecord) -> None:
        """Queue a record; returns at once."""
        self._lines.put(trial_line(record) + "\n")

    def summarize(self) -> None:
        """Let MLflow show what the study came to, now that all of its trials have ended; returns at once."""
        self._lines.put(SUMMARIZE)

    def close(self) -> int | None:
        """Store the report, and wait for queued records; return how many did not arrive, None when that is not known."""
        self._lines.put(END)
        killer = threading.Timer(CLOSE_SECONDS, self._process.kill)
        try:
            if not self._awaited:
                self.wait()
            killer.start()
            return self._answer().get("unsent")
        except OSError as error:
            logger.warning("MLflow cannot be written to: %s", error)
            return None
        finally:
            killer.cancel()
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(LISTEN_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of a line that it did not take
                pipe.close()

    def _listen(self) -> None:
        """Log what the process says, such as warnings of MLflow."""
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                logger.warning("%s", line.rstrip())

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
    """Return the URI of a study's own store: ``mlflow.db`` in its results folder."""
    return f"sqlite:///{(folder / 'mlflow.db').resolve()}"


def artifact_location(uri: str, folder: Path) -> str | None:
    """Return where artifacts of a study in `folder` go: beside its records; a server decides itself (None)."""
    return None if uri.startswith("http") else (folder / ARTIFACTS).resolve().as_uri()


def describe(study_line: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a study as tags."""
    return {
        "data": f"{study_line['data']['name']} {study_line['data']['fingerprint']}",
        "model": str(study_line["model"]),
        **{f"version.{name}": value for name, value in study_line["versions"].items()},
    }


def server_address(uri: str) -> str:
    """Return the address of a server of MLflow, without user and password; empty for a database."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
