"""Methods and models of other packages, by entry points of one that is installed for the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plugin_package
import pytest
import studies
import torch
from toy import toy_problem, toy_reference
from whole_study import run

import mu
from mu import methods, models
from mu.models import ModelSpec
from mu.source import code_digest
from sweeps import catalogue
from sweeps.errors import StudyError
from sweeps.study import space, study


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    return plugin_package.install(folder / "source", folder / "site")


@pytest.fixture(autouse=True)
def _on_the_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [name for name in sys.modules if name.startswith("gentle_unlearning")]:
        del sys.modules[name]


def test_a_method_of_another_package_is_one_of_the_methods(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"gentle", "natmu"} <= set(methods.names())
    assert "gentle" not in methods.shipped_names()
    method = methods.load("gentle")
    assert method.file == installed / "gentle_unlearning" / "gentle.py"
    assert (method.package, sorted(method.knobs)) == ("gentle_unlearning", ["epochs", "lr"])
    assert space.shipped(method)[0] == {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(installed)])
    with pytest.raises(ValueError, match="unknown method 'gentle'"):
        methods.load("gentle")


def test_python_and_the_catalogue_know_it() -> None:
    problem = toy_problem("full_class")
    model = problem.load(toy_reference("original"))
    split = problem.split()
    unlearned = mu.unlearn(model, "gentle", retain=split.retain, forget=split.forget, epochs=1)
    pairs = zip(model.state_dict().values(), unlearned.state_dict().values())
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert catalogue.method_files(())["gentle"].name == "gentle.py"
    assert (
        catalogue.methods_as_data("gentle", ())[0]["summary"] == "Gentle: a few slow steps on D_r"
    )


def test_its_digest_holds_the_code_of_its_package(installed: Path) -> None:
    helper = installed / "gentle_unlearning" / "rates.py"
    before, text = methods.load("gentle").code, helper.read_text(encoding="utf-8")
    try:
        helper.write_text(text.replace("/ 2", "/ 4"), encoding="utf-8")
        changed = methods.load("gentle").code
        helper.write_text(text + "\n# a comment\n", encoding="utf-8")
        commented = methods.load("gentle").code
    finally:
        helper.write_text(text, encoding="utf-8")
    assert changed != before == commented
    assert code_digest(methods.load("natmu").file or Path()) == methods.load("natmu").code


def test_names_that_ship_go_first() -> None:
    assert methods.load("finetune").package == "mu.methods"
    shown = catalogue.method_files(())["finetune"]
    assert shown.parent.name == "methods"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "broken",
            "package gentle-unlearning 1.2: gentle_unlearning.broken cannot be imported: Runtime",
        ),
        ("absent", "gentle_unlearning.absent cannot be imported: ModuleNotFoundError"),
        ("no_module", "'no_module' of musweep.methods must name a module, but .* is function"),
    ],
)
def test_a_broken_package_is_named(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        methods.load(name)


def test_a_model_of_another_package_is_one_of_the_models() -> None:
    assert models.resolve("narrow").key == {
        "name": "narrow",
        "source": models.resolve("gentle_unlearning.nets:build").key["source"],  # type: ignore[index]
    }
    network = models.build("narrow", (1, 8, 8), 10, (0.5,), (0.5,), seed=0)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"model must be one of small_cnn.*narrow, or module"):
        ModelSpec("narow")
    with pytest.raises(ValueError, match="has no function 'nothing'"):
        models.resolve("lost_net")


def small(**changes: Any) -> dict[str, Any]:
    return studies.tiny(
        model="narrow",
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=["gentle"],
        experiments={"defaults": False},
        metrics={"costly": []},
        search__trials=2,
        **changes,
    )


def test_a_study_runs_both_without_a_path(tmp_path: Path) -> None:
    ran = run(small(), tmp_path / "results", tmp_path / "storage")
    records = studies.records(ran.folder).values()
    assert {r.method for r in records} == {"original", "retrain", "gentle"}
    assert all(r.finished for r in records)
    with pytest.raises(StudyError, match=r"methods: unknown method 'gentl'; there are .*gentle"):
        study.parse(small() | {"methods": ["gentl"]}, "study.yaml")


@pytest.mark.slow
@pytest.mark.fault
def test_a_study_runs_both_on_ray(tmp_path: Path, installed: Path) -> None:
    studies.write(tmp_path, small())
    path = f"{studies.ROOT}:{studies.ROOT / 'tests'}:{installed}"
    ran = studies.musweep(tmp_path, "run", "study.yaml", environment={"PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
