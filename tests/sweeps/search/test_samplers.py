"""Every sampler: it draws within the ranges, learns where it can, and a restart changes nothing. No Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
import studies
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mu.record import TrialRecord
from sweeps.plan import Job
from sweeps.search.points import SobolSampler
from sweeps.search.positions import position_of, value_at
from sweeps.search.samplers import make_sampler, startup_trials
from sweeps.study import study
from sweeps.study.search import Search
from tests.sweeps.search.test_cells import Driver, make

SAMPLERS = get_args(Search.model_fields["sampler"].annotation)
DRAWN = [name for name in SAMPLERS if name != "grid"]
LEARNING = ["tpe", "gp", "cmaes"]
FEW = {"gp": 7}
"""Trials of a sampler that takes half a second to draw one; its model draws from the fourth on, as that of others."""
SPACE: dict[str, Any] = {
    "lr": {"low": 1e-5, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.9},
    "batch_size": {"low": 16, "high": 128, "step": 16},
    "optimizer": {"choices": ["sgd", "adamw"]},
}
TWO = ["avg_gap_natmu", "time_unlearn"]


class Landscape(Driver):
    """A driver whose objective has its least value, 0, at lr 0.01 and momentum 0.6."""

    def record(self, job: Job, status: str = "finished", value: float | None = None) -> TrialRecord:
        away = (math.log10(job.knobs["lr"]) + 2) ** 2 / 6 + (job.knobs["momentum"] - 0.6) ** 2
        record = super().record(job, status, away if value is None else value)
        return replace(record, time_unlearn=1 + job.knobs["momentum"])


def landscape(folder: Path, sampler: str, trials: int, **changes: Any) -> Landscape:
    folder.mkdir(exist_ok=True)
    objective = TWO if sampler == "nsga2" else "avg_gap_natmu"
    entry = {"name": "finetune", "fix": {"epochs": 1, "weight_decay": 0.0}, "space": SPACE}
    made = make(folder, **{
        "methods": [entry],
        "forget": {"some": studies.TINY["forget"]["some"]},
        "experiments": {},
        "search": {"trials": trials, "sampler": sampler, "objective": objective},
        **changes,
    })  # fmt: skip
    return Landscape(made.plan, made.path, made.records)


def knobs(jobs: list[Job]) -> list[Mapping[str, Any]]:
    return [job.knobs for job in jobs]


@pytest.mark.parametrize("sampler", DRAWN)
def test_it_draws_within_the_ranges_and_seldom_the_same_twice(tmp_path: Path, sampler: str) -> None:
    trials = FEW.get(sampler, 14)
    driver = landscape(tmp_path, sampler, trials)
    drawn = knobs(driver.drain(driver.open()))
    different = {str(sorted(each.items())) for each in drawn}
    assert len(drawn) == trials
    assert len(different) >= (10 if sampler == "nsga2" else trials)  # it may draw a parent again
    for each in drawn:
        for span in driver.plan.study.method("finetune").ranges:
            assert each[span.knob] in span
        assert each["batch_size"] % 16 == 0


@pytest.mark.parametrize("sampler", DRAWN)
def test_a_search_that_is_interrupted_draws_the_same(tmp_path: Path, sampler: str) -> None:
    """Once with its journal, once with its records alone."""
    trials = FEW.get(sampler, 12)
    once = landscape(tmp_path / "once", sampler, trials)
    undisturbed = knobs(once.drain(once.open()))
    for name in ("with", "without"):
        driver = landscape(tmp_path / name, sampler, trials)
        cells, jobs = driver.open(), []
        for count in range(3 * trials // 4):
            job = cells.next()
            assert job is not None
            jobs.append(job)
            driver.finish(cells, job)
            if count % 3 == 2:
                if name == "without":
                    driver.path.unlink()
                cells = driver.open()
        jobs += driver.drain(cells)
        assert knobs(jobs) == undisturbed, name


@pytest.mark.parametrize("sampler", DRAWN)
def test_a_driver_that_dies_between_two_knobs_draws_the_others_as_it_would_have(
    tmp_path: Path, sampler: str
) -> None:
    """The journal of nine trials, cut after each line of the last, when a model draws."""
    trials = FEW.get(sampler, 9)
    whole = landscape(tmp_path / "whole", sampler, trials)
    expected = [job.key for job in whole.drain(whole.open())]
    lines = whole.path.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"datetime_start"' in line)
    for count in range(last + 1, len(lines)):
        driver = landscape(tmp_path / str(count), sampler, trials)
        driver.path.write_bytes(b"".join(lines[:count]))
        driver.records += whole.records[: trials - 1]
        assert [job.key for job in driver.drain(driver.open())] == expected[-1:], lines[count - 1]


@pytest.mark.parametrize("sampler", LEARNING)
def test_it_learns_where_the_objective_is_low(tmp_path: Path, sampler: str) -> None:
    trials, first = (24, 6) if sampler in FEW else (40, 10)
    driver = landscape(tmp_path, sampler, trials)
    values = [
        driver.record(job).metrics["val"]["avg_gap_natmu"] for job in driver.drain(driver.open())
    ]
    assert np.median(values[-15:]) < 0.5 * np.median(values[1 : first + 1])


def test_the_front_of_two_objectives_moves(tmp_path: Path) -> None:
    driver = landscape(tmp_path, "nsga2", 60)
    driver.drain(driver.open())
    sums = [sum(trial.values) for trial in driver.trials("some", "finetune")]
    assert np.median(sums[-20:]) < np.median(sums[1:16])


def test_trials_that_run_are_kept_away_from(tmp_path: Path) -> None:
    """Eight trials are asked for at once after the first ones: their points differ."""
    driver = landscape(tmp_path, "tpe", 20)
    cells = driver.open()
    for _ in range(12):
        job = cells.next()
        assert job is not None
        driver.finish(cells, job)
    asked = [cells.next() for _ in range(8)]
    rates = sorted(math.log10(job.knobs["lr"]) for job in asked if job is not None)
    assert len(rates) == 8 and min(np.diff(rates)) > 0


@pytest.mark.parametrize(("trials", "startup"), [(1, 3), (10, 3), (15, 3), (16, 4), (30, 7)])
def test_a_quarter_of_the_trials_is_random_first_but_three_at_least(
    trials: int, startup: int
) -> None:
    assert startup_trials(trials) == startup


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_the_settings_are_those_that_the_docs_state(tmp_path: Path, sampler: str) -> None:
    plan = landscape(tmp_path, sampler, 20).plan
    made = make_sampler(
        plan.study.search, plan.study.method("finetune"), "s", ("some", "finetune"), 1
    )
    settings = vars(made)
    if sampler == "nsga2":
        assert settings["_population_size"] == 5
        return
    assert settings["_n_startup_trials"] == 5
    if sampler == "tpe":
        assert settings["_multivariate"] and settings["_group"] and settings["_constant_liar"]


def test_conditional_knobs_are_drawn_only_where_they_apply(tmp_path: Path) -> None:
    space = {
        "optimizer": {"choices": ["sgd", "adamw"]},
        "lr": {"low": 1e-5, "high": 1.0, "log": True},
        "momentum": {"low": 0.0, "high": 0.5, "when": {"optimizer": "sgd"}},
    }
    entry = {"name": "finetune", "fix": {"epochs": 1, "weight_decay": 0.0}, "space": space}
    for sampler in DRAWN:
        driver = landscape(tmp_path / sampler, sampler, 12, methods=[entry])
        drawn = knobs(driver.drain(driver.open()))
        assert len(drawn) == 12
        default = driver.plan.study.method("finetune").fixed["momentum"]
        assert all(each["momentum"] == default for each in drawn if each["optimizer"] == "adamw")
        assert {each["optimizer"] for each in drawn} == {"sgd", "adamw"}, sampler


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_several_objectives_are_told_together(tmp_path: Path, sampler: str) -> None:
    search = {"trials": 8, "sampler": sampler, "objective": TWO}
    driver = landscape(tmp_path, sampler, 8, search=search)
    driver.drain(driver.open())
    for trial in driver.trials("some", "finetune"):
        assert trial.values[1] == pytest.approx(1 + trial.params["momentum"])


def test_the_points_of_qmc_fill_the_ranges_evenly() -> None:
    """Any 2^k points of a scrambled Sobol sequence that start at a multiple of 2^k have one in each k-th of a range."""
    space = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
    frozen = optuna.create_study().ask()._cached_frozen_trial
    drawn = [SobolSampler(space, 5, number) for number in range(16)]
    for name in space:
        points = [each.sample_independent(None, frozen, name, space[name]) for each in drawn]  # type: ignore[arg-type]
        assert Counter(int(16 * point) for point in points) == dict.fromkeys(range(16), 1)


@pytest.mark.parametrize(
    ("values", "at", "expected"),
    [
        (FloatDistribution(1e-4, 1e-2, log=True), 0.5, 1e-3),
        (FloatDistribution(-1.0, 3.0), 0.25, 0.0),
        (FloatDistribution(0.5, 1.0, step=0.25), 0.5, 0.75),
        (IntDistribution(1, 4), 0.0, 1),
        (IntDistribution(1, 4), 0.26, 2),
        (IntDistribution(1, 4), 1.0, 4),
        (IntDistribution(1, 64, log=True), 0.0, 1),
        (IntDistribution(16, 64, step=16), 0.6, 48),
        (CategoricalDistribution(("a", "b", "c")), 0.5, "b"),
        (CategoricalDistribution(("a", "b", "c")), 1.0, "c"),
    ],
)
def test_a_position_of_a_range_is_a_value(values: Any, at: float, expected: Any) -> None:
    found = value_at(values, at)
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)
    assert type(found) is type(expected)
    if not isinstance(values, CategoricalDistribution):
        assert value_at(values, position_of(values, found)) == pytest.approx(found)


def test_every_whole_number_has_the_same_share() -> None:
    drawn = Counter(value_at(IntDistribution(1, 4), (n + 0.5) / 400) for n in range(400))
    assert drawn == {1: 100, 2: 100, 3: 100, 4: 100}


def test_what_a_search_stores_is_no_pickle(tmp_path: Path) -> None:
    driver = landscape(tmp_path, "cmaes", 14)
    driver.drain(driver.open())
    assert b"optimizer:" not in driver.path.read_bytes()


CHOICES = {"name": "jit", "space": {"lr": {"choices": [1e-4, 1e-3]}}, "fix": {"sigma": 0.5}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": {"sampler": "cmaes", "objective": TWO}},
            "search: sampler cmaes minimises one objective, but there are several",
        ),
        (
            {"search": {"sampler": "nsga2", "objective": "avg_gap_natmu"}},
            "search: sampler nsga2 needs several objectives, but there is one",
        ),
        (
            {"search": {"sampler": "cmaes"}, "methods": [CHOICES]},
            "search: sampler cmaes needs a range of numbers without `when`, but jit has none",
        ),
    ],
)
def test_a_sampler_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match="^study.yaml: " + message):
        study.parse(studies.tiny(**changes), "study.yaml")
