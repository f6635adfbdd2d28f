"""The results file and the model store: whole or not there, one driver at a time."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import studies

from mu.record import TrialRecord
from sweeps import preflight
from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.state import results
from sweeps.state.results import Results
from sweeps.state.store import Store
from sweeps.study import study


def record(key: str) -> TrialRecord:
    return TrialRecord(key, "tiny", "search", "some", "jit", 0, "finished", {"lr": 0.1}, 0)


@pytest.fixture(scope="module")
def line() -> dict[str, object]:
    wanted = study.parse(studies.tiny(), "study.yaml")
    return study_line(Plan(wanted, preflight.load_data(wanted, "study.yaml")))


def test_a_record_is_kept_once(tmp_path: Path, line: dict[str, object]) -> None:
    found = Results(tmp_path / "tiny")
    found.begin(line)
    assert found.append(record("a"))
    assert not found.append(record("a"))
    found.close()
    again = Results(tmp_path / "tiny")
    assert list(again.records) == ["a"]
    assert again.study["study"] == "tiny"
    again.close()


def test_the_first_line_of_a_folder_gives_its_study_a_uuid(
    tmp_path: Path, line: dict[str, object]
) -> None:
    ids = []
    for folder in ("one", "one", "two"):
        opened = Results(tmp_path / folder)
        opened.begin(line)
        ids.append(opened.study["uuid"])
        opened.close()
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 32


def test_a_line_cut_short_is_dropped_and_the_next_is_whole(
    tmp_path: Path, line: dict[str, object]
) -> None:
    found = Results(tmp_path)
    found.begin(line)
    found.append(record("a"))
    found.close()
    with found.path.open("a") as file:
        file.write('{"kind":"trial","sch')
    again = Results(tmp_path)
    assert list(again.records) == ["a"]
    again.append(record("b"))
    again.close()
    last = Results(tmp_path)
    assert list(last.records) == ["a", "b"]
    last.close()


def test_a_second_driver_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    first = Results(tmp_path)
    with pytest.raises(StudyError, match=f"the study is being run by process {os.getpid()} on"):
        Results(tmp_path)
    first.close()
    Results(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written to"):
        Results(tmp_path / "file" / "tiny")


def test_only_other_data_models_and_recipes_are_incompatible(line: dict[str, object]) -> None:
    new = copy.deepcopy(line)
    definition = new["definition"]
    assert isinstance(definition, dict)
    definition["search"]["trials"] = 50
    definition["seeds"]["report"] = [1, 2, 3]
    definition["experiments"]["sufficient"] = None
    definition["forget"]["more"] = {"kind": "random", "fraction": 0.2}
    definition["forget"]["some"]["fraction"] = 0.2
    definition["methods"][0]["fix"]["epochs"] = 9
    assert results.incompatible(line, new) == []
    definition["training"]["epochs"] = 4
    new["model"] = "another"
    new["data"]["fingerprint"] = "f00d"
    changes = results.incompatible(line, new)
    assert "training.epochs: was 3, is 4" in changes
    assert len(changes) == 3


@pytest.mark.parametrize("location", ["folder", "memory://models"])
def test_a_store_gives_back_what_it_was_given(location: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "models") if location == "folder" else location)
    store.check()
    key = "ab" * 16
    assert store.get(key) is None
    arrays = {"0.weight": np.arange(6.0).reshape(2, 3), "seconds": np.array(1.5)}
    store.put(key, arrays)
    found = store.get(key)
    assert found is not None
    assert set(found) == set(arrays)
    np.testing.assert_array_equal(found["0.weight"], arrays["0.weight"])


def test_status_finds_who_runs_a_study_under_a_path_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: dict[str, object]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    running = Results(tmp_path / "results" / "tiny")
    running.begin(line)
    try:
        shown = studies.here(tmp_path, "status", "~/results/tiny").stdout
    finally:
        running.close()
    assert "0 trials recorded, run by process" in shown


@pytest.mark.parametrize("command", ["run", "report", "status", "sync"])
def test_results_of_version_0_1_are_refused_by_name_and_left_as_they_are(
    tmp_path: Path, command: str
) -> None:
    old = tmp_path / "results" / "tiny" / "trials.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text('{"kind":"study","schema":1,"study":"tiny"}\n')
    argument = str(studies.write(tmp_path, studies.tiny(methods=["finetune"])).name)
    ended = studies.here(tmp_path, command, argument if command == "run" else "results/tiny")
    assert ended.returncode == 2
    assert "trials.jsonl:1: was written by musweep 0.1" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert old.read_text() == '{"kind":"study","schema":1,"study":"tiny"}\n'


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_model_counts_as_absent(damage: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    key = "cd" * 16
    store.put(key, {"x": np.arange(1000)})
    (path,) = tmp_path.rglob("*.npz")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[-50] ^= 1
    path.write_bytes(content)
    assert store.get(key) is None
    store.put(key, {"x": np.arange(3)})
    found = store.get(key)
    assert found is not None
    assert len(found["x"]) == 3


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        Store(str(tmp_path)).put("ef" * 16, {"x": np.zeros(3)})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
