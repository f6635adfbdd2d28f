"""``musweep unlearn``: one method on one's own model and data, without a sweep, retraining or Ray.

Where it has been interrupted, the same command goes on behind the last epoch that was saved. A file beside the model that
is to come holds that state, and goes when the model is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from mu.device import place
from mu.keys import content_key
from mu.methods import Method
from mu.problem import Evaluation, Problem, Weights, weights_of
from mu.rng import generator, seed_process
from mu.snapshot import Snapshot
from mu.split import Split
from mu.training import count_samples
from sweeps.errors import SweepError
from sweeps.plan.study_line import versions
from sweeps.state.kept import KeptModel
from sweeps.state.store import pack, unpack, write_atomically
from sweeps.unlearned import card

SHARE_OF_SAVING = 0.05
"""How much of the time may go into saving, at most."""
ATTACK = "mia_population_auc"
"""The attack that is shown: whether losses on D_f are lower than on held-out samples. 0.5 is a guess."""


@dataclass(frozen=True)
class Task:
    """One method on one model.

    Args:
        problem: Data, network, recipe and D_f.
        weights: The original model.
        digest: Of the file that it was read from.
        method: The method.
        knobs: Every knob with its value.
        knobs_from: Where they come from, for the card.
        device: `cpu` or `cuda`.
        out: Where the model goes.
    """

    problem: Problem
    weights: Weights
    digest: str
    method: Method
    knobs: Mapping[str, Any]
    knobs_from: Mapping[str, Any]
    device: str
    out: Path

    @cached_property
    def key(self) -> str:
        """Content key of all that decides the result."""
        return content_key(
            self.problem.key, self.problem.seed, self.digest, self.method.code, dict(self.knobs)
        )

    @property
    def saved(self) -> Path:
        """The file of the state that an interrupted run is continued from."""
        return self.out.with_name(f".{self.out.name}.running")


@dataclass
class Progress:
    """How far a method has come.

    Args:
        snapshot: Its state.
        seconds: What it has taken.
        epochs: How many it has done.
    """

    snapshot: Snapshot
    seconds: float = 0.0
    epochs: int = 0


def run(task: Task, console: Console) -> dict[str, Any]:
    """Run a task, or what is left of it; write the model and its card, print what is known of it, and return the card.

    Raises:
        SweepError: The method failed or diverged, or the disk cannot be written to. No model is written.
    """
    problem, device = task.problem, task.device
    split = problem.split(device)
    model = place(problem.load(task.weights), device)
    before = problem.evaluate(model, split, ("test",), device)
    _warn_of_poor_original(before, problem, console)
    progress, counter = _load(task, console), count_samples(model)
    split.memo.start(counter)
    try:
        for _ in _steps(task, model, split, progress):
            console.print(f"epoch {progress.epochs}: {progress.seconds:.1f} s", highlight=False)
    except (ValueError, RuntimeError) as error:
        raise SweepError(f"{task.method.name}: failed, and no model is written: {error}") from error
    after = problem.evaluate(model, split, ("test",), device)
    if not all(np.isfinite(part.logits).all() for part in (after.retain, after.forget)):
        raise SweepError(f"{task.method.name}: has diverged, and no model is written")
    written = _write(task, model, progress, (before, after), split.diagnostics.warnings)
    task.saved.unlink(missing_ok=True)
    show(written, console)
    console.print(f"Model: {task.out}\nCard: {card.card_of(task.out)}", soft_wrap=True)
    return written


def _steps(task: Task, model: nn.Module, split: Split, progress: Progress) -> Iterator[None]:
    """Run the method, and save it after epochs; yield after each."""
    problem, method = task.problem, task.method
    seed_process("trial", problem.key, method.name)
    draws = generator("method", problem.key, method.name)
    steps = method.unlearn(model, split.only(method.data), draws, **task.knobs)
    followed, spent = progress.snapshot.follow(steps), progress.seconds
    started = saved = time.perf_counter()

    def resume() -> None:
        """Bill anew from here: what came before the loop has been billed by the run that saved it."""
        nonlocal started
        started = time.perf_counter()

    progress.snapshot.resumed = resume
    for _ in followed:
        if task.device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter()
        progress.seconds, progress.epochs = spent + now - started, progress.epochs + 1
        if now >= saved:
            _save(task, progress)
            took = time.perf_counter() - now
            started += took  # which is not the method's
            saved = now + took / SHARE_OF_SAVING
        yield


def _save(task: Task, progress: Progress) -> None:
    state = progress.snapshot.save()
    if state:
        facts = {"key": task.key, "seconds": progress.seconds, "epochs": progress.epochs}
        parts = {"facts": json.dumps(facts).encode(), "state": state}
        arrays = {name: np.frombuffer(content, np.uint8) for name, content in parts.items()}
        try:
            write_atomically(task.saved, pack(arrays))
        except OSError as error:
            raise SweepError(f"{task.saved}: cannot be written to: {error}") from error


def _load(task: Task, console: Console) -> Progress:
    """Return where an earlier run of the same task stopped; the start where there is none."""
    if not task.saved.exists():
        return Progress(Snapshot())
    try:
        parts = unpack(task.saved.read_bytes())
        facts = json.loads(parts["facts"].tobytes())
    except Exception as error:  # a file of any content raises anything
        console.print(f"{task.saved} cannot be read and is left out: {error}", markup=False)
        return Progress(Snapshot())
    if facts["key"] != task.key:
        console.print(f"{task.saved} is of another command and is left out", markup=False)
        return Progress(Snapshot())
    console.print(f"going on behind epoch {facts['epochs']}", highlight=False)
    return Progress(Snapshot(parts["state"].tobytes()), facts["seconds"], facts["epochs"])


def _warn_of_poor_original(before: Evaluation, problem: Problem, console: Console) -> None:
    """Warn of a model that knows little of its training data: most likely it is fed other inputs than it was trained on."""
    accuracy, chance = before.scores["test"]["acc_retain"], 1 / len(problem.data.classes)
    if accuracy < 2 * chance:
        console.print(
            f"warning: the original model gets {100 * accuracy:.1f} % of D_r right, about chance; are --data and `normalize` of "
            "--model those that it was trained with?",
            markup=False,
        )


def _write(
    task: Task,
    model: nn.Module,
    progress: Progress,
    evaluations: tuple[Evaluation, Evaluation],
    warnings: list[str],
) -> dict[str, Any]:
    problem, data = task.problem, task.problem.data
    assert isinstance(model, nn.Sequential)
    network, given = model[-1], problem.normalization
    mean, std = (given.mean, given.std) if data.images else ((), ())
    facts = KeptModel(weights_of(network), mean, std, data.network_shape, len(data.classes))
    before, after = (each.scores["test"] for each in evaluations)
    content = {
        "model": card.about_model(facts, problem.network.key, data.classes),
        "original": {"sha256": task.digest},
        "method": task.method.name,
        "code": task.method.code,
        "knobs": dict(task.knobs),
        "knobs_from": dict(task.knobs_from),
        "seed": problem.seed,
        "data": {
            "definition": data.name,
            "fingerprint": data.fingerprint,
            "parts": {name: len(part) for name, part in data.parts.items()},
        },
        "forget": card.about_forget(
            problem.request.kind,
            data.all_positions(problem.forget_index),
            data.total,
        ),
        "metrics": {"test": card.about_metrics(after, before, {})},
        "evidence": {
            "runs": 1,
            "retrained_models": 0,
            "recovery": None,
            "verdict": None,
            "warnings": warnings,
        },
        "seconds": {"unlearning": progress.seconds, "retraining": None},
        "environment": {"device": task.device, "torch": torch.__version__},
        "versions": {**versions(), "written by": card.about_code()},
    }
    return card.write_model(task.out, facts.weights, content)


SHOWN = {
    "acc_forget": "accuracy on D_f",
    "acc_retain": "accuracy on D_r",
    "acc_test": "accuracy on held-out data",
    "acc_test_retain": "... of the classes that stay",
    "acc_test_forget": "... of the class that goes",
    ATTACK: "attack: AUC of D_f against held-out data",
}


def show(written: Mapping[str, Any], console: Console) -> None:
    """Print what a card says of a model before and after, as a table."""
    from rich.table import Table

    table = Table("", "before", "after", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    known = written["metrics"]["test"]
    for name, label in SHOWN.items():
        if name in known:
            both = (known[name].get("original"), known[name]["value"])
            table.add_row(label, *("" if v is None else _number(name, v) for v in both))
    console.print(table)
    console.print(
        f"{written['method']} took {written['seconds']['unlearning']:.1f} s", highlight=False
    )
    console.print(
        "An attack near 0.5 tells D_f from unseen data no better than a guess. How far this is from a model that never saw D_f "
        "is not known without one: a study says it.",
        highlight=False,
    )


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name == ATTACK else f"{100 * value:.2f} %"
