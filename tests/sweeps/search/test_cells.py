"""The interleaved search: equal budgets, honest tells, and going on after a crash. No Ray."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import studies
from optuna.trial import TrialState

from mu.record import TrialRecord
from sweeps import preflight
from sweeps.plan import Job, Plan
from sweeps.search.cells import Cells
from sweeps.study import study


@dataclass
class Driver:
    """Runs jobs at once, with a made-up objective that depends on the knobs."""

    plan: Plan
    path: Path
    records: list[TrialRecord]

    def open(self) -> Cells:
        return Cells(self.plan, str(self.path), self.records)

    def record(self, job: Job, status: str = "finished", value: float | None = None) -> TrialRecord:
        rate = job.knobs["lr"] or job.knobs["lr_per_sigma"]
        gap = abs(math.log10(rate) + 2) if value is None else value
        scores = {"val": {"avg_gap_natmu": gap}} if status == "finished" else {}
        return TrialRecord(
            job.key, "tiny", "search", job.forget, job.method, job.seed, status,
            dict(job.knobs), job.number, metrics=scores,
        )  # fmt: skip

    def finish(self, cells: Cells, job: Job, **how: Any) -> None:
        record = self.record(job, **how)
        self.records.append(record)
        cells.ended(record)

    def drain(self, cells: Cells) -> list[Job]:
        jobs = []
        while (job := cells.next()) is not None:
            jobs.append(job)
            self.finish(cells, job)
        return jobs

    def trials(self, forget: str, method: str) -> list[optuna.trial.FrozenTrial]:
        return studies.searched(str(self.path), forget, method).trials


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return make(tmp_path)


def make(folder: Path, **changes: Any) -> Driver:
    wanted = study.parse(studies.tiny(**changes), "study.yaml")
    data = preflight.load_data(wanted, "study.yaml")
    return Driver(Plan(wanted, data), folder / "optuna.journal", [])


def test_every_cell_gets_the_same_number_of_trials_in_turns(driver: Driver) -> None:
    cells = driver.open()
    assert cells.remaining() == 12
    jobs = driver.drain(cells)
    assert [(j.forget, j.method) for j in jobs[:4]] == driver.plan.cells
    assert len(jobs) == 12
    assert {j.number for j in jobs} == {0, 1, 2}
    assert len({j.key for j in jobs}) == 12
    assert cells.remaining() == 0


NOTHING = {"name": "finetune", "fix": {"lr": 0.01, "weight_decay": 0.0, "epochs": 2}}
"""A method with nothing to search."""


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_what_has_nothing_to_search_gets_one_trial_for_each_seed(
    tmp_path: Path, sampler: str
) -> None:
    changes = grid_of(1e-4, 1e-3, 1e-2)
    changes["methods"].insert(0, NOTHING)
    changes["search"] |= {"sampler": sampler, "trials": 6}
    driver = make(tmp_path, **changes, seeds={"search": [0, 3], "report": [1], "retrain": 1})
    cells = driver.open()
    assert driver.plan.counts["search"] == cells.remaining() == 2 * (1 + 6) * 2
    jobs = driver.drain(cells)
    tried = Counter((job.forget, job.method, job.seed) for job in jobs)
    for forget in ("some", "three"):
        for seed in (0, 3):
            assert (tried[forget, "finetune", seed], tried[forget, "jit", seed]) == (1, 6)
    assert (cells.asked, cells.remaining(), cells.next()) == (6, 0, None)
    again = driver.open()
    assert (again.asked, again.remaining(), again.next()) == (6, 0, None)


def test_a_search_is_as_far_as_the_cells_that_have_not_had_all(tmp_path: Path) -> None:
    cells = make(tmp_path, methods=[NOTHING, studies.JIT]).open()
    for asked in (0, 0, 0, 0, 1, 1, 2, 2, 3):
        assert cells.asked == asked
        cells.next()


def test_the_authors_knobs_are_tried_first(driver: Driver) -> None:
    first = driver.drain(driver.open())[:4]
    for job in first:
        assert job.knobs == driver.plan.study.method(job.method).fixed


def grid_of(*points: float) -> dict[str, Any]:
    """Changes to the tiny study: every pair of these learning rates and two widths of the noise."""
    space = {
        "lr_per_sigma": {"choices": list(points)},
        "sigma": {"low": 0.5, "high": 1.0, "step": 0.5},
    }
    search = {"sampler": "grid", "objective": "avg_gap_natmu"}
    return {"methods": [{"name": "jit", "space": space}], "search": search}


def test_a_grid_tries_every_combination_once(tmp_path: Path) -> None:
    driver = make(tmp_path, **grid_of(1e-4, 1e-3, 1e-2))
    cells = driver.open()
    assert cells.remaining() == 12
    jobs = [job for job in driver.drain(cells) if job.forget == "some"]
    tried = [(job.knobs["lr_per_sigma"], job.knobs["sigma"]) for job in jobs]
    assert tried == [(lr, s) for lr in (1e-4, 1e-3, 1e-2) for s in (0.5, 1.0)]


def test_a_grid_goes_on_where_it_was(tmp_path: Path) -> None:
    driver = make(tmp_path, **grid_of(1e-4, 1e-3))
    cells = driver.open()
    for _ in range(3):
        job = cells.next()
        assert job is not None
        driver.finish(cells, job)
    cells.next()  # asked, and lost
    driver.drain(driver.open())
    tried = {(r.forget, r.knobs["lr_per_sigma"], r.knobs["sigma"]) for r in driver.records}
    assert len(tried) == len(driver.records) == 8


def test_what_ended_is_told_with_its_state(driver: Driver) -> None:
    cells = driver.open()
    ends: dict[str, tuple[str, float | None]] = {}
    for how in (("finished", 0.25), ("stopped", None), ("diverged", None), ("failed", None)):
        job = cells.next()
        assert job is not None
        ends[f"{job.forget}/{job.method}"] = how
        driver.finish(cells, job, status=how[0], value=how[1])
    expected = {
        "finished": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "diverged": TrialState.FAIL,
        "failed": TrialState.FAIL,
    }
    for cell, (status, value) in ends.items():
        trial = driver.trials(*cell.split("/"))[0]
        assert trial.state is expected[status]
        assert trial.value == value


def test_a_value_that_is_not_finite_is_never_told(driver: Driver) -> None:
    cells = driver.open()
    job = cells.next()
    assert job is not None
    driver.finish(cells, job, value=math.nan)
    assert driver.trials(job.forget, job.method)[0].state is TrialState.FAIL


def test_a_driver_that_starts_again_runs_what_never_ended_with_the_same_knobs(
    driver: Driver,
) -> None:
    cells = driver.open()
    asked = [cells.next() for _ in range(7)]
    for job in asked[:4]:
        assert job is not None
        driver.finish(cells, job)
    again = driver.open()
    assert again.remaining() == 12 - 4
    resumed = driver.drain(again)
    assert {j.key for j in resumed[:3]} == {j.key for j in asked[4:] if j}
    assert len({r.key for r in driver.records}) == len(driver.records) == 12
    for cell in driver.plan.cells:
        assert [t.state for t in driver.trials(*cell)] == [TrialState.COMPLETE] * 3


def test_a_record_that_optuna_was_never_told_is_told_at_the_next_start(driver: Driver) -> None:
    cells = driver.open()
    job = cells.next()
    assert job is not None
    driver.records.append(driver.record(job))  # the driver died between writing and telling
    driver.open()
    assert driver.trials(job.forget, job.method)[0].state is TrialState.COMPLETE


def test_the_search_continues_without_its_journal(driver: Driver) -> None:
    cells = driver.open()
    for _ in range(6):
        job = cells.next()
        assert job is not None
        driver.finish(cells, job)
    driver.path.unlink()
    again = driver.open()
    assert again.remaining() == 6
    before = {r.key for r in driver.records}
    assert before.isdisjoint({j.key for j in driver.drain(again)})
    told = [t.value for cell in driver.plan.cells for t in driver.trials(*cell)]
    assert sorted(told) == sorted(r.metrics["val"]["avg_gap_natmu"] for r in driver.records)


def test_configurations_get_their_knobs_back_without_their_journal(driver: Driver) -> None:
    driver.drain(driver.open())
    driver.path.unlink()
    driver.records = [record for record in driver.records if record.number != 1]
    again = driver.open()
    for record in driver.records:
        assert record.number is not None
        params = driver.trials(record.forget, record.method)[record.number].params
        assert params
        assert params == {name: record.knobs[name] for name in params}
    assert [job.number for job in driver.drain(again)] == [1] * len(driver.plan.cells)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (("stopped", "failed"), TrialState.FAIL),
        (("diverged", "finished"), TrialState.FAIL),
        (("finished", "stopped"), TrialState.PRUNED),
    ],
)
def test_one_broken_run_fails_its_configuration(
    tmp_path: Path, statuses: tuple[str, str], state: TrialState
) -> None:
    driver = make(tmp_path, seeds={"search": [0, 7], "report": [1], "retrain": 1})
    cells = driver.open()
    for status in statuses:
        job = cells.next()
        assert job is not None
        driver.finish(cells, job, status=status)
    assert driver.trials(job.forget, job.method)[0].state is state


def test_an_interrupted_search_asks_for_the_same_as_an_undisturbed_one(tmp_path: Path) -> None:
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    once, twice = make(tmp_path / "once"), make(tmp_path / "twice")
    undisturbed = {j.key for j in once.drain(once.open())}
    cells = twice.open()
    for _ in range(5):
        job = cells.next()
        assert job is not None
        twice.finish(cells, job)
    twice.drain(twice.open())
    assert {r.key for r in twice.records} == undisturbed


def test_every_configuration_runs_on_every_search_seed_and_is_told_their_mean(
    tmp_path: Path,
) -> None:
    driver = make(tmp_path, seeds={"search": [0, 7], "report": [1], "retrain": 1}, search__trials=2)
    cells = driver.open()
    assert cells.remaining() == 16
    jobs = []
    for value in (0.1, 0.3):
        job = cells.next()
        assert job is not None
        jobs.append(job)
        driver.finish(cells, job, value=value)
    assert [j.seed for j in jobs] == [0, 7]
    assert jobs[0].knobs == jobs[1].knobs
    assert driver.trials(jobs[0].forget, jobs[0].method)[0].value == pytest.approx(0.2)
    assert len(driver.drain(cells)) == 14


def test_more_trials_can_be_asked_of_a_finished_search(driver: Driver, tmp_path: Path) -> None:
    driver.drain(driver.open())
    more = make(tmp_path, search__trials=5)
    more.records = driver.records
    assert more.open().remaining() == 8


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_defaults_and_a_grid_that_no_record_has_come_back_without_their_journal(
    tmp_path: Path, sampler: str
) -> None:
    driver = make(tmp_path, **(grid_of(1e-4, 1e-3) if sampler == "grid" else {}))
    cells = driver.open()
    asked = [cells.next() for _ in range(6)]
    for job in asked:
        assert job is not None
        if job.number:
            driver.finish(cells, job)  # of the first numbers there is none
    driver.path.unlink()
    again = driver.open()
    lost = {job.key for job in asked if job is not None and not job.number}
    assert lost
    assert {job.key for job in driver.drain(again)[: len(lost)]} == lost


def test_asha_stops_the_one_that_is_behind(tmp_path: Path) -> None:
    methods = [{"name": "finetune", "fix": {"epochs": 2}}, studies.JIT]
    driver = make(tmp_path, methods=methods, search__early_stop="asha", search__trials=8)
    cells = driver.open()
    jobs = [cells.next() for _ in range(32)]
    cell = ("some", "finetune")
    tuned = [job for job in jobs if job is not None and (job.forget, job.method) == cell]
    verdicts = [
        cells.behind(job, [{"epoch": 1, "avg_gap_natmu": float(value)}])
        for job, value in zip(tuned, range(8))
    ]
    assert verdicts == [False, True, True, True, True, True, True, True]
    assert not any(job.rungs for job in jobs if job is not None and job.method == "jit")


def test_tpe_learns_where_the_objective_is_low(tmp_path: Path) -> None:
    driver = make(tmp_path, search__sampler="tpe", search__trials=30)
    driver.drain(driver.open())
    late = [t.value for t in driver.trials("some", "jit")[20:] if t.value is not None]
    early = [t.value for t in driver.trials("some", "jit")[1:11] if t.value is not None]
    assert sum(late) / len(late) < sum(early) / len(early)


def test_a_driver_that_died_between_two_writes_asks_for_the_same_knobs(tmp_path: Path) -> None:
    """Optuna's journal, cut after each of its lines in turn."""
    ranges = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "momentum": {"low": 0.0, "high": 0.9}}
    methods = [{"name": "finetune", "fix": {"epochs": 1}, "space": ranges}]
    whole = make(tmp_path, methods=methods, forget={"some": studies.TINY["forget"]["some"]},
                 experiments={})  # fmt: skip
    expected = {job.key for job in whole.drain(whole.open())}
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        (tmp_path / "cut").write_bytes(b"".join(lines[:count]))
        driver = Driver(whole.plan, tmp_path / "cut", [])
        assert {job.key for job in driver.drain(driver.open())} == expected, lines[count - 1]
    assert len(expected) == 3
