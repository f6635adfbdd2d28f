"""What an actor reports of its trial. Nothing here starts Ray."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mu.record import from_line
from sweeps.plan import Job
from sweeps.state.code import Code
from sweeps.state.store import unpack
from sweeps.study.resources import Slot
from sweeps.workers import actor
from sweeps.workers.actor import StudyActor
from sweeps.workers.job_searcher import REFUSAL
from sweeps.workers.result import RunningTrial

JOB = Job("k0", "search", "some", "jit", 7, {"lr": 0.1}, 3)


class Timer:
    """A timer that is always due."""

    saves = 0

    def due(self) -> bool:
        return True

    def saved(self) -> None:
        self.saves += 1


@pytest.fixture
def trial() -> Any:
    """A trial between two epochs, made without its actor."""
    trial: Any = object.__new__(StudyActor)
    trial.inputs = SimpleNamespace(
        study="tiny", setup=lambda job: SimpleNamespace(slot=Slot(cpus=2.0))
    )
    trial.device, trial.job, trial.started, trial.timer = "cpu", JOB, 100.0, Timer()
    trial.running = RunningTrial()
    trial.running.result.curve = [{"epoch": 0, "acc_test": 0.5}, {"epoch": 1, "acc_test": math.nan}]
    trial.running.result.time_unlearn = 1.5
    return trial


def test_a_report_holds_the_whole_record(trial: Any) -> None:
    trial.running.result.metrics = {"val": {"acc_test": 0.25, "mia": math.nan}}
    trial.running.result.outputs = {"forget": np.ones((2, 3), np.float32)}
    report = trial._report(done=True)
    record = from_line(report["record"])
    assert (record.key, record.study, record.phase, record.forget) == (
        "k0",
        "tiny",
        "search",
        "some",
    )
    assert (record.method, record.seed, record.knobs, record.number) == ("jit", 7, {"lr": 0.1}, 3)
    assert (record.status, record.reason, record.resources) == ("finished", "", {"cpus": 2.0})
    assert record.metrics["val"]["acc_test"] == 0.25
    assert math.isnan(record.metrics["val"]["mia"])
    assert math.isnan(record.curve[-1]["acc_test"])
    assert record.time_unlearn == 1.5
    assert record.started == 100.0
    assert record.time_total == record.ended - record.started > 0
    assert record.environment["device"].startswith("cpu")
    np.testing.assert_array_equal(unpack(report["outputs"])["forget"], np.ones((2, 3)))
    assert (report["done"], report["checkpoint"]) == (True, b"")


def test_a_trial_between_epochs_reports_its_checkpoint_and_how_it_would_be_stopped(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunningTrial, "save", lambda self: {"method": np.arange(3, dtype=np.uint8)})
    report = trial._report(done=False)
    record = from_line(report["record"])
    assert (record.status, record.reason) == ("stopped", "behind others")
    assert trial.running.result.status == "finished", "it goes on"
    assert (report["done"], report["outputs"], trial.timer.saves) == (False, b"", 1)
    assert list(unpack(report["checkpoint"])["method"]) == [0, 1, 2]


def test_a_trial_reports_at_its_rungs_and_between_them_now_and_then(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.job = replace(JOB, rungs=(1, 3))
    trial.timer, trial.refusal = SimpleNamespace(due=lambda: False), ""
    trial.running.result.curve = [{"epoch": 0}]

    def steps() -> Iterator[RunningTrial]:
        for epoch in range(1, 7):
            trial.running.result.curve.append({"epoch": epoch})
            yield trial.running

    trial.steps = steps()
    ends = []
    while True:
        report = trial.step()
        curve = from_line(report["record"]).curve
        ends.append((curve[-1]["epoch"], report["done"]))
        assert [point["epoch"] for point in curve] == list(range(len(curve))), "every epoch"
        if report["done"]:
            break
        if len(ends) == 2:
            monkeypatch.setattr(actor, "REPORT_SECONDS", 0.0)  # epochs as long as reports
    assert ends == [(1, False), (3, False), (4, False), (5, False), (6, False), (6, True)]


def test_an_actor_whose_device_is_broken_ends_itself_before_the_next_trial(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr(actor.os, "_exit", end)
    monkeypatch.setattr(actor, "_works", lambda device: False)
    trial._report(done=True)
    assert not trial.device_is_broken
    trial.running.result.status = "failed"
    trial._report(done=True)
    assert trial.device_is_broken
    with pytest.raises(SystemExit):
        trial.reset_config({})
    assert ended == [1]


def test_a_worker_with_other_code_than_the_driver_s_names_both_and_takes_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = Code("0.2", "aaaa"), Code("0.1", "bbbb")
    monkeypatch.setattr(actor.code, "running", lambda: there)
    monkeypatch.setattr(actor.platform, "node", lambda: "node7")
    refused: Any = object.__new__(StudyActor)
    refused.setup({"job": JOB}, SimpleNamespace(code=here))
    line = "workers on node7 run musweep 0.1 (source bbbb), but the driver runs 0.2 (source aaaa)"
    result = refused.step()
    assert result["done"] and result[REFUSAL].startswith(line) and "\n" not in result[REFUSAL]
    assert actor.other_code(Code("another release of the same source", "bbbb")) == ""
