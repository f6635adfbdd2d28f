"""The report of a small study with hand-chosen numbers (tests/data/make_trials.py): cells, files, page."""

# ruff: noqa: RUF001 (typographic signs are what tables hold)

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from statistics import stdev
from xml.etree import ElementTree

import altair as alt
import pytest
from studies import ROOT

from mu.record import TrialRecord, read, to_line, trial_line, write
from reports import __main__ as command_line
from reports import contents, frames, load, page
from reports.charts import maps, results
from reports.charts.figure import Figure
from reports.page import cards, words
from reports.page.methods import summary
from reports.statistics import intervals
from reports.tables import files
from reports.tables import knobs as knob_tables
from reports.tables import published as paper_numbers
from reports.tables import results as result_tables
from reports.tables.cells import Table
from reports.tables.classes import per_class
from reports.tables.latex import latex

DATA = ROOT / "tests" / "data"
TABLES = (
    "main",
    "sufficient",
    "overforgetting",
    "transfer",
    "robustness",
    "rules",
    "noise_floor",
    "comparison",
    "knobs",
    "cost",
    "transfer_matrix",
    "metrics",
    "classes",
    "selection",
    "importance",
)
FIGURES = (
    "tradeoff",
    "recoveries",
    "over_forgetting",
    "transfer_matrix",
    "taken_for",
    "progress",
    "expected_best",
)
KNOBS = (
    "response_alpha",
    "response_beta",
    "response_gamma",
    "response_delta",
    "parallel_delta",
)
"""Figures of a single method, which are files only where all figures are asked for."""


@pytest.fixture(scope="module")
def lines() -> tuple[dict, list[TrialRecord]]:
    return read(DATA / "trials.jsonl")


@pytest.fixture(scope="module")
def study(lines) -> load.RecordedStudy:
    return load.assemble(*lines, {})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A report built once from the file, with a summary beside it."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    folder.mkdir()
    shutil.copy(DATA / "trials.jsonl", folder)
    summary = {"wall_seconds": 75.0, "slots": 2, "efficiency": 0.875, "later": {"key": 1}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return page.build(folder).parent


def column(table: Table, group: str, head: str) -> dict[str, str]:
    """Row label to cell text of one column of one group."""
    index = table.columns.index(head)
    rows = next(g.rows for g in table.groups if g.name == group)
    return {row[0].text: row[index].text for row in rows}


def remade(lines, change, line=None) -> load.RecordedStudy:
    """The study with every record changed; None drops it."""
    records = [changed for record in lines[1] if (changed := change(record)) is not None]
    return load.assemble(lines[0] if line is None else line, records, {})


def saved(folder: Path, line: dict, records: list[TrialRecord]) -> Path:
    """Write a study's folder."""
    folder.mkdir()
    content = {k: v for k, v in line.items() if k not in ("kind", "schema")}
    study_lines = [to_line("study", content)] if content else []
    write(folder / "trials.jsonl", [*study_lines, *map(trial_line, records)])
    return folder


def test_trials_file_is_what_its_script_writes():
    written = (DATA / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    assert written == runpy.run_path(str(DATA / "make_trials.py"))["lines"]()


def test_spread_is_sample_deviation_and_none_for_one_run():
    assert intervals.spread([1.0, 2.0, 6.0]) == intervals.Spread(3.0, stdev([1, 2, 6]), 3)
    assert intervals.spread([2.0, math.nan]) == intervals.Spread(2.0, None, 1)
    assert intervals.spread([math.nan]) is None


def test_main_table_of_a_random_request(study):
    main = result_tables.main(study)
    assert main.columns == (
        "Metric",
        "Original",
        "Retrain",
        "Noise floor",
        "alpha",
        "beta",
        "gamma",
        "delta",
    )
    assert column(main, "random10", "Retrain") == {
        "Test accuracy (RA)": "91.00 ± 1.00",
        "Forget accuracy (FA)": "90.00 ± 2.00",
        "MIA (entropy, member rate)": "51.00 ± 1.73",
        "Activation distance (AD)": "0.030 ± 0.010",
        "AvgGap (of means)": "–",
        "AvgGap (per run)": "–",
        "Recovery": "91.1",  # 1 - 1.67 / 18.67
    }
    assert list(column(main, "random10", "Noise floor").values()) == [
        "1.00",
        "2.00",
        "2.00",
        "0.030",
        "1.67",
        "1.67",
        "–",
    ]
    assert list(column(main, "random10", "Original").values()) == [
        "93.00 ± 0.00 (2.00) ≠",
        "100.00 ± 0.00 (10.00) ≠",
        "95.00 ± 0.00 (44.00) ≠",
        "–",
        "18.67 ≠",
        "18.67 ± 0.00",
        "0.0",
    ]
    # Per run: gaps of 12.5/3, 11.5/3 and 11.5/3 points.
    assert list(column(main, "random10", "alpha").values()) == [
        "90.50 ± 1.00 (0.50) ?",
        "95.00 ± 5.00 (5.00) ?",
        "45.00 ± 5.00 (6.00) ?",
        "0.120 ± 0.020",
        "3.83 ?",
        "3.94 ± 0.19",
        "79.5",  # 1 - 3.83 / 18.67
    ]


def test_main_table_of_a_class_has_natmus_four_metrics(study):
    assert column(result_tables.main(study), "class3", "alpha") == {
        "Test accuracy, retained classes (RA)": "95.00 ± 0.00 (0.00) =",
        "Forget accuracy (FATrain)": "3.00 ± 3.00 (3.00) ?",
        "Test accuracy, forgotten class (FATest)": "0.00 ± 0.00 (0.00) =",
        "MIA (entropy, member rate)": "25.00 ± 0.00 (5.00) =",
        "Activation distance (AD)": "0.200 ± 0.000",
        "AvgGap (of means)": "2.00 ?",
        "AvgGap (per run)": "2.00 ± 0.75",
        "Recovery": "97.0",
    }


def test_cells_with_missing_seeds_say_how_many_there_are(study):
    assert list(column(result_tables.main(study), "random10", "beta").values()) == [
        "81.00 ± 1.41 (10.00) [n=2] ≠",
        "89.50 ± 0.71 (0.50) [n=2] ?",
        "54.00 ± 1.41 (3.00) [n=2] ?",
        "0.025 ± 0.007 [n=2]",
        "4.50 [n=2] ≠",
        "4.50 ± 0.24 [n=2]",
        "75.9",
    ]


def test_cells_without_a_run_say_why(study):
    main = result_tables.main(study)
    reasons = {
        (group, method): set(column(main, group, method).values())
        for group, method in (
            ("random10", "gamma"),
            ("random10", "delta"),
            ("class3", "beta"),
            ("class3", "gamma"),
            ("class3", "delta"),
        )
    }
    assert reasons == {
        ("random10", "gamma"): {"failed ×3"},
        ("random10", "delta"): {"no finished search trial"},
        ("class3", "beta"): {"not run"},
        ("class3", "gamma"): {"not run"},
        ("class3", "delta"): {"diverged, failed ×2"},
    }


def test_a_cell_whose_objective_was_not_measured_says_so(lines):
    def unmeasured(record):
        if record.phase != "search" or record.method != "alpha":
            return record if (record.forget, record.method) != ("random10", "alpha") else None
        return dataclasses.replace(record, metrics={"val": {"acc_retain": 0.5}})

    lacking = remade(lines, unmeasured)
    cells = set(column(result_tables.main(lacking), "random10", "alpha").values())
    assert cells == {"objective not measured"}


def best_of(table: Table, group: int) -> dict[str, list[str]]:
    """Row label to the columns that are marked as the best."""
    rows = table.groups[group].rows
    return {row[0].text: [n for n, c in zip(table.columns, row) if c.best] for row in rows}


def test_best_is_what_intervals_tell_apart_and_doing_nothing_competes(study):
    """Of `random10` no interval of a method leaves out those of the others; of `class3` one method has finished."""
    main = result_tables.main(study)
    assert not any(best_of(main, 0).values())
    assert best_of(main, 1) == {
        "Test accuracy, retained classes (RA)": [],  # as good as doing nothing
        "Forget accuracy (FATrain)": ["alpha"],
        "Test accuracy, forgotten class (FATest)": ["alpha"],
        "MIA (entropy, member rate)": ["alpha"],
        "Activation distance (AD)": [],
        "AvgGap (of means)": ["alpha"],
        "AvgGap (per run)": ["alpha"],
        "Recovery": ["alpha"],
    }
    longer = best_of(result_tables.sufficient(study), 0)
    assert longer["Forget accuracy (FA)"] == longer["AvgGap (per run)"] == ["Original"]
    assert longer["Recovery"] == []  # below 0, but not by more than the interval


def test_equal_gaps_are_not_best(lines):
    forget = {"beta": 0.85, "gamma": 0.5}

    def level(record):
        """`beta` gets the gap of `alpha`, from the other side of retraining; `gamma` a larger one."""
        cell = (record.phase, record.forget)
        if cell != ("confirm", "random10") or record.method not in forget:
            return record
        metrics = {"test": {"acc_forget": forget[record.method]}}
        return dataclasses.replace(record, status="finished", metrics=metrics)

    row = result_tables.main(remade(lines, level)).groups[0].rows[1]
    assert [cell.text for cell in row if "(5.00)" in cell.text] == [
        "95.00 ± 5.00 (5.00) ?",
        "85.00 ± 0.00 (5.00) ≠",
    ]
    assert not any(cell.best for cell in row)


def test_no_cell_is_blank(study):
    for table in contents.all_tables(study):
        for group in table.groups:
            for row in group.rows:
                assert len(row) == len(table.columns)
                assert all(cell.text.strip() for cell in row), (table.name, row)


def test_sufficient_table_shows_the_change_of_avg_gap(study):
    sufficient = result_tables.sufficient(study)
    # Gaps 2, 30 and 30 against 0.5, 5 and 6 with tuned knobs.
    assert list(column(sufficient, "random10", "alpha").values()) == [
        "89.00 ± 0.00 (2.00) ≠",
        "60.00 ± 0.00 (30.00) ≠",
        "21.00 ± 0.00 (30.00) ≠",
        "0.400 ± 0.000",
        "20.67 ≠",
        "20.67 ± 0.00",
        "−10.7",
        "+16.83",
    ]
    assert column(sufficient, "class3", "alpha")["Forget accuracy (FATrain)"] == (
        "0.00 (0.00) [n=1]"
    )
    assert column(sufficient, "class3", "alpha")["Change of AvgGap"] == "−2.00"
    assert set(column(sufficient, "random10", "beta").values()) == {"–*"}
    assert "* the method has no epochs to extend" in sufficient.notes


def test_transfer_table_compares_with_own_knobs(study):
    transfer = result_tables.transfer(study)
    assert column(transfer, "random10 → class3", "alpha") == {
        "Test accuracy, retained classes (RA)": "93.00 (2.00)",
        "Forget accuracy (FATrain)": "10.00 (7.00)",
        "Test accuracy, forgotten class (FATest)": "5.00 (5.00)",
        "MIA (entropy, member rate)": "20.00 (5.00)",
        "AvgChange": "4.75",
        "AvgGap, own knobs": "2.00 ?",
        "AvgGap, transferred knobs": "4.25 ≠",
        "Recovery": "93.6",
    }
    assert list(column(transfer, "class3 → random10", "alpha").values()) == [
        "90.00 (0.50)",
        "95.00 (0.00)",
        "46.00 (1.00)",
        "0.50",
        "3.83 ?",
        "3.67 ≠",
        "80.4",
    ]


def test_transfer_without_own_knobs_has_no_change(study):
    cells = column(result_tables.transfer(study), "random10 → class3", "beta")
    assert cells["Forget accuracy (FATrain)"] == "50.00 (–)"
    assert cells["AvgChange"] == "–"
    assert cells["AvgGap, own knobs"] == "not run"
    assert column(result_tables.transfer(study), "random10 → class3", "delta")["AvgChange"] == (
        "no finished search trial"
    )


def test_cost_table_has_medians_and_counts(study):
    rows = {
        row[0].text: [c.text for c in row[1:]] for row in result_tables.cost(study).groups[0].rows
    }
    assert rows["alpha"] == ["5.00", "120.0", "24×", "1,000", "2", "1", "0", "0", "6.00"]
    assert rows["beta"] == ["0.25", "120.0", "480×", "300", "1", "0", "0", "1", "4.00"]
    assert rows["gamma"][:4] == ["failed ×3", "120.0", "–", "failed ×3"]


def test_costs_count_gpus_where_there_are_any(study, lines):
    assert "Search GPU time (s)" not in result_tables.cost(study).columns
    half = remade(lines, lambda r: dataclasses.replace(r, resources={"cpus": 2.0, "gpus": 0.5}))
    gpu = column(result_tables.cost(half), "random10", "Search GPU time (s)")
    assert (gpu["alpha"], gpu["beta"]) == ("3.00", "2.00")
    seconds = sum(r.time_total for r in lines[1])
    shown = dict(words.setting(half))
    assert shown["Cost"] == f"{seconds / 7200:.3g} GPU-hours, {seconds / 1800:.3g} CPU-hours"


def test_limits_and_resources_are_told(lines):
    definition = {
        **lines[0]["definition"],
        "resources": {"cpus": 2, "gpus": 0.25, "custom": {"a100": 1}, "references": {"gpus": 1}},
        "trial_timeout": 60,
        "budget": {"gpu_hours": 2, "wall_minutes": None},
    }
    ended = {"by": "gpu_hours", "limit": 2, "trials": 7}
    line = {**lines[0], "definition": definition, "search_ended": ended}
    shown = dict(words.setting(remade(lines, lambda r: r, line)))
    assert shown["Resources of a trial"] == "cpus = 2, gpus = 0.25, a100 = 1"
    assert shown["of a training"] == "cpus = 2, gpus = 1, a100 = 1"
    assert shown["Limits"] == (
        "trial_timeout = 60, gpu_hours = 2, the search ended after 7 trials a cell"
    )


def test_knobs_table_has_the_best_candidate(study):
    rows = {
        row[0].text: [c.text for c in row[1:]] for row in knob_tables.knobs(study).groups[0].rows
    }
    assert rows["alpha"][:4] == ["lr = 0.01, epochs = 5", "3.00", "1", "2"]
    assert rows["delta"][:4] == ["no finished search trial", "–", "–", "0"]


def test_results_csv_is_tidy_and_in_full_precision(study, lines):
    rows = list(csv.DictReader(frames.runs(study).to_csv(index=False).splitlines()))
    counted = [r for r in lines[1] if r.finished and r.phase != "search" and r.role != "search"]
    assert len(rows) == sum(len(view) for r in counted for view in r.metrics.values())
    keys = ("phase", "forget", "source", "method", "seed", "view", "metric")
    by_key = {tuple(row[key] for key in keys): row for row in rows}
    assert len(by_key) == len(rows)

    row = by_key["confirm", "random10", "", "alpha", "1", "test", "acc_test"]
    assert (row["study"], row["value"]) == ("tiny", "0.895")
    assert (float(row["retrain"]), float(row["gap"])) == pytest.approx((0.91, 0.015))
    row = by_key["confirm", "random10", "", "alpha", "1", "val", "acc_test"]
    assert (row["value"], float(row["retrain"])) == ("0.885", pytest.approx(0.90))
    row = by_key["transfer", "class3", "random10", "alpha", "2", "test", "acc_forget"]
    assert (row["value"], row["retrain"], row["gap"]) == ("0.1", "0.0", "0.1")
    row = by_key["reference", "random10", "", "retrain", "3", "test", "mia_lr_entropy"]
    assert float(row["gap"]) == pytest.approx(0.02)
    row = by_key["confirm", "random10", "", "beta", "2", "test", "activation_distance"]
    assert row["gap"] == ""


def test_one_report_seed_has_no_spread_and_no_floor(lines):
    line = json.loads(json.dumps(lines[0]))
    line["definition"]["seeds"]["report"] = [1]

    def without_distance(record):
        if record.method != "retrain":
            return record
        views = {
            view: {k: v for k, v in values.items() if k != "activation_distance"}
            for view, values in record.metrics.items()
        }
        return dataclasses.replace(record, metrics=views)

    study = remade(lines, without_distance, line)
    main = result_tables.main(study)
    assert list(column(main, "random10", "alpha").values()) == [
        "89.50 (0.50)",
        "90.00 (2.00)",
        "40.00 (10.00)",
        "0.100",
        "4.17",
        "4.17",
        "79.2",  # 1 - 4.17 / 20
    ]
    assert set(column(main, "random10", "Noise floor").values()) == {"–"}
    assert column(main, "random10", "Retrain")["Activation distance (AD)"] == "–"
    assert "what chance does is unknown" in cards.closest(study, study.requests[0]).text


def test_without_retrained_models_there_is_no_gap(lines):
    study = remade(lines, lambda r: None if r.method == "retrain" else r)
    cells = column(result_tables.main(study), "random10", "alpha")
    assert cells["Forget accuracy (FA)"] == "95.00 ± 5.00 (–)"
    assert cells["AvgGap (of means)"] == cells["AvgGap (per run)"] == "–"
    assert (
        column(result_tables.main(study), "random10", "Retrain")["Forget accuracy (FA)"]
        == "not run"
    )


def test_runs_with_knobs_of_an_earlier_search_give_way_to_the_chosen_ones(lines):
    earlier = next(r for r in lines[1] if (r.phase, r.method, r.seed) == ("confirm", "alpha", 1))
    metrics = {"test": dict.fromkeys(earlier.metrics["test"], 0.0)}
    stale = dataclasses.replace(
        earlier, key="stale", knobs={"lr": 9.0, "epochs": 5}, metrics=metrics, ended=1e9
    )
    study = load.assemble(lines[0], [*lines[1], stale], {})
    assert column(result_tables.main(study), "random10", "alpha")["AvgGap (of means)"] == "3.83 ?"
    assert 9.0 not in set(frames.trials(study).knobs.map(lambda knobs: knobs.get("lr")))
    assert "stale" not in set(frames.runs(study).key)
    assert "stale" not in {r.key for r in study.records}
    usual = load.assemble(lines[0], lines[1], {})
    assert study.counts() == usual.counts()


def test_runs_with_outdated_knobs_are_marked(lines):
    better = TrialRecord(
        key="better",
        study="tiny",
        phase="search",
        forget="random10",
        method="alpha",
        seed=0,
        status="finished",
        knobs={"lr": 0.02, "epochs": 5},
        number=3,
        metrics={"val": {"avg_gap_natmu": 0.001}},
    )
    main = result_tables.main(load.assemble(lines[0], [*lines[1], better], {}))
    assert column(main, "random10", "alpha")["AvgGap (of means)"] == "3.83‡ ?"
    assert any(note.startswith("‡") for note in main.notes)


def test_sufficient_runs_of_another_length_do_not_count(lines):
    line = json.loads(json.dumps(lines[0]))
    line["definition"]["experiments"]["sufficient"] = 40
    cells = column(result_tables.sufficient(remade(lines, lambda r: r, line)), "random10", "alpha")
    assert cells["AvgGap (of means)"] == "20.67‡ ≠"


def test_sentences_say_what_the_tables_say(study):
    text = " ".join(cards.sentences(study))
    assert "alpha and beta cannot be told apart on random10: they get 76 to 79 %" in text
    assert "a retrained model gets 91 %." in text
    assert "alpha gets 97 % (92 to 102) of the way to retraining on class3" in text
    assert "No method is slower than retraining: beta takes 0.2 % of its time." in text
    assert (
        "below that of retraining by more than the noise floor for alpha on random10 (30.00" in text
    )
    assert "6 failed, 4 diverged and 1 stopped early" in text


@pytest.mark.parametrize(
    ("off", "said"),
    [
        (0.1, "cannot be told apart on random10"),
        (0.0, "beta gets 100 % (100 to 100) of the way to retraining on random10 at 4.2 % of its"),
    ],
)
def test_no_method_is_put_first_whose_interval_meets_another(lines, off, said):
    """`beta` with as many runs as `alpha`: off by 10 points of forget accuracy, and where retraining ends."""
    records = [r for r in lines[1] if (r.phase, r.method) != ("confirm", "beta")]
    twins = {
        r.seed: r.metrics["test"]
        for r in records
        if (r.forget, r.method, r.role) == ("random10", "retrain", "report")
    }
    for r in list(records):
        if (r.phase, r.forget, r.method) == ("confirm", "random10", "alpha"):
            test = {**twins[r.seed], "acc_forget": twins[r.seed]["acc_forget"] + off}
            made = {"key": f"b{r.seed}", "method": "beta", "knobs": {"strength": 2.5}}
            records.append(dataclasses.replace(r, **made, metrics={"test": test}))
    study = load.assemble(lines[0], records, {})
    assert said in cards.closest(study, study.requests[0]).text


def test_there_are_at_most_five_cards_and_nothing_is_lost(study):
    shown, rest = cards.cards(study)
    assert 3 <= len(shown) <= 5
    assert len({*(card.text for card in shown), *rest}) == len(shown) + len(rest)
    assert all(card.head and card.text.endswith(".") for card in shown)


def test_csv_repeats_the_group_and_markdown_is_rectangular(study):
    table = result_tables.main(study)
    frame = files.table_frame(table)
    assert list(frame.columns) == ["Forget request", "Metric", "Method", *files.PARTS]
    cells = len(table.columns) - 1
    assert list(frame["Forget request"]) == ["random10"] * 7 * cells + ["class3"] * 8 * cells
    assert list(frame["Method"]) == list(table.columns[1:]) * 15
    pipes = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in files.to_markdown(table).splitlines()
        if line.startswith("| ")
    }
    assert pipes == {len(table.columns) + 2}
    assert "**3.00 ± 3.00 (3.00) ?**" in files.to_markdown(table)


def test_latex_is_booktabs_and_escaped(study):
    text = files.to_latex(result_tables.main(study))
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\textbf{\shortstack[r]{3.00$\pm$3.00\\(3.00) ?}}" in text
    assert r"\shortstack[r]{100.00$\pm$0.00\\(10.00) $\neq$}" in text
    bodies = re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL)
    rows = [[line for line in body.splitlines() if line.endswith(r" \\")] for body in bodies]
    assert [len(lines) for lines in rows] == [8, 8], "a head, three models and four methods"
    assert [{line.count("&") for line in lines} for lines in rows] == [{7}, {8}]
    assert latex("a_b & 5% {x}") == r"a\_b \& 5\% \{x\}"
    assert text.isascii()


def test_accuracy_on_each_class_and_its_gap(study):
    table = per_class(study)
    assert [group.name for group in table.groups] == ["random10"]
    assert column(table, "random10", "Retrain") == {"0": "90.00 ± 0.00", "7": "100.00 ± 0.00"}
    alpha = column(table, "random10", "alpha")
    assert alpha == {"0": "80.00 ± 10.00 (10.00)", "7": "100.00 ± 0.00 (0.00)"}
    assert set(column(table, "random10", "beta").values()) == {"–"}


def test_what_forgotten_samples_are_taken_for(study):
    drawn = maps.taken_for(study)
    assert list(drawn.panels) == ["random10"]
    shares = drawn.data["taken"].pivot(index="class", columns="method", values="share")
    assert set(shares) == {"retrain", "original", "alpha"}
    assert shares.loc[["0", "1"], "retrain"].tolist() == pytest.approx([900 / 15, 100 / 15])
    assert shares.loc[["0", "1"], "alpha"].tolist() == pytest.approx([800 / 15, 200 / 15])
    assert shares.sum().tolist() == pytest.approx([100, 100, 100])


def test_papers_names_stand_beside_each_other():
    names = words.concordance()
    assert set(names.heads) == {"Metric", "NatMU", "JiT", "TMU", "Akbari", "UGradSL"}
    rows = {row[0]: dict(zip(names.heads, row)) for row in names.rows}
    row = next(row for label, row in rows.items() if "Retain accuracy" in label)
    assert (row["UGradSL"], row["Akbari"], row["NatMU"]) == ("RA", "RA", "–")
    row = rows["Test accuracy"]
    assert (row["NatMU"], row["Akbari"]) == ("RA (random)", "TA")


def test_report_has_every_file(built):
    names = {str(p.relative_to(built)) for p in built.rglob("*") if p.is_file()}
    expected = {"index.html", "tables/results.csv", "tables/cells.csv"}
    for name in TABLES:
        expected |= {f"tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")}
    for name in FIGURES:
        expected |= {f"figures/{name}.{suffix}" for suffix in ("svg", "png", "pdf")}
    assert names == expected
    assert {p.name for p in built.parent.iterdir()} == {"report", "summary.json", "trials.jsonl"}


@pytest.mark.parametrize("which", ["all", "none"])
def test_all_figures_or_none_are_files(tmp_path, which):
    shutil.copy(DATA / "trials.jsonl", tmp_path)
    page.build(tmp_path, figures=which)
    names = {path.stem for path in (tmp_path / "report" / "figures").iterdir()}
    assert names == ({*FIGURES, *KNOBS} if which == "all" else set())


class Page(HTMLParser):
    """Collects what a page loads, links and shows, and whether its tags are balanced."""

    VOID = ("meta", "img", "br", "wbr", "link", "input", "hr", "path")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.data: dict = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in ("src", "srcset", "data"):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.data = self.data or (json.loads(data) if data.startswith("{") else {})
        elif self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def shown(self) -> str:
        """The words that a reader sees, without those that scripts add."""
        return " ".join(" ".join(self.words).split())


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_page_needs_nothing_beside_itself(built):
    text = (built / "index.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert not set(parsed.tags) & {"link", "iframe", "object", "base", "img"}
    assert parsed.loads == []
    assert parsed.tags.count("script") == 3
    assert not any(loading in text for loading in ("@import", "url(http", "import("))
    anchors = set(re.findall(r'id="([^"]+)"', text))
    for link in parsed.links:
        assert link[1:] in anchors if link.startswith("#") else (built / link).is_file()


def test_page_holds_what_its_charts_need(built):
    data = read_page(built / "index.html").data
    assert set(data["figures"]) == {*FIGURES, *KNOBS}
    for figure in data["figures"].values():
        assert set(figure["data"]) <= set(data["data"])
        assert len(figure["specs"]) == (1 if figure["alike"] else len(figure["panels"]))
    assert len(data["trials"]["objective"]["n"]) == len(read(DATA / "trials.jsonl")[1])
    methods, places = data["trials"]["method"]
    assert [methods[place] for place in places] == [
        r.method for r in read(DATA / "trials.jsonl")[1]
    ]
    assert "key" not in data["trials"], "keys are of use only with a server's address"


def test_page_holds_no_more_of_a_number_than_a_reader_sees(built):
    data, records = read_page(built / "index.html").data, read(DATA / "trials.jsonl")[1]
    numbers = data["trials"]["objective"]["n"]
    assert all(value is None or float(f"{value:.4g}") == value for value in numbers)
    assert [n for n in data["trials"]["number"]["n"] if n is not None] == [
        r.number for r in records if r.number is not None
    ]
    assert set(data["data"]["cells"]["front"]["n"]) == {0, 1}
    assert {type(front) for front in data["data"]["cells"]["front"]["n"]} == {int}
    words, places = data["trials"]["epochs"]
    at, record = next((at, r) for at, r in enumerate(records) if r.curve)
    assert words[places[at]].split() == [str(point["epoch"]) for point in record.curve]
    assert data["trials"]["acc_forget"]["n"][at] == [
        round(1000 * point["acc_forget"]) for point in record.curve
    ]
    bare = next(at for at, r in enumerate(records) if not r.curve)
    assert data["trials"]["acc_forget"]["n"][bare] is None


def test_specifications_are_valid(study):
    """Altair checks them against the schema of Vega-Lite, which a report leaves out to save time."""
    for figure in contents.all_figures(study):
        whole = figure.whole()
        alt.Chart.from_dict(whole)
        for spec in figure.specs():
            alt.Chart.from_dict(spec)


def test_page_shows_setting_failures_and_glossary(built):
    shown = read_page(built / "index.html").shown
    for expected in (
        "1 min 15 s wall, 2 slots, efficiency 87.5 %",
        "digits, 1×8×8, 10 classes",
        "node-1",
        'failed confirm · random10 · gamma ×3 ValueError: bad <lr> & "knobs"',
        "diverged search · random10 · delta ×2 such as diverged after epoch 1",
        "accuracy on the forgotten training images",
        "zero-shot",
    ):
        assert expected in shown, expected
    assert 'File "gamma.py", line 7, in unlearn' in (built / "index.html").read_text().replace(
        "\\", ""
    )


def test_page_says_that_a_study_is_not_complete(lines, tmp_path):
    line, records = lines
    line = {**line, "planned": {"confirm": {"trials": 99}}}
    folder = saved(tmp_path / "part", line, records)
    ended = {"state": "ended"}
    for live, said in (({}, True), ({"state": "running"}, True), (ended, False)):
        (folder / "summary.json").write_text(json.dumps(live))
        shown = read_page(page.build(folder)).shown
        assert ("This study is not complete" in shown) is said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: None if r.method == "retrain" else r, "There is no retrained model of random10"),
        (lambda r: r if r.phase == "reference" else None, "No trial of a method has finished yet."),
    ],
)
def test_page_says_what_is_missing(lines, tmp_path, change, said):
    records = [changed for record in lines[1] if (changed := change(record)) is not None]
    assert said in read_page(page.build(saved(tmp_path / "bad", lines[0], records))).shown


def test_page_of_one_seed_says_so(lines, tmp_path):
    line = json.loads(json.dumps(lines[0]))
    line["definition"]["seeds"]["report"] = [1]
    parsed = read_page(page.build(saved(tmp_path / "one", line, lines[1])))
    assert "There is a single report seed" in parsed.shown


def test_first_table_has_recovery_cost_and_verdicts(study):
    heads, groups = summary(study)
    assert [head["name"] for head in heads] == [
        *("Method", "Recovery", "transferred", "more epochs", "AvgGap", "Time", "Verdicts")
    ][: len(heads)] or "defaults" not in {head["name"] for head in heads}
    rows = {row["method"]: row for row in groups[0]["rows"]}
    assert [row["role"] for row in groups[0]["rows"][:2]] == ["original", "retrain"]
    alpha = rows["alpha"]["cells"]
    assert alpha[0]["text"] == "79.5"
    assert alpha[-2]["text"] == "4.17 %"
    assert [sign for sign, *_ in alpha[-1]["signs"]] == ["?", "?", "?"]
    assert rows["gamma"]["cells"][-3]["text"] == "failed ×3"


def test_a_link_to_mlflow_is_there_only_with_a_server(tmp_path):
    shutil.copy(DATA / "trials.jsonl", tmp_path)
    runs = "http://host:5000/#/experiments/7/runs"
    cases: list[tuple[dict[str, str], str]] = [
        ({}, ""),
        ({"mlflow": runs}, f"{runs}?searchFilter="),
    ]
    for written, link in cases:
        (tmp_path / "summary.json").write_text(json.dumps(written))
        data = read_page(page.build(tmp_path)).data
        assert data["runs"] == link
        assert ("key" in data["trials"]) is bool(link)


def test_page_shows_what_methods_warned_of(lines, tmp_path):
    line, records = lines
    last = records[-1]
    count = sum((r.method, r.forget) == (last.method, last.forget) for r in records)
    warned = [
        dataclasses.replace(r, warnings=["forgets <little>"]) if r.method == last.method else r
        for r in records
    ]
    shown = read_page(page.build(saved(tmp_path / "warned", line, warned))).shown
    assert "Warnings (" in shown
    assert f"{last.method} {last.forget} forgets <little> {count}" in shown


def test_page_escapes_what_the_file_says(lines, tmp_path):
    evil = '</script><script>alert("x")</script> <!-- & $a_1$ | % {{ 7 * 7 }} ' + "w" * 200
    text = json.dumps(lines[0]).replace("alpha", json.dumps(evil)[1:-1])
    records = [
        dataclasses.replace(r, method=evil if r.method == "alpha" else r.method) for r in lines[1]
    ]
    report = page.build(saved(tmp_path / "evil", json.loads(text), records)).parent
    parsed = read_page(report / "index.html")
    assert parsed.tags.count("script") == 3
    assert parsed.open == []
    assert " ".join(evil.split()) in parsed.shown
    assert evil in parsed.data["trials"]["method"][0]
    assert r"\$a\_1\$ $|$ \%" in (report / "tables" / "main.tex").read_text(encoding="utf-8")


@pytest.mark.usefixtures("drawn_figures")
def test_figures_escape_what_the_file_says(lines, tmp_path):
    evil = "<b>\"'& $x$ " + "w" * 200
    line = json.loads(json.dumps(lines[0]).replace("alpha", json.dumps(evil)[1:-1]))
    study = remade(
        lines, lambda r: dataclasses.replace(r, method=evil) if r.method == "alpha" else r, line
    )
    for figure in contents.all_figures(study):
        figure.save(tmp_path)
        assert ElementTree.parse(tmp_path / f"{figure.name}.svg").getroot().tag.endswith("svg")
        assert (tmp_path / f"{figure.name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("kept", "with_line"),
    [
        ((), True),
        (("reference",), True),
        (("search",), True),
        (("reference", "search"), True),
        (("confirm",), True),
        (("confirm",), False),
        (("reference", "confirm", "sufficient", "transfer"), False),
    ],
)
def test_report_of_a_part_of_a_study(lines, tmp_path, kept, with_line):
    records = [r for r in lines[1] if r.phase in kept]
    folder = saved(tmp_path / "part", lines[0] if with_line else {}, records)
    parsed = read_page(page.build(folder))
    assert parsed.open == []
    assert not re.search(r"\bnan\b", parsed.shown + json.dumps(parsed.data), re.IGNORECASE)


def test_without_a_study_line_the_records_say_what_they_can(lines):
    study = load.assemble({}, [r for r in lines[1] if r.phase != "search"], {})
    assert [r.name for r in study.requests] == ["random10", "class3"]
    assert [r.whole_class for r in study.requests] == [False, True]
    assert study.report_seeds == (1, 2, 3)
    assert column(result_tables.main(study), "random10", "alpha")["AvgGap (of means)"] == "3.83 ?"
    assert (
        column(result_tables.sufficient(study), "random10", "alpha")["Change of AvgGap"] == "+16.83"
    )


def test_unknown_keys_and_a_line_cut_short_do_no_harm(tmp_path):
    written = (DATA / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    written[0] = json.dumps({**json.loads(written[0]), "tomorrow": [1, 2]})
    written[5] = json.dumps({**json.loads(written[5]), "tomorrow": {"a": None}})
    (tmp_path / "trials.jsonl").write_text("\n".join([*written, '{"kind":"tri']), encoding="utf-8")
    assert page.build(tmp_path).is_file()


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_missing_or_empty_results_are_named(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "trials.jsonl").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "trials.jsonl"))):
        page.build(tmp_path)
    assert command_line.main([str(tmp_path)]) == 2
    assert "trials.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_table_that_no_section_names_is_on_the_page(tmp_path, monkeypatch):
    shutil.copy(DATA / "trials.jsonl", tmp_path)

    def made_up(study):
        return dataclasses.replace(result_tables.main(study), name="new", title="A new table")

    monkeypatch.setattr(contents, "TABLES", (*contents.TABLES, made_up))
    text = page.build(tmp_path).read_text(encoding="utf-8")
    for name in (*TABLES, "new"):
        assert text.count(f'id="table-{name}"') == 1, name
    for name in (*FIGURES, *KNOBS):
        assert text.count(f'id="figure-{name}"') == 1, name


def trials_by_phase(study):
    """Return the rows of the table that counts trials by status, phase to planned number and counts."""
    rows = next(x.rows for x in words.listings(study) if x.title == "Trials by phase")
    return {row[0]: list(row[1:]) for row in rows}


def test_a_new_phase_of_the_study_line_is_counted_under_its_title(lines):
    line, records = lines
    new = dataclasses.replace(records[-1], key="new", phase="distil", status="diverged", reason="?")
    phases = [
        {"name": "confirm", "title": "tuned knobs", "follows_search": True},
        {"name": "distil", "title": "distilled <models>", "follows_search": True},
        {"name": "search", "title": "search", "follows_search": False},
        {"name": "default", "title": "default knobs", "follows_search": True},
    ]
    line = {**line, "phases": phases, "planned": {"distil": {"trials": 7}}}
    study = load.assemble(line, [*records, new], {})
    counted = trials_by_phase(study)
    # Phases that the line lacks come last, and one without trials and without a plan is not shown.
    assert list(counted) == [
        *("tuned knobs", "distilled <models>", "search"),
        *("reference", "sufficient", "transfer"),
    ]
    assert counted["distilled <models>"] == ["7", "0", "0", "1", "0"]
    diverged = [r.cell for r in words.unfinished(study) if r.status == "diverged"]
    places = [
        [title in cell for cell in diverged].index(True)
        for title in ("tuned knobs ·", "distilled <models> ·")
    ]
    assert places == sorted(places)


def test_phases_without_a_table_in_the_study_line_come_as_the_records_do(lines):
    line, records = lines
    phases = ["reference", "search", "confirm", "sufficient", "transfer"]
    assert load.assemble(line, records, {}).phases == {name: name for name in phases}
    moved = sorted(records, key=lambda r: r.phase != "sufficient")
    planned = {"planned": {"default": {"trials": 2}, "search": {"trials": 9}}}
    study = load.assemble({**line, **planned}, moved, {})
    assert list(study.phases) == [
        *("sufficient", "reference", "search", "confirm", "transfer", "default")
    ]
    assert list(study.counts()) == list(study.phases)
    assert study.counts()["default"].total() == 0


@pytest.mark.parametrize(
    ("phase", "heading"),
    [
        ("confirm", "NatMU Table 3: random10 (random, 100 samples)"),
        ("default", "NatMU Table 3: random10 (random, 100 samples), default knobs"),
        ("sufficient", "NatMU Table 3: random10 (random, 100 samples), 20 epochs"),
        ("distil", "NatMU Table 3: random10 (random, 100 samples), distil"),
    ],
)
def test_printed_tables_are_headed_by_the_title_of_their_phase(lines, phase, heading):
    entry = {
        **{"paper": "NatMU", "table": "3", "phase": phase, "source": None, "forget": "random10"},
        **{"method": "Alpha", "ours": "alpha", "metric": "TA", "name": "acc_test", "knobs": {}},
        **{"mean": 0.9, "std": 0.01, "note": ""},
    }
    titles = {"confirm": "tuned knobs", "default": "default knobs", "sufficient": "longer training"}
    phases = [{"name": name, "title": title} for name, title in titles.items()]
    line = {**lines[0], "published": [entry], "phases": phases}
    table = paper_numbers.published(load.assemble(line, lines[1], {}))
    assert [group.title for group in table.groups] == [heading]


def test_report_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    shutil.copy(DATA / "trials.jsonl", tmp_path)
    first = page.build(tmp_path)
    (first.parent / "tables" / "old.csv").write_text("old")
    before = first.read_text(encoding="utf-8")

    def broken(*_):
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "save", broken)
        with pytest.raises(RuntimeError, match="disk full"):
            page.build(tmp_path)
    assert first.read_text(encoding="utf-8") == before
    assert page.build(tmp_path) == first
    assert not (first.parent / "tables" / "old.csv").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"report", "trials.jsonl"}


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    shutil.copy(DATA / "trials.jsonl", tmp_path)
    with pytest.raises(ValueError, match=r"trials\.jsonl"):
        page.build(tmp_path, tmp_path)
    assert (tmp_path / "trials.jsonl").is_file()


def test_command_line_prints_the_page(tmp_path, capsys):
    shutil.copy(DATA / "trials.jsonl", tmp_path)
    out = tmp_path / "elsewhere" / "report"
    assert command_line.main([str(tmp_path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "index.html")


@pytest.mark.usefixtures("drawn_figures")
def test_same_results_give_the_same_figures(study, tmp_path):
    drawn = [contents.all_figures(study)[0] for _ in range(2)]
    for name, figure in zip(("a", "b"), drawn):
        (tmp_path / name).mkdir()
        figure.save(tmp_path / name)
    for suffix in ("svg", "png"):
        first, second = (tmp_path / name / f"tradeoff.{suffix}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_over_forgetting_is_drawn_from_the_longest_runs(study):
    drawn = results.over_forgetting(study)
    curve = drawn.data["forgetting"].query("forget == 'random10' and method == 'alpha'")
    # Epoch 4 has no finite value; 0.6 is where sufficient training ends.
    assert curve["epoch"].tolist() == [0, 1, 2, 3, 5, 6]
    assert curve["mean"].iloc[-1] == pytest.approx(60.0)
    assert curve.loc[curve["tuned"], "epoch"].tolist() == [5]
    levels = drawn.data["levels"].set_index("forget")["level"]
    assert levels["random10"] == pytest.approx(90.0)


def test_front_holds_what_no_other_beats(study):
    cells = results.cells(study).set_index(["forget", "method"])
    front = cells[cells["front"]].loc["random10"]
    # beta is the quickest; alpha, slower, recovers more; retraining is slower still, and better.
    assert set(front.index) == {"original", "beta", "alpha", "retrain"}
    assert front.loc["alpha", "time"] == pytest.approx(100 * 5 / 120)
    assert front.loc["alpha", "recovery"] == pytest.approx(79.46, abs=0.01)


def test_reports_need_no_training_or_tracking_library():
    code = (
        "import sys, reports.page, reports.__main__\n"
        "banned = {'torch', 'ray', 'mlflow', 'optuna', 'sweeps'}\n"
        "print(sorted(banned & {name.partition('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert ran.stdout.strip() == "[]"


def test_a_card_on_time_says_over_what_its_median_is(study, monkeypatch):
    frame = cards.frames.methods(study)
    times = frame.assign(time_ratio=0.4)
    monkeypatch.setattr(cards.frames, "methods", lambda study: times)
    card = cards.slower(study)
    assert card is not None
    assert "by the median over the requests" in card.text
    one = times[times["forget"] == times["forget"].iloc[0]]
    monkeypatch.setattr(cards.frames, "methods", lambda study: one)
    card = cards.slower(study)
    assert card is not None and "median" not in card.text
