"""Selection: which search trial stands for a cell."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mu.record import TrialRecord
from mu.selection import (
    RULES,
    Candidate,
    References,
    best_objective,
    candidates,
    choose,
    objective_value,
    references,
)


def trial(number: int | None, value: float, seed: int = 0, **fields: Any) -> TrialRecord:
    """Return a finished search trial of cell (random, natmu) with a value of the objective on `val`."""
    plain = {
        "key": f"{number}-{seed}-{value}",
        "study": "toy",
        "phase": "search",
        "forget": "random",
        "method": "natmu",
        "status": "finished",
        "knobs": {"lr": number},
        "metrics": {"val": {"gap": value}, "test": {"gap": -1.0}},
    }
    return TrialRecord(**{**plain, "number": number, "seed": seed, **fields})


def candidates_of(records: list[TrialRecord], seeds: tuple[int, ...] = (0,)) -> list[Candidate]:
    return candidates(records, "random", "natmu", "gap", seeds)


def test_candidates_are_ordered_by_number_with_their_knobs_values_and_metrics() -> None:
    assert candidates_of([trial(2, 0.5), trial(0, 0.7), trial(1, 0.1)]) == [
        Candidate(0, {"lr": 0}, 0.7, {"gap": 0.7}),
        Candidate(1, {"lr": 1}, 0.1, {"gap": 0.1}),
        Candidate(2, {"lr": 2}, 0.5, {"gap": 0.5}),
    ]


def test_value_and_metrics_are_means_over_all_search_seeds() -> None:
    views = ({"gap": 0.2, "acc_forget": 0.5}, {"gap": 0.4, "acc_forget": 1.0, "late": 1.0})
    records = [trial(0, 0.0, seed=s, metrics={"val": view}) for s, view in enumerate(views)]
    means = {"gap": pytest.approx(0.3), "acc_forget": 0.75}
    assert candidates_of(records, (0, 1)) == [Candidate(0, {"lr": 0}, pytest.approx(0.3), means)]


def test_configuration_that_lacks_a_seed_is_no_candidate() -> None:
    records = [trial(0, 0.2, seed=0), trial(1, 0.9, seed=0), trial(1, 0.9, seed=1)]
    assert [candidate.number for candidate in candidates_of(records, (0, 1))] == [1]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "stopped"},
        {"status": "diverged"},
        {"status": "failed"},
        {"phase": "confirm"},
        {"forget": "class3"},
        {"method": "ssd"},
        {"seed": 4},
        {"number": None},
        {"metrics": {}},
        {"metrics": {"val": {"gap": math.nan}}},
        {"metrics": {"val": {"gap": math.inf}}},
        {"metrics": {"test": {"gap": 0.1}}},
    ],
)
def test_other_trials_are_no_candidates(fields: dict[str, Any]) -> None:
    bad = trial(**{"number": 1, "value": 0.1, **fields})
    assert [candidate.number for candidate in candidates_of([trial(0, 0.9), bad])] == [0]


def test_nan_on_one_seed_rules_a_configuration_out() -> None:
    assert candidates_of([trial(0, 0.1, seed=0), trial(0, math.nan, seed=1)], (0, 1)) == []


def test_test_view_is_never_read() -> None:
    assert objective_value(trial(0, 0.25), "gap") == 0.25
    assert math.isnan(objective_value(trial(0, 0.25), "other"))


def test_time_is_read_from_the_clock() -> None:
    assert objective_value(trial(0, 0.25, time_unlearn=3.5), "time_unlearn") == 3.5


def test_lowest_value_wins_and_the_earliest_of_equals() -> None:
    options = [Candidate(4, {}, 0.2), Candidate(1, {}, 0.2), Candidate(0, {}, 0.3)]
    best = best_objective(options)
    assert best is not None
    assert best.number == 1
    assert best_objective([]) is None
    rounded = [Candidate(0, {}, 0.1 + 0.2), Candidate(1, {}, 0.3)]
    best = best_objective(rounded)
    assert best is not None
    assert best.number == 0


RULE = {rule.name: rule for rule in RULES}
KNOWN = References(
    original={"acc_test": 0.9, "acc_test_retain": 0.95},
    retrain={"acc_forget": 0.88, "mia_lr_entropy": 0.6},
)


def chosen(rule: str, *options: dict[str, float], known: References = KNOWN) -> int | None:
    """Return the number of the option that a rule chooses; the objective is worst for the first."""
    tried = [Candidate(n, {}, 1.0 - 0.1 * n, option) for n, option in enumerate(options)]
    best = choose(RULE[rule], tried, known)
    return None if best is None else best.number


def test_only_two_rules_need_a_retrained_model() -> None:
    assert [rule.name for rule in RULES if rule.oracle] == ["objective", "forget_first"]
    named = {kind: [r.name for r in RULES if r.applies(kind)] for kind in (True, False)}
    assert named == {
        True: ["objective", "forget_first", "class_gone"],
        False: ["objective", "forget_first", "held_out", "losses", "attack", "rf_jsd"],
    }


def test_rules_without_an_oracle_do_not_look_at_the_retrained_model() -> None:
    class Sealed(dict[str, float]):
        def get(self, *_: Any) -> Any:
            raise AssertionError("the retrained model was read")

        __getitem__ = __contains__ = get

    sealed = References(KNOWN.original, Sealed())
    names = ("acc_forget", "acc_test", "acc_test_retain", "mia_lr_entropy", "loss_ks")
    names += ("mia_lr_entropy_held_out", "rf_jsd")
    option = Candidate(0, {}, 0.1, dict.fromkeys(names, 0.5))
    for rule in RULES:
        if not rule.oracle:
            assert choose(rule, [option], sealed) is option
    with pytest.raises(AssertionError):
        choose(RULE["forget_first"], [option], sealed)


def test_objective_rule_is_the_best_objective() -> None:
    assert chosen("objective", {}, {}, {}) == 2


def test_forget_first_lets_mia_decide_only_between_equal_forget_accuracies() -> None:
    options = (
        {"acc_forget": 0.80, "mia_lr_entropy": 0.60},
        {"acc_forget": 0.89, "mia_lr_entropy": 0.90},
        {"acc_forget": 0.87, "mia_lr_entropy": 0.40},  # as far as 0.89, but nearer in MIA
    )
    assert chosen("forget_first", *options) == 2
    assert chosen("forget_first", *options[:2]) == 1
    assert chosen("forget_first", {"acc_forget": 0.88}) is None


def test_held_out_rule_prefers_equal_accuracies_but_not_a_destroyed_model() -> None:
    fits, close, destroyed = (
        {"acc_forget": 1.00, "acc_test": 0.90},
        {"acc_forget": 0.90, "acc_test": 0.88},  # 0.02 apart and 0.02 lost
        {"acc_forget": 0.10, "acc_test": 0.10},  # equal, and all is lost
    )
    assert chosen("held_out", fits, close, destroyed) == 1
    assert chosen("held_out", fits, destroyed) == 0


def test_gain_in_held_out_accuracy_is_neither_loss_nor_credit() -> None:
    better, equal = {"acc_forget": 0.97, "acc_test": 0.96}, {"acc_forget": 0.92, "acc_test": 0.90}
    assert chosen("held_out", equal, better) == 1
    # 0.05 above the original does not pay for forgotten samples that are 0.04 too good.
    remembered, fair = (
        {"acc_forget": 0.99, "acc_test": 0.95},
        {"acc_forget": 0.91, "acc_test": 0.90},
    )
    assert chosen("held_out", remembered, fair) == 1


def test_attack_divergence_and_losses_weigh_what_is_lost() -> None:
    assert (
        chosen(
            "attack",
            {"mia_lr_entropy": 0.9, "mia_lr_entropy_held_out": 0.5, "acc_test": 0.9},
            {"mia_lr_entropy": 0.7, "mia_lr_entropy_held_out": 0.8, "acc_test": 0.9},
            {"mia_lr_entropy": 0.8, "mia_lr_entropy_held_out": 0.8, "acc_test": 0.7},
        )
        == 1
    )
    assert chosen("attack", {"mia_lr_entropy": 0.5, "acc_test": 0.9}) is None
    assert (
        chosen(
            "rf_jsd",
            {"rf_jsd": 0.3, "acc_test": 0.9},
            {"rf_jsd": 0.0, "acc_test": 0.5},
            {"rf_jsd": 0.2, "acc_test": 0.9},
        )
        == 2
    )
    assert (
        chosen(
            "losses",
            {"loss_ks": 0.3, "acc_test": 0.9},
            {"loss_ks": 0.1, "acc_test": 0.6},
            {"loss_ks": 0.2, "acc_test": 0.85},
        )
        == 2
    )
    assert chosen("losses", {"acc_test": 0.9}) is None


def test_class_rule_wants_the_class_gone_and_the_rest_kept() -> None:
    assert (
        chosen(
            "class_gone",
            {"acc_forget": 0.20, "acc_test_retain": 0.99},
            {"acc_forget": 0.00, "acc_test_retain": 0.60},
            {"acc_forget": 0.05, "acc_test_retain": 0.93},
        )
        == 2
    )


def test_earliest_of_equals_up_to_rounding_and_none_without_what_a_rule_needs() -> None:
    equal = ({"acc_forget": 0.3, "acc_test": 0.9}, {"acc_forget": 0.1 + 0.2, "acc_test": 0.9})
    assert chosen("held_out", *equal) == 0
    assert chosen("held_out", {"acc_forget": 0.9, "acc_test": 0.9}, known=References()) is None
    assert chosen("held_out") is None


def test_references_are_means_over_the_search_seeds() -> None:
    def reference(method: str, seed: int, value: float, **fields: Any) -> TrialRecord:
        plain = {"phase": "reference", "method": method, "role": "search"}
        return trial(None, value, seed, **{**plain, "key": f"{method}{seed}", **fields})

    records = [
        reference("original", 0, 0.5),
        reference("retrain", 0, 0.2),
        reference("retrain", 1, 0.4),
        reference("retrain", 2, 9.0),
        reference("retrain", 1, 9.0, role="report"),
        reference("retrain", 0, 9.0, forget="class3"),
        reference("original", 1, 9.0, status="failed"),
    ]
    known = references(records, "random", (0, 1))
    assert known == References({"gap": 0.5}, {"gap": pytest.approx(0.3)})
    assert references([], "random", (0,)) == References()
