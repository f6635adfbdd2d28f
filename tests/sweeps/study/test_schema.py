"""The JSON schema of a study file: what it completes and refuses, and the studies that follow it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import studies

from mu.data import LOADERS
from mu.forget import KINDS
from sweeps.phases import trial_phases
from sweeps.study import study, yaml_file
from sweeps.study.search import GAPPED, OBJECTIVES

SCHEMA = json.loads(resources.files("sweeps.study").joinpath("schema.json").read_text())
STUDIES = sorted(Path(str(resources.files("sweeps.studies"))).rglob("*.yaml"))
each_study = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@each_study
def test_a_shipped_study_follows_the_schema(path: Path) -> None:
    jsonschema.validate(yaml_file.read(path), SCHEMA)


@each_study
def test_a_shipped_study_names_the_schema_in_its_first_line(path: Path) -> None:
    sign, _, named = path.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")
    assert sign == "# yaml-language-server: "
    assert json.loads((path.parent / named).read_text()) == SCHEMA
    assert yaml_file.first_comment(path)
    assert "schema" not in yaml_file.first_comment(path)


def test_the_schema_is_one() -> None:
    jsonschema.validators.validator_for(SCHEMA).check_schema(SCHEMA)


def test_the_tiny_study_and_its_definition_follow_the_schema() -> None:
    jsonschema.validate(studies.tiny(), SCHEMA)
    jsonschema.validate(dict(study.parse(studies.tiny(), "study.yaml").definition), SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"metods": []},
        {"study": "../x"},
        {"data": {"name": "cifar11"}},
        {"data": {"subset": 3}},
        {"training__optimizer": "lion"},
        {"training__epochs": 2.5},
        {"forget": {}},
        {"forget": {"a": {"kind": "some"}}},
        {"methods": []},
        {"methods": [{"name": "jit", "space": {"lr": {"lo": 1}}}]},
        {"methods": [{"name": "jit", "as": "../x"}]},
        {"methods": [{"name": "jit", "alias": "x"}]},
        {"search__max_utility_loss": 2},
        {"seeds": {"report": []}},
        {"seeds": {"report": [1, 1]}},
        {"search__trials": -1},
        {"search__sampler": "hyperband"},
        {"search__objective": "acc"},
        {"search__objective": {"mean_gap": ["time_unlearn"]}},
        {"metrics": {"costly": ["reference"]}},
        {"metrics": {"attacks": ["lira"]}},
        {"experiments": {"sufficient": {"epochs": 0}}},
        {"selection": "oracle"},
        {"keep": {"models": "some"}},
        {"keep": {"models": [3]}},
        {"keep": {"weights": "all"}},
        {"published": [{"table": "t", "settings": {"some": "x"}, "phase": "reference"}]},
        {"resources": {"launch": "fast"}},
        {"resources": {"gpu": 1}},
        {"budget": {"wall_minutes": 0}},
    ],
    ids=str,
)
def test_an_editor_refuses_what_a_run_would(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(studies.tiny(**changes), SCHEMA)


@pytest.mark.parametrize("key", ["forget", "methods"])
def test_a_study_without_a_base_must_have_the_required_keys(key: str) -> None:
    study = studies.tiny()
    del study[key]
    with pytest.raises(jsonschema.ValidationError, match=key):
        jsonschema.validate(study, SCHEMA)
    jsonschema.validate({**study, "base": "_other.yaml"}, SCHEMA)


def test_names_to_choose_from_are_enums() -> None:
    definitions = SCHEMA["$defs"]

    def names(section: str, key: str) -> list[str]:
        content = definitions[section]["properties"][key]
        return content.get("items", content)["enum"]

    assert names("DataSpec", "name") == list(LOADERS)
    assert names("ForgetRequest", "kind") == list(KINDS)
    assert names("Search", "sampler") == [
        "tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2",
    ]  # fmt: skip
    assert names("Search", "mean_gap") == list(GAPPED)
    assert definitions["Search"]["properties"]["objective"]["anyOf"][0]["enum"] == list(OBJECTIVES)
    assert names("Published", "phase") == list(trial_phases())


def test_every_key_of_the_schema_says_what_it_is() -> None:
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        assert section["description"]
        assert all(content["description"] for content in section["properties"].values())
