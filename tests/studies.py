"""A study that runs through Ray, Optuna and MLflow in seconds, and a command line to run it with."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import failures
import optuna
import yaml

from mu.current import read_current
from mu.record import TrialRecord

if TYPE_CHECKING:
    from sweeps.study.study import Study

ROOT = Path(__file__).parent.parent
LIMIT_SECONDS = 1200.0
"""When a process that a test starts counts as hung: a study of 20 s takes minutes on a machine that is busy."""
JIT: dict[str, Any] = {
    "name": "jit",
    "fix": {"form": "equation", "perturbations": 5},
    "space": {"lr_per_sigma": {"low": 1e-6, "high": 1e-2, "log": True}},
}
"""A method of one step with a rate and one more knob, which no draw makes collapse."""
TINY: dict[str, Any] = {
    "study": "tiny",
    "data": {"name": "digits", "subset": 300},
    "model": "small_cnn",
    "training": {"epochs": 3, "lr": 0.1, "batch_size": 64, "schedule": "onecycle"},
    "forget": {
        "some": {"kind": "random", "fraction": 0.1},
        "three": {"kind": "full_class", "class": 3},
    },
    "methods": [{"name": "finetune", "fix": {"epochs": 2}}, JIT],
    "seeds": {"search": [0], "report": [1, 2], "retrain": 2},
    "search": {"trials": 3, "sampler": "random", "objective": "avg_gap_natmu", "finalists": 1},
    "experiments": {
        "sufficient": {"epochs": 3},
        "transfer": [["some", "three"]],
        "defaults": True,
    },
}
TINY_COUNTS = {
    "reference": 12,
    "search": 12,
    "default": 8,
    "confirm": 8,
    "sufficient": 4,
    "transfer": 4,
}
"""Records of each phase of the tiny study: references count twice, once as original and once as retrained."""


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny study with parts replaced; a dotted key is written with two underscores."""
    study = copy.deepcopy(TINY)
    for name, value in changes.items():
        *path, last = name.split("__")
        target = study
        for part in path:
            target = target[part]
        target[last] = value
    return study


@cache
def shipped(name: str) -> Study:
    """A study that musweep brings, read once; tests do not change it."""
    from sweeps.study import study, yaml_file

    return study.read(yaml_file.find_study(name))


def write(folder: Path, study: dict[str, Any]) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONUNBUFFERED": "1"}


def _with(more: Mapping[str, str] | None) -> dict[str, str]:
    return {**environment(), **(more or {})}


def musweep(
    folder: Path,
    *arguments: str,
    timeout_seconds: float = LIMIT_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`, with more variables in its environment."""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sweeps", *arguments],
            cwd=folder,
            env=_with(environment),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        printed = [
            part.decode() if isinstance(part, bytes) else part or ""
            for part in (error.stdout, error.stderr)
        ]
        failures.note(arguments, "".join(printed))
        raise
    failures.note(arguments, ended.stdout + ended.stderr)
    return ended


def here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything already."""
    from sweeps.__main__ import main

    shown, said = io.StringIO(), io.StringIO()
    before, on_sigterm = Path.cwd(), signal.getsignal(signal.SIGTERM)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
            code = main(list(arguments))
    finally:
        os.chdir(before)
        signal.signal(signal.SIGTERM, on_sigterm)
        failures.note(arguments, shown.getvalue() + said.getvalue())
    return subprocess.CompletedProcess(arguments, code, shown.getvalue(), said.getvalue())


def records(folder: Path) -> dict[str, TrialRecord]:
    _, found = read_current(folder / "trials.jsonl")
    return {r.key: r for r in found}


def searched(location: str, forget: str, method: str) -> optuna.Study:
    """Optuna's study of a cell of the tiny study; there must be one alone."""
    from sweeps.search.optuna_storage import open_storage

    storage = open_storage(location)
    names = [each.study_name for each in optuna.get_all_study_summaries(storage)]
    (name,) = [name for name in names if name.startswith(f"tiny/{forget}/{method}/")]
    return optuna.load_study(study_name=name, storage=storage)


def counts(found: dict[str, TrialRecord]) -> dict[str, int]:
    return dict(Counter(r.phase for r in found.values()))


def numbers(found: dict[str, TrialRecord]) -> dict[str, Any]:
    """What must not depend on how often a study was interrupted."""
    return {key: (r.status, r.knobs, r.metrics, r.samples_seen) for key, r in found.items()}
