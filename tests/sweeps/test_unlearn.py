"""``musweep unlearn``: one method on a model of one's own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
import yaml
from PIL import Image
from studies import here
from torch import nn
from whole_study import run

from mu.data import Dataset, DataSpec, load
from mu.models.architectures import MODELS

LONG = {"epochs": 30, "lr": 0.02, "batch_size": 32}
FEW = "{name: digits, subset: 300}"


def network(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return MODELS["small_cnn"]((1, 8, 8), classes)


def normalized(data: Dataset, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = data.channel_stats
    samples = data.parts[part]
    inputs = (torch.tensor(samples.inputs).float() / 255 - mean[0]) / std[0]
    return inputs, torch.tensor(samples.labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model in plain torch, and files of what is to go."""
    folder = tmp_path_factory.mktemp("own")
    data, model = load(DataSpec("digits"), cut_val=False), network()
    inputs, labels = normalized(data, "train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for start in [*range(0, len(labels), 64)] * 3:
        optimizer.zero_grad()
        batch = slice(start, start + 64)
        nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "original.pt")
    torch.save(network(7).state_dict(), folder / "seven.pt")
    files = {"some": np.arange(0, len(labels), 10), "three": np.flatnonzero(labels == 3)}
    files |= {"none": np.array([], np.int64), "every": np.arange(len(labels))}
    files |= {"away": np.array([0, 5000])}
    few = load(DataSpec("digits", subset=300), cut_val=False)
    files |= {"few": few.all_positions(np.arange(0, 300, 10))}
    for name, positions in files.items():
        np.save(folder / f"{name}.npy", positions)
    (folder / "long.yaml").write_text(yaml.safe_dump(LONG), encoding="utf-8")
    (folder / "alien.yaml").write_text("alpha: 1\n", encoding="utf-8")
    return folder


def command(folder: Path, out: Path | str, **changes: Any) -> list[str]:
    asked: dict[str, Any] = {
        "model": "small_cnn",
        "weights": folder / "original.pt",
        "data": "digits",
        "forget_indices": folder / "some.npy",
        "method": "finetune",
        "out": out,
        **changes,
    }
    return ["unlearn", *(f"--{n.replace('_', '-')}={value}" for n, value in asked.items())]


def unlearn(folder: Path, out: Path, **changes: Any) -> tuple[dict[str, Any], Any, str]:
    """Run the command; return the card, the state dict and what was printed."""
    ended = here(out.parent, *command(folder, out, **changes))
    assert ended.returncode == 0, ended.stderr
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    return card, torch.load(out, weights_only=True), ended.stdout


def test_a_model_unlearns_and_its_card_says_what_is_known(folder: Path, tmp_path: Path) -> None:
    card, state, printed = unlearn(folder, tmp_path / "u.pt", method="ga")
    model = network()
    model.load_state_dict(state)
    original = torch.load(folder / "original.pt", weights_only=True)
    assert any(not torch.equal(state[name], value) for name, value in original.items())
    data = load(DataSpec("digits"), cut_val=False)
    inputs, labels = normalized(data, "test")
    with torch.no_grad():
        share = float((model.eval()(inputs).argmax(1) == labels).double().mean())
    known = card["metrics"]["test"]
    assert known["acc_test"]["value"] == pytest.approx(share, abs=1e-6)
    assert known["acc_forget"]["original"] > 0.9
    assert (card["forget"]["count"], card["forget"]["training_samples"]) == (144, 1438)
    assert card["knobs_from"] == {"how": "defaults", "oracle": False}
    assert card["evidence"]["verdict"] is None and card["evidence"]["retrained_models"] == 0
    for words in ("before", "accuracy on D_f", "accuracy on held-out", "attack: AUC", "ga took"):
        assert words in printed
    assert f"{100 * share:.2f} %" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u.json", "u.pt"]


def test_a_class_is_told_from_other_samples(folder: Path, tmp_path: Path) -> None:
    asked = {"forget_indices": folder / "three.npy", "method": "delete"}
    card, _, printed = unlearn(folder, tmp_path / "u.pt", **asked)
    assert "of the class that goes" in printed
    assert card["forget"]["name"] == "full_class"
    assert card["metrics"]["test"]["acc_test_forget"]["original"] > 0.8


def test_the_seed_decides(folder: Path, tmp_path: Path) -> None:
    states = [
        unlearn(folder, tmp_path / f"{n}.pt", seed=seed)[1] for n, seed in enumerate((0, 0, 1))
    ]
    same = [
        all(torch.equal(states[0][name], other[name]) for name in other) for other in states[1:]
    ]
    assert same == [True, False]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, which other tests change in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[dict[str, Any], Any]:
    """What the run that is interrupted below comes to when it is not."""
    asked = {"knobs": folder / "long.yaml", "data": FEW, "forget_indices": folder / "few.npy"}
    return unlearn(folder, folder / "whole.pt", **asked)[:2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_goes_on(
    folder: Path, tmp_path: Path, undisturbed: tuple[dict[str, Any], Any], number: signal.Signals
) -> None:
    whole, wanted = undisturbed
    changes = {"knobs": folder / "long.yaml", "data": FEW, "forget_indices": folder / "few.npy"}
    out, log = tmp_path / "u.pt", tmp_path / "log"
    asked = command(folder, out, **changes)
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeps", *asked],
            cwd=tmp_path,
            env=studies.environment() | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
            # Where the tests run in the background, a shell has SIGINT ignored, which a child inherits.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until = time.monotonic() + studies.LIMIT_SECONDS
        while "epoch 4:" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(studies.LIMIT_SECONDS) == (
            -number if number == signal.SIGKILL else 130
        ), log.read_text()
    assert not out.exists() and (tmp_path / ".u.pt.running").exists()
    if number != signal.SIGKILL:
        assert "the same command goes on behind the last epoch" in log.read_text()
    card, state, printed = unlearn(folder, out, **changes)
    assert "going on behind epoch" in printed and "epoch 1:" not in printed
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert card["metrics"] == whole["metrics"]
    assert not (tmp_path / ".u.pt.running").exists()


def test_a_checkpoint_of_another_command_is_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".u.pt.running").write_bytes(b"no checkpoint")
    card, _, printed = unlearn(folder, tmp_path / "u.pt")
    assert ".u.pt.running cannot be read and is left out" in printed.replace("\n", "")
    assert card["metrics"] == unlearn(folder, tmp_path / "v.pt")[0]["metrics"]


def test_knobs_come_from_a_file_or_a_study(folder: Path, tmp_path: Path) -> None:
    few = {"data": FEW, "forget_indices": folder / "few.npy"}
    card, _, _ = unlearn(folder, tmp_path / "u.pt", knobs=folder / "long.yaml", **few)
    assert card["knobs"]["epochs"] == 30
    assert card["knobs_from"] == {"how": "file", "file": "long.yaml", "oracle": None}
    raw = studies.tiny(
        model="toy_cnn",
        methods=[{"name": "finetune", "as": "tuned", "fix": {"epochs": 1}}],
        experiments={"defaults": False},
        metrics={"costly": []},
    )
    study = run(raw, tmp_path / "results", tmp_path / "storage").folder
    card, _, _ = unlearn(folder, tmp_path / "u.pt", knobs=f"tuned:{study}:three")
    origin = card["knobs_from"]
    assert (origin["how"], origin["study"], origin["request"]) == ("tuned", "tiny", "three")
    assert origin["oracle"] and card["knobs"]["epochs"] == 1
    chosen = here(tmp_path, *command(folder, tmp_path / "v.pt", knobs=f"tuned:{study}"))
    assert chosen.returncode == 2 and f"tuned:{study}:some, tuned:{study}:three" in chosen.stderr
    for asked, words in (
        (
            {"knobs": f"tuned:{study}:four"},
            "no knobs were chosen for tuned on 'four'; they were for",
        ),
        ({"knobs": f"tuned:{study}:some", "method": "ga"}, "the study has no ga; it has tuned"),
        ({"knobs": f"tuned:{tmp_path}"}, "trials.jsonl: there is no such file"),
    ):
        ended = here(tmp_path, *command(folder, tmp_path / "v.pt", **asked))
        assert ended.returncode == 2 and words in ended.stderr


def test_the_data_of_a_study_leave_its_held_out_samples_out(folder: Path, tmp_path: Path) -> None:
    path = studies.write(tmp_path, studies.tiny(data="digits"))
    asked = {"data": path, "forget_indices": tmp_path / "some.npy"}
    data = load(DataSpec("digits"))
    positions = data.all_positions(np.arange(0, 1000, 10))
    np.save(tmp_path / "some.npy", positions)
    facts = {"fingerprint": data.fingerprint}
    (tmp_path / "some.json").write_text(json.dumps(facts), encoding="utf-8")
    whole, _, _ = unlearn(folder, tmp_path / "u.pt", **asked)
    assert whole["data"]["parts"]["val"] == 0  # the file says nothing of `val`
    path.write_text(yaml.safe_dump({"data": {"name": "digits", "val": 0.1}}), encoding="utf-8")
    cut, _, _ = unlearn(folder, tmp_path / "u.pt", **asked)
    assert cut["data"]["parts"]["val"] == len(data.parts["val"])
    assert cut["data"]["fingerprint"] == data.fingerprint != whole["data"]["fingerprint"]
    assert cut["forget"]["positions"] == positions.tolist() == whole["forget"]["positions"]
    none, _, _ = unlearn(folder, tmp_path / "u.pt", **{**asked, "data": "{name: digits, val: 0}"})
    assert none["data"] == whole["data"]
    (tmp_path / "some.json").write_text('{"fingerprint": "other"}', encoding="utf-8")
    ended = here(tmp_path, *command(folder, tmp_path / "u.pt", **asked))
    assert ended.returncode == 2 and "was written for data with fingerprint other" in ended.stderr


def test_images_of_a_folder_and_a_network_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for place, name in enumerate(("robin", "wren")):
            (tmp_path / "birds" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(90 + 60 * place, 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "birds" / part / name / f"{number}.png")
    code = tmp_path / "code"
    code.mkdir()
    (code / "nets_of_birds.py").write_text(
        "from torch import nn\n\n\ndef build(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, num_classes))\n"
        "\n\ndef three(num_classes, input_shape):\n    return build(3, input_shape)\n",
        encoding="utf-8",
    )
    built = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.save(built.state_dict(), tmp_path / "original.pt")
    np.save(tmp_path / "some.npy", np.array([0, 3, 13]))
    asked = {"data": tmp_path / "birds", "model": "nets_of_birds:build", "code_path": code}
    card, state, _ = unlearn(tmp_path, tmp_path / "u.pt", **asked)
    assert card["model"]["classes"] == ["robin", "wren"] and state["3.weight"].shape == (2, 8)
    asked["model"] = "nets_of_birds:three"
    ended = here(tmp_path, *command(tmp_path, tmp_path / "v.pt", **asked))
    assert ended.returncode == 2
    assert "must give logits [2, 2] of inputs [2, 3, 8, 8], but gives [2, 3]" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "finetun"}, "--method: unknown method 'finetun'"),
        ({"method": "tmu"}, "--method: tmu needs held-out data of its own"),
        ({"method": "gkt"}, "--method: gkt needs a class that goes as a whole"),
        ({"model": "small"}, "unlearn: model: model must be one of small_cnn"),
        (
            {"model": "{name: resnet18, deep: 3}"},
            "unlearn: model: unknown key `deep`; allowed are name",
        ),
        ({"model": "nowhere:build"}, "there is no module 'nowhere'"),
        ({"weights": "nowhere.pt"}, "--weights: nowhere.pt: cannot be read"),
        ({"weights": "seven"}, "`12.weight` has the shape [7, 128], but the model's has [10, 128]"),
        ({"model": "slim_vgg"}, "`0.weight` has the shape [32, 1, 3, 3], but the model's has [16"),
        ({"data": "digit"}, "--data: must be one of digits, cifar10"),
        ({"data": "cifar10"}, "--data: data.root is required for cifar10"),
        ({"data": "cifar10", "root": "nowhere"}, "there is no such folder"),
        ({"data": "{name: digits, vall: 0.1}"}, "unlearn: data: unknown key `vall`"),
        ({"forget_indices": "none"}, "holds no sample; something must go, and something stay"),
        ({"forget_indices": "every"}, "holds every training sample; something must go"),
        ({"forget_indices": "away"}, "position 5000 is not among the 1438 training samples"),
        ({"forget_indices": "nowhere.npy"}, "--forget-indices: nowhere.npy cannot be read"),
        ({"knobs": "best"}, "--knobs: must be defaults, tuned:STUDY_DIR or a YAML file, but got"),
        ({"knobs": "alien"}, "unknown knob `alpha`; finetune has augment, batch_size, epochs"),
        ({"augment": "spin"}, "--augment: augment must be"),
        ({"out": "u.json"}, "--out u.json: must not end in .json"),
        ({"methods_path": "nowhere"}, "--methods-path nowhere: is not a folder"),
        ({"code_path": "nowhere"}, "--code-path nowhere: is not a folder"),
    ],
    ids=str,
)
def test_bad_input_is_one_error_before_any_work(
    folder: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    suffixes = {"weights": ".pt", "forget_indices": ".npy", "knobs": ".yaml"}
    for key, suffix in suffixes.items():
        if key in changes and (folder / f"{changes[key]}{suffix}").exists():
            changes = {**changes, key: folder / f"{changes[key]}{suffix}"}
    out = changes.get("out", "u.pt")
    asked = {name: value for name, value in changes.items() if name != "out"}
    ended = here(tmp_path, *command(folder, out, **asked))
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1 and words in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_runs_code_is_not_read(folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": Path("/")}, tmp_path / "evil.pt")
    ended = here(tmp_path, *command(folder, "u.pt", weights=tmp_path / "evil.pt"))
    assert ended.returncode == 2 and "cannot be read as a state dict of tensors" in ended.stderr


def test_a_method_that_diverges_leaves_no_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "wild.yaml").write_text("lr: 1.0e+9\nepochs: 3\n", encoding="utf-8")
    asked = {"method": "ga", "knobs": tmp_path / "wild.yaml"}
    ended = here(tmp_path, *command(folder, "u.pt", **asked))
    assert ended.returncode == 1 and "ga: has diverged, and no model is written" in ended.stderr
    assert not (tmp_path / "u.pt").exists() and not (tmp_path / "u.json").exists()


def test_a_model_that_knows_nothing_of_the_data_is_told(folder: Path, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "fresh.pt")
    _, _, printed = unlearn(folder, tmp_path / "u.pt", weights=tmp_path / "fresh.pt")
    assert "warning: the original model gets" in printed and "normalize" in printed
