"""Tables, figures and files on robustness and certainty, for small studies with known numbers."""

# ruff: noqa: RUF001 (typographic signs are what tables hold)

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from studies import ROOT

from mu.record import TrialRecord, read, to_line, trial_line, write
from reports import contents, load, page
from reports.analysis import importance, spaces
from reports.charts import maps
from reports.charts import search as knob_charts
from reports.page import cards
from reports.tables import files, uncertainty
from reports.tables import results as result_tables
from reports.tables.cells import Table

DATA = ROOT / "tests" / "data"
RETRAIN = (0.90, 0.91, 0.92)
"""Accuracy on held-out and on forgotten samples of the retrained models; their MIA is 0.5."""
ORIGINAL = 0.08
"""How far the original is above them on forgotten samples: AvgGap 2.67, four times the noise floor of 0.67."""
REQUESTS = ("near", "far")


@pytest.fixture(scope="module")
def tiny() -> load.RecordedStudy:
    """The study of the other tests of reports."""
    return load.assemble(*read(DATA / "trials.jsonl"), {})


def record(phase: str, forget: str, method: str, seed: int, **fields: Any) -> TrialRecord:
    parts = (phase, forget, method, seed, fields.get("number"), fields.get("source"))
    key = "/".join(map(str, parts))
    status = fields.pop("status", "finished")
    return TrialRecord(key, "small", phase, forget, method, seed, status, **fields)


def scored(gap: float, seed: int) -> dict[str, dict[str, float]]:
    """Metrics of a run whose forget accuracy is this far above its retrained model: AvgGap is a third of it."""
    acc = RETRAIN[seed - 1]
    view = {"acc_test": acc, "acc_forget": acc + gap, "mia_lr_entropy": 0.5}
    return {"val": dict(view), "test": view}


def small(
    gaps: dict[tuple[str, str, str, str | None], float], **definition: Any
) -> load.RecordedStudy:
    """A study of (phase, request, method, source) to the gap of forget accuracy, on three seeds."""
    return load.assemble(*small_lines(gaps, **definition), {})


def small_lines(
    gaps: dict[tuple[str, str, str, str | None], float], **definition: Any
) -> tuple[dict[str, Any], list[TrialRecord]]:
    methods = dict.fromkeys(method for _, _, method, _ in gaps)
    line = {
        "study": "small",
        "definition": {
            "forget": {name: {"kind": "random"} for name in REQUESTS},
            "methods": [{"name": name} for name in methods],
            "seeds": {"search": [0], "report": [1, 2, 3]},
            "experiments": {
                "sufficient": {"epochs": 9},
                "transfer": [["near", "far"], ["far", "near"]],
            },
            **definition,
        },
        "methods": {name: {"has_epochs": name != "single"} for name in methods},
    }
    records = [
        record("reference", name, model, seed, role="report", metrics=scored(gap, seed))
        for name in REQUESTS
        for seed in (1, 2, 3)
        for model, gap in (("original", ORIGINAL), ("retrain", 0.0))
    ]
    for (phase, forget, method, source), gap in gaps.items():
        knobs = {"epochs": 9 if phase == "sufficient" else 3}
        for seed in (1, 2, 3):
            metrics = {"metrics": scored(gap, seed)} if math.isfinite(gap) else {"status": "failed"}
            records.append(
                record(phase, forget, method, seed, source=source, knobs=knobs, **metrics)
            )
    return line, records


GAPS: dict[tuple[str, str, str, str | None], float] = {
    ("confirm", "near", "steady", None): 0.03,
    ("confirm", "far", "steady", None): 0.03,
    ("default", "near", "steady", None): 0.09,
    ("default", "far", "steady", None): 0.03,
    ("sufficient", "near", "steady", None): 0.00,
    ("sufficient", "far", "steady", None): 0.03,
    ("transfer", "near", "steady", "far"): 0.06,
    ("transfer", "far", "steady", "near"): 0.03,
    ("confirm", "near", "single", None): 0.06,
    ("confirm", "far", "single", None): 0.06,
    ("transfer", "near", "single", "far"): 0.00,
    ("transfer", "far", "single", "near"): 0.09,
    ("confirm", "near", "broken", None): 0.01,
    ("confirm", "far", "broken", None): 0.01,
    ("transfer", "near", "broken", "far"): math.nan,
    ("transfer", "far", "broken", "near"): 0.01,
}


@pytest.fixture(scope="module")
def study() -> load.RecordedStudy:
    return small(GAPS)


def named(study: load.RecordedStudy, name: str) -> Table:
    return next(table for table in contents.all_tables(study) if table.name == name)


def rows(table: Table, group: str) -> dict[str, list[str]]:
    """Row label to the texts of a group."""
    found = next(g.rows for g in table.groups if g.name == group)
    return {row[0].text: [cell.text for cell in row[1:]] for row in found}


def test_robustness_table_has_parts_and_says_what_is_missing(study: load.RecordedStudy) -> None:
    found = rows(named(study, "robustness"), "all")
    # Gaps of forget accuracy are 8 points for doing nothing; transferred 3 and 6, defaults 9 and 3, longer 0 and 3.
    assert found["steady"] == [
        "50.0 [50.0, 50.0]",
        "43.8 [43.8, 43.8]",
        "25.0 [25.0, 25.0]",
        "81.2 [81.2, 81.2]",
        "62.5 [62.5, 62.5]",
        "+0.33 [+0.33, +0.33]",
        "+2.00 (near, defaults)",
    ]
    assert found["single"][:4] == [
        "43.8 [43.8, 43.8]*§",
        "43.8 [43.8, 43.8]",
        "0 of 2",
        "–*",
    ]
    assert found["broken"][:4] == [
        "87.5 [87.5, 87.5]§",
        "87.5 [87.5, 87.5] [1 of 2]",
        "0 of 2",
        "0 of 2",
    ]
    assert found["original (doing nothing)"] == [*["0.0 [0.0, 0.0]"] * 5, "–", "–"]


def test_best_is_not_one_of_a_method_that_lacks_runs(study: load.RecordedStudy) -> None:
    cells = {row[0].text: row[1] for row in named(study, "robustness").groups[0].rows}
    assert cells["broken"].text == "87.5 [87.5, 87.5]§"
    assert [name for name, cell in cells.items() if cell.best] == ["steady"]
    bad = {key: 0.1 if key[0] != "confirm" else gap for key, gap in GAPS.items()}
    worse = named(small({k: v for k, v in bad.items() if k[2] == "steady"}), "robustness")
    assert [row[0].text for row in worse.groups[0].rows if row[1].best] == [
        "original (doing nothing)"
    ]


def test_default_knobs_stand_beside_tuned_ones(study: load.RecordedStudy) -> None:
    main = rows(result_tables.main(study), "near")
    assert main["AvgGap (of means)"][3:] == ["1.00 ?", "2.00 ≠", "0.33 ?"]
    assert main["AvgGap, default knobs (of means)"][3:] == ["3.00 ≠", "not run", "not run"]
    assert main["Recovery"] == ["0.0", "75.0", "–", "62.5", "25.0", "87.5"]


def test_default_runs_are_not_outdated_by_what_the_search_chose() -> None:
    study = searched([0.05, 0.01])
    _, records = small_lines({("default", "near", "steady", None): 0.06})
    defaults = [r for r in records if r.phase == "default"]
    study = load.assemble(study.line, [*study.records, *defaults], {})
    main = rows(result_tables.main(study), "near")
    assert main["AvgGap, default knobs (of means)"][-1] == "2.00 ≠"
    assert main["AvgGap (of means)"][-1] == "1.00‡ ?"


def test_study_without_default_runs_has_no_such_row_or_part(tiny: load.RecordedStudy) -> None:
    assert "AvgGap, default knobs (of means)" not in rows(result_tables.main(tiny), "random10")
    assert {row[3].text for row in named(tiny, "robustness").groups[0].rows} == {"–"}


def test_transfer_matrix_has_regret_ranks_and_the_ranking_kept(study: load.RecordedStudy) -> None:
    found = rows(named(study, "transfer_matrix"), "near → far")
    assert found["steady"] == ["1.00 ?", "2", "1.00 ?", "2", "0.00 [0.00, 0.00]", "0.00"]
    assert found["single"] == ["2.00 ≠", "3", "3.00 ≠", "3", "+1.00 [+1.00, +1.00]", "1.00"]
    assert found["Ranking kept (3 methods)"][3] == "τ = 1.00"
    back = rows(named(study, "transfer_matrix"), "far → near")
    # Own: steady before single; with the knobs of the other request the other way round.
    assert back["Ranking kept (2 methods)"][3] == "τ = −1.00"


def test_transfer_matrix_is_drawn_with_own_knobs_on_the_diagonal(study: load.RecordedStudy) -> None:
    drawn = maps.transfer_matrix(study)
    assert drawn is not None
    data = drawn.data["matrix"].set_index(["method", "source", "target"]).sort_index()
    assert data.loc["steady", "gap"].to_dict() == pytest.approx(
        {
            ("near", "near"): 1.0,
            ("near", "far"): 1.0,
            ("far", "near"): 2.0,
            ("far", "far"): 1.0,
        }
    )
    assert data.loc["steady", "regret"]["far", "near"] == pytest.approx(1.0)
    assert math.isnan(data.loc["steady", "regret"]["near", "near"])
    assert data.loc["broken", "gap"].to_dict() == pytest.approx(
        {("near", "near"): 1 / 3, ("near", "far"): 1 / 3, ("far", "far"): 1 / 3}
    )


def test_over_forgetting_is_told_by_slope_and_end(tiny: load.RecordedStudy) -> None:
    found = rows(named(tiny, "overforgetting"), "random10")
    assert found["alpha"] == [
        "5 → 20",
        "95.00 ± 5.00",
        "60.00 ± 0.00",
        "90.00",
        "−30.00",
        "−2.33 [−3.16, −1.51]",
        "over-forgets",
    ]
    assert found["beta"][0] == "–*"


@pytest.mark.parametrize(
    ("tuned", "longer", "reading"),
    [
        ((0.06, 0.06, 0.06), (0.03, 0.03, 0.03), "falls, not below retraining"),
        (
            (0.06, 0.06, 0.06),
            (-0.01, -0.01, -0.01),
            "falls, not below retraining",
        ),  # within the floor
        ((0.06, 0.06, 0.06), (-0.03, -0.03, -0.03), "over-forgets"),
        ((-0.06, -0.06, -0.06), (-0.03, -0.03, -0.03), "does not fall"),
        ((0.06, 0.00, 0.06), (-0.10, 0.02, 0.01), "no slope that can be told from 0"),
        ((0.06, math.nan, math.nan), (-0.10, 0.02, 0.01), "one seed: no interval"),
    ],
)
def test_reading_of_a_slope(tuned: Sequence[float], longer: Sequence[float], reading: str) -> None:
    line, records = small_lines({("confirm", "far", "steady", None): 0.0})
    for phase, gaps, epochs in (("confirm", tuned, 3), ("sufficient", longer, 9)):
        records += [
            record(
                phase, "near", "steady", seed, knobs={"epochs": epochs}, metrics=scored(gap, seed)
            )
            for seed, gap in enumerate(gaps, start=1)
            if math.isfinite(gap)
        ]
    study = load.assemble(line, records, {})
    assert rows(named(study, "overforgetting"), "near")["steady"][-1] == reading


def test_metrics_table_shows_everything_that_was_recorded() -> None:
    line, records = small_lines(GAPS)

    def extended(r: TrialRecord) -> TrialRecord:
        if r.phase not in ("reference", "confirm") or r.method == "single":
            missing = {"test/mia_svc_gap4": "needs 20 samples"}
            return dataclasses.replace(r, unavailable=missing)
        views = {view: dict(values) for view, values in r.metrics.items()}
        views["test"] |= {"mia_svc_gap4": 0.02, "own_metric": 0.25 + 0.5 * (r.method == "steady")}
        views["val"]["only_here"] = 3.0
        if r.method == "steady":
            views["test"]["partial_forget_acc"] = 0.9
        return dataclasses.replace(r, metrics=views)

    study = load.assemble(line, [extended(r) for r in records], {})
    found = rows(result_tables.metrics(study), "near")
    assert list(found) == [
        "Test accuracy",
        "Forget accuracy",
        "MIA (entropy, member rate)",
        "MIA (SVC), mean gap of four",
        "Partial forgetting accuracy",
        "only_here [val view]",
        "own_metric",
    ]
    assert found["MIA (SVC), mean gap of four"][3:] == [
        "2.00 ± 0.00",
        "needs 20 samples",
        "2.00 ± 0.00",
    ]
    shown = found["Partial forgetting accuracy"]
    assert set(shown) - {"–", "not run"} == {"90.00 ± 0.00"}, "no gap: no retrained model has it"
    assert found["own_metric"][3:] == ["0.750 ± 0.000 (0.500) ≠", "–", "0.250 ± 0.000 (0.000) ?"]
    assert found["only_here [val view]"][1] == "3.000 ± 0.000"


def test_every_recorded_metric_of_a_study_is_in_the_table(tiny: load.RecordedStudy) -> None:
    recorded = {
        name
        for r in tiny.records
        if r.forget == "class3" and r.phase == "confirm"
        for view in r.metrics.values()
        for name in view
    }
    assert len(rows(result_tables.metrics(tiny), "class3")) == len(recorded) == 5


def test_noise_floor_table_lists_every_distance(tiny: load.RecordedStudy) -> None:
    found = rows(named(tiny, "noise_floor"), "random10")
    # 0.90, 0.91, 0.92 and 0.88, 0.90, 0.92
    assert found["Test accuracy (RA)"] == ["0.00, 1.50, 1.50", "1.00", "1.50"]
    assert found["Forget accuracy (FA)"][1:3] == ["2.00", "3.00"]
    assert found["AvgGap"] == ["0.50, 2.00, 2.50", "1.67", "2.50"]


@pytest.mark.parametrize(
    "search",
    [
        {"objective": ["mean_gap"], "mean_gap": ["acc_forget"]},
        {"objective": {"mean_gap": ["acc_forget"]}},
    ],
)
def test_floor_of_a_list_of_the_studys_own(search: dict[str, Any]) -> None:
    line, records = small_lines(GAPS, search=search)
    records = [
        dataclasses.replace(r, metrics={v: {**m, "mean_gap": 0.01} for v, m in r.metrics.items()})
        for r in records
    ]
    study = load.assemble(line, records, {})
    assert study.objective == "mean_gap"
    assert (
        "tuned on the search seeds by Mean gap (over Forget accuracy)"
        in result_tables.main(study).caption
    )
    found = rows(result_tables.metrics(study), "near")["Mean gap"]
    # Leave one out of 0.90, 0.91, 0.92: 1.5, 0 and 1.5 points
    assert found[2:4] == ["1.00", "1.00 ± 0.00"]


def test_comparison_says_when_nothing_can_be_told(study: load.RecordedStudy) -> None:
    table = named(study, "comparison")
    assert "A test over requests needs 8 of them." in table.caption
    found = {(row[0].text, row[1].text): [c.text for c in row[2:]] for row in table.groups[0].rows}
    # Each method has the same recovery on both requests: 62.5, 25 and 87.5 %.
    assert found["steady", "single"] == ["37.5 [37.5, 37.5]", "2", "steady"]
    assert found["broken", "original"] == ["87.5 [87.5, 87.5]", "2", "broken"]
    assert len(found) == 6
    uneven = small({**GAPS, ("confirm", "far", "single", None): 0.05})
    open_yet = named(uneven, "comparison").groups[0].rows[0]
    # 37.5 and 25 points: two requests give 12.7 standard errors, of a spread of 8.8 / sqrt(2).
    assert open_yet[-1].text == "cannot be told"
    assert "1 of 3 pairs of methods can be told apart" in " ".join(cards.sentences(uneven))


def cells(study: load.RecordedStudy) -> dict[tuple[str, ...], dict[str, str]]:
    found = list(csv.DictReader(uncertainty.cells_frame(study).to_csv(index=False).splitlines()))
    keys = ("phase", "forget", "source", "method", "view", "metric")
    by_key = {tuple(row[key] for key in keys): row for row in found}
    assert len(by_key) == len(found)
    return by_key


def pooled(ours: float, theirs: float) -> float:
    """Half of the interval of the difference of two means of three: Student's with four degrees of freedom."""
    return 2.776445105 * math.sqrt((ours**2 + theirs**2) / 2 * (1 / 3 + 1 / 3))


def test_cells_csv_has_intervals_gaps_and_floors(tiny: load.RecordedStudy) -> None:
    row = cells(tiny)["confirm", "random10", "", "alpha", "test", "acc_forget"]
    half = 4.302652730 * 0.05 / math.sqrt(3)
    assert (row["study"], row["n"], float(row["mean"])) == ("tiny", "3", pytest.approx(0.95))
    assert float(row["std"]) == pytest.approx(0.05)
    assert (float(row["low"]), float(row["high"])) == pytest.approx((0.95 - half, 1.0))
    assert float(row["gap"]) == pytest.approx(0.05)
    assert float(row["gap_low"]) == 0.0
    assert float(row["gap_high"]) == pytest.approx(0.05 + pooled(0.05, 0.02))
    assert float(row["floor"]) == pytest.approx(0.02)
    assert row["verdict"] == "undecided"
    nothing = cells(tiny)["reference", "random10", "", "original", "test", "acc_forget"]
    assert nothing["verdict"] == "different"
    assert (
        cells(tiny)["confirm", "class3", "", "alpha", "test", "acc_forget"]["verdict"]
        == "undecided"
    )
    assert (
        cells(tiny)["confirm", "class3", "", "alpha", "test", "mia_lr_entropy"]["verdict"] == "same"
    )


def test_cells_csv_of_single_runs_distances_and_averages(tiny: load.RecordedStudy) -> None:
    found = cells(tiny)
    single = found["sufficient", "class3", "", "alpha", "test", "acc_forget"]
    assert (single["n"], single["std"], single["low"], single["gap_low"]) == ("1", "", "", "")
    distance = found["confirm", "random10", "", "beta", "test", "activation_distance"]
    assert (distance["gap"], distance["verdict"]) == ("", "")
    means = found["confirm", "random10", "", "alpha", "test", "avg_gap_natmu_of_means"]
    assert float(means["gap"]) == pytest.approx(0.115 / 3)
    assert float(means["floor"]) == pytest.approx(0.05 / 3)
    assert (means["mean"], means["verdict"]) == ("", "undecided")
    assert float(means["gap_low"]) < 0.115 / 3 < float(means["gap_high"])
    per_run = found["confirm", "random10", "", "alpha", "test", "avg_gap_natmu_per_run"]
    assert float(per_run["mean"]) == pytest.approx((12.5 + 11.5 + 11.5) / 900)
    share = found["confirm", "random10", "", "alpha", "test", "recovery"]
    assert float(share["mean"]) == pytest.approx(1 - 11.5 / 56)
    assert float(share["low"]) < 1 - 11.5 / 56 < float(share["high"])
    assert ("transfer", "class3", "random10", "alpha", "test", "acc_forget") in found
    assert ("confirm", "random10", "", "gamma", "test", "acc_test") not in found


def test_tables_as_csv_have_every_number_in_a_column_of_its_own(tiny: load.RecordedStudy) -> None:
    found = files.table_frame(result_tables.main(tiny))
    found = found[found["Metric"] == "Forget accuracy (FA)"].set_index("Method")
    row = found.loc["alpha"]
    assert (row["value"], row["std"], row["gap"]) == pytest.approx((0.95, 0.05, 0.05))
    assert (row["low"], row["high"]) == pytest.approx((0.8258, 1.0), abs=5e-5)
    assert (row["gap_low"], row["gap_high"]) == pytest.approx((0.0, 0.1363), abs=5e-5)
    assert row["verdict"] == "undecided"
    assert found.loc["Noise floor", ["low", "std", "gap"]].isna().all()
    assert found.loc["Retrain", ["gap", "gap_low", "verdict"]].isna().all()
    assert (found.loc["beta", "note"], found.loc["gamma", "note"]) == ("n=2", "failed ×3")
    wide = files.table_frame(named(tiny, "robustness")).set_index("Method")
    assert wide.loc["alpha", "Tuned low"] < wide.loc["alpha", "Tuned"] <= 1
    assert list(wide.columns[:2]) == ["Requests", "Untuned recovery [95 % interval]"]


def test_page_shows_intervals_below_averages_and_when_one_points_at_a_cell(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_bytes((DATA / "trials.jsonl").read_bytes())
    text = page.build(tmp_path).read_text(encoding="utf-8")
    assert 'title="95 % interval: 82.58 to 100.00, gap 0.00 to 13.63; undecided"' in text
    assert "(10.00) ≠</td>" in text and '; different"' in text
    assert '3.83 ?<i class="range">[' in text
    assert "Student's over the seeds" in text


def search(objectives: Sequence[float], **views: Sequence[float]) -> Iterator[TrialRecord]:
    """Search trials of one cell, whose learning rate grows with the number."""
    for number, value in enumerate(objectives):
        val = {"avg_gap_natmu": value, **{name: values[number] for name, values in views.items()}}
        knobs = {"lr": 10.0**-number, "momentum": 0.9, "rule": ("x", "y")[number % 2]}
        yield record(
            "search", "near", "steady", 0, number=number, knobs=knobs, metrics={"val": val}
        )


def searched(objectives: Sequence[float], **views: Sequence[float]) -> load.RecordedStudy:
    line, records = small_lines({("confirm", "near", "steady", None): 0.03})
    line["definition"]["methods"] = [
        {
            "name": "steady",
            "space": {
                "lr": {"low": 1e-9, "high": 1.0, "log": True},
                "rule": {"choices": ["x", "y"]},
            },
        }
    ]
    role = {"role": "search"}
    known = [
        record("reference", "near", "original", 0, metrics={"val": {"acc_test": 0.9}}, **role),
        record(
            "reference",
            "near",
            "retrain",
            0,
            metrics={"val": {"acc_forget": 0.88, "mia_lr_entropy": 0.6}},
            **role,
        ),
    ]
    return load.assemble(line, [*records, *known, *search(objectives, **views)], {})


def test_selection_tables_show_choice_and_regret_of_every_rule() -> None:
    study = searched(
        [0.05, 0.01, 0.03],
        acc_forget=(0.99, 0.88, 0.91),
        acc_test=(0.90, 0.80, 0.90),
        mia_lr_entropy=(0.5, 0.7, 0.9),
    )
    table = named(study, "selection")
    found = {row[1].text: [cell.text for cell in row[2:]] for row in table.groups[0].rows}
    assert found == {
        "Best objective": ["lr = 0.1, rule = y", "oracle", "1", "1.00", "0.00"],
        "Forget accuracy, then MIA (NatMU)": ["lr = 0.1, rule = y", "oracle", "1", "1.00", "0.00"],
        "Forget accuracy as held-out": [
            "lr = 0.01, rule = x",
            "no retrained model",
            "2",
            "3.00",
            "2.00",
        ],
        "Forget losses as held-out": ["metrics not recorded", "no retrained model", "–", "–", "–"],
        "MIA at chance": ["lr = 1, rule = x", "no retrained model", "0", "5.00", "4.00"],
    }
    summary = {
        row[0].text: [cell.text for cell in row[1:]] for row in named(study, "rules").groups[0].rows
    }
    assert summary["MIA at chance"] == [
        "no retrained model",
        "1",
        "0 of 1",
        "4.00",
        "4.00 (steady, near)",
    ]
    assert "Forget losses as held-out" not in summary


def test_objective_that_is_a_cost_is_no_oracle() -> None:
    line, records = small_lines(
        {("confirm", "near", "steady", None): 0.03}, search={"objective": "time_unlearn"}
    )
    trials = [dataclasses.replace(r, time_unlearn=2.0) for r in search([0.1, 0.2])]
    study = load.assemble(line, [*records, *trials], {})
    assert rows(named(study, "rules"), "all")["Best objective"][0] == "no retrained model"


def test_importance_finds_the_knob_that_matters() -> None:
    study = searched([0.1 + 0.02 * n + 0.001 * (n % 2) for n in range(10)])
    method, request = study.methods[0], study.requests[0]
    shares = importance.importance(study, request, method).shares
    assert shares["lr"] > 0.5 > shares["rule"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert (
        shares
        == importance.importance(
            load.assemble(study.line, study.records, {}), request, method
        ).shares
    )
    found = rows(named(study, "importance"), "steady")
    assert list(found) == ["lr", "rule"]
    assert found["lr"][0] == "[1e-09, 1] log"
    assert found["lr"][2] == "0 of 8 trials"


def test_importance_weighs_a_logarithmic_range_by_decades() -> None:
    # Rates below 1e-5 are nearly half of the range by decades, and nothing of it by length.
    study = searched([0.1 + 0.5 * (n > 4) + 0.05 * (n % 2) for n in range(10)])
    shares = importance.importance(study, study.requests[0], study.methods[0]).shares
    assert shares["lr"] > 0.8


@pytest.mark.parametrize(
    ("objectives", "reason"),
    [([0.1] * 7, "7 of 8 trials"), ([0.1] * 8, "objective does not vary")],
)
def test_importance_says_why_there_is_none(objectives: list[float], reason: str) -> None:
    study = searched(objectives)
    found = importance.importance(study, study.requests[0], study.methods[0])
    assert (found.shares, found.reason) == ({}, reason)


def test_report_is_written_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searched([0.1 + 0.02 * n for n in range(10)])
    lines = [
        to_line("study", dict(study.line)),
        *map(trial_line, study.records),
    ]
    write(tmp_path / "trials.jsonl", lines)
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    text = page.build(tmp_path, figures="all").read_text(encoding="utf-8")
    assert "optuna is not installed" in text
    assert (tmp_path / "report" / "figures" / "response_steady.svg").is_file()


def test_response_has_an_axis_as_the_range_and_parallel_coordinates_have_both_knobs() -> None:
    study = searched([0.1 + 0.02 * n + 0.001 * (n % 2) for n in range(10)])
    response, parallel = knob_charts.knobs(study)
    assert list(response.panels) == ["lr", "rule"]
    axes = [spec["layer"][0]["encoding"]["x"] for spec in response.specs()]
    assert [axis["title"] for axis in axes] == ["lr", "rule"]
    assert axes[0]["scale"]["type"] == "log" and "type" not in axes[1]["scale"]
    assert axes[1]["scale"]["domain"] == ["x", "y"]
    (data,) = response.data.values()
    points = data[data["knob"] == "lr"]
    assert points["at_value"].tolist() == pytest.approx([10.0**-n for n in range(10)])
    assert points["objective"].iloc[0] == pytest.approx(10.0)
    assert points.loc[points["chosen"], "number"].tolist() == [0]
    assert parallel.data.keys() == response.data.keys()
    low, high = (
        math.log(study.methods[0].space["lr"]["low"]),
        math.log(study.methods[0].space["lr"]["high"]),
    )
    low = min(low, math.log(10.0**-9))
    high = max(high, 0.0)
    places = [(math.log(10.0**-n) - low) / (high - low) for n in range(10)]
    assert points["place"].tolist() == pytest.approx(places)
    assert data.loc[data["knob"] == "rule", "place"].unique().tolist() == [0.0, 1.0]


def test_expected_best_is_drawn_with_its_interval() -> None:
    drawn = knob_charts.expected_best(searched([0.4, 0.1, 0.3, 0.9]))
    assert drawn is not None
    data = drawn.data["expected"]
    curve = data["expected"].tolist()
    assert curve[0] == pytest.approx(100 * (0.4 + 0.1 + 0.3 + 0.9) / 4)
    # Of two draws with replacement: 0.1 with 7/16, 0.3 with 5/16, 0.4 with 3/16, 0.9 with 1/16
    assert curve[1] == pytest.approx(100 * (0.7 + 1.5 + 1.2 + 0.9) / 16)
    assert (data["low"] <= data["expected"]).all() and (data["expected"] <= data["high"]).all()
    assert data[["low", "high"]].iloc[0].tolist() == pytest.approx([10.0, 90.0])


def test_spans_without_a_study_line_are_what_trials_varied() -> None:
    study = load.assemble({}, list(search([0.1, 0.2, 0.3])), {})
    found = {span.knob: span for span in spaces.spans(study, study.methods[0])}
    assert found == {
        "lr": spaces.Span("lr", 0.01, 1.0),
        "rule": spaces.Span("rule", choices=("x", "y")),
    }


def test_places_on_an_axis() -> None:
    choice, log = spaces.Span("a", choices=(None, True, 1.5)), spaces.Span("b", 0.1, 1.0, log=True)
    assert [choice.place(v) for v in (None, True, 1.5)] == [0.0, 1.0, 2.0]
    assert math.isnan(choice.place("other"))
    assert log.place(0.5) == 0.5
    assert math.isnan(log.place(0.0)) and math.isnan(log.place("x")) and math.isnan(log.place(True))


def test_oracle_selection_is_on_every_table_and_on_the_page(tmp_path: Path) -> None:
    line, records = small_lines(GAPS, selection="paper")
    # Such a search looks at the test view; that of `val` must not count.
    trials = [
        record(
            "search",
            "near",
            "steady",
            0,
            number=n,
            knobs={"epochs": 3},
            metrics={"test": {"avg_gap_natmu": value}, "val": {"avg_gap_natmu": 1 - value}},
        )
        for n, value in enumerate((0.3, 0.1))
    ]
    study = load.assemble(line, [*records, *trials], {})
    chosen = study.chosen("near", "steady")
    assert chosen is not None and chosen.number == 1
    label = "Oracle selection on the reported seeds (as the papers)."
    made = contents.all_tables(study)
    assert len(made) > 8
    assert all(table.caption.startswith(label) for table in made)
    assert label in files.to_markdown(made[0])
    write(tmp_path / "trials.jsonl", [to_line("study", line), *map(trial_line, study.records)])
    text = page.build(tmp_path).read_text(encoding="utf-8")
    assert f'role="status">{label}</p>' in text
    assert "validation view of the search seeds" not in text


def test_honest_studies_carry_no_such_label(study: load.RecordedStudy) -> None:
    assert not any("Oracle selection" in table.caption for table in contents.all_tables(study))


def test_cells_that_were_not_asked_for_say_so() -> None:
    line, records = small_lines(GAPS)
    line["definition"]["methods"][2]["forget"] = ["near"]
    limited = load.assemble(
        line, [r for r in records if (r.method, r.forget) != ("broken", "far")], {}
    )
    assert rows(result_tables.main(limited), "far")["AvgGap (of means)"][-1] == "not asked for"
    assert rows(named(limited, "knobs"), "far")["broken"][0] == "not asked for"
    assert rows(named(limited, "robustness"), "all")["broken"][1] == "–"


def test_trials_that_have_not_run_are_counted_against_the_plan() -> None:
    line, records = small_lines(GAPS)
    ended = load.assemble(line, records, {}).counts()["confirm"].total()
    for planned, missing in ((ended, ""), (ended + 3, "3 planned trials have not run.")):
        line["planned"] = {"confirm": {"trials": planned, "samples": 1.0}}
        study = load.assemble(line, records, {})
        assert (study.planned("confirm"), study.planned("search")) == (planned, None)
        assert ("have not run" in cards.unfinished(study)) is bool(missing)
        assert missing in cards.unfinished(study)


def test_phases_that_are_not_asked_for_are_not_listed(
    tmp_path: Path, study: load.RecordedStudy
) -> None:
    (tmp_path / "trials.jsonl").write_bytes((DATA / "trials.jsonl").read_bytes())
    text = page.build(tmp_path).read_text(encoding="utf-8")
    assert '<td class="text wrap">confirm</td>' in text
    assert '<td class="text wrap">default</td>' not in text
    assert study.counts()["default"]["finished"] == 6


def test_summary_tells_how_sure_it_is(study: load.RecordedStudy, tiny: load.RecordedStudy) -> None:
    text = " ".join(cards.sentences(study))
    assert "broken gets 88 % (88 to 88) of the way to retraining on near" in text
    assert "steady follows with 62 %" in text, "no interval leaves it open"
    assert "Over 2 requests, 3 of 3 pairs of methods can be told apart." in text
    assert "With knobs that were not tuned" not in text, "one method alone lacks nothing"
    whole = {**GAPS, **{(p, f, "wild", s): g for (p, f, m, s), g in GAPS.items() if m == "steady"}}
    line, records = small_lines(whole)
    noisy = []
    for r in records:
        if r.method == "wild" and r.phase == "transfer":
            far = {1: 0.0, 2: 0.05, 3: 0.3}[r.seed]
            r = dataclasses.replace(r, metrics=scored(far, r.seed))
        noisy.append(r)
    text = " ".join(cards.sentences(load.assemble(line, noisy, {})))
    assert "steady recovers most (50.0 %) and wild least (20.1 %), a difference that so few" in text
    assert "With knobs that were not tuned" not in " ".join(cards.sentences(tiny))


def test_captions_say_where_knobs_were_chosen_with_a_retrained_model() -> None:
    oracle = "Oracle: knobs were chosen by comparison with a retrained model"
    gaps = {name: t.caption for t in contents.all_tables(small(GAPS)) for name in [t.name]}
    assert {name for name, caption in gaps.items() if not caption.startswith(oracle)} == {
        "noise_floor"
    }
    cheap = small(GAPS, search={"objective": "time_unlearn"})
    assert not any(table.caption.startswith(oracle) for table in contents.all_tables(cheap))
