"""A whole study whose lowest objective is that of a destroyed model: search, status and report choose another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import studies
from rich.console import Console
from whole_study import run

from mu.choice import choice_of
from mu.current import read_current
from reports import load
from reports.page import cards, words
from sweeps.tracking import status

OWN = '''"""Own: leave the model as it is, or destroy it, which costs nothing."""

NEEDS = ("retain",)


def unlearn(model, split, generator, *, wreck: bool = False):
    """Unlearn."""
    if wreck:
        for weight in model.parameters():
            weight.data.zero_()
    else:
        model(split.retain.batch(slice(0, 8))[0])
    yield
'''


def asked(choices: list[bool], **search: Any) -> dict[str, Any]:
    """A grid whose objective, the number of samples seen, is lowest for a destroyed model."""
    settings = {
        "sampler": "grid",
        "objective": "samples_seen",
        "early_stop": "none",
        "finalists": 1,
    }
    return studies.tiny(
        model="toy_cnn",
        forget={"three": {"kind": "full_class", "class": 3}},
        methods=[{"name": "own", "space": {"wreck": {"choices": choices}}}],
        experiments={"defaults": False},
        metrics={"costly": []},
        search={**settings, **search},
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/own.py").write_text(OWN, encoding="utf-8")
    return tmp_path / "own"


def test_a_wreck_is_not_chosen_while_there_is_another(
    tmp_path: Path, storage: Path, own: Path
) -> None:
    ran = run(asked([True, False]), tmp_path, storage, methods=own)
    assert {r.knobs["wreck"] for r in ran.of("confirm")} == {False}
    made = load.read(ran.folder)
    assert made.chosen("three", "own").knobs == {"wreck": False}  # type: ignore[union-attr]
    line, records = read_current(ran.folder / "trials.jsonl")
    text = io.StringIO()
    status.show(ran.folder, line, records, Console(file=text, width=120))
    assert "8.0000 (2/2)" in text.getvalue()
    assert "more than 10 points" in dict(words.setting(made))["Utility floor"]
    assert not cards.below_floor(made)
    everything = run(asked([True, False], max_utility_loss=1), tmp_path, storage, methods=own)
    assert not everything.of("search"), "the floor decides no search trial's numbers"
    assert {r.knobs["wreck"] for r in everything.of("confirm")} == {True}
    made = load.read(everything.folder)
    assert dict(words.setting(made))["Utility floor"] == ""


def test_where_all_are_wrecks_one_is_chosen_and_the_report_says_so(
    tmp_path: Path, storage: Path, own: Path
) -> None:
    raw = asked([True])
    raw["methods"][0] = {"name": "own", "fix": {"wreck": True}}
    ran = run(raw, tmp_path, storage, methods=own)
    made = load.read(ran.folder)
    assert made.chosen("three", "own").knobs == {"wreck": True}  # type: ignore[union-attr]
    assert "loses more than 10 points" in cards.below_floor(made)
    assert "own on three" in cards.below_floor(made)


def test_a_study_recorded_without_a_floor_keeps_its_choice(
    tmp_path: Path, storage: Path, own: Path
) -> None:
    ran = run(asked([True, False]), tmp_path, storage, methods=own)
    line, records = read_current(ran.folder / "trials.jsonl")
    before = {k: v for k, v in line["definition"]["search"].items() if k != "max_utility_loss"}
    choice = choice_of({**line["definition"], "search": before})
    chosen = choice.decide(records, "three", "own").chosen
    assert chosen is not None and chosen.knobs == {"wreck": True}
