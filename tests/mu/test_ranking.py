"""Requests that a model decides, and the files that say what every request selects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
from in_process import InProcess
from sklearn.linear_model import LogisticRegression
from toy import RECIPE, toy_data, toy_reference

from mu.current import current
from mu.data import load
from mu.forget import ForgetRequest, select
from mu.metrics import entropy
from mu.problem import Problem
from mu.ranking import early_epochs, rank, ranking_key
from sweeps import preflight
from sweeps.flow import splits
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.workers.result import new_record

FAST = replace(RECIPE, epochs=10)


def ranked(kind: str, seed: int = 0, **fields: Any) -> Problem:
    request = ForgetRequest(kind, draw=seed, **(fields or {"fraction": 0.1}))
    return Problem(toy_data(), "toy_cnn", FAST, request, seed)


def test_hardest_samples_have_the_least_mean_probability_over_early_epochs() -> None:
    problem = ranked("hardest", fraction=0.1, epochs=3)
    scores = rank(problem)
    part = problem.data.parts["train"]
    inputs, labels = part.examples().batch(slice(None))
    model = problem.build()
    expected = []
    for epoch, _ in enumerate(problem.train("original", model)):
        if epoch == 3:
            break
        model.eval()
        with torch.no_grad():
            shares = model(inputs).softmax(1)
        expected.append(shares[torch.arange(len(labels)), labels].numpy())
    assert np.allclose(-scores, np.mean(expected, axis=0), atol=1e-5)
    hard = select(problem.request, problem.data, scores)
    assert -scores[hard].max() < np.median(-scores)


def test_what_is_hard_early_is_learnt_worse_to_the_end() -> None:
    problem = ranked("hardest")
    hard = select(problem.request, problem.data, rank(problem))
    model = problem.build()
    for _ in problem.train("original", model):
        pass
    inputs, labels = problem.data.parts["train"].examples().batch(slice(None))
    with torch.no_grad():
        right = (model.eval()(inputs).argmax(1) == labels).numpy()
    assert right[hard].mean() < np.delete(right, hard).mean()


def test_worst_case_samples_have_the_highest_membership_probability() -> None:
    problem = replace(ranked("worst_case", count=9), recipe=RECIPE)
    weights = toy_reference("original")
    scores = rank(problem, weights)
    model = problem.load(weights).eval()
    sets = []
    for part in ("train", "val"):
        inputs = problem.data.parts[part].examples().batch(slice(None))[0]
        with torch.no_grad():
            sets.append(entropy(model(inputs).numpy()))
    attack = LogisticRegression(C=2.0, class_weight="balanced", tol=1e-8)
    member = np.repeat([1, 0], [len(part) for part in sets])
    attack.fit(np.concatenate(sets)[:, None], member)
    assert np.allclose(scores, attack.predict_proba(sets[0][:, None])[:, 1], atol=1e-4)
    worst = select(problem.request, problem.data, scores)
    assert sets[0][worst].mean() < np.delete(sets[0], worst).mean(), (
        "sure of what it was trained on"
    )


def test_early_epochs_are_a_fifth_or_those_asked_for() -> None:
    assert early_epochs(ranked("hardest")) == 2
    assert early_epochs(ranked("hardest", count=3, epochs=7)) == 7
    with pytest.raises(ValueError, match="`epochs` must be at most 10, those of training"):
        early_epochs(ranked("hardest", count=3, epochs=11))


def test_keys_of_scores_follow_what_changes_them_only() -> None:
    key = ranking_key(ranked("hardest", fraction=0.1))
    assert key == ranking_key(ranked("hardest", count=7, target="red"))
    others = {
        ranking_key(ranked("worst_case")),
        ranking_key(ranked("hardest", seed=1)),
        ranking_key(ranked("hardest", count=3, epochs=5)),
        ranking_key(replace(ranked("hardest"), recipe=RECIPE)),
    }
    assert len(others | {key}) == 5


def test_a_model_that_diverges_ranks_nothing() -> None:
    problem = replace(ranked("hardest"), recipe=replace(FAST, lr=1e30, augment="none"))
    with pytest.raises(ValueError, match="diverged"):
        rank(problem)


class Here(InProcess):
    """Workers that rank in this process, and count how often they were opened."""

    opened = 0

    def open(self, ranking: splits.Ranking) -> None:
        self.opened += 1
        ranking.start(self.put)
        self.run(ranking, {(name, p.seed): p for name, p in ranking.missing.items()})


@pytest.fixture
def plan() -> Plan:
    requests = {
        "hard": {"kind": "hardest", "fraction": 0.1, "epochs": 6},
        "harder": {"kind": "hardest", "fraction": 0.02, "epochs": 6},
        "worst": {"kind": "worst_case", "class": 3, "count": 5},
        "some": {"kind": "random", "fraction": 0.1},
    }
    wanted = study.parse(studies.tiny(forget=requests, experiments={}, training__epochs=6), "tiny")
    return Plan(wanted, preflight.load_data(wanted, "tiny"))


def test_samples_are_ranked_once_ever(plan: Plan, tmp_path: Path) -> None:
    store, workers = Store(str(tmp_path)), Here()
    splits.resolve_ranked_requests(plan, store, workers.open)
    assert (workers.opened, len(workers.of("train")), len(workers.of("rank"))) == (1, 1, 2), (
        "two requests share theirs"
    )
    again = Plan(plan.study, plan.data)
    splits.resolve_ranked_requests(again, store, Here().open)
    for name in plan.study.forget:
        assert np.array_equal(plan.chosen(name), again.chosen(name))
    assert set(plan.chosen("harder")) < set(plan.chosen("hard"))
    worst = plan.problem("worst", 0)
    assert store.get(worst.reference_key("original")) is not None, "the model serves as a reference"
    assert np.array_equal(worst.forget_index, plan.problem("worst", 1).forget_index)
    labels = plan.data.parts["train"].labels[plan.chosen("worst")]
    assert labels.tolist() == [3] * 5


def test_a_ranking_that_is_known_opens_no_cluster(plan: Plan, tmp_path: Path) -> None:
    splits.resolve_ranked_requests(plan, Store(str(tmp_path)), Here().open)
    workers = Here()
    splits.resolve_ranked_requests(Plan(plan.study, plan.data), Store(str(tmp_path)), workers.open)
    assert workers.opened == 0


def test_what_is_written_selects_the_same_samples_elsewhere(plan: Plan, tmp_path: Path) -> None:
    splits.resolve_ranked_requests(plan, Store(str(tmp_path / "store")), Here().open)
    splits.write(plan, tmp_path / "splits")
    names = sorted(path.name for path in (tmp_path / "splits").iterdir())
    assert names == sorted(f"{n}.{s}" for n in plan.study.forget for s in ("json", "npy"))
    facts = json.loads((tmp_path / "splits" / "hard.json").read_text())
    assert facts["fingerprint"] == plan.data.fingerprint
    assert facts["request"]["kind"] == "hardest"
    assert facts["count"] == len(plan.chosen("hard"))
    file = str(tmp_path / "splits" / "hard.npy")
    request = {"again": {"kind": "indices", "file": file}}
    wanted = study.parse(studies.tiny(forget=request, experiments={}), "tiny")
    again = Plan(wanted, preflight.load_data(wanted, "tiny"))
    assert np.array_equal(again.chosen("again"), plan.chosen("hard"))
    # Positions count all training samples, so that any program can use them.
    everything = load(replace(wanted.data, subset=None, val=0.001))
    positions = np.load(file)
    assert np.array_equal(
        everything.parts["train"].inputs[everything.train_positions(positions)],
        plan.data.parts["train"].inputs[plan.chosen("hard")],
    )


def test_trials_of_changed_samples_of_a_request_do_not_count(plan: Plan, tmp_path: Path) -> None:
    splits.resolve_ranked_requests(plan, Store(str(tmp_path)), Here().open)
    line = study_line(plan)
    best = {cell: plan.study.method(cell[1]).fixed for cell in plan.cells}
    records = [new_record(job, "tiny", {}, status="finished") for job in plan.final_jobs(best)]
    assert current(records, line) == records
    plan.choose("hard", np.random.default_rng(0).random(len(plan.data.parts["train"])))
    left = current(records, study_line(plan))
    assert {record.forget for record in left} == {r.forget for r in records} - {"hard"}
