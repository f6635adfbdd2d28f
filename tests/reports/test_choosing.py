"""The report says how knobs were chosen, which finalists there were, and what started from earlier studies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mu.choice import further_seeds
from mu.record import TrialRecord
from reports import contents, load
from reports.analysis import choosing, tuning_check
from reports.page import cards, words

SEEDS = {"search": [0], "report": [1, 2]}
FURTHER = further_seeds(SEEDS)


def ended(number: int, gap: float, seed: int = 0, phase: str = "search", **how: Any) -> TrialRecord:
    return TrialRecord(
        f"{phase}{number}-{seed}", "toy", phase, "some", "ga", seed, "finished", {"lr": float(number)},
        number, metrics={"val": {"avg_gap_natmu": gap}}, **how,
    )  # fmt: skip


def study(*records: TrialRecord, **search: Any) -> load.RecordedStudy:
    definition = {
        "forget": {"some": {"kind": "random"}},
        "methods": [{"name": "ga", "space": {"lr": {"low": 0.0, "high": 9.0}}}],
        "search": {"objective": ["avg_gap_natmu"], "finalists": 2, **search},
        "seeds": SEEDS,
    }
    line = {"study": "toy", "definition": definition}
    return load.assemble(line, records, {})


@pytest.fixture
def searched() -> list[TrialRecord]:
    origins = ("defaults", "results/earlier", "", "")
    return [
        ended(n, gap, origin=origin)
        for n, (gap, origin) in enumerate(zip((0.4, 0.1, 0.2, 0.3), origins))
    ]


def knobs_row(made: load.RecordedStudy) -> list[str]:
    table = next(t for t in contents.all_tables(made) if t.name == "knobs")
    return [cell.text for cell in table.groups[0].rows[0]]


def test_the_chosen_finalist_stands_for_the_cell(searched: list[TrialRecord]) -> None:
    again = [
        ended(number, gap, seed, "finalist")
        for number, gap in ((1, 0.5), (2, 0.15))
        for seed in FURTHER
    ]
    old = ended(1, 0.5, 1, "confirm", ended=1.0)
    new = ended(2, 0.2, 1, "confirm", ended=2.0)
    made = study(*searched, *again, old, new)
    assert made.chosen("some", "ga").number == 2  # type: ignore[union-attr]
    assert made.cell("confirm", "some", "ga").records == (new,)
    assert "2 of 1, 2" in knobs_row(made)
    assert (
        f"the best 2 again on search seeds {FURTHER[0]}, {FURTHER[1]}"
        in dict(words.setting(made)).values()
    )
    assert "The best 2 ran again on 2 further search seeds" in choosing.sentence(made)


def test_finalists_that_run_are_said_to(searched: list[TrialRecord]) -> None:
    made = study(*searched, ended(1, 0.5, FURTHER[0], "finalist"))
    assert "1 (finalists 1, 2 have not ended); results/earlier" in knobs_row(made)


def test_trials_that_started_from_an_earlier_study_are_counted(searched: list[TrialRecord]) -> None:
    made = study(*searched, finalists=1)
    assert dict(words.setting(made))["Started from"] == "1 trial with knobs of results/earlier"
    assert "1; results/earlier" in knobs_row(made)
    assert "again" not in choosing.sentence(made)


@pytest.mark.parametrize(
    ("choose", "said"),
    [
        (None, ""),
        ({"weights": {"avg_gap_natmu": 1.0}, "constraint": []}, "weights avg_gap_natmu 1"),
        ({"constraint": ["acc_test >= 0.5"]}, "constraint acc_test >= 0.5"),
    ],
)
def test_the_rule_is_spelt_out(searched: list[TrialRecord], choose: Any, said: str) -> None:
    made = study(*searched, choose=choose, finalists=1)
    assert choosing.rule(made) == said
    assert dict(words.setting(made))["Choice"] == said


def kept(number: int, gap: float, acc: float, **how: Any) -> TrialRecord:
    made = ended(number, gap, **how)
    return replace(made, metrics={"val": {**made.metrics["val"], "acc_test": acc}})


ORIGINAL = TrialRecord(
    "o", "toy", "reference", "some", "original", 0, "finished", role="search",
    metrics={"val": {"acc_test": 0.9}},
)  # fmt: skip


def test_what_loses_too_much_utility_is_no_candidate_in_the_report() -> None:
    tried = [ORIGINAL, kept(0, 0.3, 0.85), kept(1, 0.05, 0.1), kept(2, 0.2, 0.88)]
    made = study(*tried, finalists=1, max_utility_loss=0.1)
    assert made.chosen("some", "ga").number == 2  # type: ignore[union-attr]
    row = knobs_row(made)
    assert "2; 1 other below the utility floor" in row
    assert row[4] == "2", "candidates"
    assert tuning_check.values_of(made, "some", "ga") == [0.3, 0.2]
    assert "loses more than 10 points of held-out accuracy" in choosing.sentence(made)
    assert "more than 10 points" in dict(words.setting(made))["Utility floor"]
    rules = next(t for t in contents.all_tables(made) if t.name == "selection")
    assert [cell.text for cell in rules.groups[0].rows[0]][4] == "2"
    assert cards.below_floor(made) == ""


def test_a_cell_of_wrecks_is_named() -> None:
    made = study(ORIGINAL, kept(0, 0.3, 0.1), kept(1, 0.2, 0.1), finalists=1, max_utility_loss=0.1)
    assert "1; below the utility floor, as all are" in knobs_row(made)
    assert cards.below_floor(made) == (
        "Every configuration loses more than 10 points of held-out accuracy on what is kept for ga on some."
    )
    assert cards.below_floor(made) in cards.sentences(made)


@pytest.mark.parametrize("limit", [None, 1.0])
def test_without_a_floor_nothing_is_said_of_one(limit: float | None) -> None:
    search = {} if limit is None else {"max_utility_loss": limit}
    made = study(ORIGINAL, kept(0, 0.3, 0.85), kept(1, 0.05, 0.1), finalists=1, **search)
    assert made.chosen("some", "ga").number == 1  # type: ignore[union-attr]
    assert "utility" not in " ".join([choosing.sentence(made), *knobs_row(made)])
    assert dict(words.setting(made))["Utility floor"] == ""


def test_a_constraint_decides_in_the_report_too(searched: list[TrialRecord]) -> None:
    made = study(*searched, choose="avg_gap_natmu >= 0.25", finalists=1)
    assert made.chosen("some", "ga").number == 3  # type: ignore[union-attr]
