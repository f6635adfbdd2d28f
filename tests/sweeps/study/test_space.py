"""Search spaces: every YAML belongs to a method, every key to a knob, and every range to what it accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from method_settings import search_space

import search_spaces
from mu.methods import load, names
from sweeps.study import portfolio

FOLDER = Path(search_spaces.__file__).parent
RANGES = [(name, knob) for name in names() for knob in search_space(name)]
each_range = pytest.mark.parametrize(("name", "knob"), RANGES, ids=[".".join(r) for r in RANGES])


def test_methods_and_search_spaces_belong_together() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == names()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_file_is_a_mapping_that_says_where_its_ranges_come_from(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict) or (content is None and not load(path.stem).knobs)
    assert path.read_text().lstrip().startswith("#")


@pytest.mark.parametrize("name", names())
def test_a_portfolio_is_of_the_ranges_in_its_file(name: str) -> None:
    known = portfolio.shipped(load(name))
    assert known is None or all(
        set(knobs) <= set(search_space(name)) for knobs in known.configurations
    )


@each_range
def test_key_is_a_knob(name: str, knob: str) -> None:
    assert knob in load(name).knobs


@each_range
def test_range_is_written_in_full(name: str, knob: str) -> None:
    space = search_space(name)[knob]
    shapes: list[tuple[set[str], set[str]]] = [
        ({"low", "high"}, {"log", "step", "when"}),
        ({"choices"}, {"when"}),
    ]
    assert any(needed <= set(space) <= needed | extra for needed, extra in shapes), space
    assert not ("log" in space and "step" in space)


@each_range
def test_ends_are_accepted_by_the_knob(name: str, knob: str) -> None:
    space, schema = search_space(name)[knob], load(name).knobs[knob]
    for value in space.get("choices", [space.get("low"), space.get("high")]):
        assert schema.check(value) == value
        assert not isinstance(value, str) or schema.kind == "choice", (
            f"{value!r} is text: write floats with a dot, as 1.0e-5"
        )


@each_range
def test_range_is_not_empty(name: str, knob: str) -> None:
    space = search_space(name)[knob]
    if "choices" in space:
        assert len(set(map(repr, space["choices"]))) > 1
        return
    assert space["low"] < space["high"]
    if space.get("log"):
        assert space["low"] > 0
    if "step" in space:
        assert 0 < space["step"] <= space["high"] - space["low"]


@each_range
def test_condition_names_an_earlier_knob_of_the_space(name: str, knob: str) -> None:
    space = search_space(name)
    earlier = list(space)[: list(space).index(knob)]
    for other, value in space[knob].get("when", {}).items():
        if other not in space:  # it applies as long as a study leaves the other knob alone
            assert load(name).knobs[other].default == value
            continue
        assert other in earlier
        reachable = space[other].get("choices")
        assert reachable is None or value in reachable, f"{other} is never {value!r}"


@each_range
def test_default_lies_inside_its_range_or_the_file_says_why_not(name: str, knob: str) -> None:
    space, default = search_space(name)[knob], load(name).knobs[knob].default
    if _inside(space, default):
        return
    assert "default outside" in _comment_of(FOLDER / f"{name}.yaml", knob), (
        f"{name}.yaml: the authors' default {default} of `{knob}` is out of {space}; "
        "say why in a comment above or beside it that contains the words 'default outside'"
    )


def _inside(space: dict[str, Any], default: Any) -> bool:
    if "choices" in space:
        return default in space["choices"]
    return default is not None and space["low"] <= default <= space["high"]


def _comment_of(path: Path, knob: str) -> str:
    """The comment lines directly above a key, and what stands beside and below it up to the next."""
    found: list[str] = []
    mine = False
    for line in path.read_text().splitlines():
        if re.match(rf"{knob}\s*:", line):
            mine = True
        elif re.match(r"[A-Za-z_]", line):
            if mine:
                break
            found = []
            continue
        elif mine and line.startswith("#"):
            break
        if "#" in line:
            found.append(line.split("#", 1)[1])
    return " ".join(" ".join(found).split())
