"""A search that starts from what earlier studies chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import studies

from mu.record import TrialRecord, to_line, trial_line, write
from sweeps.__main__ import main
from sweeps.errors import StudyError
from sweeps.plan import FirstKnobs, Plan
from sweeps.search.earlier import first_knobs
from sweeps.study import study
from tests.sweeps.search.test_cells import Driver, make

LR = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}
FIX = {"epochs": 2, "weight_decay": 0.0}
CELL = ("some", "finetune")


def wanted(start_from: list[str], space: dict[str, Any] = LR, **search: Any) -> dict[str, Any]:
    """A study of one method with one knob."""
    entry = {"name": "finetune", "fix": FIX, "space": space}
    about = {"trials": 5, "sampler": "tpe", "finalists": 1, "start_from": start_from, **search}
    return studies.tiny(methods=[entry], search=about, experiments={})


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., str]:
    """Return a maker of the results of a study that tried some learning rates on each request; the first is the best."""

    def build(name: str = "earlier", **rates: list[float]) -> str:
        parsed = study.parse(wanted([]), "study.yaml")
        defaults = dict(parsed.method("finetune").fixed)
        records = [
            TrialRecord(
                f"{forget}{number}", name, "search", forget, "finetune", 0, "finished",
                {**defaults, "lr": rate}, number, metrics={"val": {"avg_gap_natmu": 0.1 + number}},
            )
            for forget, listed in rates.items()
            for number, rate in enumerate(listed)
        ]  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        line = to_line("study", {"study": name, "definition": parsed.definition})
        write(folder / "trials.jsonl", [line, *map(trial_line, records)])
        return str(folder)

    return build


def tried(driver: Driver) -> list[tuple[float, str]]:
    """Run the search; the learning rate and origin of each trial on `some`."""
    jobs = [job for job in driver.drain(driver.open()) if job.forget == "some"]
    return [(job.knobs["lr"], job.origin) for job in jobs]


def driver_from(folder: Path, start_from: list[str]) -> Driver:
    driver = make(folder, **wanted(start_from))
    first = first_knobs(driver.plan.study, "study.yaml")
    return Driver(Plan(driver.plan.study, driver.plan.data, first), driver.path, [])


def test_the_chosen_knobs_come_after_the_defaults_and_count_as_trials(
    tmp_path: Path, earlier: Any
) -> None:
    start = earlier(some=[0.03, 0.07], three=[0.05])
    drawn = tried(driver_from(tmp_path, [start]))
    assert drawn[:2] == [(0.02, "defaults"), (0.03, start)]
    assert len(drawn) == 5
    assert [origin for _, origin in drawn[2:]] == ["", "", ""]


def test_a_request_that_is_new_takes_what_was_chosen_on_each(tmp_path: Path, earlier: Any) -> None:
    one, two = (
        earlier("one", other=[0.03], another=[0.05]),
        earlier("two", some=[0.05], last=[0.01]),
    )
    drawn = tried(driver_from(tmp_path, [one, two]))
    assert drawn[:3] == [(0.02, "defaults"), (0.03, one), (0.05, one)]
    assert [origin for _, origin in drawn[3:]] == ["", ""]  # the other study's are there already


def test_what_the_authors_use_is_tried_once(tmp_path: Path, earlier: Any) -> None:
    drawn = tried(driver_from(tmp_path, [earlier(some=[0.02])]))
    assert [origin for _, origin in drawn] == ["defaults", "", "", "", ""]


@pytest.mark.parametrize("lost", [False, True])
def test_a_restart_keeps_the_origin(tmp_path: Path, earlier: Any, lost: bool) -> None:
    start = earlier(some=[0.03])
    (tmp_path / "once").mkdir()
    undisturbed = tried(driver_from(tmp_path / "once", [start]))
    driver = driver_from(tmp_path, [start])
    cells, jobs = driver.open(), []
    for _ in range(4):  # two for each request
        job = cells.next()
        assert job is not None
        jobs.append(job)
    for job in jobs[:3]:
        driver.finish(cells, job)
    origins = {job.key: job.origin for job in jobs}
    driver.records[:] = [replace(each, origin=origins[each.key]) for each in driver.records]
    if lost:
        driver.path.unlink()
    again = [job for job in driver.drain(driver.open()) if job.forget == "some"]
    assert [(job.knobs["lr"], job.origin) for job in again] == undisturbed[-len(again) :]
    assert len(again) == 5 - sum(job.forget == "some" for job in jobs[:3])


def test_a_method_that_the_earlier_study_lacks_starts_as_ever(earlier: Any) -> None:
    asked = wanted([earlier(some=[0.03])])
    asked["methods"].append("jit")
    first = first_knobs(study.parse(asked, "study.yaml"), "study.yaml")
    assert first[CELL] == [FirstKnobs({"lr": 0.03}, asked["search"]["start_from"][0])]
    assert first["some", "jit"] == []


def test_an_earlier_study_that_does_not_fit_is_refused(tmp_path: Path, earlier: Any) -> None:
    start = earlier(some=[0.03])

    def refused(asked: dict[str, Any]) -> str:
        with pytest.raises(StudyError) as error:
            first_knobs(study.parse(asked, "study.yaml"), "study.yaml")
        assert "\n" not in str(error.value)
        return str(error.value)

    where = "study.yaml: search: start_from: "
    assert refused(wanted(["nowhere"])) == (
        f"{where}nowhere: is no folder with the results of a study (trials.jsonl)"
    )
    narrow = refused(wanted([start], {"lr": {"low": 0.04, "high": 0.1}}))
    assert narrow == (
        f"{where}{start}: finetune on some: lr is 0.03, which is not in its range here, "
        "{'low': 0.04, 'high': 0.1}"
    )
    fixed = wanted([start])
    fixed["methods"] = [{"name": "finetune", "fix": {**FIX, "epochs": 3}, "space": LR}]
    assert refused(fixed) == f"{where}{start}: finetune on some: epochs is 2; here it is 3"
    other = wanted([start]) | {"methods": [studies.JIT]}
    assert "has no chosen knobs of any method of this study (jit)" in refused(other)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "trials.jsonl").write_text("{}\n")
    assert refused(wanted([str(tmp_path / "broken")])).startswith(where)
    (tmp_path / "broken" / "trials.jsonl").write_text(to_line("study", {"study": "x"}) + "\n")
    assert "its study cannot be read" in refused(wanted([str(tmp_path / "broken")]))
    text = (Path(start) / "trials.jsonl").read_text().replace('"momentum":', '"speed":')
    (Path(start) / "trials.jsonl").write_text(text)
    assert "finetune on some: has the knobs augment, batch_size" in refused(wanted([start]))


def test_the_command_line_says_so_in_one_line_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = studies.write(tmp_path, wanted([str(tmp_path / "nowhere")]))
    assert main(["run", str(file), "--results", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "start_from" in said
    assert not (tmp_path / "results").exists()
