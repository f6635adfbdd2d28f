"""The benchmarks' own arithmetic, and the comparison with other ways in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from studies import LIMIT_SECONDS, ROOT, environment

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import measure

BUSY = "import time\nwhile time.process_time() < 1: pass"


def test_the_readme_begins_with_the_table_of_all_figures() -> None:
    page = figures.README.read_text(encoding="utf-8")
    assert page.startswith(f"# Benchmarks\n\n{figures.BEGIN}\n")
    assert figures.with_table(page, figures.read()) == page


def test_new_figures_replace_those_of_the_same_name_and_stand_beside_their_benchmark() -> None:
    old = [Figure("a", "speed", "1 s"), Figure("b", "size", "2 GiB"), Figure("c", "size", "3 GiB")]
    new = [Figure("a", "size", "5 GiB"), Figure("b", "size", "4 GiB")]
    values = [(each.benchmark, each.name, each.value) for each in figures.merged(old, new)]
    assert values == [
        ("a", "speed", "1 s"),
        ("a", "size", "5 GiB"),
        ("b", "size", "4 GiB"),
        ("c", "size", "3 GiB"),
    ]


def test_figures_survive_their_file(tmp_path: Path) -> None:
    written = [Figure("a", "speed, of both", "1 s", "2", "faster", "at least 3", "2026-01-01", "x")]
    figures.write(written, tmp_path / "figures.csv")
    assert figures.read(tmp_path / "figures.csv") == written


@pytest.mark.parametrize(
    ("value", "ratio", "target", "met"),
    [
        ("1 s", "8.1", "at least 8", "yes"),
        ("1 s", "7.9", "at least 8", "no"),
        ("1.9 GiB", "", "at most 2", "yes"),
        ("2.1 GiB", "", "at most 2", "no"),
        ("45,001 images/s", "", "at least 45,000 images/s", "yes"),
        ("3 s", "", "", ""),
    ],
)
def test_a_target_is_of_the_ratio_where_there_is_one(
    value: str, ratio: str, target: str, met: str
) -> None:
    assert Figure("a", "b", value, ratio, target=target, date="2026-01-01").met == met
    assert Figure("a", "b", value, ratio, target=target).met == ""


def test_the_processor_time_of_a_child_of_a_child_counts(tmp_path: Path) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    _, spent = measure([sys.executable, "-c", parent], os.environ, tmp_path / "log")
    assert 0.6 < spent < 3


def test_a_command_that_fails_ends_a_benchmark_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        measure(
            [sys.executable, "-c", "raise SystemExit('no such luck')"], os.environ, tmp_path / "log"
        )


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.soak
def test_all_ways_of_running_the_same_trials_give_the_same_values() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--quick"]
    ended = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ways = ("ours", "a process a trial", "Optuna, 1 thread", "Ray Tune")
    for way in ways:
        assert f"| {way} | {2 if way == 'a process a trial' else 3} |" in ended.stdout
