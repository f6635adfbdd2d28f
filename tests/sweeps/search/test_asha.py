"""Early stopping decides the same whichever trial is faster, and after any interruption. No Ray."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import studies
from optuna.trial import TrialState
from slots import Cluster, toy_curve

from mu import methods
from sweeps import preflight
from sweeps.phases import Run
from sweeps.plan import Job, Plan
from sweeps.search.asha import Decision, Halving
from sweeps.search.cells import Cells
from sweeps.study import study
from sweeps.study.rungs import BEHIND, is_judged, rungs_of, say_exempt
from sweeps.study.search import Search

TRIALS = 14
EPOCHS = 12


def plan_of(**changes: Any) -> Plan:
    """One cell of fine-tuning on one request, with early stopping."""
    space = {"lr": {"low": 1e-4, "high": 1.0, "log": True}}
    wanted = {
        "methods": [{"name": "finetune", "fix": {"epochs": EPOCHS}, "space": space}],
        "forget": {"some": studies.TINY["forget"]["some"]},
        "experiments": {},
        "search__early_stop": "asha",
        "search__trials": TRIALS,
        **changes,
    }
    parsed = study.parse(studies.tiny(**wanted), "study.yaml")
    return Plan(parsed, preflight.load_data(parsed, "study.yaml"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of()


@pytest.fixture(scope="module")
def two_seeds() -> Plan:
    return plan_of(seeds={"search": [0, 7], "report": [1], "retrain": 1})


def ran(plan: Plan, folder: Path, name: str, **how: Any) -> Cluster:
    cluster = Cluster(plan, folder / name, **how)
    assert cluster.run()
    return cluster


def random_pace(name: str) -> Any:
    """Every epoch takes a time of its own; some trials are ten times as slow."""
    draw = random.Random(name)
    speed: dict[str, float] = defaultdict(lambda: 10.0 ** draw.uniform(0, 1))
    return lambda job: speed[job.key] * draw.uniform(0.5, 1.5)


def curve_of(values: dict[int, float]) -> list[dict[str, float]]:
    return [{"epoch": epoch, "gap": value} for epoch, value in values.items()]


def test_decisions_of_trials_that_run_in_turn_are_those_of_optunas_pruner(
    plan: Plan, tmp_path: Path
) -> None:
    cluster = ran(plan, tmp_path, "ours")
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    theirs = optuna.create_study(pruner=pruner)
    stops = {}
    for record in cluster.records:
        trial = theirs.ask()
        run = Run(record.forget, record.method, record.knobs)
        job = plan.job("search", run, record.seed, record.number)
        for epoch in range(1, EPOCHS):
            trial.report(toy_curve(job, epoch), epoch)
            if trial.should_prune():
                stops[trial.number] = epoch
                break
        pruned = trial.number in stops
        theirs.tell(trial, *(() if pruned else (0.0,)), state=TrialState.PRUNED if pruned else None)
    assert cluster.stops() == stops
    assert len(set(stops.values())) > 1, "several rungs"
    assert cluster.epochs < 0.6 * TRIALS * EPOCHS


@pytest.mark.parametrize("seeds", ["plan", "two_seeds"])
def test_decisions_are_the_same_in_any_order_of_epochs_and_reports(
    seeds: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plan: Plan = request.getfixturevalue(seeds)
    once = ran(plan, tmp_path, "once", slots=1)
    expected = once.told()
    assert {TrialState.PRUNED, TrialState.COMPLETE} == {t.state for t in once.trials()}
    for n in range(40):
        pace = random_pace(f"pace {n}")
        other = ran(plan, tmp_path, str(n), slots=1 + n % 9, pace=pace, rarely=(n % 3) / 2)
        assert other.told() == expected, n


def test_a_slow_worker_changes_no_decision_and_holds_up_nobody(plan: Plan, tmp_path: Path) -> None:
    once = ran(plan, tmp_path, "once")
    survivor = next(n for n in range(1, TRIALS) if n not in once.stops())
    order: list[int] = []

    def pace(job: Job) -> float:
        assert job.number is not None
        order.append(job.number)
        return 500.0 if job.number == survivor else 1.0

    slow = ran(plan, tmp_path, "slow", slots=4, pace=pace, rarely=0.0)
    assert slow.told() == once.told()
    assert order.index(TRIALS - 1) < len(order) - order[::-1].index(survivor) - 1, "others went on"
    rungs = slow.stops()
    for record in slow.records:
        if record.reason == BEHIND:
            assert record.number is not None
            assert record.curve[-1]["epoch"] >= rungs[record.number]
    ended = {r.number for r in slow.records if r.finished}
    late = ended & rungs.keys()
    assert late, "those that ended before they could be judged keep their results"
    assert all(r.metrics for r in slow.records if r.number in late)


def test_a_trial_stops_at_its_rung_when_all_of_a_lower_number_have_been_there(
    plan: Plan, tmp_path: Path
) -> None:
    cluster = ran(plan, tmp_path, "journal", slots=3)
    rungs = cluster.stops()
    stopped = {r.number: r.curve[-1]["epoch"] for r in cluster.records if r.reason == BEHIND}
    assert stopped == rungs


@pytest.mark.parametrize("seeds", ["plan", "two_seeds"])
@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_driver_that_is_killed_again_and_again_decides_the_same(
    seeds: str, journal: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plan: Plan = request.getfixturevalue(seeds)
    once = ran(plan, tmp_path, "once")
    for n in range(6):
        twice = Cluster(plan, tmp_path / str(n), 1 + n % 4, random_pace(f"again {n}"))
        budget = 13 + n
        while not twice.run(most_epochs=budget):
            budget += 5  # trials begin again, and one must come to its end at last
            if journal == "lost":
                twice.path.unlink()
        if seeds == "plan" or journal == "kept":
            assert twice.told() == once.told()
        else:  # a driver may die between the stops of two seeds, and only the journal knows of both
            assert [t.params for t in twice.trials()] == [t.params for t in once.trials()]
        assert len({r.key for r in twice.records}) == len(twice.records)


def test_tpe_asks_for_the_same_after_an_interruption(tmp_path: Path) -> None:
    plan = plan_of(search__sampler="tpe", search__trials=20)
    once = ran(plan, tmp_path, "once")
    twice = Cluster(plan, tmp_path / "twice")
    while not twice.run(most_epochs=25):
        pass
    assert twice.told() == once.told()


def test_a_stop_ends_every_seed_and_those_that_wait_are_not_started(
    two_seeds: Plan, tmp_path: Path
) -> None:
    cluster = Cluster(two_seeds, tmp_path / "journal")
    cells = Cells(two_seeds, str(cluster.path))
    jobs = [cells.next() for _ in range(4)]
    good_0, good_7, bad_0, bad_7 = (job for job in jobs if job is not None)
    assert not cells.behind(good_0, curve_at(1, 1.0))
    assert not cells.behind(good_7, curve_at(1, 3.0))
    assert not cells.behind(bad_0, curve_at(1, 0.0)), "the other seed is not there yet"
    assert cells.behind(bad_7, curve_at(1, 4.5)), "the mean is behind"
    assert cells.behind(bad_0, curve_at(2, 0.0)), "though it is the better one on this seed"
    cluster._end(cells, bad_7, curve_at(1, 4.5), "stopped", BEHIND)
    assert cluster.trials()[1].state is TrialState.PRUNED
    assert cluster.trials()[1].value == 2.25
    again = Cells(two_seeds, str(cluster.path), cluster.records)
    assert again.remaining(more=False) == 2, "both of the first configuration, none of the second"


def curve_at(epoch: int, value: float) -> list[dict[str, float]]:
    return [{"epoch": n, "avg_gap_natmu": value} for n in range(epoch + 1)]


def test_a_configuration_is_judged_by_the_mean_over_its_seeds_once() -> None:
    halving = Halving([0, 7], "gap")
    for number in (0, 1):
        halving.start(number, (1, 3), {})
    halving.follow(0, 0, curve_of({1: 1.0}))
    halving.follow(1, 0, curve_of({1: 0.125, 2: 0.125, 3: 0.125}))
    halving.follow(1, 7, curve_of({1: 4.125}))
    assert halving.decide() == [], "number 0 is not there on both seeds"
    halving.follow(0, 7, curve_of({1: 3.0}))
    assert halving.decide() == [Decision(0, 1, 2.0), Decision(1, 1, 2.125)]
    assert halving.is_out(1), "though it is better on the first seed"
    assert not halving.is_out(0)
    halving.follow(1, 7, curve_of({2: -9.0, 3: -9.0}))
    assert halving.decide() == [], "one decision is enough"


def test_the_best_third_goes_on_and_equals_with_it() -> None:
    halving = Halving([0], "gap")
    values = [5.0, 6.0, 5.0, 4.0, 4.5, 4.2, 9.0, 4.1, 4.15]
    for number, value in enumerate(values):
        halving.start(number, (1,), {})
        halving.follow(number, 0, curve_of({1: value}))
    halving.decide()
    # Of 1 to 5 values one goes on, of 6 to 8 two, of 9 three.
    assert [halving.is_out(n) for n in range(9)] == [
        False, True, False, False, True, False, True, False, False,
    ]  # fmt: skip


def test_what_fell_behind_or_failed_competes_at_no_higher_rung() -> None:
    halving = Halving([0], "gap")
    for number in range(4):
        halving.start(number, (1, 3), {})
    halving.follow(0, 0, curve_of({1: 2.0, 3: 2.0}))
    halving.follow(1, 0, curve_of({1: 3.0, 3: 0.0}))  # stopped late: its curve is longer
    halving.follow(2, 0, curve_of({1: 1.0}))
    halving.end(2, [0])  # it failed before epoch 3
    halving.follow(3, 0, curve_of({1: 0.5, 3: 1.9}))
    halving.decide()
    assert [halving.is_out(n) for n in range(4)] == [False, True, False, False]
    assert halving.is_settled(1)
    assert halving.is_settled(2)


def test_a_value_that_is_not_finite_is_neither_judged_nor_compared() -> None:
    halving = Halving([0], "gap")
    for number, value in enumerate((math.nan, math.inf, 2.0)):
        halving.start(number, (1,), {})
        halving.follow(number, 0, curve_of({1: value}))
    assert halving.decide() == [Decision(2, 1, 2.0)]
    assert not any(halving.is_out(n) for n in range(3))


def test_no_trial_is_stopped_after_its_last_epoch() -> None:
    search = Search(early_stop="asha")
    finetune = methods.load("finetune")
    rungs = [rungs_of(search, finetune, {"epochs": epochs}) for epochs in (1, 2, 3, 4, 10, 28)]
    assert rungs == [(), (1,), (1,), (1, 3), (1, 3, 9), (1, 3, 9, 27)]
    assert rungs_of(Search(), finetune, {"epochs": 28}) == ()


def test_methods_that_are_not_known_to_be_steady_are_never_stopped(tmp_path: Path) -> None:
    text = Search.model_fields["early_stop"].description
    assert text is not None
    judged = {name for name in methods.names() if is_judged(methods.load(name))}
    assert judged == {"activation_prune", "cf_k", "finetune", "neggrad_plus", "ugradsl"}
    assert {name for name in methods.names() if f"`{name}`" in text} == judged
    (tmp_path / "mine.py").write_text(Path(methods.load("ga").file).read_text())
    assert not is_judged(methods.load("mine", [tmp_path]))
    assert not is_judged(replace(methods.load("finetune"), impairs_first=True))
    wanted = study.parse(
        studies.tiny(
            methods=["eu_k", "salun", "finetune", "amnesiac", "jit"], search__early_stop="asha"
        ),
        "study.yaml",
    )
    assert say_exempt(wanted.search, wanted.methods) == (
        "early_stop asha never stops eu_k (impairs first), salun, amnesiac (not STEADY), "
        "jit (no knob `epochs`)"
    )
    plain = study.parse(studies.tiny(methods=["eu_k"]), "study.yaml")
    assert say_exempt(plain.search, plain.methods) == ""


def test_jobs_of_the_search_alone_have_rungs(plan: Plan) -> None:
    run = Run("some", "finetune", {**plan.study.method("finetune").fixed, "epochs": 12})
    assert plan.job("search", run, 0, 0).rungs == (1, 3, 9)
    assert plan.job("confirm", run, 1).rungs == ()
    assert plan.job("finalist", run, 1, 0).rungs == ()
