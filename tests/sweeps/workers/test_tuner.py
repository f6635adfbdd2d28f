"""What the driver decides about slots and lost workers. Nothing here starts Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.search import Searcher

from mu.record import TrialRecord
from sweeps.plan import Job
from sweeps.run import repeats
from sweeps.study.resources import Resources, RunSettings, Slot
from sweeps.workers.cluster import fit, ray_options
from sweeps.workers.tuner import RETRIES, JobSearcher, _ActorManager

SHARE = Slot(cpus=1, gpus=0.25)


@pytest.mark.parametrize(
    ("share", "node", "count"),
    [
        (Slot(cpus=1), {"CPU": 8.0}, 8),
        (Slot(cpus=3), {"CPU": 8.0}, 2),
        (Slot(cpus=1), {}, 0),
        (Slot(cpus=1, gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 8),
        (Slot(cpus=4, gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 4),
        (Slot(cpus=0, gpus=0.4), {"CPU": 1.0, "GPU": 2.0}, 4),  # two on each, and none on both
        (Slot(cpus=0, gpus=0.1), {"GPU": 1.0}, 10),
        (Slot(cpus=1, gpus=2), {"CPU": 16.0, "GPU": 5.0}, 2),
        (Slot(cpus=1, custom={"place": 0.5}), {"CPU": 16.0, "place": 2.0}, 4),
        (Slot(cpus=1, custom={"place": 1}), {"CPU": 16.0}, 0),
    ],
)
def test_a_node_holds_as_many_as_all_its_resources_do(
    share: Slot, node: dict[str, float], count: int
) -> None:
    assert fit(share, node) == count


def test_a_share_is_asked_of_ray_by_its_names() -> None:
    share = Slot(cpus=2, gpus=0.5, custom={"place": 1})
    assert ray_options(share) == {"num_cpus": 2, "num_gpus": 0.5, "resources": {"place": 1}}


class Source:
    """Three jobs, and what became of them."""

    study = "tiny"

    def __init__(self) -> None:
        self.waiting = [Job(f"k{n}", "search", "some", "jit", 0, {}, n) for n in range(3)]
        self.records: list[TrialRecord] = []
        self.broken = False

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def ended(self, record: TrialRecord) -> None:
        if self.broken:
            raise OSError("no space left")
        self.records.append(record)

    def keep(self, job: Job, arrays: Any) -> None:
        raise AssertionError("nothing was kept")

    def draft(self, job: Job) -> None:
        return None

    def keep_draft(self, job: Job, arrays: Any) -> None:
        raise AssertionError("nothing was saved")

    def behind(self, job: Job, point: Any) -> bool:
        return False


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def feed(source: Source) -> JobSearcher:
    return JobSearcher(source, lambda: 2, SHARE, timeout_seconds=5)


def well(feed: JobSearcher, trial: str) -> None:
    ending = {"status": "finished", "time_total": 1.5}
    feed.on_trial_complete(trial, {"ending": json.dumps(ending), "kept": b""})


def test_no_more_run_than_are_wanted_and_the_end_is_the_last_one(
    feed: JobSearcher, source: Source
) -> None:
    assert [feed.suggest(name)["job"].key for name in "ab"] == ["k0", "k1"]
    assert feed.suggest("c") is None
    well(feed, "a")
    assert feed.suggest("c")["job"].key == "k2"
    well(feed, "b")
    assert feed.suggest("d") is None, "the one that runs may be lost"
    well(feed, "c")
    assert feed.suggest("d") == Searcher.FINISHED
    assert [r.key for r in source.records] == ["k0", "k1", "k2"]
    assert source.records[0].resources == {"cpus": 1, "gpus": 0.25}
    assert source.records[0].cost("gpus") == 1.5 / 4


def test_a_lost_job_starts_again_and_is_given_up_after_its_retries(
    feed: JobSearcher, source: Source
) -> None:
    source.waiting = source.waiting[:1]
    for attempt in range(RETRIES + 1):
        assert feed.suggest(f"t{attempt}")["job"].key == "k0"
        assert source.records == []
        feed.last_words[f"t{attempt}"] = "the node died"
        feed.on_trial_complete(f"t{attempt}", error=True)
    (lost,) = source.records
    assert (lost.status, lost.cause, lost.lost) == ("failed", "infrastructure", True)
    assert lost.reason == "its worker was lost 4 times: the node died"
    assert feed.suggest("end") == Searcher.FINISHED


def test_one_that_took_too_long_is_not_started_again(feed: JobSearcher, source: Source) -> None:
    feed.suggest("a")
    feed.overdue.add("a")
    feed.on_trial_complete("a", error=True)
    (late,) = source.records
    assert (late.status, late.cause, late.lost) == ("failed", "timeout", False)
    assert late.reason == "timeout: it had not ended after 5 s"


def test_one_that_is_short_of_memory_each_time_says_so(feed: JobSearcher, source: Source) -> None:
    source.waiting = source.waiting[:1]
    for attempt in range(RETRIES + 1):
        feed.suggest(f"t{attempt}")
        feed.last_words[f"t{attempt}"] = "OutOfMemoryError: node low on memory"
        feed.on_trial_complete(f"t{attempt}", error=True)
    assert source.records[0].cause == "memory"


def test_a_source_that_cannot_go_on_ends_the_run_and_keeps_its_error(
    feed: JobSearcher, source: Source
) -> None:
    feed.suggest("a")
    feed.suggest("b")
    source.broken = True
    well(feed, "a")
    assert isinstance(feed.error, OSError)
    well(feed, "b")
    assert source.records == []
    assert feed.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("error", "handed_on"),
    [
        (OutOfMemoryError("low"), RayActorError),
        (RayActorError(error_msg="dead"), RayActorError),
        (RayTaskError("f", "text", ValueError("no")), RayTaskError),
    ],
)
def test_a_worker_that_ray_ended_for_its_memory_is_a_lost_worker(
    monkeypatch: pytest.MonkeyPatch, error: Exception, handed_on: type[Exception]
) -> None:
    """Tune's own manager ends the whole run on it."""
    seen: list[Exception] = []
    parent = _ActorManager.__mro__[1]
    monkeypatch.setattr(
        parent, "_actor_task_failed", lambda self, task, exception: seen.append(exception)
    )
    _ActorManager._actor_task_failed(object.__new__(_ActorManager), None, error)
    assert isinstance(seen[0], handed_on)
    if isinstance(error, OutOfMemoryError):
        assert "OutOfMemoryError" in str(seen[0])


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
    assert repeats(replace(RECORD, cause=cause, time_total=5.1), operation) is again
    assert not repeats(replace(RECORD, status="finished"), operation)
