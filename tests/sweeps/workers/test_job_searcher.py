"""Jobs handed out and taken back: how many run, what is recorded, and what a lost worker means. Nothing here starts Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from job_source import Source, TwoSlots, lost_worker, report
from ray.tune.search import Searcher

from mu.record import TrialRecord
from sweeps.errors import SweepError
from sweeps.flow.changes import runs_again
from sweeps.study.resources import Resources, RunSettings
from sweeps.workers.job_searcher import REFUSAL, RETRIES, JobSearcher


def test_no_more_run_than_are_wanted_and_the_end_is_the_last_one(
    searcher: JobSearcher, source: Source
) -> None:
    assert [searcher.suggest(name)["job"].key for name in "ab"] == ["k0", "k1"]
    assert searcher.suggest("c") is None
    report(searcher, "a")
    assert searcher.suggest("c")["job"].key == "k2"
    report(searcher, "b")
    assert searcher.suggest("d") is None, "the one that runs may be lost"
    report(searcher, "c")
    assert searcher.suggest("d") == Searcher.FINISHED
    assert [r.key for r in source.records] == ["k0", "k1", "k2"]
    assert source.records[0].resources == {"cpus": 1, "gpus": 0.25}
    assert source.records[0].cost("gpus") == 1.5 / 4


def test_a_job_of_another_size_takes_the_place_of_several_trials(source: Source) -> None:
    searcher = JobSearcher(source, TwoSlots(size=2.0), timeout_seconds=5)
    source.waiting[0] = replace(source.waiting[0], work="train")
    assert searcher.suggest("a")["job"].work == "train"
    assert searcher.suggest("b") is None, "it fills both places"
    report(searcher, "a")
    assert [searcher.suggest(name)["job"].key for name in "bc"] == ["k1", "k2"]


def test_a_job_comes_with_what_it_needs(searcher: JobSearcher) -> None:
    taken = searcher.suggest("a")
    assert taken["objects"] == {"scores": "scores of k0"}
    assert taken["checkpoint"] is None
    assert taken["placement"] == {"strategy": "PACK"}


def test_lost_attempts_are_billed_to_the_job(
    searcher: JobSearcher, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    for attempt in ("a", "b"):
        searcher.suggest(attempt)
        searcher.running[attempt].started = now
        now += 7
        lost_worker(searcher, attempt, "the node died")
    searcher.suggest("c")
    report(searcher, "c")
    (record,) = source.records
    assert record.time_total == 7 + 7 + 1.5


def test_what_was_lost_with_the_driver_is_billed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "unbilled.json", 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    for seconds in (7, 5):  # two drivers are killed
        killed = JobSearcher(Source(path), TwoSlots(), None)
        killed.suggest("a")
        killed.running["a"].started = now
        now += seconds
        killed.note_running()
    last = Source(path)
    searcher = JobSearcher(last, TwoSlots(), None)
    searcher.suggest("a")
    report(searcher, "a")
    assert last.records[0].time_total == 7 + 5 + 1.5
    searcher.note_running(now=True)
    assert path.read_text() == "{}"


def test_a_lost_job_starts_again_and_is_given_up_after_its_retries(
    searcher: JobSearcher, source: Source
) -> None:
    source.waiting = source.waiting[:1]
    for attempt in range(RETRIES + 1):
        assert searcher.suggest(f"t{attempt}")["job"].key == "k0"
        assert source.records == []
        lost_worker(searcher, f"t{attempt}", "the node died")
    (lost,) = source.records
    assert (lost.status, lost.cause, lost.lost) == ("failed", "infrastructure", True)
    assert lost.reason == "its worker was lost 4 times: the node died"
    assert lost.resources == {"cpus": 1, "gpus": 0.25}
    assert searcher.suggest("end") == Searcher.FINISHED


def test_a_trial_that_took_too_long_is_not_started_again(
    searcher: JobSearcher, source: Source
) -> None:
    searcher.suggest("a")
    searcher.overdue.add("a")
    searcher.on_trial_complete("a", error=True)
    (late,) = source.records
    assert (late.status, late.cause, late.lost) == ("failed", "timeout", False)
    assert late.reason == "timeout: it had not ended after 5 s"


def test_a_trial_that_is_short_of_memory_each_time_says_so(
    searcher: JobSearcher, source: Source
) -> None:
    source.waiting = source.waiting[:1]
    for attempt in range(RETRIES + 1):
        searcher.suggest(f"t{attempt}")
        lost_worker(searcher, f"t{attempt}", "OutOfMemoryError: node low on memory")
    assert source.records[0].cause == "memory"


def test_a_source_that_cannot_go_on_ends_the_run_and_keeps_its_error(
    searcher: JobSearcher, source: Source
) -> None:
    searcher.suggest("a")
    searcher.suggest("b")
    source.broken = True
    report(searcher, "a")
    assert isinstance(searcher.error, OSError)
    report(searcher, "b")
    assert source.records == []
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_job_that_only_waited_when_tune_ended_has_lost_nothing(
    searcher: JobSearcher, source: Source
) -> None:
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.running["a"].started = 1.0
    assert searcher.requeue("LocalRayletDiedError") == 1
    assert searcher.running == {}
    assert [searcher.suggest(name)["job"].key for name in "cd"] == ["k0", "k1"]
    assert source.records == []


def test_an_overdue_job_is_recorded_when_tune_ends_first(
    searcher: JobSearcher, source: Source
) -> None:
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.overdue.add("a")
    assert searcher.requeue("OutOfMemoryError", {"b"}) == 2
    assert [(r.key, r.cause) for r in source.records] == [("k0", "timeout")]
    assert searcher.suggest("c")["job"].key == "k1"


RECORD = TrialRecord("k", "tiny", "search", "some", "jit", 0, "failed", resources={"cpus": 1.0})


@pytest.mark.parametrize(
    ("cause", "operation", "again"),
    [
        ("exception", RunSettings(), False),
        ("infrastructure", RunSettings(), True),
        ("memory", RunSettings(), False),
        ("memory", RunSettings(resources=Resources(cpus=2)), True),
        ("timeout", RunSettings(trial_timeout=5), False),
        ("timeout", RunSettings(trial_timeout=60), True),
        ("timeout", RunSettings(), True),
    ],
)
def test_what_is_repeated_by_the_next_run(cause: str, operation: RunSettings, again: bool) -> None:
    """What was lost, and what a limit ended that is another now."""
    assert runs_again(replace(RECORD, cause=cause, time_total=5.1), operation) is again
    assert not runs_again(replace(RECORD, status="finished"), operation)


def test_a_worker_that_takes_no_job_ends_the_run_with_its_reason(
    searcher: JobSearcher, source: Source
) -> None:
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"done": True, REFUSAL: "workers run something else"})
    assert isinstance(searcher.error, SweepError) and str(searcher.error).startswith("workers run")
    assert searcher.suggest("b") == Searcher.FINISHED and source.records == []
