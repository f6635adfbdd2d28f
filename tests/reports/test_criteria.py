"""The success criteria of docs/results/choice.md, and the reliability of rules, on made-up records."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import choice
from reports.load import RecordedStudy
from tests.reports.test_regret import study

SHARE = (0.06 / 0.12 + 2 * 0.05 / 0.11) / 3
"""Of `losses` in every cell, the mean over its seeds; see test_regret.py."""


@pytest.fixture(scope="module")
def recorded() -> RecordedStudy:
    made = study("defaults", "losses", "held_out", "oracle_one", forgets=("some", "other"))
    kinds = {"some": "random", "other": "hardest"}
    return replace(made, requests=tuple(replace(r, kind=kinds[r.name]) for r in made.requests))


def test_a_rule_is_checked_by_group_of_requests(recorded: RecordedStudy) -> None:
    one = choice.check(recorded, "losses", "losses")
    assert one is not None
    assert one.shares == {"random": pytest.approx(SHARE), "others": pytest.approx(SHARE)}
    assert one.near == 0  # 0.05 / 0.03 noise floors
    assert one.cost == 0
    less, low = one.below["defaults"]
    assert less == pytest.approx(100 * 0.24 / 3) and low == pytest.approx(less)
    assert one.fails == ["random", "others", "near"]


def test_one_rule_for_random_requests_and_another_for_the_others(recorded: RecordedStudy) -> None:
    names = [one.name for one in choice.checks(recorded)]
    assert names == ["held_out", "losses", "held_out / losses", "losses / held_out"]
    pair = choice.check(recorded, "held_out", "losses")
    alone = choice.check(recorded, "held_out", "held_out")
    assert pair is not None and alone is not None
    assert pair.shares == {"random": alone.shares["random"], "others": pytest.approx(SHARE)}
    assert choice.check(recorded, "losses", "twin") is None


def test_what_passes_every_criterion_fails_none() -> None:
    good = choice.Check("a", {"random": 0.1, "others": 0.25}, 0.8, 0.2, {"defaults": (1.0, 0.1)})
    assert good.fails == []
    assert replace(good, shares={"random": 0.11}).fails == ["random", "others"]
    assert replace(good, near=0.79, cost=0.33).fails == ["near", "cost"]
    assert replace(good, below={"defaults": (1.0, 0.0)}).fails == ["below defaults"]
    assert replace(good, near=float("nan")).fails == ["near"]


def test_reliability_has_mean_regret_and_median_share_of_rules_that_rank(
    recorded: RecordedStudy,
) -> None:
    content = choice.reliability([recorded, recorded])
    assert content["from"] == "toy, toy"
    assert set(content["rules"]) == {"losses", "held_out"}
    assert content["rules"]["losses"] == {
        "samples": {"cells": 4, "regret": 1.78, "share": round(SHARE, 3)}
    }


def test_the_summary_has_a_row_for_each_rule_in_each_cell(
    recorded: RecordedStudy, tmp_path: Path
) -> None:
    choice.write_csv(tmp_path / "toy.csv", recorded)
    with (tmp_path / "toy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    [row] = [r for r in rows if (r["rule"], r["request"]) == ("losses", "some")]
    assert (row["method"], row["seeds"], row["retrainings"]) == ("ga", "3", "0")
    assert float(row["points"]) == pytest.approx(0.16 / 9, rel=1e-4)
    assert float(row["share"]) == pytest.approx(SHARE, rel=1e-4)
