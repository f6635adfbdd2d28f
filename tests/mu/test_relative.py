"""Gaps are of the retrained models that there are when records are read."""

from __future__ import annotations

from typing import Any

import pytest

from mu.record import TrialRecord
from mu.relative import Comparison, compared, gaps

LINE = {
    "definition": {"search": {"mean_gap": ["acc_test", "acc_forget"]}},
    "requests": {"some": {"whole_class": False}},
    "phases": [{"name": "search", "role": "search"}, {"name": "confirm", "role": "report"}],
}


def record(phase: str, method: str, seed: int, acc: float, **fields: Any) -> TrialRecord:
    values = {"acc_test": acc, "acc_forget": acc + 0.05, "mia_lr_entropy": 0.5}
    return TrialRecord(
        f"{phase} {method} {seed} {fields.get('role', '')}", "s", phase, "some", method, seed,
        "finished", metrics={"test": values}, problem=f"problem {seed}", **fields,
    )  # fmt: skip


def retrain(seed: int, acc: float, role: str = "report", **distances: float) -> TrialRecord:
    others = {name.replace("_", " "): value for name, value in distances.items()}
    return record("reference", "retrain", seed, acc, role=role, distances=others)


def test_gaps_follow_the_retrained_models_that_are_there() -> None:
    trial, few = record("confirm", "jit", 1, 0.8), [retrain(1, 0.9), retrain(2, 0.7)]
    values = compared([*few, trial], LINE)[-1].metrics["test"]
    assert values["avg_gap_natmu"] == pytest.approx(0.0)
    values = compared([trial, retrain(3, 0.5), *few], LINE)[0].metrics["test"]
    assert values["avg_gap_natmu"] == pytest.approx((0.1 + 0.1 + 0) / 3)
    assert values["delta_acc_forget"] == pytest.approx(0.1)
    assert values["mean_gap"] == pytest.approx(0.1)


def test_the_search_is_compared_with_the_models_of_its_own_seeds() -> None:
    models = [retrain(0, 0.9, role="search"), retrain(1, 0.6)]
    search, confirm = record("search", "jit", 0, 0.8), record("confirm", "jit", 1, 0.8)
    values = [r.metrics["test"]["mean_gap"] for r in compared([*models, search, confirm], LINE)]
    assert values[2:] == [pytest.approx(0.1), pytest.approx(0.2)]


def test_distances_to_other_retrained_models_are_told_by_either_side() -> None:
    models = [
        retrain(1, 0.9, problem_2=0.2),
        retrain(2, 0.9, problem_1=0.2),
        retrain(3, 0.9, problem_1=0.4, problem_2=0.6),
    ]
    values = [r.metrics["test"].get("activation_distance") for r in compared(models, LINE)]
    assert values == [pytest.approx(0.3), pytest.approx(0.4), pytest.approx(0.5)]
    values = [r.metrics["test"].get("activation_distance") for r in compared(models[:2], LINE)]
    assert values == [0.2, 0.2]
    (alone,) = compared(models[:1], LINE)
    assert "activation_distance" not in alone.metrics["test"]


def test_without_retrained_models_a_record_is_what_it_was() -> None:
    trial = record("confirm", "jit", 1, 0.8)
    assert compared([trial, retrain(0, 0.9, role="search")], LINE)[0] == trial
    failed = TrialRecord("k", "s", "confirm", "some", "jit", 1, "failed")
    assert compared([failed, retrain(1, 0.9)], LINE)[0] == failed


def test_a_comparison_that_gets_another_model_uses_it() -> None:
    comparison, trial = Comparison(LINE), record("confirm", "jit", 1, 0.8)
    for model, expected in ((retrain(1, 0.9), 0.1), (retrain(2, 0.5), 0.1), (retrain(3, 0.1), 0.3)):
        comparison.note(model)
        trial = comparison.complete(trial)
        assert trial.metrics["test"]["mean_gap"] == pytest.approx(expected)


def test_costly_gaps_need_both_sides() -> None:
    names = ("correctness", "conf", "entropy", "prob")
    values = {f"mia_svc_{name}_nonmember": 0.5 for name in names}
    others = {f"mia_svc_{name}_nonmember": 0.5 + at / 10 for at, name in enumerate(names)}
    found = gaps(values, others, whole_class=False)
    assert found["mia_svc_gap4"] == pytest.approx(0.15)
    assert found["mia_svc_gap_max"] == pytest.approx(0.3)
    assert "mia_svc_gap4" not in gaps(values, {}, whole_class=False)
