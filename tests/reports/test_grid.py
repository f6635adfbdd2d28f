"""A search over a grid in the report: every point, whatever became of it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from reports import contents, load
from reports.charts import maps
from reports.page import report
from reports.tables import files, points
from reports.tables.cells import NONE
from tests.reports.test_robustness import record

LRS, SIGMAS = (0.001, 0.01, 0.1), (0.5, 1.0)
DEFINITION = {
    "forget": {"some": {"kind": "random", "fraction": 0.1}},
    "methods": [
        {"name": "jit", "space": {"lr": {"choices": list(LRS)}, "sigma": {"choices": list(SIGMAS)}}}
    ],
    "seeds": {"search": [0, 1], "report": [2]},
    "search": {"sampler": "grid", "objective": ["avg_gap_natmu"], "trials": 6},
}


def view(accuracy: float, gap: float | None = None) -> dict[str, dict[str, float]]:
    values = {"acc_test": accuracy, "acc_forget": 0.5, "mia_lr_entropy": 0.25}
    return {"val": values if gap is None else {**values, "avg_gap_natmu": gap}}


@pytest.fixture
def study() -> load.RecordedStudy:
    """Its last point failed on one of two seeds; accuracy falls with the number of the point, by a point each."""
    records = [
        record("reference", "some", "retrain", seed, role="search", metrics=view(0.9))
        for seed in (0, 1)
    ]
    settings = [(lr, sigma) for lr in LRS for sigma in SIGMAS]
    for number, (lr, sigma) in enumerate(settings):
        for seed in (0, 1):
            knobs = {"lr": lr, "sigma": sigma, "perturbations": 25}
            ended = {"metrics": view(0.8 - 0.01 * number + 0.002 * seed, 0.1)}
            if (number, seed) == (5, 1):
                ended = {"status": "failed"}
            records.append(
                record("search", "some", "jit", seed, number=number, knobs=knobs, **ended)
            )
    return load.assemble({"study": "small", "definition": DEFINITION}, records, {})


def test_every_point_that_finished_has_a_row(study: load.RecordedStudy) -> None:
    table = points.points(study)
    assert table is not None
    assert table.columns[2:4] == ("AvgGap", "Test accuracy")
    (group,) = table.groups
    found = [[cell.text for cell in row] for row in group.rows]
    assert [row[:4] for row in found] == [
        ["jit", "lr = 0.001, sigma = 0.5", "10.00", "80.10"],
        ["jit", "lr = 0.001, sigma = 1", "10.00", "79.10"],
        ["jit", "lr = 0.01, sigma = 0.5", "10.00", "78.10"],
        ["jit", "lr = 0.01, sigma = 1", "10.00", "77.10"],
        ["jit", "lr = 0.1, sigma = 0.5", "10.00", "76.10"],
        ["retrain", NONE, NONE, "90.00"],
    ]


def test_points_csv_has_every_metric_in_full(study: load.RecordedStudy, tmp_path: Path) -> None:
    files.write(tmp_path, study, [])
    lines = list(csv.DictReader((tmp_path / "points.csv").open(encoding="utf-8")))
    assert len(lines) == 5 * 2 * 4
    (one,) = [
        line
        for line in lines
        if (line["number"], line["knob"], line["metric"]) == ("2", "lr", "acc_test")
    ]
    assert (one["setting"], one["retrain"]) == ("0.01", "0.9")
    assert float(one["value"]) == pytest.approx(0.781)


def test_two_knobs_are_drawn_as_maps_with_a_gap_for_what_failed(study: load.RecordedStudy) -> None:
    drawn = next(figure for figure in contents.all_figures(study) if figure.name == "grid_jit")
    assert len(drawn.panels) == 4
    (data,) = drawn.data.values()
    shown = data[data["panel"] == "some: Test accuracy"].set_index(["y", "x"])["value"]
    assert shown.to_dict() == pytest.approx(
        {
            **{("0.5", "0.001"): 80.1, ("0.5", "0.01"): 78.1, ("0.5", "0.1"): 76.1},
            **{("1", "0.001"): 79.1, ("1", "0.01"): 77.1},
        }
    )


def test_other_searches_have_no_grid(study: load.RecordedStudy, tmp_path: Path) -> None:
    search = {**DEFINITION["search"], "sampler": "tpe"}  # type: ignore[dict-item]
    other = dataclasses.replace(study, line={"definition": {**DEFINITION, "search": search}})
    assert points.points(other) is None
    assert maps.grids(other) == []
    files.write(tmp_path, other, [])
    assert not (tmp_path / "points.csv").exists()


def test_the_page_shows_the_grid(study: load.RecordedStudy, tmp_path: Path) -> None:
    report.write(study, tmp_path, "none")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Every point of the grid" in text
    assert "Grid of jit over lr and sigma" in text
