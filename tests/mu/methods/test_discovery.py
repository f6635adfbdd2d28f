"""Methods as files: found by name, also in a user's folder, and refused when they break the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.forget import KINDS
from mu.methods import load, names

GOOD = '''"""Nothing at all: a method that yields once.

Paper: none. Reference: none. Differs: in nothing.
"""
from mu.knobs import Positive

NEEDS = ("forget", "original")


def unlearn(model, split, generator, *, lr: Positive = 0.5):
    yield
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nothing.py").write_text(GOOD)
    (tmp_path / "_helper.py").write_text("")
    return tmp_path


def test_names_are_sorted_file_names_without_helpers(folder: Path) -> None:
    listed = names([folder])
    assert listed == sorted(listed)
    assert "nothing" in listed
    assert {"finetune", "natmu"} <= set(names()) < set(listed)
    assert not any(name.startswith("_") for name in listed)


def test_method_of_a_users_folder_is_loaded_whole(folder: Path) -> None:
    method = load("nothing", [folder])
    assert method.name == "nothing"
    assert method.summary == "Nothing at all: a method that yields once"
    assert method.needs == ("forget", "original")
    assert method.data == ("forget",)
    assert method.zero_shot
    assert method.requests == tuple(KINDS)
    assert method.defaults() == {"lr": 0.5}


def test_users_file_comes_before_one_of_the_package(folder: Path) -> None:
    (folder / "finetune.py").write_text(GOOD)
    assert list(load("finetune", [folder]).knobs) == ["lr"]
    assert len(load("finetune").knobs) > 1


def test_users_file_may_define_dataclasses(folder: Path) -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    plan = "\n\n@dataclass\nclass Plan:\n    steps: int\n"
    (folder / "planned.py").write_text(f"{source}{GOOD}{plan}")
    assert load("planned", [folder]).knobs


def test_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'magic'; there are .*finetune"):
        load("magic")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    yield", "    return None", "a method must define a generator `unlearn`"),
        ("def unlearn", "def forget", "a method must define a generator `unlearn`"),
        ('"original"', '"test"', r"NEEDS must hold some of retain, forget, original, twin"),
        ('NEEDS = ("forget", "original")', "", "NEEDS must hold some of .* but is \\(\\)"),
        ("NEEDS", "REQUESTS = ('all',)\nNEEDS", "REQUESTS must hold some of full_class, .*all"),
        ("NEEDS", "NO_BATCH_NORM = True\nNEEDS", "NO_BATCH_NORM must be a reason, but is True"),
        ("*, lr: Positive = 0.5", "**knobs", r"takes \*\*knobs: name every knob"),
        ("lr: Positive = 0.5", "lr: Positive", "knob `lr` has no default"),
        ("lr: Positive = 0.5", "lr: str = 'x'", "knob `lr` is annotated"),
    ],
)
def test_files_that_break_the_contract_are_refused_by_path(
    folder: Path, old: str, new: str, message: str
) -> None:
    (folder / "nothing.py").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"nothing\.py: .*{message}"):
        load("nothing", [folder])


def test_knobs_given_are_checked_and_the_rest_defaults() -> None:
    method = load("finetune")
    checked = method.check({"lr": "1e-3"})
    assert checked == {**method.defaults(), "lr": 1e-3}
    with pytest.raises(ValueError, match="unknown knob `alfa`; finetune has augment, batch_size"):
        method.check({"alfa": 1})
    with pytest.raises(ValueError, match="knob `lr` must be a float > 0, but got -1"):
        method.check({"lr": -1})
