"""What the runs of a study and its cells show: the numbers of the report, the search as a curve, the chosen knobs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from studies import ROOT

from reports import frames, load
from reports.load import RecordedStudy
from reports.page.words import byline
from sweeps.tracking.artifacts import method_figures, study_files
from sweeps.tracking.description import study_description
from sweeps.tracking.study_summary import cell_contents, study_content


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RecordedStudy:
    folder = tmp_path_factory.mktemp("summary")
    shutil.copy(ROOT / "tests/data/trials.jsonl", folder)
    return load.read(folder)


def test_a_cell_shows_the_numbers_of_the_report(study: RecordedStudy) -> None:
    contents = cell_contents(study)
    rows: list[dict[str, Any]] = frames.methods(study).to_dict("records")
    assert len(contents) == len(rows)
    names = {"recovery": "recovery_tuned", "recovery_longer": "recovery_longer",
             "avg_gap": "avg_gap", "seconds": "seconds", "time_ratio": "time_ratio"}  # fmt: skip
    for row in rows:
        metrics = contents[row["forget"], row["method"]].metrics
        for name, column in names.items():
            if row[column] == row[column]:
                assert metrics[name] == pytest.approx(row[column], rel=1e-3)
            else:
                assert name not in metrics
    alpha = contents["random10", "alpha"]
    assert alpha.tags["verdict"] == "undecided"
    assert alpha.metrics["avg_gap_transferred"] == pytest.approx(0.03667)
    assert alpha.metrics["test/acc_forget"] == pytest.approx(0.95)
    assert (alpha.metrics["trials"], contents["random10", "beta"].metrics["trials_failed"]) == (
        12,
        2,
    )
    assert contents["random10", "delta"].tags["reason"] == "no finished search trial"
    assert contents["random10", "original"].metrics["recovery"] == 0


def test_a_cell_shows_its_search_and_its_epochs_as_curves_and_the_chosen_knobs(
    study: RecordedStudy,
) -> None:
    alpha = cell_contents(study)["random10", "alpha"]
    assert alpha.params == {"knobs": "lr=0.01", "lr": "0.01", "epochs": "5"}
    assert list(alpha.series["search/objective"]) == [(0, 0.05), (1, 0.03)]
    assert list(alpha.series["curve/acc_forget"]) == [(0, 1.0), (1, 0.97), (2, 0.95)]
    assert "Chosen: #1, `lr=0.01`" in alpha.tags["mlflow.note.content"]
    assert "search/objective" not in cell_contents(study)["random10", "retrain"].series


def test_the_best_objective_never_rises(study: RecordedStudy) -> None:
    cell = ("random10", "alpha")
    chosen = study.decisions[cell]
    values = {0: 0.4, 2: 0.1, 5: 0.3, 7: 0.05}
    tried = [dataclasses.replace(chosen.tried[0], number=n, value=v) for n, v in values.items()]
    decisions = {**study.decisions, cell: dataclasses.replace(chosen, tried=tuple(tried[::-1]))}
    again = dataclasses.replace(study, decisions=decisions)
    series = cell_contents(again)[cell].series
    assert list(series["search/best_objective"]) == [(0, 0.4), (2, 0.1), (5, 0.1), (7, 0.05)]
    assert list(series["search/objective"]) == list(values.items())


def test_the_study_has_its_table_counts_and_cost(study: RecordedStudy) -> None:
    content = study_content(study)
    note = content.tags["mlflow.note.content"]
    first, *rows = note.splitlines()
    assert first.startswith(
        "**tiny** (digits, small_cnn): 55 trials (1 stopped, 6 failed, 4 diverged)."
    )
    assert "**alpha** on random10 (79.5 %)" in first
    methods = [row.split(" | ")[1] for row in rows if row.startswith("| random10 |")]
    assert methods == ["retrain", "alpha", "beta", "original", "gamma", "delta"]
    counts = {name: n for name, n in content.metrics.items() if name.startswith("trials")}
    assert counts == {"trials": 55, "trials_finished": 44, "trials_stopped": 1, "trials_failed": 6,
                      "trials_diverged": 4}  # fmt: skip
    assert content.metrics["slots_hours"] == pytest.approx(22 / 3600, rel=1e-3)


def test_a_table_that_is_too_long_says_how_many_rows_are_missing(study: RecordedStudy) -> None:
    whole = study_description(study)
    for limit in range(900, len(whole), 97):
        text = study_description(study, limit)
        assert len(text) <= limit
        shown = sum(line.startswith(("| random10", "| class3")) for line in text.splitlines())
        assert f"… and {12 - shown} rows more, in the report." in text
    assert study_description(study, len(whole)) == whole


def test_files_of_the_study(tmp_path: Path) -> None:
    for name in ("study.yaml", "trials.jsonl", "report/index.html", "report/tables/main.csv",
                 "splits/some.npy", "report/figures/cost.png"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    stored = {f"{folder}/{path.name}".lstrip("/") for path, folder in study_files(tmp_path)}
    assert stored == {"study.yaml", "report/index.html", "report/tables/main.csv",
                      "report/figures/cost.png", "splits/some.npy"}  # fmt: skip


def test_each_searched_method_has_a_figure(study: RecordedStudy) -> None:
    figures = method_figures(study)
    assert {"alpha", "beta"} <= set(figures)
    (name, svg), *others = figures["alpha"].items()
    assert name == "response_alpha.svg" and svg.startswith("<svg") and not others


def test_the_page_says_that_a_study_had_not_ended(study: RecordedStudy) -> None:
    running = dataclasses.replace(study, summary={"state": "running"})
    planned = sum(study.planned(phase) or 0 for phase in study.phases)
    of = f" of {planned}" if planned else ""
    assert f"before the study had ended: 55{of} trials." in byline(running, "today")
    ended = dataclasses.replace(study, summary={"state": "ended"})
    assert byline(ended, "today").endswith("written today.")
