"""Weights from files: what is accepted, what does not fit, and models that stand in for trained ones."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import own_code
import pytest
import studies
import torch
from torch import nn
from toy import toy_problem, toy_reference

from mu import checkpoints
from mu.architectures import MODELS
from mu.evaluate import Outputs
from mu.models import ModelSpec, build, head, resolve
from mu.problem import weights_of
from sweeps import results, study
from sweeps.__main__ import main
from sweeps.checkpoints import Checkpoint, refuse_guessing
from sweeps.files import StudyError
from sweeps.plan import Plan, versions

CHECKPOINT = Checkpoint(Path("models/0.pt"), "0" * 64)


def network(seed: int = 0) -> nn.Module:
    """The bare `toy_cnn`, as a user has it."""
    torch.manual_seed(seed)
    return MODELS["toy_cnn"]((3, 8, 8), 4)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(network(seed).state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"net": state, "acc": 0.5},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{n}": v for n, v in state.items()}},
        lambda state: {name: value.half().float() for name, value in state.items()},
    ],
)
def test_usual_checkpoints_load_into_the_inner_network(wrap: Any, tmp_path: Path) -> None:
    saved = state(seed=3)
    saved = {n: v.half().float() if v.is_floating_point() else v for n, v in saved.items()}
    torch.save(wrap(saved), tmp_path / "model.pt")
    problem = toy_problem()
    weights = problem.read(tmp_path / "model.pt")
    loaded = problem.load(weights)
    assert all(torch.equal(value, saved[n]) for n, value in loaded[1].state_dict().items())  # type: ignore[index]
    assert weights.keys() == toy_reference("original").keys()


def test_a_model_that_computes_in_bf16_takes_the_same_files(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    usual = toy_problem()
    mixed = replace(usual, recipe=replace(usual.recipe, precision="bf16"))
    one, other = (problem.read(tmp_path / "model.pt") for problem in (usual, mixed))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_half_precision_becomes_that_of_the_network(tmp_path: Path) -> None:
    torch.save({n: v.half() for n, v in state().items()}, tmp_path / "model.pt")
    weights = toy_problem().read(tmp_path / "model.pt")
    assert {value.dtype for value in weights.values()} == {np.dtype("f4"), np.dtype("i8")}


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: cannot be read as a state dict of tensors"):
        checkpoints.read(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state().items() if key != name}


MISFITS: dict[str, tuple[Any, str]] = {
    "a whole model": (network(), "cannot be read as a state dict of tensors (UnpicklingError)"),
    "settings of a program": (
        {"state_dict": state(), "args": argparse.Namespace(lr=1)},
        "cannot be read as a state dict of tensors (UnpicklingError); write it with torch.save",
    ),
    "a list": ([1, 2], "holds no state dict, but list"),
    "nothing": ({}, "holds no state dict, but dict"),
    "another wrapper": ({"weights": state()}, "holds no state dict: `weights` is dict"),
    "a shape": (
        state() | {"12.weight": torch.zeros(10, 16)},
        "`12.weight` has the shape [10, 16], but the model's has [4, 16]",
    ),
    "a first shape": (
        state() | {"12.weight": torch.zeros(10, 16), "0.weight": torch.zeros(4, 1, 3, 3)},
        "`0.weight` has the shape [4, 1, 3, 3], but the model's has [4, 3, 3, 3]",
    ),
    "a name too few": (without("3.weight"), "lacks `3.weight` [8, 4, 3, 3] of the model"),
    "another name": (
        without("12.weight") | {"fc.weight": torch.zeros(4, 16)},
        "lacks `12.weight` [4, 16] of the model; it has `fc.weight` [4, 16]",
    ),
    "a name too many": (
        state() | {"fc.weight": torch.zeros(7)},
        "has `fc.weight` [7], which the model lacks",
    ),
    "not a number": (
        state() | {"12.bias": torch.full((4,), torch.nan)},
        "`12.bias` holds values that are not finite",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_names_the_first_difference(name: str, tmp_path: Path) -> None:
    content, expected = MISFITS[name]
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        toy_problem().read(tmp_path / "model.pt")
    assert str(error.value).startswith(f"{tmp_path / 'model.pt'}: ")
    assert expected in str(error.value)


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no checkpoint at all")
    for read in (checkpoints.read, checkpoints.digest):
        with pytest.raises(ValueError, match=r"missing.pt: cannot be read: No such file"):
            read(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match=r"model.pt: cannot be read as a state dict"):
        checkpoints.read(tmp_path / "model.pt")
    whole = tmp_path / "whole.pt"
    torch.save(state(), whole)
    whole.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"whole.pt: cannot be read as a state dict"):
        checkpoints.read(whole)


# Pretrained weights


def spec_with(weights: Mapping[str, torch.Tensor], path: Path, name: str = "toy_cnn") -> ModelSpec:
    torch.save(dict(weights), path)
    return ModelSpec(name, weights=str(path))


def test_pretrained_weights_are_what_training_begins_with(tmp_path: Path) -> None:
    model = resolve(spec_with(state(seed=5), tmp_path / "w.pt"))
    problem = replace(toy_problem(), model=model)
    for seed in (0, 1):
        built = replace(problem, seed=seed).build()[1].state_dict()
        assert all(torch.equal(built[name], value) for name, value in state(seed=5).items())
    assert problem.reference_key("original") != toy_problem().reference_key("original")


def test_the_key_follows_the_content_of_the_weights_and_not_their_path(tmp_path: Path) -> None:
    one = resolve(spec_with(state(seed=5), tmp_path / "w.pt"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "v.pt").write_bytes((tmp_path / "w.pt").read_bytes())
    same = resolve(ModelSpec("toy_cnn", weights=str(tmp_path / "elsewhere" / "v.pt")))
    other = resolve(spec_with(state(seed=6), tmp_path / "w.pt"))
    assert one.key == same.key
    assert one.key != other.key


@pytest.mark.parametrize("headless", [True, False])
def test_a_head_for_other_classes_stays_as_drawn(headless: bool, tmp_path: Path) -> None:
    given = state(seed=5) | {"12.weight": torch.zeros(9, 16), "12.bias": torch.zeros(9)}
    if headless:
        del given["12.weight"], given["12.bias"]
    model = resolve(spec_with(given, tmp_path / "w.pt"))
    heads = []
    for seed in (0, 1):
        built = build(model, (3, 8, 8), 4, (0.5,) * 3, (0.5,) * 3, seed)
        heads.append(head(built).weight)
        assert torch.equal(built[1][0].weight, given["0.weight"])
        drawn = build("toy_cnn", (3, 8, 8), 4, (0.5,) * 3, (0.5,) * 3, seed)
        assert torch.equal(heads[-1], head(drawn).weight)
    assert not torch.equal(*heads)


def test_positions_of_a_transformer_are_stretched_to_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = MODELS["vit_b_32"]((3, 64, 64), 6).state_dict()
    name = "encoder.pos_embedding"
    given[name] = torch.linspace(0, 1, given[name].numel()).view(given[name].shape)
    model = resolve(spec_with(given, tmp_path / "w.pt", "vit_b_32"))
    built = build(model, (3, 96, 96), 4, (0.5,) * 3, (0.5,) * 3, seed=0)[1]
    found = built.get_parameter(name)
    assert found.shape == (1, 10, 768)
    assert torch.equal(found[:, 0], given[name][:, 0])
    corners = found[0, 1:].detach().view(3, 3, 768)[::2, ::2].reshape(4, 768)
    torch.testing.assert_close(corners, given[name][0, 1:])
    assert torch.equal(built.get_parameter("class_token"), given["class_token"])


def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = spec_with({"fc.weight": torch.zeros(2, 2)}, tmp_path / "w.pt")
    raw = studies.tiny(model={"name": "small_cnn", "weights": model.weights})
    wanted = study.read(studies.write(tmp_path, raw))
    with pytest.raises(StudyError, match=r"x: model: .*w.pt: lacks `0.weight` \[32, 1, 3, 3\]"):
        study.load_data(wanted, "x")


# Models that a study brings


def brought(folder: Path, **changes: Any) -> Path:
    """The tiny study with an original for each of its seeds."""
    torch.manual_seed(0)
    for seed in (0, 1, 2):
        torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), folder / f"{seed}.pt")
    return studies.write(folder, studies.tiny(**{"original": f"{folder}/{{seed}}.pt"} | changes))


def test_the_key_of_a_problem_follows_the_content_of_its_original(tmp_path: Path) -> None:
    path = brought(tmp_path)

    def plan() -> Plan:
        wanted = study.read(path)
        return Plan(wanted, study.load_data(wanted, "x"))

    before, again, trained = plan(), plan(), study.read(studies.write(tmp_path, studies.tiny()))
    (tmp_path / "1.pt").write_bytes((tmp_path / "2.pt").read_bytes())
    path = brought(tmp_path)
    torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), tmp_path / "1.pt")
    after = plan()
    for seed, same in ((0, True), (1, False), (2, True)):
        problems = [p.problem("some", seed) for p in (before, again, after)]
        keys = [problem.reference_key("original") for problem in problems]
        assert keys[0] == keys[1]
        assert (keys[0] == keys[2]) is same
        assert (problems[0].key == problems[2].key) is same
        usual = trained.problem(before.data, "some", seed)
        assert usual.reference_key("original") != keys[0]
        assert usual.reference_key("retrain") == problems[0].reference_key("retrain")
        shared = before.problem("three", seed).reference_key("original")
        assert shared == keys[0]


def test_what_is_brought_is_not_counted_as_trained(tmp_path: Path) -> None:
    path = brought(tmp_path)
    wanted, trained = study.read(path), study.read(studies.write(tmp_path, studies.tiny()))
    data = study.load_data(trained, "x")
    ours, usual = (Plan(each, data).samples for each in (wanted, trained))
    assert ours["reference"] / usual["reference"] == pytest.approx(6 / 9)  # 3 of 3 originals
    assert ours["search"] == usual["search"]


def test_a_ranking_attacks_the_original_that_is_brought(tmp_path: Path) -> None:
    requests = {
        "worst": {"kind": "worst_case", "count": 20},
        "hard": {"kind": "hardest", "count": 20},
    }
    wanted = study.read(brought(tmp_path, forget=requests, methods=["finetune"], experiments={}))
    plan = Plan(wanted, study.load_data(wanted, "x"))
    digest = checkpoints.digest(tmp_path / "0.pt")
    assert plan.rankings["worst"].brought == {"original": digest}
    assert plan.rankings["hard"].brought == {}


def test_trials_of_another_original_are_not_mixed_with_these(tmp_path: Path) -> None:
    def line() -> dict[str, Any]:
        wanted = study.read(tmp_path / "study.yaml")
        found = Plan(wanted, study.load_data(wanted, "x")).study_line(versions(), 0)
        return json.loads(json.dumps(found))

    brought(tmp_path)
    before = line()
    torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), tmp_path / "1.pt")
    changes = results.incompatible(before, line())
    assert [change.partition(":")[0] for change in changes] == [
        "original some 1",
        "original three 1",
    ]
    studies.write(tmp_path, studies.tiny())
    assert "is 'trained'" in results.incompatible(before, line())[0]
    old = line()
    del old["checkpoints"], old["model"]  # as written before there were checkpoints
    assert results.incompatible(old, line()) == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"original": "no/{seed}.pt"}, "original: no/0.pt: cannot be read: No such file"),
    "no path": ({"original": 3}, "original: must be a path with {seed}, but got 3"),
    "another place": (
        {"original": "{request}.pt"},
        "original: {request} is unknown; a path may hold {seed}",
    ),
    "one retrained model for all seeds": (
        {"retrain": "0.pt"},
        "retrain: must hold {seed}: the spread of retrained models",
    ),
    "another shape": (
        {"model": "resnet18", "methods": ["jit"]},
        "original: {folder}/0.pt: lacks `conv1.weight` [64, 1, 3, 3] of the model; it has `0.weight`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_checkpoint_ends_with_one_line_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = WRONG[name]
    monkeypatch.chdir(tmp_path)
    path = brought(tmp_path, **changes)
    assert main(["run", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"musweep: {path}: ")
    assert expected.replace("{folder}", str(tmp_path)) in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def said(accuracy: float, classes: int, forgotten: int | None = None) -> Outputs:
    """Outputs of 10,000 samples, right for a share of each class; none of a forgotten class."""
    labels = np.arange(10_000) % classes
    right = np.arange(10_000) // classes < accuracy * (10_000 // classes)
    mask = None if forgotten is None else labels == forgotten
    if mask is not None:
        right &= ~mask
    answer = np.where(right, labels, (labels + 1) % classes)
    return Outputs(np.eye(classes, dtype=np.float32)[answer], labels, mask)


@pytest.mark.parametrize(
    ("classes", "least"), [(2, 0.56), (10, 0.16), (100, 0.02)], ids=["two", "ten", "hundred"]
)
def test_a_model_near_chance_is_refused_by_name(classes: int, least: float) -> None:
    with pytest.raises(StudyError) as error:
        refuse_guessing(CHECKPOINT, "original", 3, said(1 / classes, classes))
    chance = f"{1 / classes:.3f}"
    assert str(error.value).startswith(
        f"models/0.pt: the original model of seed 3 has an accuracy of {chance} on held-out data"
    )
    assert f"where guessing has {chance}" in str(error.value)
    refuse_guessing(CHECKPOINT, "original", 3, said(least, classes))


def test_a_retrained_model_may_know_nothing_of_the_forgotten_class() -> None:
    refuse_guessing(CHECKPOINT, "retrain", 0, said(0.2, 10, forgotten=4))


def test_always_the_largest_class_is_guessing() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    logits = np.tile(np.array([1, 0], np.float32), (100, 1))
    with pytest.raises(StudyError, match=r"accuracy of 0.500"):
        refuse_guessing(CHECKPOINT, "original", 0, Outputs(logits, labels))


def trained(package: str, folder: Path, data: Any) -> None:
    """A user's own training program: its own normalisation, Adam, and a checkpoint of its own kind."""
    nets = importlib.import_module(f"{package}.nets")
    part = data.parts["train"]
    images = (torch.from_numpy(np.array(part.inputs)).float() / 255 - 0.3) / 0.4
    labels = torch.from_numpy(np.array(part.labels))
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        own = nets.build(10, (1, 8, 8))
        optimizer = torch.optim.Adam(own.parameters(), 0.01)
        for _ in range(40):
            for index in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(own(images[index]), labels[index]).backward()
                optimizer.step()
        own = nn.DataParallel(own)
        torch.save({"state_dict": own.state_dict(), "epoch": 40}, folder / f"{seed}.pt")


@pytest.mark.slow
def test_a_study_of_a_users_model_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    package = own_code.write(code)
    raw = studies.tiny(
        model={"name": f"{package}.nets:build", "normalize": {"mean": [0.3], "std": [0.4]}},
        original="models/{seed}.pt",
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=["jit"],
        experiments={"defaults": False},
        search__trials=1,
    )
    (tmp_path / "models").mkdir()
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.chdir(tmp_path)
    data = study.load(study.DataSpec("digits", subset=300))
    trained(package, tmp_path / "models", data)
    studies.write(tmp_path, raw)
    done = studies.musweep(tmp_path, "run", "study.yaml", "--code-path", "code")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "results" / "tiny" / "trials.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    originals = [r for r in records if r.get("method") == "original"]
    assert len(originals) == 3
    for record in originals:
        path = Path("models") / f"{record['seed']}.pt"
        digest = checkpoints.digest(path)
        assert record["environment"]["checkpoint"] == f"{path} (sha256 {digest[:12]})"
        assert record["time_total"] == record["time_unlearn"] == 0
    accuracy = {
        r["seed"]: r["metrics"]["test"]["acc_test"] for r in originals if r["role"] == "report"
    }
    wanted = study.read(tmp_path / "study.yaml")
    for seed, found in accuracy.items():
        problem = wanted.problem(data, "some", seed)
        model = problem.load(problem.read(Path("models") / f"{seed}.pt"))
        scores = problem.evaluate(model, problem.split(), ("test",)).scores["test"]
        assert found == pytest.approx(scores["acc_test"])
        assert found > 0.5
    assert sum(r.get("status") == "finished" and r["method"] == "jit" for r in records) == 3

    # The same files, read as models of other pixels, guess; so do those of other data.
    raw["model"]["normalize"] = {"mean": [300.0], "std": [0.001]}
    studies.write(tmp_path, raw | {"study": "other"})
    done = studies.musweep(tmp_path, "run", "study.yaml", "--code-path", "code")
    assert done.returncode == 2
    assert "models/0.pt: the original model of seed 0 has an accuracy of 0.1" in done.stderr
    assert "where guessing has 0.100" in done.stderr
    assert (
        len(list((tmp_path / "storage").rglob("*.npz"))) == 3
    )  # of the first study: nothing was trained


def test_training_with_dropout_gives_the_same_weights_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dropping(shape: Any, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, num_classes))

    monkeypatch.setitem(MODELS, "dropping", dropping)
    problem = replace(
        toy_problem(), model="dropping", recipe=replace(toy_problem().recipe, epochs=1)
    )
    found = []
    for disturbance in (1, 2):
        model = problem.build()
        torch.manual_seed(disturbance)
        for _ in problem.train("original", model):
            pass
        found.append(weights_of(model))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
