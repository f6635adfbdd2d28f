"""A whole study with early stopping, on Ray: the same decisions on one slot and on two, one of which is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import studies

OWN = '''"""Fine-tuning whose epochs take longer the smaller the learning rate is.

Paper: none.
Reference: none.
Differs: it sleeps.
Cost: epochs passes over D_r.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from torch import nn

from mu.methods import finetune
from mu.split import Split

NEEDS = ("retain",)
STEADY = True


def unlearn(model: nn.Module, split: Split, generator, *, lr: float = 0.02, epochs: int = 10) -> Iterator[None]:
    """Unlearn."""
    for _ in finetune.unlearn(model, split, generator, lr=lr, epochs=epochs):
        time.sleep(SLEEP * max(0.0, -math.log10(lr)))
        yield
'''


def decided(folder: Path, sleep: float, concurrent: int) -> tuple[list[Any], str, dict[str, Any]]:
    """What Optuna was told of each configuration, what was printed, and the records of the search."""
    (folder / "own").mkdir(parents=True)
    (folder / "own/sleepy.py").write_text(OWN.replace("SLEEP *", f"{sleep} *"))
    space = {"lr": {"low": 1e-3, "high": 2e-1, "log": True}}
    wanted = studies.tiny(
        methods=[{"name": "sleepy", "fix": {"epochs": 4}, "space": space}, studies.JIT],
        forget={"some": studies.TINY["forget"]["some"]},
        experiments={},
        seeds={"search": [0], "report": [1], "retrain": 1},
        resources={"concurrent": concurrent},
        search__trials=7,
        search__early_stop="asha",
        search__objective="activation_distance",
    )
    studies.write(folder, wanted)
    done = studies.here(folder, "run", "study.yaml", "--methods-path", "own")
    assert done.returncode == 0, done.stderr
    results = folder / "results/tiny"
    backend = optuna.storages.journal.JournalFileBackend(str(results / "optuna.journal"))
    storage = optuna.storages.JournalStorage(backend)
    name = next(each for each in optuna.get_all_study_names(storage) if "sleepy" in each)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    told = [(t.number, t.params, t.state, t.value, t.intermediate_values) for t in trials]
    search = {k: r for k, r in studies.records(results).items() if r.phase == "search"}
    return told, done.stdout, search


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_slow_workers_change_no_decision(tmp_path: Path) -> None:
    once, said, _ = decided(tmp_path / "once", 0.0, 1)
    assert said.count("early_stop asha never stops jit (no knob `epochs`)") == 1
    twice, _, search = decided(tmp_path / "twice", 0.3, 2)
    assert twice == once
    states = {t[2] for t in once}
    assert states == {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    stopped = [r for r in search.values() if r.status == "stopped"]
    assert stopped
    assert {(r.method, r.reason) for r in stopped} == {("sleepy", "behind others")}
    assert all(r.curve[-1]["epoch"] < 4 for r in stopped)
    assert all("activation_distance" in r.curve[-1] for r in stopped)
    assert all(r.finished for r in search.values() if r.method == "jit")
