"""Choice: which configuration stands for a cell, in search, status and report alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mu.choice import Choice, choice_of, further_seeds
from mu.constraints import Constraint, parse_constraint
from mu.record import TrialRecord
from mu.selection import Candidate, References

SEARCH = {"objective": ["gap", "time_unlearn"], "finalists": 1}


def one(number: int, gap: float, seconds: float = 1.0, **metrics: float) -> Candidate:
    return Candidate(number, {}, gap, {"gap": gap, **metrics}, {"time_unlearn": seconds})


def rule(**search: Any) -> Choice:
    return choice_of({"search": {**SEARCH, **search}, "seeds": {"search": [0], "report": [1, 2]}})


def best(choice: Choice, *tried: Candidate, original: float = 0.9) -> int | None:
    chosen = choice.best(tried, References(original={"acc_test": original}))
    return None if chosen is None else chosen.number


def test_without_a_word_the_lowest_first_objective_is_chosen() -> None:
    assert best(rule(), one(0, 0.3), one(1, 0.2, 9.0), one(2, 0.2)) == 1
    assert best(rule()) is None


def test_weights_choose_the_least_weighted_sum() -> None:
    tried = one(0, 0.3, 1.0), one(1, 0.2, 9.0), one(2, 0.25, 1.0)
    assert best(rule(choose={"weights": {"gap": 1.0, "time_unlearn": 0.1}}), *tried) == 2
    assert best(rule(choose={"weights": {"gap": 1000.0, "time_unlearn": 0.1}}), *tried) == 1


def test_lexicographic_keeps_what_is_within_the_tolerance_of_the_best() -> None:
    tried = one(0, 0.24, 2.0), one(1, 0.2, 9.0), one(2, 0.3, 1.0)
    order = {"gap": 0.04, "time_unlearn": 0.0}
    assert best(rule(choose={"lexicographic": order}), *tried) == 0
    assert best(rule(choose={"lexicographic": {"gap": 0.0, "time_unlearn": 0.0}}), *tried) == 1
    first_time = {"time_unlearn": 1.0, "gap": 0.0}
    assert best(rule(choose={"lexicographic": first_time}), *tried) == 0


def test_a_constraint_leaves_what_holds_it() -> None:
    tried = one(0, 0.1, acc_test=0.5), one(1, 0.3, acc_test=0.89), one(2, 0.2, acc_test=0.89)
    kept = rule(choose={"constraint": ["acc_test >= original - 0.01"]})
    assert best(kept, *tried) == 2
    assert best(rule(choose="acc_test >= 0.4"), *tried) == 0
    assert best(rule(choose=["acc_test >= 0.4", "gap >= 0.15"]), *tried) == 2


def test_where_nothing_holds_it_what_breaks_it_least_is_chosen() -> None:
    tried = one(0, 0.1, acc_test=0.5), one(1, 0.3, acc_test=0.8), one(2, 0.2)
    assert best(rule(choose="acc_test >= original - 0.01"), *tried) == 1
    assert best(rule(choose="acc_test >= original - 0.01"), tried[2], one(3, 0.1)) == 3


def test_equal_excess_over_several_bounds_is_equal_up_to_rounding() -> None:
    """In floating point 0.1 + 0.2 is more than 0.3 + 0."""
    tried = one(0, 0.1, acc_test=0.1, acc_retain=0.2), one(1, 0.2, acc_test=0.3, acc_retain=0.0)
    assert best(rule(choose=["acc_test <= 0", "acc_retain <= 0"]), *tried) == 0


def test_a_constraint_goes_before_weights() -> None:
    choose = {"constraint": ["gap <= 0.25"], "weights": {"gap": 1.0, "time_unlearn": 1.0}}
    assert best(rule(choose=choose), one(0, 0.3, 0.0), one(1, 0.2, 3.0), one(2, 0.25, 2.0)) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acc_test >= original - 0.01", Constraint("acc_test", True, "original", -0.01)),
        ("acc_test>=original+1e-2", Constraint("acc_test", True, "original", 0.01)),
        (" loss_ks <= retrain ", Constraint("loss_ks", False, "retrain", 0.0)),
        ("time_unlearn <= 30", Constraint("time_unlearn", False, "", 30.0)),
        ("delta <= -0.5", Constraint("delta", False, "", -0.5)),
    ],
)
def test_a_constraint_is_read(text: str, expected: Constraint) -> None:
    assert parse_constraint(text) == expected


def test_what_loses_too_much_is_chosen_only_where_all_do() -> None:
    tried = one(0, 0.1, acc_test=0.5), one(1, 0.3, acc_test=0.8), one(2, 0.2, acc_test=0.79)
    assert best(rule(max_utility_loss=0.1), *tried) == 1, "a loss of exactly the limit is allowed"
    assert best(rule(max_utility_loss=0.11), *tried) == 2
    assert best(rule(max_utility_loss=1.0), *tried) == 0
    assert best(rule(max_utility_loss=0.05), *tried) == 0, "where all lose more, all may be chosen"
    assert best(rule(), *tried) == 0, "a study that names no floor has none"


def test_utility_is_that_of_the_classes_that_are_kept() -> None:
    """Of a forgotten class nothing need be known any more."""
    known = References(original={"acc_test": 0.9, "acc_test_retain": 0.9})
    gone = one(0, 0.1, acc_test=0.6, acc_test_retain=0.85)
    lossy = one(1, 0.05, acc_test=0.9, acc_test_retain=0.7)
    assert rule(max_utility_loss=0.1).best([gone, lossy], known) is gone


def test_what_is_better_than_the_original_loses_nothing_and_without_one_nothing_is_known() -> None:
    tried = one(0, 0.2, acc_test=0.95), one(1, 0.1, acc_test=0.2)
    assert best(rule(max_utility_loss=0.0), *tried) == 0
    assert rule(max_utility_loss=0.0).best(tried, References()) is tried[1]


def test_the_floor_comes_before_constraints_weights_and_tolerances() -> None:
    tried = one(0, 0.1, 1.0, acc_test=0.5), one(1, 0.3, 9.0, acc_test=0.85)
    for choose in (
        "gap <= 0.2",
        {"weights": {"gap": 1.0}},
        {"lexicographic": {"gap": 1.0, "time_unlearn": 0.0}},
    ):
        assert best(rule(max_utility_loss=0.1, choose=choose), *tried) == 1
        assert best(rule(max_utility_loss=1.0, choose=choose), *tried) == 0


@pytest.mark.parametrize(
    "text",
    ["", "acc_test", "acc_test > 1", "acc_test >= origin", "a >= original 1", "a >= 1 + 1", "a >= --1", "a >= 1e999"],
)  # fmt: skip
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a constraint such as"):
        parse_constraint(text)


def record(
    number: int, gap: float, seed: int = 0, phase: str = "search", **how: Any
) -> TrialRecord:
    plain = TrialRecord(
        f"{phase}{number}-{seed}", "toy", phase, "some", "ga", seed, "finished", {"lr": number}, number,
        metrics={"val": {"gap": gap}},
    )  # fmt: skip
    return replace(plain, **how)


@pytest.fixture
def choice() -> Choice:
    return rule(finalists=2)


@pytest.fixture
def searched() -> list[TrialRecord]:
    return [record(n, gap) for n, gap in enumerate((0.5, 0.1, 0.2, 0.4))]


def again(choice: Choice, number: int, *gaps: float) -> list[TrialRecord]:
    return [record(number, gap, seed, "finalist") for gap, seed in zip(gaps, choice.further_seeds)]


def test_the_best_run_again_and_the_mean_over_all_seeds_decides(
    choice: Choice, searched: list[TrialRecord]
) -> None:
    first = choice.decide(searched, "some", "ga")
    assert [c.number for c in first.finalists] == [1, 2]
    assert (first.chosen.number, first.settled) == (1, False)  # type: ignore[union-attr]
    half = [*searched, *again(choice, 1, 0.6, 0.5), *again(choice, 2, 0.2)]
    assert choice.decide(half, "some", "ga").chosen.number == 1  # type: ignore[union-attr]
    whole = choice.decide([*half, *again(choice, 2, 0.2, 0.2)], "some", "ga")
    assert whole.settled and whole.chosen is not None
    assert (whole.chosen.number, whole.chosen.knobs) == (2, {"lr": 2})
    assert whole.chosen.value == pytest.approx(0.2)
    assert len(whole.tried) == 4


def test_a_finalist_that_fails_is_not_chosen_and_one_that_was_lost_is_waited_for(
    choice: Choice, searched: list[TrialRecord]
) -> None:
    ended = again(choice, 1, 0.1, 0.1) + again(choice, 2, 0.3, 0.3)
    failed = [replace(ended[0], status="diverged", metrics={}), *ended[1:]]
    assert choice.decide([*searched, *failed], "some", "ga").chosen.number == 2  # type: ignore[union-attr]
    lost = [replace(ended[0], status="failed", cause="infrastructure"), *ended[1:]]
    decision = choice.decide([*searched, *lost], "some", "ga")
    assert not decision.settled and decision.chosen.number == 1  # type: ignore[union-attr]


def test_where_every_finalist_fails_the_search_decides(
    choice: Choice, searched: list[TrialRecord]
) -> None:
    ended = again(choice, 1, 0.1, 0.1) + again(choice, 2, 0.3, 0.3)
    failed = [replace(r, status="failed", metrics={}) for r in ended]
    decision = choice.decide([*searched, *failed], "some", "ga")
    assert decision.settled and decision.chosen.number == 1  # type: ignore[union-attr]


def test_a_single_configuration_is_no_finalist(choice: Choice) -> None:
    decision = choice.decide([record(0, 0.2)], "some", "ga")
    assert decision.settled and not decision.finalists
    assert decision.chosen.number == 0  # type: ignore[union-attr]


def test_a_constraint_looks_at_the_original_on_all_seeds(searched: list[TrialRecord]) -> None:
    """On the search seed both hold it; on all seeds together the second alone does."""
    choice = rule(finalists=2, choose="gap <= original")
    originals = [
        record(0, 0.2, 0, "reference", method="original", role="search"),
        *(record(0, 0.5, seed, "reference", method="original", role="finalist")
          for seed in choice.further_seeds),
    ]  # fmt: skip
    ended = again(choice, 1, 0.6, 0.7) + again(choice, 2, 0.5, 0.45)
    chosen = choice.decide([*searched, *originals, *ended], "some", "ga").chosen
    assert chosen is not None and chosen.number == 2


def kept(number: int, gap: float, acc: float, *where: Any, **how: Any) -> TrialRecord:
    return record(number, gap, *where, metrics={"val": {"gap": gap, "acc_test": acc}}, **how)


def test_a_decision_names_what_loses_too_much_and_lets_none_of_it_run_again() -> None:
    choice = rule(finalists=3, max_utility_loss=0.1)
    original = kept(0, 0.5, 0.9, 0, "reference", method="original", role="search")
    searched = [kept(0, 0.1, 0.2), kept(1, 0.3, 0.85), kept(2, 0.2, 0.9), kept(3, 0.05, 0.1)]
    decision = choice.decide([original, *searched], "some", "ga")
    assert [one.number for one in decision.finalists] == [2, 1]
    assert decision.too_lossy == {0, 3} and not decision.lossy
    assert [one.number for one in decision.eligible] == [1, 2]
    assert len(decision.tried) == 4
    wrecks = choice.decide([original, searched[0], searched[3]], "some", "ga")
    assert wrecks.lossy and wrecks.chosen is not None and wrecks.chosen.number == 3
    assert len(wrecks.eligible) == len(wrecks.finalists) == 2


def test_finalists_are_measured_against_the_originals_of_all_seeds() -> None:
    """On the search seed both keep enough; over all seeds the first loses 0.2."""
    choice = rule(finalists=2, max_utility_loss=0.1)
    originals = [
        kept(0, 0.5, 0.9, 0, "reference", method="original", role="search"),
        *(kept(0, 0.5, 0.9, seed, "reference", method="original", role="finalist")
          for seed in choice.further_seeds),
    ]  # fmt: skip
    searched = [kept(0, 0.1, 0.9), kept(1, 0.2, 0.9)]
    ended = [
        kept(number, gap, acc, seed, "finalist")
        for number, gap, acc in ((0, 0.1, 0.6), (1, 0.2, 0.9))
        for seed in choice.further_seeds
    ]
    decision = choice.decide([*originals, *searched, *ended], "some", "ga")
    assert decision.chosen is not None and decision.chosen.number == 1
    assert not decision.lossy and not decision.too_lossy
    alone = [r for r in ended if r.number == 0]
    lost = [replace(r, status="failed", metrics={}) for r in ended if r.number == 1]
    decision = choice.decide([*originals, *searched, *alone, *lost], "some", "ga")
    assert decision.chosen is not None and decision.chosen.number == 0 and decision.lossy


def test_further_seeds_are_no_other_seeds_and_stay_when_report_seeds_are_added() -> None:
    few = further_seeds({"search": [0], "report": [1, 2]})
    assert len(set(few)) == 2 and few == further_seeds({"search": [0], "report": [1, 2, 3]})
    assert few != further_seeds({"search": [4], "report": [1, 2]})
    moved = further_seeds({"search": [0], "report": [few[0]]})
    assert few[0] not in moved and few[1] in moved


@pytest.mark.parametrize(
    "changes", [{"selection": "paper"}, {"original": "{seed}.pt"}, {"search": {**SEARCH}}]
)
def test_nothing_runs_again_where_that_makes_no_sense(changes: dict[str, Any]) -> None:
    seeds = {"search": [0], "report": [1]}
    definition = {"search": {**SEARCH, "finalists": 3}, "seeds": seeds}
    assert choice_of(definition).further_seeds
    assert not choice_of({**definition, **changes}).further_seeds


def test_a_bound_is_rounded_before_it_is_compared() -> None:
    """0.9 - 0.01 is a little above 0.89 in floating point."""
    excess = parse_constraint("acc_test >= original - 0.01").excess(
        one(0, 0.0, acc_test=0.3 - 0.01), References(original={"acc_test": 0.1 + 0.2})
    )
    assert excess == 0 and not math.isnan(excess)
