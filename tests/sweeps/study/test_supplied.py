"""Models that a study brings: checkpoints that stand in for trained originals and retrained models."""

from __future__ import annotations

import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import own_code
import pytest
import studies
import torch
from in_process import InProcess
from rich.console import Console
from torch import nn

from mu.data import Dataset, DataSpec, load
from mu.evaluate import Outputs
from mu.models import checkpoints
from mu.models.architectures import MODELS
from sweeps import preflight
from sweeps.__main__ import main
from sweeps.errors import StudyError
from sweeps.flow.changes import open_results
from sweeps.flow.ledger import Ledger
from sweeps.flow.references import References, refuse_guessing
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.state import results
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.study.supplied import SuppliedModel
from sweeps.workers.scored import mean_class_accuracy

CHECKPOINT = SuppliedModel(Path("models/0.pt"), "0" * 64)


def supplied(folder: Path, **changes: Any) -> Path:
    """The tiny study with an original for each of its seeds."""
    torch.manual_seed(0)
    for seed in (0, 1, 2):
        torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), folder / f"{seed}.pt")
    return studies.write(folder, studies.tiny(**{"original": f"{folder}/{{seed}}.pt"} | changes))


def test_the_key_of_a_problem_follows_the_content_of_its_original(tmp_path: Path) -> None:
    path = supplied(tmp_path)

    def plan() -> Plan:
        wanted = study.read(path)
        return Plan(wanted, preflight.load_data(wanted, "x"))

    before, again, trained = plan(), plan(), study.read(studies.write(tmp_path, studies.tiny()))
    (tmp_path / "1.pt").write_bytes((tmp_path / "2.pt").read_bytes())
    path = supplied(tmp_path)
    torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), tmp_path / "1.pt")
    after = plan()
    for seed, same in ((0, True), (1, False), (2, True)):
        three = [p.problem("some", seed) for p in (before, again, after)]
        keys = [problem.reference_key("original") for problem in three]
        assert keys[0] == keys[1]
        assert (keys[0] == keys[2]) is same
        assert (three[0].key == three[2].key) is same
        usual = trained.problem(before.data, "some", seed)
        assert usual.reference_key("original") != keys[0]
        assert usual.reference_key("retrain") == three[0].reference_key("retrain")
        shared = before.problem("three", seed).reference_key("original")
        assert shared == keys[0]


def test_what_is_brought_is_not_counted_as_trained(tmp_path: Path) -> None:
    path = supplied(tmp_path)
    wanted, trained = study.read(path), study.read(studies.write(tmp_path, studies.tiny()))
    data = preflight.load_data(trained, "x")
    ours, usual = (Plan(each, data).samples for each in (wanted, trained))
    assert ours["reference"] / usual["reference"] == pytest.approx(6 / 9)  # 3 of 3 originals
    assert ours["search"] == usual["search"]


def test_a_ranking_attacks_the_original_that_is_brought(tmp_path: Path) -> None:
    requests = {
        "worst": {"kind": "worst_case", "count": 20},
        "hard": {"kind": "hardest", "count": 20},
    }
    wanted = study.read(supplied(tmp_path, forget=requests, methods=["finetune"], experiments={}))
    plan = Plan(wanted, preflight.load_data(wanted, "x"))
    digest = checkpoints.digest(tmp_path / "0.pt")
    assert plan.rankings["worst"].supplied == {"original": digest}
    assert plan.rankings["hard"].supplied == {}


def test_trials_of_another_original_are_not_mixed_with_these(tmp_path: Path) -> None:
    def line() -> dict[str, Any]:
        wanted = study.read(tmp_path / "study.yaml")
        found = study_line(Plan(wanted, preflight.load_data(wanted, "x")))
        return json.loads(json.dumps(found))

    supplied(tmp_path)
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
    del old["checkpoints"]  # as written before there were checkpoints
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
    path = supplied(tmp_path, **changes)
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


def refuse(held_out: Outputs) -> None:
    """Refuse the model that has these outputs, if it is near chance."""
    accuracy = mean_class_accuracy(held_out.without_forgotten())
    refuse_guessing(CHECKPOINT, "original", 3, accuracy, held_out.logits.shape[1])


@pytest.mark.parametrize(
    ("classes", "least"), [(2, 0.56), (10, 0.16), (100, 0.02)], ids=["two", "ten", "hundred"]
)
def test_a_model_near_chance_is_refused_by_name(classes: int, least: float) -> None:
    with pytest.raises(StudyError) as error:
        refuse(said(1 / classes, classes))
    chance = f"{1 / classes:.3f}"
    assert str(error.value).startswith(
        f"models/0.pt: the original model of seed 3 has an accuracy of {chance} on held-out data"
    )
    assert f"where guessing has {chance}" in str(error.value)
    refuse(said(least, classes))


def test_a_retrained_model_may_know_nothing_of_the_forgotten_class() -> None:
    refuse(said(0.2, 10, forgotten=4))


def test_always_the_largest_class_is_guessing() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    logits = np.tile(np.array([1, 0], np.float32), (100, 1))
    with pytest.raises(StudyError, match=r"accuracy of 0.500"):
        refuse(Outputs(logits, labels))


def references(path: Path, data: Dataset, folder: Path) -> tuple[InProcess, list[Any]]:
    """Make the references of a study; the workers, and the records of it."""
    plan, workers = Plan(study.read(path), data), InProcess()
    opened, _ = open_results(plan, folder / "results")
    try:
        ledger = Ledger(plan, opened, Console(file=io.StringIO()))
        source = References(plan, ledger, Store(str(folder / "storage")), workers.put)
        workers.run(source, plan.problems)
    finally:
        opened.close()
    return workers, list(opened.records.values())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataSpec("digits", subset=300))


@pytest.fixture(scope="module")
def models(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trained models, 0.pt to 2.pt, and of the same for the request `some`."""
    folder = tmp_path_factory.mktemp("models")
    wanted = study.parse(studies.tiny(), "x")
    for seed in (0, 1, 2):
        problem = wanted.problem(digits, "some", seed)
        for role, name in (("original", f"{seed}.pt"), ("retrain", f"some-{seed}.pt")):
            model = problem.build()
            for _ in problem.train(role, model):  # type: ignore[arg-type]
                pass
            torch.save(model[1].state_dict(), folder / name)
    return folder


SOME = {
    "forget": {"some": studies.TINY["forget"]["some"]},
    "experiments": {},
    "metrics": {"costly": []},  # their draws follow the problem's key
}


def test_what_is_brought_is_scored_and_not_trained(
    models: Path, digits: Dataset, tmp_path: Path
) -> None:
    raw = studies.tiny(**SOME)
    usual, expected = references(studies.write(tmp_path, raw), digits, tmp_path / "trained")
    assert len(usual.of("train")) == 6
    raw["original"] = f"{models}/{{seed}}.pt"
    half, records = references(studies.write(tmp_path, raw), digits, tmp_path / "half")
    assert sorted(half.of("train")) == [("retrain", 0), ("retrain", 1), ("retrain", 2)]
    raw["retrain"] = f"{models}/{{request}}-{{seed}}.pt"
    none, others = references(studies.write(tmp_path, raw), digits, tmp_path / "none")
    assert none.of("train") == []

    def scores(records: list[Any]) -> dict[Any, Any]:
        return {(r.method, r.seed, r.role): r.metrics for r in records}

    assert scores(records) == scores(others) == scores(expected)
    for record, other in zip(records, others):
        name = f"{record.seed}.pt" if record.method == "original" else f"some-{record.seed}.pt"
        path = models / name
        text = f"{path} (sha256 {checkpoints.digest(path)[:12]})"
        assert other.environment["checkpoint"] == text
        assert (other.time_unlearn, other.time_total, other.samples_seen) == (0, 0, 0)
        trained = record.method == "retrain"
        assert ("checkpoint" in record.environment) is not trained
        assert record.time_total == (1.0 if trained else 0.0)
        assert (record.time_unlearn > 0) is trained
        assert (record.samples_seen > 0) is trained


@pytest.mark.parametrize("role", ["original", "retrain"])
def test_a_model_of_other_data_is_refused_before_anything_is_trained(
    role: str, models: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in models.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    name = "1.pt" if role == "original" else "some-1.pt"
    torch.manual_seed(0)
    torch.save(MODELS["small_cnn"]((1, 8, 8), 10).state_dict(), tmp_path / name)
    place = "{seed}.pt" if role == "original" else "{request}-{seed}.pt"
    path = studies.write(tmp_path, studies.tiny(**SOME, **{role: f"{tmp_path}/{place}"}))
    monkeypatch.setattr(
        "sweeps.workers.reference_work._train", lambda *_: pytest.fail("something is trained")
    )
    with pytest.raises(StudyError, match=rf"{name}: the {role} model of seed 1 has an accuracy of"):
        references(path, digits, tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.npz"))
    lines = (tmp_path / "results" / "results" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["study"]


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


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
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
    data = load(DataSpec("digits", subset=300))
    trained(package, tmp_path / "models", data)
    studies.write(tmp_path, raw)
    done = studies.here(tmp_path, "run", "study.yaml", "--code-path", "code")
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
    wanted = study.read(tmp_path / "study.yaml", own_code=True)
    for seed, found in accuracy.items():
        problem = wanted.problem(data, "some", seed)
        model = problem.load(problem.read(Path("models") / f"{seed}.pt"))
        scores = problem.evaluate(model, problem.split(), ("test",)).scores["test"]
        assert found == pytest.approx(scores["acc_test"])
        assert found > 0.5
    assert sum(r.get("status") == "finished" and r["method"] == "jit" for r in records) == 3

    there = set((tmp_path / "storage").rglob("*.npz"))
    assert len(there) == 3 + 3, "three retrained models, and the scores of three problems"

    # The same files, read as models of other pixels, guess; so do those of other data.
    raw["model"]["normalize"] = {"mean": [300.0], "std": [0.001]}
    studies.write(tmp_path, raw | {"study": "other"})
    done = studies.here(tmp_path, "run", "study.yaml", "--code-path", "code")
    assert done.returncode == 2
    named = r"models/(\d).pt: the original model of seed \1 has an accuracy of 0\.1"
    assert re.search(named, done.stderr), "the first that was scored, of several at once"
    assert "where guessing has 0.100" in done.stderr
    assert set((tmp_path / "storage").rglob("*.npz")) == there, "nothing was trained"
