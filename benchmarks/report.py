"""How long the report of a study takes: ``python benchmarks/report.py [--methods N] [--keep DIR] [--save]``.

The study is made up, with about 2,000 records by default, and its numbers are of the sizes that real ones have:
each method has a best learning rate, sits at some distance from retraining there, and goes wrong away from it;
methods differ in how much they over-forget and in how well their knobs transfer. Printed are the seconds of each
step, best of the repetitions, by the clock and of the processor: on cores that others use, the first is longer. Where
there is a Chromium, so are the size of the page, and when its first screen and its first chart stand.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import altair
import numpy as np
import optuna
import pandas as pd
import vl_convert

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures as all_figures
from benchmarks.figures import Figure as Measured
from benchmarks.machine import processor
from mu.keys import derive_seed
from mu.metrics import AVG_GAP_NATMU, METRICS, mean_gap
from mu.record import TrialRecord, to_line, trial_line, write
from reports import contents, load
from reports.charts.figure import Figure
from reports.page.report import build, page_html
from tests.reports.browser import CHROMIUM, Browser

T = TypeVar("T")
Steps = dict[str, list[tuple[float, float]]]
"""Step to seconds by the clock and of the processor, of each repetition."""
REQUESTS: dict[str, dict[str, Any]] = {
    "random10": {"kind": "random", "fraction": 0.1},
    "random1": {"kind": "random", "fraction": 0.01},
    "class3": {"kind": "full_class", "class": "3"},
    "sub12": {"kind": "sub_class", "class": "12"},
}
RETRAINED = {
    False: {"acc_test": 0.91, "acc_forget": 0.92, "mia_lr_entropy": 0.78},
    True: {"acc_test": 0.86, "acc_forget": 0.02, "mia_lr_entropy": 0.14},
}
"""What retrained models come to, by whether a whole class is forgotten."""
SEARCH_SEED, TUNED, LONG = 0, 5, 20


class MadeUpStudy:
    """A made-up study.

    Args:
        methods: Number of methods; every fourth has no epochs.
        trials: Search trials of a cell.
        seeds: Number of report seeds.
    """

    def __init__(self, methods: int = 12, trials: int = 24, seeds: int = 5):
        self.methods = [f"method{n:02d}" for n in range(methods)]
        self.trials, self.seeds = trials, range(1, seeds + 1)
        names = list(REQUESTS)
        self.transfers = [(a, b) for a, b in zip(names, names[1:] + names[:1])]

    def lines(self) -> Iterator[str]:
        yield to_line("study", self.line())
        for record in self.records():
            yield trial_line(record)

    def line(self) -> dict[str, Any]:
        """The content of the study line."""
        space = {
            "lr": {"low": 1e-4, "high": 1e-1, "log": True},
            "strength": {"low": 0.0, "high": 1.0},
            "labels": {"choices": ["hard", "soft"]},
        }
        return {
            "study": "made-up",
            "definition": {
                "study": "made-up",
                "forget": REQUESTS,
                "methods": [{"name": m, "fix": {}, "space": space} for m in self.methods],
                "seeds": {"search": [SEARCH_SEED], "report": list(self.seeds)},
                "search": {"trials": self.trials, "sampler": "tpe", "objective": ["avg_gap_natmu"]},
                "experiments": {
                    "sufficient": {"epochs": LONG},
                    "transfer": [list(pair) for pair in self.transfers],
                    "defaults": True,
                },
            },
            "methods": {
                m: {
                    "summary": f"Made-up method {n}",
                    "has_epochs": n % 4 != 3,
                    "zero_shot": n % 4 == 3,
                }
                for n, m in enumerate(self.methods)
            },
            "requests": {
                name: {
                    "kind": r["kind"],
                    "forget": 500,
                    "retain": 4500,
                    "whole_class": _whole(name),
                }
                for name, r in REQUESTS.items()
            },
            "versions": {"python": platform.python_version()},
            "started": 0.0,
        }

    def records(self) -> Iterator[TrialRecord]:
        for name in REQUESTS:
            yield from self._references(name)
            for position, method in enumerate(self.methods):
                yield from self._search(name, method)
                yield from self._final(name, method, position)

    def _references(self, name: str) -> Iterator[TrialRecord]:
        for role, seeds in (("search", [SEARCH_SEED]), ("report", list(self.seeds))):
            for seed in seeds:
                draws = _draws("reference", name, seed)
                retrained = _noisy(_retrained(name), draws)
                original = {**retrained, "acc_forget": 1.0, "mia_lr_entropy": 0.93}
                for method, values in (("retrain", retrained), ("original", original)):
                    yield _record(
                        "reference", name, method, seed, values, role=role, time_unlearn=60.0
                    )

    def _search(self, name: str, method: str) -> Iterator[TrialRecord]:
        draws = _draws("search", name, method)
        for number in range(self.trials):
            knobs = {
                "lr": float(10 ** draws.uniform(-4, -1)),
                "strength": float(draws.uniform()),
                "labels": str(draws.choice(["hard", "soft"])),
                "epochs": TUNED,
            }
            off = self._off(name, method, knobs)
            ended = {"number": number, "knobs": knobs, "time_total": 2.0}
            if off > 0.55:
                yield _record(
                    "search",
                    name,
                    method,
                    SEARCH_SEED,
                    {},
                    status="diverged",
                    reason="outputs are not finite after epoch 2",
                    **ended,
                )
                continue
            values = _noisy(_shifted(name, off), draws)
            yield _record("search", name, method, SEARCH_SEED, values, **ended)

    def _final(self, name: str, method: str, position: int) -> Iterator[TrialRecord]:
        best = self._best(name, method)
        default = {"lr": 0.01, "strength": 0.5, "labels": "hard", "epochs": TUNED}
        for seed in self.seeds:
            draws = _draws("final", name, method, seed)
            runs: list[tuple[str, dict[str, Any], str | None]] = [
                ("confirm", best, None),
                ("default", default, None),
            ]
            if position % 4 != 3:
                runs.append(("sufficient", {**best, "epochs": LONG}, None))
            runs += [
                ("transfer", self._best(source, method), source)
                for source, target in self.transfers
                if target == name
            ]
            for phase, knobs, source in runs:
                off = self._off(name, method, knobs)
                if phase == "sufficient":
                    off += 0.02 * position
                values = _noisy(_shifted(name, off), draws)
                curve = [
                    {
                        "epoch": e,
                        "seconds": 0.5 * e,
                        "acc_forget": 1 + (values["acc_forget"] - 1) * e / knobs["epochs"],
                    }
                    for e in range(knobs["epochs"] + 1)
                ]
                yield _record(
                    phase,
                    name,
                    method,
                    seed,
                    values,
                    knobs=knobs,
                    source=source,
                    curve=curve,
                    time_unlearn=1.0 + 0.3 * position + draws.uniform(),
                    samples_seen=25_000,
                )

    def _best(self, name: str, method: str) -> dict[str, Any]:
        """Knobs of the trial that has the smallest objective."""
        trials = [r for r in self._search(name, method) if r.finished]
        return min(trials, key=lambda r: (r.metrics["val"]["avg_gap_natmu"], r.number)).knobs

    def _off(self, name: str, method: str, knobs: dict[str, Any]) -> float:
        """How far from retraining a method ends, as a fraction."""
        draws = _draws("landscape", method)
        centre, floor, width = (
            draws.uniform(-3.2, -1.6),
            draws.uniform(0.005, 0.05),
            draws.uniform(0.02, 0.12),
        )
        moved = _draws("shift", method, name).normal() * draws.uniform(0.0, 0.6)
        lr, strength = (
            math.log10(knobs["lr"]) - centre - moved,
            knobs["strength"] - draws.uniform(0.2, 0.8),
        )
        return float(floor + width * (lr**2 + strength**2) + 0.01 * (knobs["labels"] == "soft"))


def _whole(name: str) -> bool:
    return REQUESTS[name]["kind"] in ("full_class", "sub_class")


def _retrained(name: str) -> dict[str, float]:
    values = dict(RETRAINED[_whole(name)])
    if _whole(name):
        values |= {"acc_test_retain": 0.92, "acc_test_forget": 0.03}
    return values


def _shifted(name: str, off: float) -> dict[str, float]:
    """Metrics that are off from those of retraining, each by its own share."""
    values = _retrained(name)
    return {
        key: value + off * (1 if value < 0.5 else -1) * share
        for (key, value), share in zip(values.items(), (0.4, 1.2, 1.5, 0.3, 0.8))
    }


def _noisy(values: dict[str, float], draws: np.random.Generator) -> dict[str, float]:
    noisy = {
        key: float(np.clip(value + draws.normal() * 0.006, 0, 1)) for key, value in values.items()
    }
    noisy["err_forget"] = 1 - noisy["acc_forget"]
    noisy["acc_retain"] = float(np.clip(noisy["acc_test"] + 0.08, 0, 1))
    return noisy


def _draws(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(derive_seed("benchmark", *parts))


def _record(
    phase: str, forget: str, method: str, seed: int, values: dict[str, float], **fields: Any
) -> TrialRecord:
    whole = _whole(forget)
    gap = mean_gap(values, _retrained(forget), AVG_GAP_NATMU[whole]) if values else 0.0
    draws = _draws(
        "others", phase, forget, method, seed, fields.get("number"), fields.get("source")
    )
    recorded = ("trial", "finalist") if phase in ("confirm", "reference") else ("trial",)
    others = {n: draws.uniform(0, 1) for n, metric in METRICS.items() if metric.when in recorded}
    view = {**others, **values, "activation_distance": 0.05 + gap, "avg_gap_natmu": gap}
    if phase != "search":
        fields["confusions"] = {
            name: [[y, p, int(draws.integers(1, 99))] for y in range(10) for p in range(10)]
            for name in ("retain", "forget", "val", "test")
        }
    views = ("val",) if phase == "search" or fields.get("role") == "search" else ("val", "test")
    parts = (phase, forget, method, seed, fields.get("number"), fields.get("source"))
    return TrialRecord(
        key="/".join(map(str, parts)),
        study="made-up",
        phase=phase,
        forget=forget,
        method=method,
        seed=seed,
        **{"status": "finished", "metrics": dict.fromkeys(views, view) if values else {}, **fields},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", type=int, default=12)
    parser.add_argument("--trials", type=int, default=24, help="search trials of a cell")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="write the study and its report here")
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    steps: Steps = {}
    opened: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "made-up"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "trials.jsonl", MadeUpStudy(given.methods, given.trials).lines())
        records = len(load.read(folder).records)
        for _ in range(given.repeat):
            _measure(folder, steps)
            opened += [_opened(folder / "report" / "index.html", Path(scratch))] if CHROMIUM else []
        size = (folder / "report" / "index.html").stat().st_size / 1e6
    requests, cores = len(REQUESTS), os.cpu_count()
    print(f"{records:,} records, {given.methods} methods, {requests} requests, {cores} cores")
    modules = ", ".join(
        f"{m.__name__} {m.__version__}" for m in (altair, np, optuna, pd, vl_convert)
    )
    print(f"Python {platform.python_version()}, {modules}")
    for step, seconds in steps.items():
        wall, busy = (min(values) for values in zip(*seconds))
        print(f"{step:16}{wall:7.2f} s{busy:7.2f} s CPU")
    print(f"page: {size:.2f} MB")
    for what in opened[0] if opened else ():
        print(f"{what:16}{min(times[what] for times in opened):7.2f} s")
    if given.save:
        whole = min(wall for wall, _ in steps["whole report"])
        name = f"report of {given.methods} methods and {records:,} records"
        limit = "at most 12" if records < 2500 else "at most 30"
        all_figures.save([Measured("report", name, f"{whole:.1f} s", target=limit)], processor())


def _measure(folder: Path, steps: Steps) -> None:
    """One repetition: the steps by themselves, then the whole from the file to the page."""
    study = _timed(steps, "read", lambda: load.read(folder))
    tables = _timed(steps, "tables", lambda: contents.all_tables(study))
    figures = _timed(steps, "figures", lambda: contents.all_figures(study))
    with tempfile.TemporaryDirectory() as scratch:
        _timed(steps, "figures, saved", lambda: _save(figures, Path(scratch)))
    _timed(steps, "page", lambda: page_html(study, tables, figures, set()))
    _timed(steps, "whole report", lambda: build(folder))


def _opened(page: Path, scratch: Path) -> dict[str, float]:
    """Return the seconds from opening a page to its first screen, and to its first chart."""
    with Browser(Path(tempfile.mkdtemp(dir=scratch))) as browser:
        browser.open(page)
        browser.wait("performance.getEntriesByName('chart').length > 0")
        marks = {"first screen": "first-contentful-paint", "first chart": "chart"}
        return {
            what: browser.run(f"performance.getEntriesByName('{mark}')[0].startTime") / 1000
            for what, mark in marks.items()
        }


def _save(figures: Iterable[Figure], folder: Path) -> None:
    """Write those figures that a report writes as files when nothing else is asked for."""
    for figure in figures:
        if not figure.method:
            figure.save(folder)


def _timed(steps: Steps, step: str, work: Callable[[], T]) -> T:
    wall, busy = time.perf_counter(), time.process_time()
    result = work()
    spent = (time.perf_counter() - wall, time.process_time() - busy)
    steps.setdefault(step, []).append(spent)
    return result


if __name__ == "__main__":
    main()
