"""``run.log``: who writes to it, what the console shows beside it, and that it stays small."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import optuna
import pytest
import ray
from ray._private.ray_logging import setup_logger
from rich.console import Console

from mu.record import TrialRecord
from sweeps import launch
from sweeps.__main__ import main
from sweeps.flow.ledger import in_one_line
from sweeps.search import cells
from sweeps.state import code, credentials
from sweeps.tracking import mlflow, run_log
from sweeps.tracking.run_log import in_folder, on_console
from sweeps.workers.cluster import _quieten


def written(folder: Path) -> str:
    return (folder / run_log.NAME).read_text(encoding="utf-8")


def test_warnings_of_every_library_are_in_the_file_and_what_others_tell_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ray.__version__ and cells.optuna is optuna  # both have set their loggers up
    with on_console(verbose=False), in_folder(tmp_path):
        setup_logger(logging.ERROR, "Ray's own form %(message)s")  # as `ray.init` does
        _quieten()
        logging.getLogger("ray.tune").warning("of Ray")
        optuna.logging.get_logger("optuna.study").warning("of Optuna")
        logging.getLogger("sweeps.flow.ledger").info("of ours")
        logging.getLogger("sqlalchemy").info("of nobody's interest")
        warnings.warn("of Python", stacklevel=1)
    lines = written(tmp_path)
    for words in (
        "WARNING ray.tune: of Ray",
        "of Optuna",
        "INFO sweeps.flow.ledger: of ours",
        "UserWarning: of Python",
    ):
        assert lines.count(words) == 1, words
    assert "nobody" not in lines and "own form" not in lines
    shown = capsys.readouterr().err
    assert "WARNING: of Optuna" in shown and "of Ray" not in shown and "of ours" not in shown


def test_verbose_shows_all_of_it_and_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with on_console(verbose=True), in_folder(tmp_path):
        logging.getLogger("ray.tune").warning("of Ray")
        logging.getLogger("sweeps.flow.ledger").info("of ours")
        launch.say(Console(), "said")
    shown = capsys.readouterr()
    assert shown.err == "WARNING: of Ray\nINFO: of ours\n" and shown.out == "said\n"
    assert "INFO sweeps.launch: said" in written(tmp_path)


def test_afterwards_all_loggers_are_as_they_were(tmp_path: Path) -> None:
    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("", "ray", *run_log.OWN)]
        return [(list(logger.handlers), logger.level) for logger in loggers] + [
            warnings.showwarning
        ]

    before = state()
    with on_console(verbose=True), in_folder(tmp_path):
        assert state() != before
    assert state() == before


def test_the_file_holds_no_password_and_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "MOST_BYTES", 2000)
    credentials.remember("postgresql://me:hunter22@host/db")
    with in_folder(tmp_path):
        for _ in range(200):
            logging.getLogger("sweeps").info("%s", "postgresql://me:hunter22@host/db")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["run.log", "run.log.1", "run.log.2", "run.log.3"]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 2000 and "hunter22" not in path.read_text()


def test_a_log_that_cannot_be_written_disturbs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / run_log.NAME).mkdir()
    with in_folder(tmp_path):
        logging.getLogger("sweeps").info("lost")
    assert capsys.readouterr().err == ""


def test_a_trial_s_end_is_one_line() -> None:
    record = TrialRecord(
        key="k", study="s", phase="search", forget="some", method="jit", seed=0, knobs={}, number=3,
        status="failed", reason="Traceback ...\n  File\nValueError: no", time_total=1.25,
        environment={"host": "node7"},
    )  # fmt: skip
    line = in_one_line(record)
    assert line == ("search some/jit seed 0 number 3: failed after 1.2 s on node7: ValueError: no")


def test_what_the_process_of_mlflow_says_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "WARNING of MLflow" >&2\necho "{}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(mlflow.sys, "executable", str(script))
    tracking = mlflow.Tracking("sqlite:///x", "tiny", {}, tmp_path / "trials.jsonl")
    tracking.wait()
    tracking.close()
    assert "WARNING of MLflow" in caplog.messages


def test_version_names_the_release_and_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"musweep {code.running()}\n"


def test_the_digest_changes_with_the_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest_of(content: str, place: str) -> str:
        folder = tmp_path / place / "mu"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(content)
        (folder / "notes.txt").write_text(place)
        monkeypatch.setattr(code, "folders", lambda: [folder])
        code.digest.cache_clear()
        return code.digest()

    assert digest_of("x = 1\n", "here") == digest_of("x = 1\n", "there")
    assert digest_of("x = 1\n", "again") != digest_of("x = 2\n", "other")
    code.digest.cache_clear()
