"""MLflow on a server: with passwords and artifacts through the server, and one whose artifacts fail."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import studies
from servers import LOOPBACK, free_port, mlflow_server, wait_until

from mu.record import trial_line
from sweeps.tracking.mlflow import Tracking
from sweeps.tracking.mlflow_runs import Tracker, find_pages
from sweeps.tracking.mlflow_ui import ui_environment
from tests.sweeps.tracking.test_mlflow import record, runs
from tests.sweeps.tracking.test_mlflow_results import UUID, artifacts, of_level, results

__all__ = ["results"]
pytestmark = [pytest.mark.slow, pytest.mark.fault]
USER, PASSWORD = "me", f"hush{secrets.token_hex(8)}"


class Proxy(http.server.ThreadingHTTPServer):
    """A server in front of MLflow's: it asks for a password, and may refuse to take artifacts.

    Attributes:
        asked: How often it was asked for each kind of path: `artifacts` or `runs`.
        refused: How many requests had no password, or a wrong one.
        broken: Whether artifacts are answered with 500.
    """

    daemon_threads = True

    def __init__(self, target: str):
        super().__init__((LOOPBACK, 0), _Handler)
        self.target = target
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.broken = False


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {known}":
            self.server.refused += 1
            return self._send(401, b"", {"WWW-Authenticate": "Basic"})
        stored = "/mlflow-artifacts/" in self.path
        self.server.asked["artifacts" if stored else "runs"] += 1
        if stored and self.server.broken:
            return self._send(500, b"no room", {})
        kept = {
            name: text
            for name, text in self.headers.items()
            if name not in ("Host", "Authorization")
        }
        asked = urllib.request.Request(
            self.server.target + self.path, body or None, kept, method=self.command
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return self._send(
                    answer.status, answer.read(), {"Content-Type": "application/json"}
                )
        except urllib.error.HTTPError as error:
            return self._send(error.code, error.read(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server of MLflow that stores artifacts itself, behind a proxy that asks for a password."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder}/server.db", folder) as address:
        proxy = Proxy(address)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture
def address(served: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(served, "broken", False)
    return f"http://{LOOPBACK}:{served.server_port}"


STORED = [
    "report/figures/cost.svg",
    "report/index.html",
    "splits/random10.npy",
    "study.yaml",
]


def check_all_there(address: str) -> None:
    tracker = Tracker(address, ("tiny", UUID))
    (study,) = of_level(tracker, "study").values()
    assert study.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert sorted(artifacts(tracker, study.info.run_id)) == STORED
    alpha = of_level(tracker, "cell")["random10 alpha"]
    assert list(artifacts(tracker, alpha.info.run_id)) == ["response_alpha.svg"]
    assert alpha.data.params["lr"] == "0.01"
    assert "study" in find_pages(address, "tiny", UUID)


def test_a_server_that_asks_for_a_password_gets_all_of_it_through_the_server(
    served: Proxy, address: str, results: Path, tmp_path: Path
) -> None:
    done = studies.here(results.parent, "sync", "tiny", "--tracking-uri", address)
    assert done.returncode == 0, done.stderr
    check_all_there(address)
    assert served.asked["artifacts"] > 0
    assert not list(tmp_path.rglob("mlruns"))
    shown = studies.here(results.parent, "ui", "tiny", "--tracking-uri", address)
    assert shown.returncode == 0, shown.stderr
    assert f"{address}/#/experiments/" in shown.stdout and "viewStateShareKey=" in shown.stdout


def test_a_password_inside_the_address_does_as_well_and_is_not_shown(
    served: Proxy, address: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own: MLflow remembers by run where its artifacts are."""
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    inside = address.replace("http://", f"http://{USER}:{PASSWORD}@")
    before, stored = served.refused, served.asked["artifacts"]
    done = studies.musweep(results.parent, "sync", "tiny", "--tracking-uri", inside)
    assert done.returncode == 0, done.stderr
    assert served.refused == before
    assert served.asked["artifacts"] >= stored + len(STORED)
    shown = studies.musweep(results.parent, "ui", "tiny", "--tracking-uri", inside)
    assert "viewStateShareKey=" in shown.stdout
    assert PASSWORD not in shown.stdout + shown.stderr + done.stdout + done.stderr
    wrong = studies.musweep(results.parent, "sync", "tiny", "--tracking-uri", address)
    assert wrong.returncode == 2
    assert "MLflow cannot be written to" in wrong.stderr


def test_artifacts_that_a_server_does_not_take_end_no_run(
    served: Proxy, address: str, results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All records arrive, the log says what did not, and ``musweep sync`` brings it when the server is well again."""
    served.broken = True
    folder = shutil.copytree(results, tmp_path / "tiny", ignore=shutil.ignore_patterns("ml*"))
    uri = address
    tracking = Tracking(uri, ("broken", "id"), {}, folder / "trials.jsonl")
    tracking.wait()
    with (folder / "trials.jsonl").open("a") as file:
        file.write(trial_line(record("late", forget="random10", method="alpha")) + "\n")
    tracking.put(record("late", forget="random10", method="alpha"))
    tracking.summarize()
    asked = served.asked["artifacts"]
    assert tracking.close() == 0, "every record is there"
    assert served.asked["artifacts"] - asked <= 4, "two tries of one file"
    assert "MLflow did not take all of the results" in caplog.text
    tracker = Tracker(uri, ("broken", "id"))
    assert "late" in {run.data.tags.get("musweep.key") for run in runs(tracker)}
    alpha = of_level(tracker, "cell")["random10 alpha"]
    assert alpha.data.metrics["recovery"] > 0

    refused = studies.here(tmp_path, "sync", "tiny", "--tracking-uri", uri)
    assert refused.returncode == 1
    assert "did not take all of the results" in refused.stderr
    served.broken = False
    (folder / "report/index.html").write_text("again")
    done = studies.here(tmp_path, "sync", "tiny", "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    check_all_there(uri)
    tracker = Tracker(uri, ("tiny", UUID))
    (study,) = of_level(tracker, "study").values()
    page = tracker.client.download_artifacts(study.info.run_id, "report/index.html", str(tmp_path))
    assert Path(page).read_text() == "again"


@contextmanager
def basic_auth_server(folder: Path) -> Iterator[str]:
    """MLflow's own server with users and passwords."""
    port, log = free_port(), folder / "mlflow.log"
    config = folder / "auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/users.db\n"
        f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
    )
    environment = {
        **ui_environment(f"sqlite:///{folder}/server.db"),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    command = [
        "mlflow",
        "server",
        "--app-name",
        "basic-auth",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--workers", "1"],
            cwd=folder, stdout=output, stderr=output, start_new_session=True, env=environment,
        )  # fmt: skip
    address = f"http://{LOOPBACK}:{port}"

    def healthy() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
        return False

    try:
        wait_until(healthy, process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_mlflows_own_authentication_takes_all_of_it(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow asks for passwords with it")
    folder = shutil.copytree(results, tmp_path / "tiny", ignore=shutil.ignore_patterns("ml*"))
    line, *trials = (folder / "trials.jsonl").read_text().splitlines(keepends=True)
    wanted = ("reference/random10", "search/random10/alpha", "confirm/random10/alpha")
    few = [text for text in trials if json.loads(text)["key"].startswith(wanted)]
    (folder / "trials.jsonl").write_text("".join([line, *few]))  # each request checks the password
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with basic_auth_server(tmp_path) as address:
        done = studies.here(tmp_path, "sync", "tiny", "--tracking-uri", address)
        assert done.returncode == 0, done.stderr
        check_all_there(address)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another password")
        refused = studies.here(tmp_path, "sync", "tiny", "--tracking-uri", address)
        assert refused.returncode == 2
