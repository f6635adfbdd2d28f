"""Rules of the menu: on made-up numbers, and without a look at what they may not see."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mu.menu import menu_records
from mu.record import TrialRecord
from mu.rules import MENU_RULES, RULE, average_gap, chosen, eligible, scores
from mu.selection import Candidate, References, Rule

ORIGINAL = {
    "acc_test": 0.80,
    "acc_test_retain": 0.82,
    "acc_forget": 0.98,
    "acc_retain": 0.99,
    "mia_lr_entropy": 0.90,
    "mia_lr_entropy_retain": 0.92,
    "mia_lr_entropy_held_out": 0.60,
}
SHORT = {
    "acc_test": 0.50,
    "acc_forget": 0.40,
    "mia_lr_entropy": 0.50,
    "mia_lr_entropy_held_out": 0.55,
}
KNOWN = References(
    ORIGINAL,
    {"acc_test": 0.79, "acc_forget": 0.78, "mia_lr_entropy": 0.58},
    {"acc_test": 0.79, "acc_forget": 0.70, "mia_lr_entropy": 0.58},
    {"epochs": References({}, SHORT, SHORT)},
)


def trial(
    number: int, test: float, forget: float, rate: float, held_out: float = 0.6, **more: Any
) -> Candidate:
    values = {
        "acc_test": test,
        "acc_forget": forget,
        "mia_lr_entropy": rate,
        "mia_lr_entropy_held_out": held_out,
        "loss_ks": abs(forget - test),
        "rf_jsd": abs(rate - held_out),
        "acc_test_retain": test,
        "acc_test_forget": 0.0,
    }
    return Candidate(number, {"lr": number}, math.nan, values, **more)


TRIED = [
    trial(0, 0.80, 0.98, 0.90, origin="defaults"),
    trial(1, 0.80, 0.80, 0.60),  # as held-out data
    trial(2, 0.80, 0.70, 0.55),  # as the short retraining says
    trial(3, 0.40, 0.40, 0.60),  # destroyed
]


def taken(name: str, tried: list[Candidate] = TRIED, known: References = KNOWN) -> tuple[int, ...]:
    return chosen(scores(RULE[name], tried, known))


def test_names_are_unique_and_every_rule_says_where_it_is_from_and_what_it_costs() -> None:
    assert len(RULE) == len(MENU_RULES) == len({rule.label for rule in MENU_RULES})
    for rule in MENU_RULES:
        assert rule.reason, rule.name
    costs = {name: RULE[name].retrainings for name in ("losses", "expected_epochs", "twin")}
    assert costs == {"losses": 0.0, "expected_epochs": 0.1, "twin": pytest.approx(1 / 3)}


def test_each_rule_takes_what_it_says() -> None:
    assert taken("random") == (0, 1, 2, 3)
    assert taken("defaults") == (0,)
    assert taken("start_from") == ()
    for name in ("held_out", "losses", "attack", "rf_jsd", "expected", "ranks"):
        assert taken(name) == (1,), name
    # D_f is 10 points harder than held-out data for the short retraining, and attacked at 5 points less.
    assert taken("expected_epochs") == (2,)
    # The original knows D_f a point less well than D_r, so that it is about as easy.
    assert taken("expected_original") == (1,)
    assert taken("proxy_epochs") == (3,)
    assert taken("oracle_all") == (1,)
    assert taken("oracle_one") == (2,)


def test_knobs_of_earlier_studies_are_told_from_drawn_ones() -> None:
    assert taken("start_from", [*TRIED, trial(9, 0.1, 0.1, 0.1, origin="results/a")]) == (9,)


def test_the_twin_and_another_request_decide_where_they_were_tried() -> None:
    target = {"acc_test": 0.8, "acc_forget": 0.8, "mia_lr_entropy": 0.6}
    known = replace(
        KNOWN,
        on={"twin": References({}, target), "transfer": References({}, target)},
    )
    there = {number: {**target, "acc_forget": 0.8 + 0.1 * off} for number, off in ((0, 2), (1, 1))}
    tried = [replace(TRIED[n], on={"twin": there[n], "transfer": there[1 - n]}) for n in (0, 1)]
    assert scores(RULE["twin"], tried, known) == {
        0: (pytest.approx(0.2 / 3),),
        1: (pytest.approx(0.1 / 3),),
    }
    assert taken("twin", tried, known) == (1,)
    assert taken("transfer", tried, known) == (0,)


def test_a_whole_class_is_gone_for_the_expected_model() -> None:
    known = replace(KNOWN, whole_class=True)
    gone, there = trial(0, 0.82, 0.0, 0.5), trial(1, 0.82, 0.6, 0.5)
    assert taken("expected_epochs", [there, gone], known) == (0,)
    assert scores(RULE["expected_epochs"], [gone], known) == {0: (0.0,)}


def test_what_a_rule_cannot_tell_apart_is_taken_together() -> None:
    assert taken("losses", [TRIED[1], replace(TRIED[1], number=7)]) == (1, 7)


def test_mean_ranks_share_the_ranks_of_equals() -> None:
    tried = [TRIED[1], replace(TRIED[1], number=7), TRIED[0]]
    assert scores(RULE["ranks"], tried, KNOWN) == {1: (1.5,), 7: (1.5,), 0: (3.0,)}


def test_a_candidate_without_the_metrics_of_a_rule_is_left_out() -> None:
    bare = Candidate(5, {}, math.nan, {"acc_test": 0.8})
    assert scores(RULE["losses"], [bare], KNOWN) == {}
    assert scores(RULE["ranks"], [bare, TRIED[0]], KNOWN) == {0: (1.0,)}


def test_destroyed_models_are_no_candidates_unless_all_are() -> None:
    assert [one.number for one in eligible(TRIED, KNOWN, 0.1)] == [0, 1, 2]
    assert [one.number for one in eligible(TRIED[3:], KNOWN, 0.1)] == [3]


@pytest.mark.parametrize(
    "peek",
    [
        lambda one, known: (known.retrain.get("acc_forget", 0.0),),
        lambda one, known: (known.one["acc_forget"],),
        lambda one, known: (float("acc_forget" in known.retrain),),
        lambda one, known: (float(len(known.retrain)),),
        lambda one, known: (sum(dict(known.retrain).values()),),
        lambda one, known: (average_gap(one.metrics, known.retrain),),
    ],
)
def test_a_rule_that_peeks_at_a_retrained_model_fails(peek: Any) -> None:
    rule = Rule("peeking", "", False, None, peek)
    with pytest.raises(LookupError, match=r"rule peeking reads .* of a retrained model"):
        scores(rule, TRIED, KNOWN)
    assert scores(replace(rule, oracle=True), TRIED, KNOWN)


def test_no_rule_but_an_oracle_peeks() -> None:
    for rule in MENU_RULES:
        scores(rule, TRIED, KNOWN)
    assert [rule.name for rule in MENU_RULES if rule.oracle] == ["oracle_one", "oracle_all"]


def test_a_rule_sees_only_the_stand_ins_that_it_names() -> None:
    rule = Rule("all", "", False, None, lambda one, known: (float(len(known.on) + len(one.on)),))
    tried = [replace(TRIED[0], on={"twin": {}, "transfer": {}})]
    assert scores(rule, tried, KNOWN) == {0: (0.0,)}
    assert scores(replace(rule, needs=("twin", "epochs")), tried, KNOWN) == {0: (2.0,)}


def record(phase: str, forget: str, method: str, seed: int, **fields: Any) -> TrialRecord:
    key = f"{phase}{forget}{method}{seed}{fields.get('number')}"
    return TrialRecord(key, "toy", phase, forget, method, seed, "finished", **fields)


def test_a_situation_has_one_seed_and_no_metric_that_compares_with_a_retrained_model() -> None:
    views = {"val": {"acc_forget": 0.7, "avg_gap_natmu": 0.1, "activation_distance": 0.2}}
    own = {"metrics": views, "knobs": {"lr": 0.1}, "number": 0}
    recorded = menu_records(
        [
            record("menu", "some", "ga", 1, **own),
            record("menu", "some/twin", "ga", 1, **{**own, "metrics": {"val": {"acc_forget": 0.5}}}),
            record("menu", "other", "ga", 1, **{**own, "number": 4}),
            record("menu", "some", "ga", 2, **own),
            record("reference", "some", "original", 1, role="report", metrics=views),
            record("reference", "some", "retrain", 1, role="report", metrics=views),
            record("reference", "some", "retrain", 2, role="report",
                   metrics={"val": {"acc_forget": 0.9}}),
            record("reference", "some", "retrain", 0, role="search", metrics=views),
        ],
        {"some": False, "other": False},
    )  # fmt: skip
    (one,), known = recorded.situation("some", "ga", 1)
    assert one.metrics == {"acc_forget": 0.7}
    assert one.on == {"twin": {"acc_forget": 0.5}}
    assert known.original == known.one == {"acc_forget": 0.7}
    assert known.retrain == {"acc_forget": pytest.approx(0.8)}
    (one,), known = recorded.situation("some", "ga", 1, "other")
    assert set(one.on) == {"twin", "transfer"}
    assert recorded.seeds("some", "ga") == [1, 2]


def test_every_rule_is_on_the_page_with_its_requests_and_its_cost() -> None:
    page = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip("` "): [cell.strip() for cell in cells[3:5]]
        for line in page.splitlines()
        if len(cells := line.split("|")) == 7 and "`" in cells[1]
    }
    kinds = {None: "all", True: "classes", False: "samples"}
    assert rows == {
        rule.name: [
            kinds[rule.whole_class],
            "all" if math.isnan(rule.retrainings) else f"{rule.retrainings:.2g}",
        ]
        for rule in MENU_RULES
    }


def test_rules_of_a_smaller_network_read_that_network_alone() -> None:
    there = References({}, SHORT, SHORT)
    with_model = replace(KNOWN, on={"model": there})
    assert taken("proxy_model", known=with_model) == taken("proxy_epochs")
    assert taken("expected_model", known=with_model) == taken("expected_epochs") == (2,)
    assert taken("proxy_model") == taken("expected_model") == ()
