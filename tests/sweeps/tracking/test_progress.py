"""Lines of progress: how many jobs run, and when it is said how long the rest takes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import studies
from rich.console import Console

from mu.record import TrialRecord
from sweeps.flow import ledger as ledger_module
from sweeps.flow.ledger import FEW, Ledger
from sweeps.study import study as study_files
from sweeps.tracking import progress as progress_module
from sweeps.tracking.progress import LINE_SECONDS, Progress


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def two_slots() -> tuple[Progress, io.StringIO]:
    shown = io.StringIO()
    progress = Progress("tiny", "avg_gap_natmu", "val", Console(file=shown, width=200))
    progress.capacity = lambda: 2
    return progress, shown


def test_a_line_never_counts_the_slot_that_is_empty_between_two_jobs(clock: Clock) -> None:
    progress, shown = two_slots()
    progress.expect("search", 4)
    progress.started()
    progress.started()
    progress.started()  # which waits
    for _ in range(2):
        clock.now += LINE_SECONDS + 1
        progress.ended("search")
        if progress.done["search"] == 1:
            progress.started()
    lines = shown.getvalue().splitlines()
    assert lines[0] == "tiny: search 0/4, 1 running"
    assert lines[1:] == ["tiny: search 1/4, 2 running", "tiny: search 2/4, 2 running"]


def test_the_end_of_a_stage_is_a_line_of_its_own_once_the_next_job_runs(clock: Clock) -> None:
    progress, shown = two_slots()
    progress.expect("reference", 2)
    progress.expect("search", 2)
    progress.started()
    progress.started()
    progress.ended("reference")
    progress.started()
    progress.ended("reference")
    progress.started()
    progress.ended("search")
    progress.ended("search")
    assert shown.getvalue().splitlines() == [
        "tiny: references 0/2, search 0/2, 1 running",
        "tiny: references 2/2, search 0/2, 2 running",
        "tiny: references 2/2, search 2/2",
    ]


@pytest.mark.usefixtures("clock")
def test_there_is_no_estimate_before_three_trials_have_ended() -> None:
    """One trial on two slots would make an hour of two minutes."""
    study = study_files.parse(studies.tiny(), "study.yaml")
    planned = {"search": {"trials": 12.0, "samples": 12.0}}
    plan: Any = SimpleNamespace(study=study, planned=planned)
    results: Any = SimpleNamespace(records={}, study={})
    ledger = Ledger(plan, results, Console(file=io.StringIO()))
    ledger.slots = SimpleNamespace(now=2)  # type: ignore[assignment]
    left = []
    for number in range(FEW + 1):
        left.append(ledger._left())
        record = TrialRecord(
            f"k{number}", "tiny", "search", "some", "jit", 0, "finished", time_total=10.0
        )
        results.records[record.key] = record
    assert ledger_module.FEW == 3
    assert left == [None, None, None, pytest.approx(9 * 10.0 / 2)]
