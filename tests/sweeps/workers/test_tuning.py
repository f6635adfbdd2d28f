"""Tune is started anew when it ends on the loss of a worker. A stand-in runs in its place; nothing here starts Ray."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from job_source import Source, report
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import trial
from ray.tune.search import Searcher

from sweeps.study.resources import Slot
from sweeps.workers import hooks, tuning
from sweeps.workers.job_searcher import RETRIES, JobSearcher
from sweeps.workers.tuning import supervise

REPORT = """Task was killed due to the node running low on memory.
Considered workers: [
Skipped: (Actor(actor-of-k0): job ID=01000000)
Selected to kill: (Actor(actor-of-k1): job ID=01000000)
Skipped: (Actor(actor-of-k2): job ID=01000000)
]"""


class Tune:
    """Runs every job that the searcher hands out, and dies as often as it is told, with two jobs running."""

    def __init__(self, searcher: JobSearcher, deaths: list[RayError], knows_actors: bool = True):
        self.searcher = searcher
        self.deaths = deaths
        self.knows_actors = knows_actors
        self.runs = 0
        self._names: Iterator[str] = (f"t{number}" for number in range(1000))

    def __call__(self) -> None:
        self.runs += 1
        while True:
            taken = self._take(2)
            if self.deaths and taken:
                error = self.deaths.pop(0)
                raise RuntimeError(f"Caught unexpected exception: {error}") from error
            if not taken:
                return
            for name in taken:
                report(self.searcher, name)

    def _take(self, count: int) -> list[str]:
        taken: list[str] = []
        for name in (next(self._names) for _ in range(count)):
            suggestion = self.searcher.suggest(name)
            if suggestion is None or suggestion == Searcher.FINISHED:
                break
            running = self.searcher.running[name]
            running.started = 1.0
            running.actor = f"actor-of-{running.job.key}" if self.knows_actors else ""
            taken.append(name)
        return taken


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("low"), NodeDiedError("gone"), RayError("another")]
)
def test_the_loss_of_a_worker_that_ends_tune_costs_no_trial(
    searcher: JobSearcher, source: Source, error: RayError
) -> None:
    tune = Tune(searcher, [error])
    supervise(tune, searcher)
    assert tune.runs == 2
    assert sorted(r.key for r in source.records) == ["k0", "k1", "k2"]
    assert {r.status for r in source.records} == {"finished"}


def test_a_trial_that_ended_before_is_not_run_again(searcher: JobSearcher, source: Source) -> None:
    tune = Tune(searcher, [])
    (done,) = tune._take(1)
    report(searcher, done)
    tune.deaths = [OutOfMemoryError("low")]
    supervise(tune, searcher)
    assert [r.key for r in source.records] == ["k0", "k1", "k2"]


def test_a_trial_that_kills_its_worker_each_time_is_recorded_and_those_beside_it_finish(
    searcher: JobSearcher, source: Source
) -> None:
    tune = Tune(searcher, [OutOfMemoryError(REPORT) for _ in range(RETRIES + 1)])
    supervise(tune, searcher)
    assert tune.runs == RETRIES + 2
    records = {r.key: r for r in source.records}
    assert len(source.records) == 3
    assert {key: (r.status, r.cause) for key, r in records.items()} == {
        "k0": ("finished", ""),
        "k1": ("failed", "memory"),
        "k2": ("finished", ""),
    }
    assert records["k1"].reason == (
        "out of memory, 4 times: OutOfMemoryError: Task was killed due to the node running low on memory."
    )


def test_where_nobody_knows_whose_worker_was_lost_all_that_ran_come_to_an_end(
    searcher: JobSearcher, source: Source
) -> None:
    """They are said to be lost, which the next run repeats, and not to be short of memory."""
    deaths: list[RayError] = [OutOfMemoryError(REPORT) for _ in range(RETRIES + 1)]
    tune = Tune(searcher, deaths, knows_actors=False)
    supervise(tune, searcher)
    records = {r.key: r for r in source.records}
    assert [(r.cause, r.lost) for r in (records["k0"], records["k1"])] == [
        ("infrastructure", True)
    ] * 2
    assert "lost 4 times: OutOfMemoryError: Task was killed" in records["k0"].reason
    assert records["k2"].status == "finished"


def test_a_tune_that_dies_without_any_trial_is_given_up(searcher: JobSearcher) -> None:
    calls: list[int] = []

    def fit() -> None:
        calls.append(1)
        raise RuntimeError("again") from NodeDiedError("gone")

    with pytest.raises(RuntimeError, match="again"):
        supervise(fit, searcher)
    assert len(calls) == RETRIES + 2


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        ValueError("a fault of this program"),
        RayTaskError("f", "text", ValueError("no")),
        OSError("no space left"),
    ],
)
def test_what_is_no_lost_worker_goes_through_at_once(
    searcher: JobSearcher, source: Source, error: BaseException
) -> None:
    def fit() -> None:
        searcher.suggest("a")
        raise error

    with pytest.raises(type(error)):
        supervise(fit, searcher)
    assert source.records == []


@pytest.mark.parametrize("ends", [False, True])
def test_the_error_of_the_source_goes_through_however_tune_ends(
    searcher: JobSearcher, source: Source, ends: bool
) -> None:
    source.broken = True

    def fit() -> Any:
        searcher.suggest("a")
        report(searcher, "a")
        if not ends:
            raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("low")

    with pytest.raises(OSError, match="no space left"):
        supervise(fit, searcher)


def test_tune_fetches_a_trainable_once_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(name: str) -> type:
        fetched.append(name)
        return type(name, (), {})

    monkeypatch.setattr(trial, "get_trainable_cls", fetch)
    with tuning._trainable_kept():
        one = SimpleNamespace(stub=False, trainable_name="Work")
        kept = [trial.Trial.get_trainable_cls(one) for _ in range(3)]  # type: ignore[arg-type]
    assert fetched == ["Work"] and len(set(kept)) == 1
    assert trial.get_trainable_cls is fetch


def controller(*statuses: str) -> SimpleNamespace:
    """Tune's controller as far as it holds trials, of which those at the end have ended."""
    trials = [trial.Trial("x", stub=True, trial_id=f"t{number}") for number in range(len(statuses))]
    for one, status in zip(trials, statuses, strict=True):
        one.set_status(status)
    sets: dict[str, Any] = {
        name: {t for t in trials if t.is_finished()} for name in hooks.ENDED_TRIALS
    }
    return SimpleNamespace(get_trials=lambda: trials, **sets)


def test_tune_forgets_the_trials_that_have_ended(searcher: JobSearcher) -> None:
    tune = controller("TERMINATED", "RUNNING", "ERROR", "PENDING")
    trials = tune.get_trials()
    ended = weakref.WeakSet(t for t in trials if t.is_finished())
    hooks.EarlyStopScheduler(searcher).on_trial_complete(tune, trials[1], {})
    assert [t.trial_id for t in trials] == ["t1", "t3"]
    gc.collect()
    assert not ended


def test_tune_holds_ended_trials_where_they_are_taken_from() -> None:
    made = inspect.getsource(TuneController.__init__)
    assert all(f"self.{name}: Set[Trial] = set()" in made for name in hooks.ENDED_TRIALS)


def test_a_job_is_not_copied(source: Source) -> None:
    job = source.next()
    assert copy.deepcopy({"job": job})["job"] is job


def test_equal_resources_of_trials_are_one_object(source: Source) -> None:
    slots = {"trial": Slot(cpus=1), "train": Slot(cpus=2)}
    inputs: Any = SimpleNamespace(setup=lambda job: SimpleNamespace(slot=slots[job.work]))
    resources, job = tuning.resources_of(inputs), source.next()
    assert job is not None
    here, elsewhere = {"strategy": "PACK"}, {"strategy": "SPREAD"}
    one = resources({"job": job, "placement": here})
    assert resources({"job": job, "placement": dict(here)}) is one
    assert resources({"job": job, "placement": elsewhere}) != one
    training = resources({"job": replace(job, work="train"), "placement": here})
    assert [one.bundles, training.bundles] == [[{"CPU": 1.0}], [{"CPU": 2.0}]]
