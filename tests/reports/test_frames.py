"""The frames of a study: a row for each run and metric, method and request, trial, and point of a curve."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from studies import ROOT

from mu.record import read
from reports import frames, load
from tests.reports.test_robustness import GAPS, small

RECOVERIES = ("tuned", "transferred", "defaults", "longer")


@pytest.fixture(scope="module")
def tiny() -> load.RecordedStudy:
    return load.assemble(*read(ROOT / "tests" / "data" / "trials.jsonl"), {})


@pytest.fixture(scope="module")
def methods() -> pd.DataFrame:
    return frames.methods(small(GAPS)).set_index(["forget", "method"])


def test_every_method_and_both_references_have_a_row(methods: pd.DataFrame) -> None:
    names = ["original", "retrain", "steady", "single", "broken"]
    assert list(methods.index) == [(r, name) for r in ("near", "far") for name in names]
    assert list(methods["role"])[:3] == ["original", "retrain", "method"]
    assert methods["measurable"].all() and methods["oracle"].all()


def test_recoveries_are_those_on_the_request(methods: pd.DataFrame) -> None:
    # Doing nothing has a gap of 8 points in forget accuracy, AvgGap is a third of it.
    near, far = methods.loc["near", "steady"], methods.loc["far", "steady"]
    assert [near[f"recovery_{name}"] for name in RECOVERIES] == pytest.approx(
        [1 - 3 / 8, 1 - 6 / 8, 1 - 9 / 8, 1.0]
    )
    assert [far[f"recovery_{name}"] for name in RECOVERIES] == pytest.approx([1 - 3 / 8] * 4)
    assert (near["recovery_tuned_low"], near["recovery_tuned_high"]) == pytest.approx(
        (0.625, 0.625)
    )
    assert near["avg_gap"] == pytest.approx(0.01)
    broken = methods.loc["near", "broken"]
    assert math.isnan(broken["recovery_transferred"]) and math.isnan(broken["recovery_defaults"])
    assert methods.loc["near", "original"]["recovery_tuned"] == 0.0
    ceiling = methods.loc["near", "retrain"]["recovery_tuned"]
    assert ceiling == pytest.approx(1 - 0.02 / 3 / (0.08 / 3))


def test_time_is_against_retraining_and_words_stand_for_each_metric(
    tiny: load.RecordedStudy,
) -> None:
    rows = frames.methods(tiny).set_index(["forget", "method"])
    alpha = rows.loc["random10", "alpha"]
    assert (alpha["seconds"], alpha["time_ratio"]) == (5.0, pytest.approx(5 / 120))
    assert rows.loc["random10", "retrain"]["time_ratio"] == 1.0
    assert rows.loc["random10", "original"]["seconds"] == 0.0
    words = {name: alpha[f"verdict_{name}"] for name in ("acc_test", "acc_forget")}
    assert words == {"acc_test": "undecided", "acc_forget": "undecided"}
    assert (alpha["verdict"], alpha["verdict_acc_test_forget"]) == ("undecided", "")
    assert rows.loc["random10", "gamma"]["reason"] == "failed ×3"  # noqa: RUF001
    assert rows.loc["random10", "retrain"]["verdict"] == ""


def test_trials_have_objective_recovery_and_status(tiny: load.RecordedStudy) -> None:
    trials = frames.trials(tiny).set_index("key")
    assert len(trials) == len(tiny.records)
    by_key = {r.key: r for r in tiny.records}
    for key, row in trials.iterrows():
        assert (row["status"], row["knobs"]) == (by_key[key].status, by_key[key].knobs)
    confirmed = trials[(trials["phase"] == "confirm") & (trials["method"] == "alpha")]
    first = confirmed[(confirmed["forget"] == "random10") & (confirmed["seed"] == 1)].iloc[0]
    assert first["recovery"] == pytest.approx(1 - (12.5 / 3) / (56 / 3))
    searched = trials[(trials["phase"] == "search") & (trials["status"] == "finished")]
    assert searched["objective"].notna().all()
    failed = trials[trials["status"] == "failed"]
    assert failed["recovery"].isna().all() and (failed["reason"] != "").all()


def test_curves_have_a_row_for_each_epoch_and_metric(tiny: load.RecordedStudy) -> None:
    curves = frames.curves(tiny)
    assert list(curves.columns) == ["key", "epoch", "metric", "value"]
    points = sum(len(point) - 1 for r in tiny.records for point in r.curve)
    assert len(curves) == points > 0


def test_runs_carry_their_trials_key(tiny: load.RecordedStudy) -> None:
    runs = frames.runs(tiny)
    assert list(runs.columns) == list(frames.RUNS)
    keys = {r.key: r for each in tiny.runs.values() for r in each.finished}
    assert set(runs["key"]) == set(keys)
    row = runs[(runs["phase"] == "confirm") & (runs["metric"] == "acc_test")].iloc[0]
    assert row["value"] == keys[row["key"]].metrics[row["view"]]["acc_test"]
