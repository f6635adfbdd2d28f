"""The tables of a finished study against an independent recomputation from its results file."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest
import studies
from whole_study import run

from reports import contents, load
from reports.tables import files
from tests.reports import recompute

NAMES = ("main", "sufficient", "transfer", "robustness")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study with two requests of a kind, and its tables beside it."""
    folder = tmp_path_factory.mktemp("recompute")
    raw = studies.tiny(
        model="toy_cnn",
        training__epochs=8,
        training__lr=0.2,
        forget__other={"kind": "random", "fraction": 0.2},
        experiments__transfer=[["some", "other"], ["other", "some"], ["some", "three"]],
        seeds={"search": [0], "report": [1, 2], "retrain": 3},
        metrics={"costly": []},
    )
    ran = run(raw, folder, folder / "storage")
    study = load.read(ran.folder)
    (ran.folder / "tables").mkdir()
    files.write(ran.folder / "tables", study, contents.all_tables(study))
    return ran.folder


def test_every_number_of_the_main_tables_is_computed_again(finished: Path) -> None:
    numbers, wrong = recompute.check(finished, finished / "tables")
    assert wrong == []
    assert numbers > 400


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_is_off_is_noticed(finished: Path, tmp_path: Path, name: str) -> None:
    for each in NAMES:
        frame = pd.read_csv(finished / "tables" / f"{each}.csv")
        if each == name:
            column = "Tuned" if name == "robustness" else "value"
            frame.loc[frame[column].first_valid_index(), column] += 1e-6
        frame.to_csv(tmp_path / f"{each}.csv", index=False)
    assert len(recompute.check(finished, tmp_path)[1]) == 1


def test_it_imports_nothing_of_the_project() -> None:
    tree = ast.parse(Path(recompute.__file__).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert imported.isdisjoint({"mu", "sweeps", "reports", "tests", "search_spaces"})
