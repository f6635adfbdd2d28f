"""A failed test shows the log of its study and Ray's trouble."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import studies
from failures import LINES, ray_log, tail

FAILING = """
import studies

def test_a_study_that_is_wrong(tmp_path):
    studies.write(tmp_path, studies.tiny(model="no_such_net"))
    assert studies.here(tmp_path, "run", "study.yaml").returncode == 0
"""


def test_a_failed_test_shows_what_its_study_printed(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    options = ["-q", "-p", "conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_failing.py"],
        cwd=tmp_path,
        env=studies.environment(),
        capture_output=True,
        text=True,
        timeout=studies.LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    assert "what `musweep run study.yaml` printed" in ended.stdout
    assert "but got 'no_such_net'" in ended.stdout


def test_rays_trouble_is_found_in_the_logs_of_its_last_session(tmp_path: Path) -> None:
    logs = tmp_path / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text("all is well\nworker was killed: out of memory\n")
    assert ray_log(tmp_path, 0.0) == "raylet.err: worker was killed: out of memory"
    assert ray_log(tmp_path, (logs / "raylet.err").stat().st_mtime + 1) == ""


@pytest.mark.parametrize(("count", "first"), [(LINES, "0"), (LINES + 5, "(5 lines before)")])
def test_long_logs_are_cut_at_the_front(count: int, first: str) -> None:
    lines = tail([str(number) for number in range(count)]).splitlines()
    assert lines[0] == first and lines[-1] == str(count - 1)
