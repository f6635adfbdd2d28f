"""The same trials in four ways: ``python benchmarks/peers.py [--cifar ZIP] [--quick] [--save]``.

A study searches two knobs of Amnesiac on two cores. Then others run the trials that it asked for, with the same knobs
(``other_ways.py``): a process for each trial, as published scripts do, two at a time; Optuna in one process, with one and with two threads;
Ray Tune with ``OptunaSearch`` and MLflow, two at a time. A trial trains, measures accuracies after every epoch, and ends with one pass over D_r, D_f and
the validation set, the entropy attack and five SVC attacks. The references are there before, the same for all; ours also confirms its best knobs, keeps records
and MLflow and writes a report, and this counts as its time, not as a trial.

Values must agree, or the benchmark fails: see ``LIMITS``. Seconds are from the start of the first process to the end of the last; `steady` are those
from the start of the first trial to the end of the last. Beside them stands what bounds a trial: the share of it that is the
method's own steps, and a step's share of the processor's matrix-multiply peak.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import yaml

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import ProcessorTime, measure, processor

if TYPE_CHECKING:
    from mu.data import Dataset
    from mu.record import TrialRecord

PLAIN = dict(os.environ)
"""The environment of other ways: imports of ``sweeps`` change that of this process."""
ROOT, OTHERS = Path(__file__).parents[1], Path(__file__).with_name("other_ways.py")
METHOD, REQUEST = "amnesiac", "random10"
ATTACKED = [
    f"mia_svc_{name}_nonmember" for name in ("correctness", "conf", "entropy", "m_entropy", "prob")
]
VALUES = ("acc_retain", "acc_forget", "acc_test", "mia_lr_entropy", "avg_gap_natmu", *ATTACKED)
STEPS = ("mia_svc_correctness_nonmember",)
"""Values that a single sample can turn from 0 to 1: the attack on correctness calls all correct samples the same. They are compared on the
same outputs alone."""
COMPARED = tuple(name for name in VALUES if name not in STEPS)
SLOTS = 2
"""Trials at once, of all ways that run some beside each other."""


@dataclass(frozen=True)
class Size:
    """How much work a data set stands for.

    Args:
        trials: Trials of each way but one.
        scripts: Trials that run in a process each, the first ones; each takes as long whether it is the first or the last.
        epochs: Of the method.
        training: Recipe of the references.
        augment: Whether the method crops and flips.
        targets: What ours should be faster by than a way.
        threads: Threads of Optuna's process; it runs once with each number.
    """

    trials: int
    scripts: int
    epochs: int
    training: dict[str, Any]
    augment: bool
    targets: dict[str, float]
    threads: tuple[int, ...] = (1, 2)


SCRIPT = "a process a trial"
PEERS = {"Optuna, 1 thread": 1.9, "Ray Tune": 3.0}
AUGMENTED = {"batch_size": 128, "augment": "crop_flip"}
SIZES = {
    "digits": Size(48, 12, 5, {"batch_size": 64}, False, {SCRIPT: 8.0, **PEERS}),
    "cifar10_small": Size(8, 4, 3, AUGMENTED, True, {SCRIPT: 4.0, **PEERS}),
}
LIMITS = {"same draws": 0.03, "own draws": 0.10}
"""How far a value may be from ours in one trial. Ways that draw the same differ by rounding, which training amplifies: a few samples of D_f or
validation. A ``DataLoader`` that crops and flips draws anew for each image, so its trials are other trials with the same knobs: the mean over trials
is compared."""
ATTACKS_LIMIT = 1e-9
"""How far attacks on the same outputs may be from each other."""


@dataclass(frozen=True)
class Ran:
    """What a way took.

    Args:
        clock, spent: Seconds of the clock and of the processor, from its start to its end.
        steady: Seconds from the start of the first trial to the end of the last.
        values: Metric to value, of each trial.
    """

    clock: float
    spent: float
    steady: float
    values: list[dict[str, float]]

    @property
    def each(self) -> float:
        """Seconds of the clock for each trial, all counted."""
        return self.clock / len(self.values)

    @property
    def steady_each(self) -> float:
        """The steady seconds for each trial."""
        return self.steady / len(self.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar", help="CIFAR-10 as image folders or .zip; else digits alone")
    parser.add_argument("--only", choices=tuple(SIZES), help="this data alone")
    parser.add_argument("--quick", action="store_true", help="few trials of one epoch on digits")
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    names = ["digits", *(["cifar10_small"] if given.cifar and not given.quick else [])]
    measured: list[Figure] = []
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, Python {platform.python_version()}\n")
    for name in [name for name in names if given.only in (None, name)]:
        size = SIZES[name]
        if given.quick:
            size = Size(3, 2, 1, {**size.training, "epochs": 3}, False, {}, (1,))
        with tempfile.TemporaryDirectory() as folder:
            measured += compare(name, size, given.cifar, Path(folder))
    if given.save:
        figures.save(measured, processor())


def compare(name: str, size: Size, cifar: str | None, folder: Path) -> list[Figure]:
    """Run all ways on one data set, print their table and the limit, and return the figures."""
    file = write_study(name, size, cifar, folder)
    run_study(file, folder, "references", ["-o", "search.trials=1"])  # trains what all start from
    clock, spent = run_study(file, folder, "ours", [])
    records = search_records(folder, name)
    ours = Ran(clock, spent, *lasted(records))
    prepare(file, folder, size, records)
    others = {SCRIPT: run_scripts(folder, size)}
    for threads in size.threads:
        way = f"Optuna, {threads} thread{'s' if threads > 1 else ''}"
        others[way] = run_other("optuna", folder, {**PLAIN, "OMP_NUM_THREADS": str(threads)})
    others["Ray Tune"] = run_other("tune", folder, PLAIN)
    attacks = check_attacks(folder)
    apart = {
        way: distance(ours, ran, size.augment and way == SCRIPT) for way, ran in others.items()
    }
    print(f"{name}: {size.trials} trials of {size.epochs} epochs, {SLOTS} at a time\n")
    print(table(ours, others, apart))
    print(f"\nThe same outputs, attacked by both: largest difference {attacks:.0e}")
    inside = sum(record.time_unlearn for record in records)
    share = 100 * inside / sum(record.time_total for record in records)
    print(f"Share of a trial of ours that is the method's steps: {share:.0f} %")
    bound = limits(name, cifar)
    too_far = [
        f"{way} ({furthest(ours, others[way])})"
        for way, (far, limit) in apart.items()
        if far > limit
    ]
    if too_far or attacks > ATTACKS_LIMIT:
        raise SystemExit(f"{name}: values are not equal: {', '.join(too_far) or 'attacks'}")
    return [*summary(name, ours, others, share, size), *bound]


def limits(name: str, cifar: str | None) -> list[Figure]:
    """Measure a training step beside the matrix-product peak; print and return its figures."""
    from benchmarks import cpu

    cpu.prepare(cpus=1, gpus=0)
    measured = cpu.summary(
        name, "small_cnn", *cpu.beside_peak(cpu.problem_of(name, cifar), "small_cnn")
    )
    for figure in measured:
        print(f"{figure.name}: {figure.value}")
    print(flush=True)
    return measured


def table(ours: Ran, others: dict[str, Ran], apart: dict[str, tuple[float, float]]) -> str:
    """Return a line for each way as Markdown. Ratios are to ours, by the clock: of the whole, and of the steady part."""
    lines = [
        "| way | trials | s | s a trial | CPU s a trial | steady s a trial | ratio | steady ratio | largest difference (limit) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way, ran in {"ours": ours, **others}.items():
        count = len(ran.values)
        times = (ran.clock, ran.each, ran.spent / count, ran.steady_each)
        ratios = (ran.each / ours.each, ran.steady_each / ours.steady_each)
        far = "{:.3f} ({:g})".format(*apart[way]) if way in apart else ""
        shown = [f"{each:.2f}" for each in (*times, *ratios)]
        lines.append(f"| {way} | {count} | {' | '.join(shown)} | {far} |")
    return "\n".join(lines)


def summary(name: str, ours: Ran, others: dict[str, Ran], share: float, size: Size) -> list[Figure]:
    """Return the figures of one data set."""
    speeds = []
    for way, ran in others.items():
        target = f"at least {size.targets[way]:g}" if way in size.targets else ""
        for kind, mine, theirs in (
            ("all counted", ours.each, ran.each),
            ("steady", ours.steady_each, ran.steady_each),
        ):
            what, ratio = f"{name}: a trial, {kind}, beside {way}", f"{theirs / mine:.1f}"
            speeds.append(Figure("peers", what, f"{mine:.2f} s", ratio, "faster", target))
    steps = f"{name}: share of a trial that is the method's steps"
    return [*speeds, Figure("peers", steps, f"{share:.0f} %", target="at least 85")]


def write_study(name: str, size: Size, cifar: str | None, folder: Path) -> Path:
    """Write the study that ours runs."""
    data = {"name": "digits"} if name == "digits" else {
        "name": "image_folder", "root": str(Path(cifar or "").resolve()), "subset": 5000,
    }  # fmt: skip
    fixed = {
        "epochs": size.epochs,
        "batch_size": size.training["batch_size"],
        "schedule": "constant",
        "augment": size.augment,
    }
    study = {
        "study": name,
        "data": data,
        "model": "small_cnn",
        "training": {"epochs": 15, **size.training},
        "forget": {REQUEST: {"kind": "random", "fraction": 0.1}},
        "methods": [{"name": METHOD, "fix": fixed}],
        "seeds": {"search": [0], "report": [1], "retrain": 1},
        "search": {"trials": size.trials, "early_stop": "none", "finalists": 1},
        "experiments": {"defaults": False},
        "metrics": {"costly": ["search"], "attacks": ["svc"]},
        "resources": {"cpus": 1, "concurrent": SLOTS},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def run_study(file: Path, folder: Path, results: str, more: list[str]) -> tuple[float, float]:
    """Run the study into a results folder; return seconds of the clock and of the processor."""
    places = ["--results", str(folder / results), "--storage", str(folder / "storage")]
    command = [sys.executable, "-m", "sweeps", "run", str(file), *places, *more]
    return measure(command, {**PLAIN, "PYTHONPATH": str(ROOT)}, folder / "log")


def search_records(folder: Path, name: str) -> list[TrialRecord]:
    """Return the search trials of ours with their gaps, in the order of their start."""
    from mu.record import read
    from mu.relative import compared

    line, records = read(folder / "ours" / name / "trials.jsonl")
    searched = [record for record in compared(records, line) if record.phase == "search"]
    unfinished = [record.reason for record in searched if not record.finished]
    if unfinished:
        raise SystemExit(f"{name}: a trial of ours did not finish: {unfinished[0]}")
    return sorted(searched, key=lambda record: record.started)


def lasted(records: list[TrialRecord]) -> tuple[float, list[dict[str, float]]]:
    """Return the steady seconds of our trials, and their values."""
    steady = max(record.ended for record in records) - min(record.started for record in records)
    return steady, [record.metrics["val"] for record in records]


def prepare(file: Path, folder: Path, size: Size, records: list[TrialRecord]) -> None:
    """Write what the other ways start from: data, original model, seed, and the knobs of ours."""
    from mu.keys import derive_seed
    from sweeps.flow.references import load_reference
    from sweeps.launch import Options, make_plan
    from sweeps.state.store import Store

    plan = make_plan(str(file), Options())
    problem = plan.problem(REQUEST, 0)
    weights = load_reference(problem, "original", {}, Store(str(folder / "storage")))
    assert weights is not None
    attack_seed = derive_seed("attack", problem.key, "val")
    order = np.random.default_rng(attack_seed).permutation(len(problem.retain_index))
    parts = {
        f"{part}_{what}": getattr(problem.data.parts[part], what)
        for part in ("train", "val")
        for what in ("inputs", "labels")
    }
    named = {f"weights.{name}": value for name, value in weights.items() if name != "seconds"}
    np.savez(
        folder / "work.npz",
        **parts,
        **named,
        retain=problem.retain_index,
        forget=problem.forget_index,
        order=order,
        stats=np.array(problem.data.channel_stats),
    )
    images = Path(plan.study.definition["data"].get("root") or "")
    config = plan.study.method(METHOD)
    ranges = {range_.knob: (range_.low, range_.high, range_.log) for range_ in config.ranges}
    settings = {
        "epochs": size.epochs,
        "batch_size": size.training["batch_size"],
        "augment": size.augment,
        "seed": derive_seed("method", problem.key, METHOD),
        "attack_seed": attack_seed,
        "files": write_files(problem.data, images, folder) if images.name else {},
        "retrain": retrained_values(folder, plan.study.name),
        "ranges": ranges,
        "trials": [{knob: record.knobs[knob] for knob in ranges} for record in records],
    }
    (folder / "work.json").write_text(json.dumps(settings))


def retrained_values(folder: Path, name: str) -> dict[str, float]:
    """Return the metrics of the retrained model of the search seed."""
    from mu.record import read

    _, records = read(folder / "ours" / name / "trials.jsonl")
    (retrain,) = [r for r in records if r.method == "retrain" and r.role == "search"]
    return retrain.metrics["val"]


def write_files(data: Dataset, root: Path, folder: Path) -> dict[str, list[str]]:
    """Write the original image files of the training and the validation part below a folder; return their paths."""
    from PIL import Image

    from mu.data.decode import open_source

    source, known = open_source(root), {}
    for name in source.names:
        image = Image.open(io.BytesIO(source.read(name))).convert("RGB")
        known[np.asarray(image).tobytes()] = name
    paths: dict[str, list[str]] = {"train": [], "val": []}
    for part in paths:
        for image in data.parts[part].inputs.transpose(0, 2, 3, 1):
            name = known[image.tobytes()]
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(name))
            paths[part].append(str(path))
    return paths


def run_scripts(folder: Path, size: Size) -> Ran:
    """Run a process for each trial, two at a time."""

    def one(number: int) -> None:
        command = [sys.executable, str(OTHERS), "script", str(folder), str(number)]
        subprocess.run(command, env={**PLAIN, "OMP_NUM_THREADS": "1"}, check=True)

    processor_time, began = ProcessorTime(), time.perf_counter()
    processor_time.start()
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(one, range(size.scripts)))
    clock = time.perf_counter() - began
    files = [folder / f"script-{number}.json" for number in range(size.scripts)]
    outcomes = [json.loads(file.read_text())[0] for file in files]
    # A script's start is part of each of its trials, so that all of its time is steady.
    return Ran(clock, processor_time.end(), clock, [each["values"] for each in outcomes])


def run_other(way: str, folder: Path, environment: dict[str, str]) -> Ran:
    """Run a way that is one command."""
    command = [sys.executable, str(OTHERS), way, str(folder)]
    clock, spent = measure(command, environment, folder / "log")
    outcomes = json.loads((folder / f"{way}.json").read_text())
    steady = max(each["ended"] for each in outcomes) - min(each["began"] for each in outcomes)
    return Ran(clock, spent, steady, [each["values"] for each in outcomes])


def check_attacks(folder: Path) -> float:
    """Return the largest difference between our attacks and the usual ones on the outputs of one trial."""
    from benchmarks.other_ways import attacks
    from mu.evaluate import Outputs, costly_score, few_scores

    with np.load(folder / "outputs.npz") as arrays:
        pairs = [(arrays[f"z{n}"], arrays[f"y{n}"]) for n in range(3)]
    with np.load(folder / "work.npz") as arrays:
        order = arrays["order"]
    seed = json.loads((folder / "work.json").read_text())["attack_seed"]
    sets = [Outputs(*pair) for pair in pairs]
    theirs = attacks(*zip(*pairs), order)
    values = few_scores(*sets) | costly_score(*sets, seed, ("svc",))
    return max(abs(values[name] - value) for name, value in theirs.items())


def distance(ours: Ran, theirs: Ran, own_draws: bool) -> tuple[float, float]:
    """Return how far the values of a way are from ours, and how far they may be (see ``LIMITS``)."""
    pairs = list(zip(ours.values, theirs.values))
    far = np.array([[there[name] - here[name] for name in COMPARED] for here, there in pairs])
    if own_draws:
        return float(np.abs(far.mean(0)).max()), LIMITS["own draws"]
    return float(np.abs(far).max()), LIMITS["same draws"]


def furthest(ours: Ran, theirs: Ran) -> str:
    """Return the trial and the value that differ most, as a message."""
    apart = {
        (number, name): abs(there[name] - here[name])
        for number, (here, there) in enumerate(zip(ours.values, theirs.values))
        for name in COMPARED
    }
    number, name = max(apart, key=lambda each: apart[each])
    values = ours.values[number][name], theirs.values[number][name]
    return f"{name} of trial {number}: {values[0]:.3f} and {values[1]:.3f}"


if __name__ == "__main__":
    main()
