"""Models that a study keeps, and what ``musweep export`` makes of them."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
from mlflow.tracking import MlflowClient
from studies import here
from whole_study import Ran, run

import sweeps
from mu.data import DataSpec, load
from mu.models.architectures import MODELS
from reports import load as recorded
from sweeps.__main__ import main
from sweeps.commands.common import DONE, WRONG
from sweeps.errors import StudyError
from sweeps.state import kept
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.tracking.mlflow import local_uri
from sweeps.unlearned import export
from sweeps.workers import trial

PRUNE = {"name": "activation_prune", "fix": {"epochs": 1, "prune_epochs": 1}, "space": {}}


def small(models: Any = "all", **changes: Any) -> dict[str, Any]:
    return studies.tiny(
        model="toy_cnn",
        forget={
            "some": {"kind": "random", "fraction": 0.1},
            "three": {"kind": "full_class", "class": 3},
        },
        methods=[{"name": "finetune", "fix": {"epochs": 1}}, PRUNE],
        experiments={"defaults": False},
        metrics={"costly": []},
        search__trials=2,
        search__early_stop="none",
        keep={"models": models},
        **changes,
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained models that all studies here share."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, storage: Path) -> Ran:
    return run(small(), tmp_path_factory.mktemp("results"), storage)


def confirmed(folder: Path, method: str = "finetune") -> list[Any]:
    records = studies.records(folder).values()
    return [r for r in records if (r.phase, r.method) == ("confirm", method)]


def write(folder: Path, ran: Ran, storage: Path, *arguments: str) -> tuple[dict[str, Any], Any]:
    """Export on the command line; return the card and the state dict."""
    asked = ("export", str(ran.folder), "--storage", str(storage), "--out", "m.pt", *arguments)
    ended = here(folder, *asked)
    assert ended.returncode == 0, ended.stderr
    state = torch.load(folder / "m.pt", weights_only=True)
    return json.loads((folder / "m.json").read_text(encoding="utf-8")), state


@pytest.mark.usefixtures("positions")
def test_an_exported_model_gives_the_numbers_of_its_card_in_plain_torch(
    ran: Ran, storage: Path, tmp_path: Path
) -> None:
    card, state = write(tmp_path, ran, storage, "--forget", "three", "--method", "finetune")
    network = MODELS["toy_cnn"](card["model"]["input_shape"], len(card["model"]["classes"]))
    network.load_state_dict(state)
    data = load(DataSpec("digits", subset=300))
    assert card["data"]["fingerprint"] == data.fingerprint
    gone = data.train_positions(np.array(card["forget"]["positions"]))
    train = data.parts["train"]
    kept_rows = np.setdiff1d(np.arange(len(train)), gone)
    parts = {
        "acc_forget": train.take(gone),
        "acc_retain": train.take(kept_rows),
        "acc_test": data.parts["test"],
    }
    mean, std = (torch.tensor(card["model"][name]).view(-1, 1, 1) for name in ("mean", "std"))
    for name, part in parts.items():
        inputs = (torch.tensor(part.inputs).float() / 255 - mean) / std
        with torch.no_grad():
            right = network.eval()(inputs).argmax(1).numpy() == part.labels
        assert card["metrics"]["test"][name]["value"] == pytest.approx(right.mean(), abs=1e-6)


@pytest.fixture(scope="module")
def positions(ran: Ran) -> None:
    """What `musweep run` writes beside the records: the positions of D_f."""
    from whole_study import _digits

    from sweeps.flow import splits
    from sweeps.plan import Plan

    plan = Plan(study.parse(small(), "study.yaml"), _digits(300, 0.0))
    splits.write(plan, ran.folder / "splits")


@pytest.mark.usefixtures("positions")
def test_the_card_says_what_the_model_is_and_how_good(
    ran: Ran, storage: Path, tmp_path: Path
) -> None:
    asked = ("--forget", "three", "--method", "finetune", "--seed", "2")
    card, state = write(tmp_path, ran, storage, *asked)
    content = (tmp_path / "m.pt").read_bytes()
    assert card["file"] == {
        "name": "m.pt",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (record,) = [r for r in confirmed(ran.folder) if (r.forget, r.seed) == ("three", 2)]
    assert (card["seed"], card["knobs"], card["study"]["trial"]) == (2, record.knobs, record.key)
    origin = card["knobs_from"]
    assert (origin["how"], origin["oracle"], origin["request"]) == ("tuned", True, "three")
    assert origin["objective"] == "avg_gap_natmu" and origin["configurations"] == 2
    known = card["metrics"]["test"]["acc_forget"]
    retrained = [
        r.metrics["test"]["acc_forget"]
        for r in studies.records(ran.folder).values()
        if (r.phase, r.method, r.forget, r.role) == ("reference", "retrain", "three", "report")
    ]
    assert known["retrained"] == pytest.approx(np.mean(retrained))
    assert known["retrained_sd"] == pytest.approx(np.std(retrained, ddof=1))
    assert known["gap"] == pytest.approx(abs(known["value"] - known["retrained"]))
    assert known["verdict"] in ("same", "different", "undecided") and "original" in known
    assert card["evidence"]["retrained_models"] == 2 and card["evidence"]["runs"] == 2
    assert card["seconds"]["unlearning"] == record.time_unlearn
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert "torch" in card["versions"] and card["forget"]["count"] == len(
        card["forget"]["positions"]
    )


@pytest.mark.usefixtures("positions")
def test_kept_models_are_sent_to_mlflow_once(
    ran: Ran, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(ran.folder, tmp_path / "results")
    asked = ["sync", str(folder), "--models", "--storage", str(storage)]
    for number in (8, 0):  # two methods on two requests, on two seeds
        assert main(asked) == DONE
        assert capsys.readouterr().out.splitlines()[-1] == f"tiny: sent {number} models"
    record = confirmed(folder)[0]
    client = MlflowClient(local_uri(folder))
    (run_of,) = client.search_runs(["1"], f"tags.`musweep.key` = '{record.key}'")
    place = Path(client.download_artifacts(run_of.info.run_id, "model", str(tmp_path)))
    card = json.loads((place / "model.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((place / "model.pt").read_bytes()).hexdigest()
    assert (card["study"]["trial"], card["file"]["sha256"]) == (record.key, digest)
    assert main([*asked[:-1], str(tmp_path / "elsewhere")]) == DONE, "MLflow lacks none"


def test_a_study_without_models_has_none_to_send(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(small("none"), tmp_path / "results", storage).folder
    assert main(["sync", str(folder), "--models", "--storage", str(storage)]) == WRONG
    assert "keeps no models; add `keep: {models: all}`" in capsys.readouterr().err


def test_only_what_is_asked_for_is_kept(storage: Path, tmp_path: Path) -> None:
    ran = run(small(["activation_prune"]), tmp_path / "results", storage / "own")
    store = Store(str(storage / "own"))
    for method, wanted in (("finetune", False), ("activation_prune", True)):
        for record in confirmed(ran.folder, method):
            assert (kept.get(store, record.key) is not None) == wanted
    phases = {job.phase for job in ran.done if job.keep_model}
    assert phases == {"confirm"}


def test_a_study_that_keeps_models_later_runs_their_trials_again(
    storage: Path, tmp_path: Path
) -> None:
    # Its own storage, as the models of the other tests have the same keys.
    own = tmp_path / "storage"
    first = run(small("none"), tmp_path, own)
    before = {r.key: r for r in confirmed(first.folder)}
    again = run(small(["finetune"]), tmp_path, own)
    assert {(job.phase, job.method) for job in again.done} == {("confirm", "finetune")}
    assert len(again.done) == len(before) == 4
    assert "4 confirmed trials run again, because their models are not in the storage" in again.said
    after = {r.key: r for r in confirmed(first.folder)}
    assert studies.numbers(after) == studies.numbers(before)
    for key, record in after.items():
        assert kept.get(Store(str(own)), key) is not None
        spent = record.ended - record.started
        assert record.time_total >= before[key].time_total + 0.5 * spent  # both are billed
    assert run(small(["finetune"]), tmp_path, own).finished_before
    assert run(small("none"), tmp_path, own).finished_before
    store = Store(str(own))
    lost = next(iter(after))
    store.delete(kept.kept_key(lost))
    third = run(small(["finetune"]), tmp_path, own)
    assert [job.key for job in third.done] == [lost]


def test_a_run_that_stops_before_the_repetition_bills_the_first_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(small("none"), tmp_path, tmp_path / "storage")
    before = {r.key: r.time_total for r in confirmed(first.folder)}

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(trial, "_bare", killed)
            patch.setattr("whole_study.trial_steps", killed)
            with pytest.raises(KeyboardInterrupt):
                run(small(["finetune"]), tmp_path, tmp_path / "storage")
    run(small(["finetune"]), tmp_path, tmp_path / "storage")
    for record in confirmed(first.folder):
        own = record.ended - record.started
        assert record.time_total == pytest.approx(before[record.key] + own, abs=0.05)


def test_a_failed_repetition_leaves_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(small("none"), tmp_path, tmp_path / "storage")

    def full(*_: Any) -> Any:
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_bare", full)
        run(small(["finetune"]), tmp_path, tmp_path / "storage")
    assert all(r.finished for r in confirmed(first.folder))


def test_python_gives_the_model_with_its_layers(ran: Ran, storage: Path) -> None:
    result = sweeps.Result(ran.folder, str(storage))
    test = load(DataSpec("digits", subset=300)).parts["test"]
    for method in ("finetune", "activation_prune"):
        model = result.unlearned("some", method, 1)
        assert not model.training
        with torch.no_grad():
            right = model(torch.tensor(test.inputs).float() / 255).argmax(1).numpy() == test.labels
        (record,) = [r for r in confirmed(ran.folder, method) if (r.forget, r.seed) == ("some", 1)]
        assert record.metrics["test"]["acc_test"] == pytest.approx(right.mean(), abs=1e-6)


def test_results_from_anyone_choose_no_code_to_run(ran: Ran, storage: Path, tmp_path: Path) -> None:
    lines = (ran.folder / "trials.jsonl").read_text(encoding="utf-8")
    code = lines.replace('"model":{"name":"toy_cnn"}', '"model":{"name":"this:anything"}')
    assert code != lines
    (tmp_path / "trials.jsonl").write_text(code, encoding="utf-8")
    result = sweeps.Result(tmp_path, str(storage))
    with pytest.raises(
        StudyError, match="model: 'this:anything' is code, which a study alone may not"
    ):
        result.unlearned("some", "finetune")
    with pytest.raises(StudyError, match="has no function 'anything'"):
        result.unlearned("some", "finetune", code_path=tmp_path)


def test_results_are_frames(ran: Ran) -> None:
    result = sweeps.Result(ran.folder)
    frame = result.frame()
    assert {"study", "phase", "forget", "method", "seed", "metric", "value"} <= set(frame.columns)
    confirms = frame[(frame.phase == "confirm") & (frame.metric == "acc_forget")]
    assert set(confirms.method) == {"finetune", "activation_prune"}
    assert set(result.summary().method) >= {"original", "retrain", "finetune"}
    assert len(result.trials()) == len(studies.records(ran.folder))
    knobs = confirmed(ran.folder)[0]
    assert result.best(knobs.forget, "finetune") == knobs.knobs
    assert result.failed == 0
    with pytest.raises(
        StudyError, match="no knobs were chosen for some/ga; they were for some/fine"
    ):
        result.best("some", "ga")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("some", "ga", None), "unknown method 'ga'; there are finetune, activation_prune"),
        (("sum", "finetune", None), "unknown request 'sum'; there are some, three"),
        (
            ("some", "finetune", 7),
            "finetune on some: no confirmed run has the seed 7; there are 1, 2",
        ),
    ],
)
def test_what_is_not_there_is_said(ran: Ran, storage: Path, asked: Any, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        export.find_kept(recorded.read(ran.folder), *asked, str(storage))


def test_a_model_that_was_not_kept_says_how_to_keep_it(storage: Path, tmp_path: Path) -> None:
    ran = run(small(["activation_prune"]), tmp_path / "results", storage / "own")
    asked = ("--forget", "some", "--method", "finetune", "--out", "m.pt")
    ended = here(tmp_path, "export", str(ran.folder), *asked, "--storage", str(storage / "own"))
    assert ended.returncode == 2 and not (tmp_path / "m.pt").exists()
    assert ended.stderr.count("\n") == 1
    assert "add `keep: {models: [activation_prune, finetune]}` to the study file" in ended.stderr


def test_a_model_that_is_lost_or_damaged_is_said(ran: Ran, storage: Path, tmp_path: Path) -> None:
    recorded_study = recorded.read(ran.folder)
    with pytest.raises(
        StudyError, match=r"is not in .*elsewhere; give the study's --storage, or run"
    ):
        export.find_kept(recorded_study, "some", "finetune", 1, str(tmp_path / "elsewhere"))
    (record,) = [r for r in confirmed(ran.folder) if (r.forget, r.seed) == ("some", 2)]
    key = kept.kept_key(record.key)
    path = storage / key[:2] / f"{key}.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(StudyError, match="seed 2, is damaged; run the study again, which makes it"):
        export.find_kept(recorded_study, "some", "finetune", 2, str(storage))
    assert not path.exists()  # so that a run of the study misses it
    path.write_bytes(whole)


@pytest.mark.usefixtures("positions")
@pytest.mark.parametrize(
    ("out", "words"), [("m.json", "must not end in .json"), (".", "is a folder; name a file in it")]
)
def test_bad_names_of_files_are_refused(
    ran: Ran, storage: Path, tmp_path: Path, out: str, words: str
) -> None:
    asked = ("--forget", "some", "--method", "finetune", "--storage", str(storage))
    ended = here(tmp_path, "export", str(ran.folder), *asked, "--out", out)
    assert ended.returncode == 2 and words in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("positions")
def test_nothing_is_half_written(
    ran: Ran, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sweeps.state.store.os.replace", full)
    asked = ("--forget", "some", "--method", "finetune", "--storage", str(storage))
    ended = here(tmp_path, "export", str(ran.folder), *asked, "--out", "m.pt")
    assert ended.returncode == 1 and "--out m.pt: cannot be written to" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("some", "keep: models: must be none, all or a list of methods, but got 'some'"),
        (
            ["natmu"],
            "keep: models: unknown method 'natmu'; the study has finetune, activation_prune",
        ),
        ([], "keep: models: must be none, all or a list of methods, but got "),
        ([3], "keep: models: must be none, all or a list of methods, but got "),
    ],
)
def test_what_cannot_be_kept_is_refused(models: Any, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        study.parse(small(models), "study.yaml")
    assert study.parse(small("none"), "study.yaml").definition["keep"] == {"models": "none"}


def test_records_that_are_not_finite_leave_numbers_out_of_the_card() -> None:
    from sweeps.unlearned.card import about_metrics

    card = about_metrics({"acc_test": 0.5, "zrf": math.nan}, {"acc_test": math.inf}, {})
    assert card == {"acc_test": {"label": "Test accuracy", "value": 0.5}}
