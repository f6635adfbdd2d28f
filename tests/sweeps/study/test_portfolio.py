"""A search that starts from the portfolio in a method's search space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import studies
import yaml

from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.search.earlier import first_knobs, say_start
from sweeps.study import study
from sweeps.study.study import Study
from tests.sweeps.search.test_cells import Driver, make

LR = {"low": 1.0e-4, "high": 1.0e-1, "log": True}
SOURCE = {"study": "a", "data": "digits", "model": "small_cnn", "requests": ["r"], "seeds": [1],
          "fixed": {"epochs": 2, "weight_decay": 0.0}}  # fmt: skip
PORTFOLIO = {"configurations": [{"lr": 0.03}, {"lr": 0.07}], "sources": [SOURCE]}


def wanted(**search: Any) -> dict[str, Any]:
    entry = {"name": "finetune", "fix": {"epochs": 2, "weight_decay": 0.0}}
    about = {"trials": 5, "sampler": "tpe", "finalists": 1, "start": "portfolio", **search}
    return studies.tiny(methods=[entry], search=about, experiments={})


def spaces(folder: Path, **content: Any) -> Path:
    """A folder with the ranges of `finetune`, and what else its file has."""
    text = yaml.safe_dump({"lr": LR, "weight_decay": {"low": 0.0, "high": 0.1}, **content})
    (folder / "finetune.yaml").write_text(text)
    return folder


def read(folder: Path, raw: dict[str, Any]) -> Study:
    return study.parse(raw, "study.yaml", [folder])


def refused(folder: Path, raw: dict[str, Any] | None = None) -> str:
    with pytest.raises(StudyError) as error:
        first_knobs(read(folder, raw or wanted()), "study.yaml")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_portfolio_comes_after_the_defaults_counts_as_trials_and_is_marked(
    tmp_path: Path,
) -> None:
    parsed = read(spaces(tmp_path, portfolio=PORTFOLIO), wanted())
    driver = make(tmp_path, **wanted())
    first = first_knobs(parsed, "study.yaml")
    driver = Driver(Plan(parsed, driver.plan.data, first), driver.path, [])
    jobs = [job for job in driver.drain(driver.open()) if job.forget == "some"]
    drawn = [(job.knobs["lr"], job.origin) for job in jobs]
    assert drawn[:3] == [(0.02, "defaults"), (0.03, "portfolio"), (0.07, "portfolio")]
    assert [origin for _, origin in drawn[3:]] == ["", ""]
    assert all(job.knobs["weight_decay"] == 0.0 for job in jobs)


def test_another_portfolio_makes_another_search_and_none_leaves_it_as_it_was(
    tmp_path: Path,
) -> None:
    def key(portfolio: dict[str, Any], start: str) -> str:
        parsed = read(spaces(tmp_path, portfolio=portfolio), wanted(start=start))
        return Plan(parsed, make(tmp_path).plan.data).cell_key("search", "finetune")

    other = {**PORTFOLIO, "configurations": [{"lr": 0.05}]}
    assert key(PORTFOLIO, "portfolio") != key(other, "portfolio")
    assert key(PORTFOLIO, "defaults") == key(other, "defaults")


def test_a_menu_has_the_portfolio_last(tmp_path: Path) -> None:
    raw = wanted(trials=0) | {
        "choose": {"rules": ["losses"], "menu": 5},
        "seeds": {"search": [0], "report": [1, 2], "retrain": 2},
    }
    parsed = read(spaces(tmp_path, portfolio=PORTFOLIO), raw)
    plan = Plan(parsed, make(tmp_path).plan.data, first_knobs(parsed, "study.yaml"))
    items = plan.menu(("some", "finetune"))
    assert [(each.knobs["lr"], each.origin) for each in items[-2:]] == [
        (0.03, "portfolio"),
        (0.07, "portfolio"),
    ]


def test_configurations_that_differ_in_fixed_knobs_alone_are_tried_once(tmp_path: Path) -> None:
    both = [{"lr": 0.03, "weight_decay": 0.1}, {"lr": 0.03, "weight_decay": 0.0}]
    parsed = read(spaces(tmp_path, portfolio={**PORTFOLIO, "configurations": both}), wanted())
    config = parsed.method("finetune")
    assert config.portfolio is not None
    assert config.portfolio.searched(config.fixed, config.ranges) == [{"lr": 0.03}]


def test_a_method_without_a_portfolio_is_told(tmp_path: Path) -> None:
    parsed = read(spaces(tmp_path), wanted())
    assert first_knobs(parsed, "study.yaml") == {
        ("some", "finetune"): [],
        ("three", "finetune"): [],
    }
    assert say_start("portfolio", parsed.methods) == [
        "no portfolio in the search space of finetune"
    ]
    assert say_start("defaults", parsed.methods) == []


def test_a_portfolio_of_other_settings_is_told(tmp_path: Path) -> None:
    sources = [{**SOURCE, "fixed": {"epochs": 7, "weight_decay": 0.0}}]
    parsed = read(spaces(tmp_path, portfolio={**PORTFOLIO, "sources": sources}), wanted())
    assert say_start("portfolio", parsed.methods) == [
        "the portfolio of finetune was chosen with epochs 7"
    ]
    sources += [SOURCE]
    parsed = read(spaces(tmp_path, portfolio={**PORTFOLIO, "sources": sources}), wanted())
    assert say_start("portfolio", parsed.methods) == []


def test_a_portfolio_that_does_not_fit_its_space_or_the_study_is_refused(tmp_path: Path) -> None:
    def with_knobs(**knobs: Any) -> Path:
        return spaces(tmp_path, portfolio={**PORTFOLIO, "configurations": [{"lr": 0.03}, knobs]})

    where = "search_spaces/finetune.yaml: portfolio: configurations: 1: "
    assert refused(with_knobs(speed=1)).startswith(f"{where}unknown knob `speed`; finetune has ")
    assert refused(with_knobs(epochs=2)) == f"{where}epochs is not searched; lr, weight_decay is"
    assert refused(with_knobs(lr=0.5)) == (
        f"{where}lr is 0.5, which is not in its range, {{'low': 0.0001, 'high': 0.1, 'log': True}}"
    )
    narrow = wanted()
    narrow["methods"][0]["space"] = {"lr": {"low": 0.01, "high": 0.05}}
    assert refused(spaces(tmp_path, portfolio=PORTFOLIO), narrow) == (
        f"{where}lr is 0.07, which is not in its range, {{'low': 0.01, 'high': 0.05}}"
    )
    assert "portfolio: `sources` is required" in refused(
        spaces(tmp_path, portfolio={"configurations": [{}]})
    )
    assert "sampler grid tries its own points, so that `start` has no trials" in refused(
        spaces(tmp_path, portfolio=PORTFOLIO), wanted(sampler="grid")
    )
