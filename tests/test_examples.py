"""Every example in ``examples/`` does what its README says."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
import yaml
from PIL import Image
from toy import REQUESTS, toy_problem

from mu import methods
from mu.problem import Weights
from mu.rng import generator

EXAMPLES = studies.ROOT / "examples"
OWN, CHALLENGE = EXAMPLES / "own_method", EXAMPLES / "challenge_submission"
COLOURS = {"robin": (180, 60, 40), "sparrow": (140, 110, 80), "wren": (90, 120, 60)}


def birds(root: Path, train: int = 30, test: int = 6) -> Path:
    """Write tiny images in the layout that the README shows: noise about one colour for each class."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 30, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return root


def unlearned(
    folder: Path, name: str, original: Weights, kind: str, **knobs: Any
) -> list[torch.Tensor]:
    """Weights of the toy problem's original after a method of `folder`."""
    method = methods.load(name, [folder])
    problem = toy_problem(kind)
    model = problem.load(original)
    split = problem.split().only(method.data)
    steps = list(method.unlearn(model, split, generator("example"), **method.check(knobs)))
    assert len(steps) >= 1
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    return [weight.detach().clone() for weight in model.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize(
    ("folder", "name"),
    [(OWN, "noise_and_repair"), (CHALLENGE, "challenge")],
    ids=["own", "challenge"],
)
def test_methods_of_the_examples_keep_the_contract(
    folder: Path, name: str, original: Weights
) -> None:
    method = methods.load(name, [folder])
    assert all(f"\n{word}" in method.doc for word in ("Paper:", "Reference:", "Differs:", "Cost:"))
    before = [weight.detach() for weight in toy_problem().load(original).parameters()]
    for kind in REQUESTS:
        assert not same(unlearned(folder, name, original, kind), before), kind
    ranges = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    assert ranges and set(ranges) <= set(method.knobs)
    for knob, span in ranges.items():
        ends = [
            unlearned(folder, name, original, "full_class", **{knob: span[end]})
            for end in ("low", "high", "low")
        ]
        assert not same(ends[0], ends[1]), knob
        assert same(ends[0], ends[2]), knob


@pytest.mark.parametrize(
    ("folder", "name"),
    [(OWN, "noise_and_repair"), (CHALLENGE, "challenge")],
    ids=["own", "challenge"],
)
def test_studies_with_methods_of_ones_own_are_valid(
    folder: Path, name: str, tmp_path: Path
) -> None:
    study = str(folder / "study.yaml")
    shown = studies.here(tmp_path, "run", study, "--methods-path", str(folder), "--dry-run")
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert "lr" in next(row for row in rows if row[:1] == [name])
    refused = studies.here(tmp_path, "run", study, "--dry-run")
    assert refused.returncode == 2
    assert name in refused.stderr


def test_the_study_of_a_folder_checks_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path / "cache"))
    study = str(EXAMPLES / "image_folder/study.yaml")
    root = birds(tmp_path / "birds")
    shown = studies.here(tmp_path, "run", study, "-o", f"data.root={root}", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert all(name in shown.stdout for name in ("finetune", "natmu", "ssd"))
    missing = studies.here(tmp_path, "run", study, "-o", "data.root=elsewhere")
    assert missing.returncode == 2
    assert "elsewhere" in missing.stderr
    planned = studies.here(tmp_path, "run", study, "-o", "data.root=elsewhere", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "data.root: elsewhere does not exist" in planned.stdout
    assert "slots of" in shown.stdout and "slots of" not in planned.stdout
    for line in shown.stdout.splitlines()[:4]:
        assert line in planned.stdout


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_the_study_of_a_folder_runs_to_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path / "cache"))
    small = [
        "seeds.report=[1]",
        "seeds.retrain=1",
        "search.trials=1",
        "training.epochs=2",
        "methods=[finetune]",
    ]
    small += [f"data.root={birds(tmp_path / 'birds')}", "experiments={defaults: false}"]
    overrides = itertools.chain.from_iterable(("-o", change) for change in small)
    study = str(EXAMPLES / "image_folder/study.yaml")
    done = studies.here(tmp_path, "run", study, *overrides)
    assert done.returncode == 0, done.stderr
    records = studies.records(tmp_path / "results/birds")
    assert {r.status for r in records.values()} == {"finished"}
    assert {r.forget for r in records.values()} == {"random10", "wren"}
    assert (tmp_path / "results/birds/report/index.html").is_file()


def test_every_example_is_listed_and_its_commands_name_files_that_exist() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        assert f"]({folder.name}/README.md)" in listed
        text = (folder / "README.md").read_text(encoding="utf-8")
        named = re.findall(r"examples/[\w/.]+", text)
        assert named
        for path in named:
            assert (studies.ROOT / path).exists(), path
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), link
