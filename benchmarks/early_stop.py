"""What early stopping saves and costs: ``python benchmarks/early_stop.py [--forget class] [--methods NAME ...]``.

Searches on 300 handwritten digits, a fifth of which or a class is forgotten, with 20 trials of 10 epochs and TPE, with
and without `early_stop: asha`, for every method that has epochs and does not impair first. Trials are real; each
configuration runs once, and a simulated cluster of so many slots hands out its epochs, each of which takes a time of its
own. Printed are the share of epochs that was run, and by how many points of AvgGap the best trial is worse than that of
the same search without early stopping: when this has all its epochs, and when it has had no more epochs than the other;
each with the 95 % interval of the mean over the repetitions, which are seeds of the sampler.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from search import DATA, Digits, interval  # which finds the packages beside this folder

from mu.data import Dataset, load
from mu.data.spec import DataSpec
from mu.keys import derive_seed
from mu.methods import load as load_method
from mu.methods import shipped_names
from mu.relative import gaps
from sweeps.phases import EPOCHS as EPOCHS_KNOB
from sweeps.plan import Job, Plan
from sweeps.search import asha
from sweeps.search import cells as searches
from sweeps.study import rungs, study
from sweeps.study.rungs import BEHIND
from sweeps.workers.result import RunningTrial, TrialResult, new_record
from sweeps.workers.trial import TrialContext, run_trial

REQUESTS = {
    "random": {"kind": "random", "fraction": 0.2},
    "class": {"kind": "full_class", "class": 3},
}
TRIALS, EPOCHS = 20, 10
OBJECTIVE = "avg_gap_natmu"


class Trials:
    """Real trials, each run once and only as far as a search has asked for it.

    Args:
        digits: The problem and its models.
    """

    def __init__(self, digits: Digits):
        self.digits = digits
        self.known: dict[str, tuple[RunningTrial, Iterator[RunningTrial]]] = {}

    def __call__(self, job: Job, method: Any, epoch: int) -> TrialResult:
        """Return what is known of a trial after an epoch, or after its end if this comes first."""
        key = json.dumps([job.method, dict(job.knobs)], sort_keys=True)
        if key not in self.known:
            digits, running = self.digits, RunningTrial()
            context = TrialContext(
                digits.problem, digits.split, method, digits.reference, early_stop="none"
            )
            self.known[key] = running, run_trial(context, job, digits.weights, running)
        running, steps = self.known[key]
        while len(running.result.curve) <= epoch and next(steps, None):
            pass
        if epoch == EPOCHS:
            for _ in steps:
                pass
        return running.result


@dataclass
class Searched:
    """What a search came to.

    Args:
        epochs: How many it has run.
        late: How many of them trials ran on after the rung at which they turned out to be behind.
        ended: The objective of each trial that ran to its end, and the epochs of the search by then.
    """

    epochs: int = 0
    late: int = 0
    ended: list[tuple[float, int]] = field(default_factory=list)

    def best(self, epochs: float = math.inf) -> float:
        """Return the lowest objective when the search had run so many epochs."""
        return min(value for value, after in self.ended if after <= epochs or value == self.first)

    @property
    def first(self) -> float:
        """The objective of the first trial that ended, which every search has."""
        return self.ended[0][0]


def planned(method: str, request: str, early_stop: str, repetition: int, data: Dataset) -> Plan:
    """Return the plan of a study of one cell."""
    asked = {
        "study": f"{method}-{repetition}",
        "data": DATA,
        "training": {"epochs": 15, "lr": 0.1, "batch_size": 64, "schedule": "onecycle"},
        "forget": {request: REQUESTS[request]},
        "methods": [{"name": method, "fix": {"epochs": EPOCHS, "batch_size": 32}}],
        "seeds": {"search": [0], "report": [1], "retrain": 1},
        "search": {"trials": TRIALS, "early_stop": early_stop},
    }
    return Plan(study.parse(asked, "benchmark"), data)


def searched(plan: Plan, slots: int, trials: Trials) -> Searched:
    """Run a search on so many slots."""
    searches.open_storage = lambda location: optuna.storages.InMemoryStorage()
    search = searches.Cells(plan, "")
    running: list[tuple[float, int, Job, int, float]] = []
    now, started, outcome = 0.0, 0, Searched()
    while True:
        while len(running) < slots and (job := search.next()) is not None:
            draw = np.random.default_rng(derive_seed("duration", plan.study.name, started))
            pace = draw.lognormal(0.0, 0.3)
            started += 1
            heapq.heappush(running, (now + pace, started, job, 1, pace))
        if not running:
            return outcome
        now, order, job, epoch, pace = heapq.heappop(running)
        outcome.epochs += 1
        result = trials(job, plan.study.method(job.method).method, epoch)
        curve = result.curve[: epoch + 1]
        over = epoch == EPOCHS or len(result.curve) <= epoch
        if not over and job.rungs and search.behind(job, curve):
            record = replace(_record(job, plan, "stopped", BEHIND), curve=curve)
            outcome.late += epoch - max(rung for rung in job.rungs if rung <= epoch)
        elif over:
            scores, retrained = (
                result.metrics.get("val", {}),
                trials.digits.reference.retrain["val"],
            )
            whole_class = trials.digits.problem.request.whole_class
            value = 100 * gaps(scores, retrained, whole_class)[OBJECTIVE]
            scores = {"val": {OBJECTIVE: value}}
            status = "finished" if math.isfinite(value) else "diverged"
            record = replace(_record(job, plan, status), curve=curve, metrics=scores)
            if record.finished:
                outcome.ended.append((value, outcome.epochs))
        else:
            heapq.heappush(running, (now + pace, order, job, epoch + 1, pace))
            continue
        search.ended(record)


def _record(job: Job, plan: Plan, status: str, reason: str = "") -> Any:
    return new_record(job, plan.study.name, {}, status=status, reason=reason)


def show(method: str, slots: int, given: Any, trials: Trials, data: Dataset) -> None:
    """Print the row of a method."""
    pairs = [
        tuple(
            searched(planned(method, given.forget, early_stop, n, data), slots, trials)
            for early_stop in ("collapse", "asha")
        )
        for n in range(given.repetitions)
    ]
    row = f"| {method} | {given.forget} | {slots} | {given.repetitions} |"
    if not all(search.ended for pair in pairs for search in pair):
        print(f"{row} a search without a finished trial ||||||", flush=True)
        return
    columns = [
        [100 * halved.epochs / whole.epochs for whole, halved in pairs],
        [100 * halved.late / halved.epochs for _, halved in pairs],
        [float(len(halved.ended)) for _, halved in pairs],
        [whole.best() for whole, _ in pairs],
        [halved.best() - whole.best() for whole, halved in pairs],
        [halved.best() - whole.best(halved.epochs) for whole, halved in pairs],
    ]
    print(f"{row} {' | '.join(map(interval, columns))} |", flush=True)


def judged(request: str) -> list[str]:
    """Return the methods that could be stopped at rungs and support a request."""
    found = {name: load_method(name) for name in shipped_names()}
    kind = REQUESTS[request]["kind"]
    return [
        name
        for name, method in found.items()
        if EPOCHS_KNOB in method.knobs and not method.impairs_first and kind in method.requests
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forget", choices=REQUESTS, default="random")
    parser.add_argument("--methods", nargs="+", help="without it all of them")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--slots", type=int, nargs="+", default=[8])
    parser.add_argument("--reduction", type=int, default=rungs.REDUCTION)
    given = parser.parse_args()
    rungs.REDUCTION = asha.REDUCTION = given.reduction
    rungs.is_judged = lambda method: True  # also those that a study leaves alone
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        "| method | forget | slots | repetitions | epochs run, % | of them too late, % | trials to their end | "
        "best without | worse by | worse than with as many epochs by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    data = load(DataSpec(**DATA))  # type: ignore[arg-type]
    problem = planned("finetune", given.forget, "none", 0, data).problem(given.forget, 0)
    trials = Trials(Digits(data, problem))
    for method in given.methods or judged(given.forget):
        for slots in given.slots:
            show(method, slots, given, trials, data)


if __name__ == "__main__":
    main()
