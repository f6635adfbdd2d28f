"""Selection: which search trial stands for a cell."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mu.record import TrialRecord
from mu.selection import Candidate, best_objective, candidates, objective_value


def trial(number: int | None, value: float, seed: int = 0, **fields: Any) -> TrialRecord:
    """A finished search trial of cell (random, natmu) with a value of the objective on `val`."""
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


def found(records: list[TrialRecord], seeds: tuple[int, ...] = (0,)) -> list[Candidate]:
    return candidates(records, "random", "natmu", "gap", seeds)


def test_candidates_are_ordered_by_number_with_their_knobs_and_values() -> None:
    assert found([trial(2, 0.5), trial(0, 0.7), trial(1, 0.1)]) == [
        Candidate(0, {"lr": 0}, 0.7),
        Candidate(1, {"lr": 1}, 0.1),
        Candidate(2, {"lr": 2}, 0.5),
    ]


def test_value_is_the_mean_over_all_search_seeds() -> None:
    records = [trial(0, 0.2, seed=0), trial(0, 0.4, seed=1)]
    assert found(records, (0, 1)) == [Candidate(0, {"lr": 0}, pytest.approx(0.3))]


def test_configuration_that_lacks_a_seed_is_no_candidate() -> None:
    assert found([trial(0, 0.2, seed=0), trial(1, 0.9, seed=0), trial(1, 0.9, seed=1)], (0, 1)) == [
        Candidate(1, {"lr": 1}, 0.9)
    ]


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
    assert [candidate.number for candidate in found([trial(0, 0.9), bad])] == [0]


def test_nan_on_one_seed_rules_a_configuration_out() -> None:
    assert found([trial(0, 0.1, seed=0), trial(0, math.nan, seed=1)], (0, 1)) == []


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
