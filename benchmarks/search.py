"""How good the search is: ``python benchmarks/search.py LANDSCAPE [--file RESULTS] [--repetitions N]``.

A whole search by ask and tell, as a driver does it, on a simulated cluster: slots take the trials that were asked for,
in a loop over events, and each trial takes a time of its own. Compared are the search of version 0.1 (TPE that models
after ten trials, each knob alone, 64 trials asked ahead), that of today (as ``make_sampler`` sets it, one in ten asked
ahead) and random draws, on 1 and on 16 slots, with one cell and with eight that share the cluster.

`toy` is a function of four knobs with noise, whose least value is known; `digits` runs real trials of NegGrad+ on
handwritten digits. Results go to a file, a line for each repetition, and those that it holds are not run again.
Printed are, after 10, 20 and 30 trials of each cell, the best objective and the regret: what the true value of the
configuration with the lowest observed value is above the least there is (on digits: that was seen), each with the 95 %
interval of the mean over the repetitions; and the paired difference to random draws of the same repetitions.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from mu.data import Dataset, load
from mu.data.spec import DataSpec
from mu.keys import derive_seed
from mu.problem import Problem, weights_of
from mu.record import TrialRecord
from mu.relative import gaps
from sweeps.plan import Job, Plan
from sweeps.search import cell_search
from sweeps.search import cells as searches
from sweeps.search.samplers import make_sampler
from sweeps.study import study
from sweeps.workers.result import new_record
from sweeps.workers.scores import ReferenceScores
from sweeps.workers.trial import TrialContext, run_trial

TRIALS, MARKS = 30, (10, 20, 30)
NOISE = 0.5
METHOD = "neggrad_plus"
SPACES: dict[str, dict[str, Any]] = {
    "toy": {
        "lr": {"low": 1e-5, "high": 1.0, "log": True},
        "momentum": {"low": 0.0, "high": 0.9},
        "epochs": {"low": 1, "high": 10},
        "batch_size": {"low": 16, "high": 256, "log": True},
    },
    "digits": {
        "forget_weight": {"low": 1e-4, "high": 0.5, "log": True},
        "lr": {"low": 1e-3, "high": 3e-1, "log": True},
        "momentum": {"low": 0.0, "high": 0.9},
        "epochs": {"low": 1, "high": 8},
    },
}
FIXED = {"toy": {"forget_weight": 0.05}, "digits": {"batch_size": 32}}
DATA = {"name": "digits", "subset": 300}


@dataclass(frozen=True)
class Settings:
    """A search that is compared.

    Args:
        name: As printed.
        sampler: As in a study file.
        ahead: Number of slots to how many trials run or wait.
        old: Whether TPE is that of version 0.1.
    """

    name: str
    sampler: str
    ahead: Callable[[int], int]
    old: bool = False

    def make(self, search: Any, config: Any, name: str, cell: Any, number: int) -> Any:
        """Make a sampler, as ``sweeps.search.samplers.make_sampler``."""
        if self.old:
            seed = derive_seed("sampler", name, *cell, number) % 2**32
            return optuna.samplers.TPESampler(seed=seed)
        return make_sampler(search, config, name, cell, number)


def _tenth_more(slots: int) -> int:
    return slots + slots // 10


def _many(slots: int) -> int:
    return max(64, 2 * slots)


SETTINGS = {
    each.name: each
    for each in (
        Settings("old", "tpe", _many, old=True),
        Settings("new", "tpe", _tenth_more),
        Settings("random", "random", _tenth_more),
        Settings("new, 64 ahead", "tpe", _many),
        Settings("old, none ahead", "tpe", _tenth_more, old=True),
        Settings("gp", "gp", _tenth_more),
        Settings("cmaes", "cmaes", _tenth_more),
        Settings("qmc", "qmc", _tenth_more),
    )
}


def toy_value(knobs: Any) -> float:
    """Return the toy's objective, in points, without noise.

    What decides is the dose, the logarithm of learning rate x epochs / batch size, with momentum. A small one leaves
    the model as it was (14 points), a large one destroys it (39), and between them lies a valley.
    """
    step = knobs["lr"] / (1 - knobs["momentum"])
    dose = math.log10(step * knobs["epochs"] * 64 / knobs["batch_size"])
    valley = 14 - 12 * math.exp(-(((dose + 1.5) / 0.8) ** 2) / 2)
    cliff = 25 / (1 + math.exp(-4 * (dose - 0.2)))
    details = 6 * (knobs["momentum"] - 0.6) ** 2 + 0.15 * (knobs["epochs"] - 4) ** 2
    return valley + cliff + details


@cache
def toy_least() -> float:
    """Return the least value of the toy, on a fine grid."""
    return min(
        toy_value({"lr": 10**rate, "momentum": momentum, "epochs": epochs, "batch_size": 64})
        for rate in np.linspace(-5, 0, 1001)
        for momentum in np.linspace(0.5, 0.7, 21)
        for epochs in (3, 4, 5)
    )


class Digits:
    """The objective of real trials, each run once.

    Args:
        problem: What is forgotten; without it a random fifth.
    """

    def __init__(self, data: Dataset, problem: Problem | None = None) -> None:
        torch.set_num_threads(1)
        self.problem = problem or planned("digits", data, SETTINGS["new"], 0, 1).problem(
            "random0", 0
        )
        self.split = self.problem.split()
        models = {role: self.problem.build() for role in ("original", "retrain")}
        for role, model in models.items():
            for _ in self.problem.train(role, model):  # type: ignore[arg-type]
                pass
        self.weights = weights_of(models["original"])
        before, after = (
            self.problem.evaluate(models[role].eval(), self.split, ("val",))
            for role in ("original", "retrain")
        )
        untrained = self.problem.evaluate(self.problem.build().eval(), self.split, ("val",))
        self.reference = ReferenceScores(
            after.scores, before.scores, after.forget.logits, untrained.forget.logits
        )
        self.known: dict[str, float] = {}

    def __call__(self, job: Job, config: Any) -> float:
        key = json.dumps(dict(job.knobs), sort_keys=True)
        if key not in self.known:
            context = TrialContext(
                self.problem, self.split, config.method, self.reference, early_stop="none"
            )
            trial = run_trial(context, job, self.weights)
            while True:
                try:
                    next(trial)
                except StopIteration as end:
                    scores, retrained = end.value.metrics, self.reference.retrain["val"]
                    value = math.nan
                    if scores:
                        value = gaps(scores["val"], retrained, whole_class=False)["avg_gap_natmu"]
                    self.known[key] = 100 * value
                    break
        return self.known[key]


def planned(landscape: str, data: Dataset, settings: Settings, repetition: int, cells: int) -> Plan:
    """Return the plan of a study with one method on so many requests."""
    entry = {"name": METHOD, "fix": FIXED[landscape], "space": SPACES[landscape]}
    asked = {
        "study": f"{landscape}-{repetition}",
        "data": DATA,
        "training": {"epochs": 15, "lr": 0.1, "batch_size": 64, "schedule": "onecycle"},
        "forget": {
            f"random{n}": {"kind": "random", "fraction": 0.2, "draw": n} for n in range(cells)
        },
        "methods": [entry],
        "seeds": {"search": [0], "report": [1], "retrain": 1},
        "search": {"trials": TRIALS, "sampler": settings.sampler, "early_stop": "none"},
    }
    return Plan(study.parse(asked, "benchmark"), data)


def searched(
    plan: Plan, settings: Settings, slots: int, value: Callable[[Job, Any], float]
) -> Iterator[tuple[Job, float]]:
    """Yield the jobs of a search and their values, in the order in which they end on a cluster of so many slots."""
    cell_search.make_sampler = settings.make
    searches.open_storage = lambda location: optuna.storages.InMemoryStorage()
    search = searches.Cells(plan, "")
    waiting: deque[Job] = deque()
    running: list[tuple[float, int, Job]] = []
    now, started = 0.0, 0
    while True:
        while len(waiting) + len(running) < settings.ahead(slots):
            job = search.next()
            if job is None:
                break
            waiting.append(job)
        while waiting and len(running) < slots:
            draw = np.random.default_rng(derive_seed("duration", plan.study.name, started))
            seconds = draw.lognormal(0.0, 0.3)
            started += 1
            heapq.heappush(running, (now + seconds, started, waiting.popleft()))
        if not running:
            return
        now, _, job = heapq.heappop(running)
        observed = value(job, plan.study.method(METHOD))
        scores = {"val": {"avg_gap_natmu": observed}}
        search.ended(record_of(job, plan, scores))
        yield job, observed


def record_of(job: Job, plan: Plan, scores: dict[str, dict[str, float]]) -> TrialRecord:
    """Return the record of a job that has finished."""
    return replace(new_record(job, plan.study.name, {}, status="finished"), metrics=scores)


def repeat(
    landscape: str,
    settings: Settings,
    slots: int,
    cells: int,
    repetition: int,
    data: Dataset,
    digits: Digits | None,
) -> dict[str, float]:
    """Return the best value after each mark, the mean over the cells of one search."""
    plan = planned(landscape, data, settings, repetition, cells)

    def noisy(job: Job, config: Any) -> float:
        draw = np.random.default_rng(derive_seed("noise", plan.study.name, job.key))
        return toy_value(job.knobs) + NOISE * draw.standard_normal()

    tried: dict[str, list[tuple[float, float]]] = {}
    for job, observed in searched(plan, settings, slots, digits or noisy):
        true = observed if digits else toy_value(job.knobs)
        tried.setdefault(job.forget, []).append((observed, true))
    return {
        str(mark): float(np.mean([min(each[:mark])[1] for each in tried.values()]))
        for mark in MARKS
    }


def interval(values: list[float]) -> str:
    """Return a mean with its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f}"


def show(lines: list[dict[str, Any]], landscape: str) -> None:
    """Print a table of all results of a landscape."""
    mine = [line for line in lines if line["landscape"] == landscape]
    least = (
        toy_least()
        if landscape == "toy"
        else min(v for line in mine for v in line["best"].values())
    )
    print(f"\n{landscape}: least value {least:.2f}; Optuna {optuna.__version__}\n")
    print(
        "| cells | slots | search | repetitions | best after 10 | 20 | 30 | regret after 10 | 20 | 30 "
        "| above random after 30 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    groups: dict[tuple[int, int, str], dict[int, dict[str, float]]] = {}
    for line in mine:
        group = (line["cells"], line["slots"], line["settings"])
        groups.setdefault(group, {})[line["repetition"]] = line["best"]
    for (cells, slots, name), bests in sorted(groups.items()):
        columns = [[best[str(mark)] for best in bests.values()] for mark in MARKS]
        above = [[value - least for value in column] for column in columns]
        texts = [interval(column) for column in (*columns, *above)]
        drawn, last = groups.get((cells, slots, "random"), {}), str(MARKS[-1])
        # Searches of the same repetition have their first trials in common.
        paired = [best[last] - drawn[n][last] for n, best in bests.items() if n in drawn]
        texts.append(interval(paired) if len(paired) > 1 and name != "random" else "")
        print(f"| {cells} | {slots} | {name} | {len(bests)} | {' | '.join(texts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landscape", choices=list(SPACES))
    parser.add_argument("--file", type=Path, help="where results are kept; a file that is dropped")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--settings", nargs="+", default=["old", "new", "random"])
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        file = given.file or Path(folder) / "results.jsonl"
        lines = [json.loads(line) for line in file.open()] if file.exists() else []
        data = load(DataSpec(**DATA))  # type: ignore[arg-type]
        digits = Digits(data) if given.landscape == "digits" else None
        done = {json.dumps({**line, "best": None}, sort_keys=True) for line in lines}
        for repetition in range(given.repetitions):
            for cells in given.cells if digits is None else [1]:
                for slots in given.slots:
                    for name in given.settings:
                        line: dict[str, Any] = {
                            "landscape": given.landscape, "settings": name, "slots": slots,
                            "cells": cells, "repetition": repetition, "best": None,
                        }  # fmt: skip
                        if json.dumps(line, sort_keys=True) in done:
                            continue
                        line["best"] = repeat(
                            given.landscape, SETTINGS[name], slots, cells, repetition, data, digits
                        )
                        lines.append(line)
                        with file.open("a") as out:
                            print(json.dumps(line), file=out)
        show(lines, given.landscape)


if __name__ == "__main__":
    main()
