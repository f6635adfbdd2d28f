"""A method under several names of a study's own: each has its trials, records and rows, and disturbs no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import studies
from whole_study import Ran, run

from mu import methods
from reports import contents, load
from reports.page import words
from sweeps import preflight
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.search.optuna_storage import open_storage
from sweeps.study import study
from sweeps.study.rungs import say_exempt
from sweeps.tracking.mlflow_trial import trial_tags

SHORT = {"name": "finetune", "fix": {"epochs": 1}}
LONG = {"name": "finetune", "as": "finetune_long", "fix": {"epochs": 2}}


def small(*listed: Any, **changes: Any) -> dict[str, Any]:
    """One request, one configuration a cell and one report seed."""
    raw = studies.tiny(
        model="toy_cnn",
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=list(listed),
        seeds={"search": [0], "report": [1], "retrain": 1},
        experiments={},
        metrics={"costly": []},
        search__trials=1,
    )
    return {**raw, **changes}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def of_method(ran: Ran, name: str) -> dict[str, Any]:
    """The numbers of a method's trials, by phase."""
    recorded = studies.records(ran.folder).values()
    return {r.phase: (r.knobs, r.metrics, r.samples_seen) for r in recorded if r.method == name}


def test_variants_of_a_method_stand_beside_each_other_everywhere(
    tmp_path: Path, storage: Path
) -> None:
    ran = run(small(SHORT, LONG), tmp_path, storage)
    recorded = [r for r in studies.records(ran.folder).values() if r.phase != "reference"]
    assert {(r.method, r.alias_of, r.knobs["epochs"]) for r in recorded} == {
        ("finetune", "", 1),
        ("finetune_long", "finetune", 2),
    }
    assert len(recorded) == 2 * 3
    names = open_storage(str(ran.folder / "optuna.journal")).get_all_studies()
    assert {each.study_name.split("/")[2] for each in names} == {"finetune", "finetune_long"}
    made = load.read(ran.folder)
    assert [(m.name, m.alias_of) for m in made.methods] == [
        ("finetune", ""),
        ("finetune_long", "finetune"),
    ]
    main = next(table for table in contents.all_tables(made) if table.name == "main")
    assert main.columns[-2:] == ("finetune", "finetune_long")
    rows = next(listing.rows for listing in words.listings(made) if listing.title == "Methods")
    assert any(
        row[0] == "finetune_long (finetune)" and "fixed: epochs = 2" in row[3] for row in rows
    )
    tags = [trial_tags(r) for r in recorded]
    assert {(t["method"], t.get("alias_of")) for t in tags} == {
        ("finetune", None),
        ("finetune_long", "finetune"),
    }


def test_a_name_changes_no_number(tmp_path: Path, storage: Path) -> None:
    """Variants are compared on the same draws: with the same knobs they give the same model."""
    plain = run(small(SHORT), tmp_path / "plain", storage)
    named = run(small({**SHORT, "as": "other"}), tmp_path / "named", storage)
    assert of_method(named, "other") and of_method(named, "other") == of_method(plain, "finetune")


def test_two_names_for_the_same_trial_both_have_it(tmp_path: Path, storage: Path) -> None:
    ran = run(small(SHORT, {**SHORT, "as": "again"}), tmp_path, storage)
    assert of_method(ran, "again")["default"] == of_method(ran, "finetune")["default"]
    assert run(small(SHORT, {**SHORT, "as": "again"}), tmp_path, storage).finished_before


def test_an_alias_that_comes_and_goes_disturbs_no_other(tmp_path: Path, storage: Path) -> None:
    first = run(small(SHORT), tmp_path, storage)
    both = run(small(SHORT, LONG), tmp_path, storage)
    assert {job.method for job in both.done} == {"finetune_long"}
    assert not both.said.count("left out")
    assert both.csv == run(small(SHORT, LONG), tmp_path / "fresh", storage).csv
    alone = run(small(SHORT), tmp_path, storage)
    assert alone.finished_before and alone.csv == first.csv
    assert run(small(SHORT, LONG), tmp_path, storage).finished_before
    renamed = run(small(SHORT, {**LONG, "as": "longer"}), tmp_path, storage)
    assert {job.method for job in renamed.done} == {"longer"}


@pytest.mark.parametrize("accept", [False, True])
def test_an_alias_that_names_another_method_starts_anew(
    accept: bool, tmp_path: Path, storage: Path
) -> None:
    run(small(LONG), tmp_path, storage)
    other = small({"name": "ga", "as": "finetune_long", "fix": {"epochs": 1}})
    moved = run(other, tmp_path, storage, accept=accept)
    assert {job.method for job in moved.done} == {"finetune_long"}
    assert {job.alias_of for job in moved.done} == {"ga"}
    text = "finetune_long (3 on some: the name is that of another method)"
    assert text in moved.said and "are kept" not in moved.said
    assert moved.csv == run(other, tmp_path / "fresh", storage).csv


def test_an_alias_reads_back_and_is_named_in_the_study_line() -> None:
    wanted = study.parse(small(SHORT, LONG), "study.yaml")
    again = study.parse(wanted.definition, "study.yaml")
    assert [config.name for config in again.methods] == ["finetune", "finetune_long"]
    assert again.definition == wanted.definition
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    listed = study_line(plan)["methods"]
    assert {name: about["alias_of"] for name, about in listed.items()} == {
        "finetune": "",
        "finetune_long": "finetune",
    }
    assert listed["finetune"]["code"] == listed["finetune_long"]["code"]
    assert wanted.method("finetune_long").ranges == wanted.method("finetune").ranges


def test_a_line_on_methods_that_are_never_stopped_has_their_names_in_the_study() -> None:
    raw = small({"name": "ssd", "as": "ssd_200"}, SHORT)
    raw["search"]["early_stop"] = "asha"
    wanted = study.parse(raw, "study.yaml")
    said = say_exempt(wanted.search, wanted.methods)
    assert said == "early_stop asha never stops ssd_200 (no knob `epochs`)"


def test_an_alias_may_be_that_of_no_method_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(methods.ga.__file__).read_text(), encoding="utf-8")
    raw = small({**studies.JIT, "as": "mine"})
    assert study.parse(raw, "study.yaml").methods
    with pytest.raises(Exception, match="'mine' is that of a method"):
        study.parse(raw, "study.yaml", [tmp_path])
