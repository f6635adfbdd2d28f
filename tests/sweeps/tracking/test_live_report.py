"""The report of a study that still runs: written when trials have ended, by a process that cannot disturb."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from studies import ROOT

from sweeps.tracking import live_report
from sweeps.tracking.live_report import LOWEST, LiveReport, remove_drafts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose report may be written every twentieth of a second."""
    monkeypatch.setattr(live_report, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(live_report, "SHARE", 1.0)
    (tmp_path / "study").mkdir()
    shutil.copy(ROOT / "tests/data/trials.jsonl", tmp_path / "study")
    return tmp_path / "study"


def python(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Let a shell script stand for the interpreter that writes the report; returns its log."""
    log, script = folder.parent / "log", folder.parent / "python"
    script.write_text(f'#!/bin/sh\necho "$@" "$(nice)" >> {log}\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setattr(live_report.sys, "executable", str(script))
    return log


def wait_until(ready: Callable[[], bool], seconds: float = 600.0) -> None:
    """Wait; a process of the lowest priority may get little of a busy machine."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end_a_trial(folder: Path) -> None:
    """Let the records grow."""
    with (folder / "trials.jsonl").open("a") as file:
        file.write("\n")


def calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_it_is_written_once_for_each_news(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = python(folder, monkeypatch, "")
    with LiveReport(folder):
        time.sleep(0.4)
        assert not calls(log), "nothing has ended yet"
        end_a_trial(folder)
        wait_until(lambda: len(calls(log)) == 1)
        time.sleep(0.4)
        assert len(calls(log)) == 1, "nothing has ended since"
        end_a_trial(folder)
        wait_until(lambda: len(calls(log)) == 2)
    assert calls(log)[0].startswith(f"-m reports {folder}")


def test_a_short_study_writes_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = python(folder, monkeypatch, "")
    monkeypatch.setattr(live_report, "EVERY_SECONDS", 60.0)
    began = time.monotonic()
    with LiveReport(folder):
        end_a_trial(folder)
    assert time.monotonic() - began < 10
    assert not calls(log)


def test_it_runs_at_the_lowest_priority(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(folder, monkeypatch, f"sleep 0.5; nice > {folder}/nice; exec sleep 60")
    with LiveReport(folder):
        end_a_trial(folder)
        wait_until(lambda: (folder / "nice").exists() and (folder / "nice").read_text() != "")
    assert int((folder / "nice").read_text()) == LOWEST


def test_it_ends_with_the_study_and_leaves_no_draft(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = folder / ".report-abc"
    (folder / "report").mkdir()
    python(
        folder, monkeypatch, f"mkdir {draft}; mv {folder}/report {draft}-earlier; exec sleep 600"
    )
    began = time.monotonic()
    with LiveReport(folder) as live:
        end_a_trial(folder)
        wait_until(lambda: Path(f"{draft}-earlier").exists())
        process = live._process
    assert time.monotonic() - began < 300
    assert process is not None and process.poll() is not None
    assert sorted(path.name for path in folder.iterdir()) == ["report", "trials.jsonl"]


def test_a_report_that_fails_is_said_once_and_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = python(folder, monkeypatch, "echo 'error: report: holds a file' >&2; exit 2")
    with LiveReport(folder):
        for number in (1, 2):
            end_a_trial(folder)
            wait_until(lambda expected=number: len(calls(log)) == expected)  # type: ignore[misc]
        time.sleep(0.2)
    assert caplog.text.count("the report is not written while the study runs") == 1
    assert "error: report: holds a file" in caplog.text


def test_no_interpreter_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_report.sys, "executable", str(folder / "missing"))
    with LiveReport(folder) as live:
        end_a_trial(folder)
        wait_until(lambda: not live._thread.is_alive())
    assert "the report is not written while the study runs" in caplog.text


def test_what_an_earlier_driver_left_is_removed(tmp_path: Path) -> None:
    for name in ("report", ".report-1", ".report-2-earlier", "splits"):
        (tmp_path / name).mkdir()
    (tmp_path / "report/index.html").write_text("kept")
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "splits"]
    assert (tmp_path / "report/index.html").read_text() == "kept"


@pytest.mark.slow
def test_the_real_report_says_that_the_study_had_not_ended(folder: Path) -> None:
    (folder / "summary.json").write_text('{"state": "running"}')
    assert os.access(sys.executable, os.X_OK)
    page = folder / "report/index.html"
    with LiveReport(folder):
        end_a_trial(folder)
        wait_until(page.exists, 300)
    assert "before the study had ended: 55" in page.read_text()
