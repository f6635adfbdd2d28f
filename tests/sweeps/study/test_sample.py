"""`--sample`: a study in small."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import yaml

from sweeps import launch
from sweeps.errors import StudyError
from sweeps.study import study, yaml_file
from sweeps.study.sample import sampled


def small(raw: dict[str, Any], share: float) -> study.Study:
    whole = study.parse(raw, "s.yaml")
    return study.parse(sampled(whole.definition, share, "s.yaml"), "s.yaml")


def test_a_sample_is_small_in_everything_and_has_a_name_of_its_own() -> None:
    raw = copy.deepcopy(studies.TINY) | {
        "training": {"epochs": 30},
        "search": {"trials": 50, "finalists": 3},
        "seeds": {"search": [0, 4], "report": [1, 2, 3], "retrain": 9},
        "experiments": {"sufficient": {"epochs": 20}, "transfer": "all"},
    }
    raw["forget"]["few"] = {"kind": "class_subset", "class": 3, "count": 20}
    asked = small(raw, 0.5)
    assert asked.name == "tiny_sample"
    assert asked.data.subset == 150  # half of the 300 that the study keeps
    assert (asked.training.epochs, asked.search.trials, asked.search.finalists) == (2, 2, 1)
    assert (asked.seeds.search, asked.seeds.report, asked.seeds.retrain) == ((0,), (1, 2), 2)
    assert asked.experiments.sufficient == {"epochs": 2}
    assert len(asked.experiments.transfer) == 6
    assert asked.forget["few"].count == 10
    assert asked.search.early_stop == "none"


def test_a_study_of_all_images_keeps_a_share_of_them() -> None:
    raw = copy.deepcopy(studies.TINY) | {"data": "digits"}
    assert small(raw, 0.25).data.subset == 0.25
    raw["data"] = {"name": "digits", "subset": 0.5}
    assert small(raw, 0.25).data.subset == 0.125


def test_a_sample_without_held_out_images_of_the_class_is_refused(tmp_path: Path) -> None:
    """The objective could not be measured, and nothing would be chosen."""
    path = studies.write(tmp_path, studies.tiny(forget__three={"kind": "full_class", "class": 1}))
    message = (
        "forget: three: none of the . val samples is of the class to forget, so that avg_gap_natmu"
    )
    with pytest.raises(StudyError, match=message):
        launch.make_plan(str(path), launch.Options(sample=0.1))
    launch.make_plan(str(path), launch.Options(sample=0.5))
    other = launch.Options(sample=0.1, overrides=["search.objective=samples_seen"])
    launch.make_plan(str(path), other)


def test_a_menu_is_as_small_as_menus_are() -> None:
    raw = copy.deepcopy(studies.TINY) | {"choose": {"menu": 24}}
    asked = small(raw, 0.5).choose
    assert asked is not None and asked.menu == 5


@pytest.mark.parametrize("name", yaml_file.shipped_studies())
def test_every_shipped_study_is_valid_and_can_be_sampled(name: str) -> None:
    whole = studies.shipped(name)
    assert whole.name == name.rpartition("/")[2]
    study.parse(sampled(whole.definition, 0.05, name), name)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    whole = study.parse(copy.deepcopy(studies.TINY), "s.yaml")
    with pytest.raises(StudyError, match=r"--sample: must be in \(0, 1\), but got"):
        sampled(whole.definition, share, "s.yaml")


def test_a_study_of_listed_samples_is_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.arange(5))
    raw = copy.deepcopy(studies.TINY)
    raw["forget"]["listed"] = {"kind": "indices", "file": str(tmp_path / "f.npy")}
    with pytest.raises(StudyError, match=r"forget: listed: names single samples"):
        small(raw, 0.5)


def test_the_option_samples_the_study_that_is_read(tmp_path: Path) -> None:
    from rich.console import Console

    from sweeps import launch

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(studies.TINY), encoding="utf-8")
    plan = launch.make_plan(str(path), launch.Options(sample=0.5))
    assert plan.study.name == "tiny_sample"
    with Console(record=True, quiet=True, width=200) as console:
        launch.dry_run(str(path), launch.Options(sample=0.5), console)
    with pytest.raises(StudyError, match="--sample"):
        launch.make_plan(str(path), launch.Options(sample=2))
