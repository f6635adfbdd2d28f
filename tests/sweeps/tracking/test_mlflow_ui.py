"""musweep ui: it says where a study's pages are, serves them, and opens a browser when asked."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import studies

from mu.record import to_line, write
from sweeps.tracking import mlflow_ui, open_page
from sweeps.tracking.mlflow import local_uri
from sweeps.tracking.mlflow_runs import Tracker


class Served(BaseException):
    """The process has become the server."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "tiny"
    folder.mkdir()
    write(folder / "trials.jsonl", [to_line("study", {"study": "tiny", "uuid": "id" * 16})])
    tracker = Tracker(local_uri(folder), ("tiny", "id" * 16))
    tracker.sync([])
    tracker.close()
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was started: the server in place of this process, and the process that opens a page."""
    calls: list[Any] = []

    def execve(*arguments: Any) -> None:
        calls.append(arguments)
        raise Served

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.setattr(mlflow_ui, "open_when_ready", lambda *where: calls.append(where))
    return calls


def test_it_prints_the_pages_of_the_study_and_serves_its_database(
    folder: Path, started: list[Any]
) -> None:
    with pytest.raises(Served):
        studies.here(folder.parent, "ui", "tiny", "--port", "5123")
    ((_, command, environment),) = started
    assert command[1:] == ["-m", *mlflow_ui.ui_command("127.0.0.1", 5123)]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == local_uri(folder)


def test_open_is_for_the_runs_of_the_study(
    folder: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.__main__ import main

    with pytest.raises(Served):
        main(["ui", str(folder), "--port", "5123", "--open", "--host", "0.0.0.0"])
    address, page = started[0]
    assert address == "http://127.0.0.1:5123", "0.0.0.0 is no address to go to"
    said = capsys.readouterr().out
    assert f"runs    {address}/{page}\n" in said
    for name in ("charts", "study"):
        assert f"\n{name} " in said
    assert "viewStateShareKey=" in page


def test_a_server_is_pointed_to_and_not_served_again(
    folder: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"runs": "#/experiments/1/runs"}
    monkeypatch.setattr(mlflow_ui, "study_pages", lambda *_: pages)
    done = studies.here(
        folder.parent, "ui", "tiny", "--tracking-uri", "http://me:hush1@host:5000/", "--open"
    )
    assert done.returncode == 0
    assert done.stdout == "runs    http://me:***@host:5000/#/experiments/1/runs\n"
    assert started == [("http://me:hush1@host:5000", "#/experiments/1/runs")]
    none = studies.here(folder.parent, "ui", "--tracking-uri", "http://host:5000")
    assert none.returncode == 2 and "is a server" in none.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([], "ui: give STUDY_DIR or --tracking-uri"),
        (["empty"], "empty: there is no mlflow.db; give --tracking-uri"),
    ):
        done = studies.here(tmp_path, "ui", *arguments)
        assert done.returncode == 2 and message in done.stderr


class Slow(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Slow.asked += 1
        self.send_response(503 if Slow.asked < 3 else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def slow_server() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_browser_opens_when_the_server_answers(
    slow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        open_page.webbrowser, "open", lambda page: bool(opened.append(page)) or True
    )
    assert open_page.main(slow_server, "#/runs")
    assert opened == [f"{slow_server}/#/runs"]
    assert Slow.asked == 3


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_page, "START_SECONDS", 0.5)
    monkeypatch.setattr(open_page.webbrowser, "open", lambda _: pytest.fail("nothing to open"))
    assert not open_page.main("http://127.0.0.1:9", "#/runs")
