"""A user's own network: how it is found, what its key follows, and how it reaches other machines."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import own_code
import pytest
import studies
import torch
from ray import cloudpickle
from toy import toy_problem

from mu.models import Model, ModelSpec, build, own_models, resolve
from sweeps import preflight
from sweeps.__main__ import main
from sweeps.errors import StudyError
from sweeps.study import study


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    return own_code.write(tmp_path)


def again(path: str) -> own_models.OwnModel:
    """Import it as a new process would."""
    top = path.partition(".")[0]
    for name in [name for name in sys.modules if name.startswith(top)]:
        del sys.modules[name]
    return own_models.load(path)


def test_a_path_gives_the_network_that_its_function_builds(package: str) -> None:
    model = resolve(f"{package}.nets:build")
    network = build(model, (3, 8, 8), 7, (0.5,) * 3, (0.5,) * 3, seed=0)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert type(network[1]).__name__ == "Net"


def test_its_weights_depend_on_the_seed_alone(package: str) -> None:
    model = resolve(f"{package}.nets:build")
    weights = [build(model, (1, 8, 8), 3, (0.5,), (0.5,), seed)[1].fc.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_its_modules_are_those_it_imports_that_are_not_installed(package: str) -> None:
    own = own_models.load(f"{package}.nets:build")
    expected = (package, f"{package}.layers", f"{package}.nets", f"{package}_tools")
    assert own.modules == expected


def test_an_installed_model_is_fingerprinted_and_not_sent() -> None:
    own = own_models.load("xml.dom.minidom:Document")  # any callable of an installed package
    assert own.modules == ()
    assert own.fingerprint != own_models.load("xml.dom.minidom:Element").fingerprint


@pytest.mark.parametrize("name", ["{}/nets.py", "{}/layers.py", "{}_tools.py", "{}/__init__.py"])
def test_its_key_follows_the_source_it_uses(package: str, name: str, tmp_path: Path) -> None:
    path = f"{package}.nets:build"
    before = again(path).fingerprint
    assert again(path).fingerprint == before
    source = tmp_path / name.format(package)
    source.write_text(source.read_text() + "\nMORE = 1\n")
    assert again(path).fingerprint != before


def test_its_key_does_not_follow_other_files(package: str, tmp_path: Path) -> None:
    path = f"{package}.nets:build"
    before = again(path).fingerprint
    (tmp_path / f"unrelated_{package}.py").write_text("X = 1\n")
    (tmp_path / package / "unused.py").write_text("X = 1\n")
    assert again(path).fingerprint == before


def test_the_key_of_a_reference_follows_its_source(package: str, tmp_path: Path) -> None:
    def key() -> str:
        again(f"{package}.nets:build")
        model = resolve(f"{package}.nets:build")
        return replace(toy_problem(), model=model).reference_key("original")

    before = key()
    assert key() == before
    (tmp_path / f"{package}_tools.py").write_text("def flat(x):\n    return x.amax((2, 3))\n")
    assert key() != before


def test_it_reaches_a_process_that_cannot_import_it(package: str) -> None:
    """What Ray does: modules that are not installed travel inside the model."""
    model = resolve(f"{package}.nets:build")
    travelling = [sys.modules[name] for name in model.modules]
    for module in travelling:
        cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(model)
    finally:
        for module in travelling:
            cloudpickle.unregister_pickle_by_value(module)
    script = """
        import sys, torch
        from ray import cloudpickle
        from mu.models import build
        model = cloudpickle.loads(sys.stdin.buffer.read())
        network = build(model, (1, 8, 8), 5, (0.5,), (0.5,), seed=0)
        print(tuple(network(torch.rand(2, 1, 8, 8)).shape), type(network[1].body[0]).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        input=sent,
        capture_output=True,
        env=studies.environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.split() == [b"(2,", b"5)", b"Block"]


WRONG = {
    "no module": ("nowhere.nets:build", "there is no module 'nowhere'"),
    "no module in a package": ("{}.no:build", "there is no module '{}.no'"),
    "no function": ("{}.nets:biuld", "nets.py has no function 'biuld'"),
    "no function but a number": ("{}.nets:NUMBER", "nets.py has no function 'NUMBER'"),
    "a module that fails": ("unrelated_{}:build", "RuntimeError: never imported"),
    "no function named": ("{}.nets:", "must be module:function, such as mypkg.nets:build"),
    "a file": ("./nets.py:build", "must be module:function, such as mypkg.nets:build"),
    "other classes": ("{}.nets:forgets_classes", "must give logits [2, 10] of inputs [2, 1, 8, 8], but gives [2, 11]"),
    "a tuple": ("{}.nets:gives_a_tuple", "must give logits [2, 10] of inputs [2, 1, 8, 8], but gives tuple"),
    "nothing": ("{}.nets:returns_nothing", "must return a torch.nn.Module, but returned NoneType"),
    "a crash": ("{}.nets:crashes", "fails on inputs [2, 1, 8, 8]: RuntimeError: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_ends_with_one_line_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = own_code.write(tmp_path / "code")
    model, expected = (text.replace("{}", package) for text in WRONG[name])
    path = studies.write(tmp_path, studies.tiny(model=model))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["run", str(path), "--code-path", "code"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"musweep: {path}: model: ")
    assert expected in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_no_folder_is_searched_that_the_command_line_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = own_code.write(tmp_path)
    path = studies.write(tmp_path, studies.tiny(model=f"{package}.nets:build"))
    monkeypatch.chdir(tmp_path / package)
    before = list(sys.path)
    assert main(["run", str(path), "--dry-run"]) == 2
    assert "name the folder it lies in with --code-path" in capsys.readouterr().err
    assert main(["run", str(path), "--dry-run", "--code-path", str(tmp_path / package)]) == 2
    assert f"there is no module {package!r}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "path", before)
    assert main(["run", str(path), "--dry-run", "--code-path", "missing"]) == 2
    assert "--code-path missing: is not a folder" in capsys.readouterr().err


def test_a_study_keeps_the_options_of_its_model(package: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": f"{package}.nets:build"}
    wanted = study.read(studies.write(tmp_path, studies.tiny(model=given)), own_code=True)
    assert wanted.definition["model"] == given
    given["normalize"] = {"mean": [0.25], "std": [0.5]}
    wanted = study.read(studies.write(tmp_path, studies.tiny(model=given)), own_code=True)
    assert wanted.definition["model"] == given
    assert isinstance(wanted.model, Model)
    assert wanted.model.normalize is not None and wanted.model.normalize.std == (0.5,)
    data = preflight.load_data(wanted, "x")
    assert wanted.problem(data, "some", 0).split().input_mean == (0.25,)


def test_the_normalization_given_is_inside_the_model_and_its_key() -> None:
    plain = toy_problem()
    other = replace(plain, model=resolve(ModelSpec("toy_cnn", normalize=plain.normalization)))
    assert other.reference_key("original") != plain.reference_key("original")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(other.build()[0](images), plain.build()[0](images))


def test_a_normalization_of_other_channels_is_refused(tmp_path: Path) -> None:
    model = {"name": "small_cnn", "normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    wanted = study.read(studies.write(tmp_path, studies.tiny(model=model)))
    with pytest.raises(StudyError, match=r"normalize: must hold a number for each of 1 channels"):
        preflight.load_data(wanted, "x")
