"""Host memory of a whole run: ``python benchmarks/memory.py [data|sweep] [--gib GIB] [--requests N] [--seeds N] [--save]``.

A made-up data set is decoded into the cache as a real one would be, and a study runs on it with two
slots. Meanwhile the memory of the driver, of Ray's processes and of its object store is sampled: what is private to a
process, and shared memory once. Clean pages of the decoded files belong to the system, which takes them back when it
needs them.

* ``data``: a small study on much data, beside the same study on a tiny data set, which says what the processes need without any.
* ``sweep``: five requests on five seeds, of a network with as many weights as ResNet18: 30 references. Counted is what is held beside
  the data and one copy of each reference, and how many logits the driver holds when all work is done. ``--requests 1 --seeds 2``
  tries it in small.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import descendants, processor
from mu.data.loaders import LOADERS
from mu.data.spec import DataSpec, Loader, Raw
from mu.models.architectures import MODELS

CLASSES = 10
SIDE = 128
GIB = 2**30
REQUESTS, SEEDS = 5, 5
SWEEP_IMAGES = 200
"""Training images of a study whose data shall not count."""
SAMPLE_SECONDS = 0.3
"""How often memory is read, which takes the system some milliseconds for each process."""
PARTS = ("driver", "workers", "Ray", "shared")


def pooled(shape: Any, num_classes: int) -> nn.Module:
    """A network that costs next to nothing on images of any size."""
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(shape[0] * 16, num_classes))


def wide(shape: Any, num_classes: int) -> nn.Module:
    """A network with the weights of a ResNet18 that costs little: three linear layers on a pooled image."""
    first, second = nn.Linear(shape[0] * 16, 3300), nn.Linear(3300, 3300)
    head = nn.Linear(3300, num_classes)
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), head)


def made_up(spec: DataSpec, cache: Path) -> Raw:
    """Images of noise whose brightness tells their class, memory-mapped as decoded ones are."""
    folder = cache / f"made-up-{spec.size}"
    folder.mkdir(parents=True, exist_ok=True)
    rng, sets = np.random.default_rng(0), []
    for name, count in (("train", spec.size or 0), ("test", (spec.size or 0) // 10)):
        labels = rng.integers(0, CLASSES, count)
        path = folder / f"{name}.npy"
        if not path.exists():
            shape = (count, 3, SIDE, SIDE)
            images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            for first in range(0, count, 1000):
                part = labels[first : first + 1000, None, None, None]
                images[first : first + 1000] = 20 * part + rng.integers(
                    0, 60, (len(part), *shape[1:]), np.uint8
                )
            images.flush()
        sets.append((np.load(path, mmap_mode="r"), labels))
    return Raw(sets[0], sets[1], tuple(map(str, range(CLASSES))))


class Sampler(threading.Thread):
    """Peak of private memory of this process and its children, and of shared memory, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.parts, self.ended = 0.0, {}, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            parts = measure()
            if sum(parts.values()) > self.peak:
                self.peak, self.parts = sum(parts.values()), parts


def measure() -> dict[str, float]:
    """Bytes by who holds them: this process, Ray's workers, the rest of Ray, and what they share."""
    parts = dict.fromkeys(PARTS, 0.0)
    for pid, command in {os.getpid(): "driver", **descendants(os.getpid())}.items():
        name = (
            "workers" if command.startswith("ray::") else command if command == "driver" else "Ray"
        )
        parts[name] += held(pid, "Anonymous")
        parts["shared"] += held(pid, "Pss_Shmem")
    return parts


def held(pid: int, kind: str) -> float:
    """Bytes of a kind in a process: `Anonymous` is its own, `Pss_Shmem` its share of shared memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return 1024.0 * sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{kind}:")
    )


def small_study(count: int) -> dict[str, Any]:
    """Return a study of two methods on `count` training images."""
    return {
        "study": f"memory-{count}",
        "data": {"name": "made_up", "size": count},
        "model": "pooled",
        "training": {"epochs": 1, "lr": 0.01, "batch_size": 128},
        "forget": {"a": {"kind": "random", "fraction": 0.1}},
        "methods": [
            {"name": "finetune", "fix": {"epochs": 1}},
            {"name": "amnesiac", "fix": {"epochs": 1}},
        ],
        "seeds": {"search": [0], "report": [1], "retrain": 1},
        "search": {"trials": 1},
        "experiments": {"defaults": False},
    }


def sweep_study(requests: int, seeds: int) -> dict[str, Any]:
    """Return a study of large models: requests on two seeds or more, one of them for the search."""
    draws = {f"draw{n}": {"kind": "random", "fraction": 0.1, "draw": n} for n in range(requests)}
    return {
        **small_study(SWEEP_IMAGES),
        "study": "sweep",
        "model": "wide",
        "forget": draws,
        "methods": [{"name": "amnesiac", "fix": {"epochs": 1}}],
        "seeds": {"search": [0], "report": [*range(1, seeds)], "retrain": seeds - 1},
        "search": {"trials": 1, "early_stop": "none"},
        "metrics": {"costly": []},
    }


def run(study: dict[str, Any], folder: Path) -> tuple[float, dict[str, float]]:
    """Run a study; return the bytes that were held at most, and who held them."""
    from sweeps.__main__ import main

    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    sampler = Sampler()
    sampler.start()
    code = main(
        ["run", str(path), "--results", str(folder / "results"), "--storage", str(folder / "store")]
    )
    sampler.ended.set()
    sampler.join()
    if code:
        raise SystemExit(code)
    return sampler.peak, sampler.parts


@contextmanager
def counted_logits() -> Iterator[list[int]]:
    """Count the bytes of logits that the driver holds when all work of a study is done."""
    from sweeps.workers import tuning

    counts: list[int] = []
    plain = tuning.Workers.run

    def run(*arguments: Any) -> None:
        plain(*arguments)
        counts.append(logits_held())

    tuning.Workers.run = run  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        tuning.Workers.run = plain  # type: ignore[method-assign]


def logits_held() -> int:
    """Return the bytes of logits in objects of this process."""
    from mu.evaluate import Outputs
    from sweeps.workers.scored import Scored
    from sweeps.workers.scores import ReferenceScores

    arrays: dict[int, int] = {}
    for each in gc.get_objects():
        given: tuple[Any, ...] = ()
        if type(each) is Outputs:
            given = (each.logits,)
        elif type(each) is Scored:
            given = (each.untrained, each.held_out)
        elif type(each) is ReferenceScores:
            given = (each.retrain_logits, each.untrained_logits)
        arrays |= {id(array): array.nbytes for array in given if array is not None}
    return sum(arrays.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("data", "sweep"), nargs="?", default="data")
    parser.add_argument(
        "--gib", type=float, default=1.0, help="size of the decoded training images"
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="forget requests of a sweep")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of a sweep, two or more")
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    MODELS["pooled"], MODELS["wide"] = pooled, wide
    LOADERS["made_up"] = Loader(made_up, ("size",))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MUSWEEP_CACHE"] = folder
        measured = (
            of_sweep(Path(folder), given.requests, given.seeds)
            if given.what == "sweep"
            else of_data(Path(folder), given.gib)
        )
    if given.save:
        figures.save(measured, processor())


def of_data(folder: Path, gib: float) -> list[Figure]:
    """Measure what a study takes for its data; print it, and return the figures."""
    count, rows = int(gib * GIB / (3 * SIDE * SIDE)), []
    made_up(DataSpec("made_up", size=count), folder)
    for images in (SWEEP_IMAGES, count):
        began = time.time()
        rows.append((f"{images:,} images", *run(small_study(images), folder), time.time() - began))
    show(rows)
    data = 1.1 * count * 3 * SIDE * SIDE
    extra = rows[1][1] - rows[0][1]
    times = extra / data
    print(
        f"\ndecoded data {data / GIB:.2f} GiB; memory that they take {extra / GIB:.2f} GiB, {times:.2f} times as much"
    )
    name = f"memory that {data / GIB:.2f} GiB of decoded data take"
    return [
        Figure("memory", name, f"{extra / GIB:.2f} GiB", f"{times:.2f}", "the data", "at most 2"),
        Figure("memory", "the same study with hardly any data", f"{rows[0][1] / GIB:.2f} GiB"),
    ]


def of_sweep(folder: Path, requests: int, seeds: int) -> list[Figure]:
    """Measure what a sweep of large models holds; print it, and return the figures."""
    began = time.time()
    with counted_logits() as logits:
        peak, parts = run(sweep_study(requests, seeds), folder)
    show([("sweep", peak, parts, time.time() - began)])
    weights = sum(weight.nelement() for weight in wide((3, SIDE, SIDE), CLASSES).parameters())
    copies = requests * seeds + seeds  # a retrained model of each problem, an original of each seed
    references, data = 4 * weights * copies, int(1.1 * SWEEP_IMAGES) * 3 * SIDE * SIDE
    beside = (peak - references - data) / GIB
    print(
        f"\n{copies} references of {weights / 1e6:.1f} M weights, {references / GIB:.2f} GiB; data {data / GIB:.2f} GiB; "
        f"beside them {beside:.2f} GiB; logits in the driver {max(logits) / 2**20:.3f} MiB"
    )
    name = f"sweep of {copies} references of {weights / 1e6:.1f} M weights: memory beside them and the data"
    return [
        Figure("memory", name, f"{beside:.2f} GiB", target="at most 2"),
        Figure(
            "memory",
            "the same sweep: logits that the driver holds",
            f"{max(logits)} bytes",
            target="at most 0",
        ),
    ]


def show(rows: list[tuple[str, float, dict[str, float], float]]) -> None:
    """Print what each run held at most, and who held it."""
    print(
        f"\nPython {platform.python_version()}, torch {torch.__version__}, {processor()}\n\n"
        "| run | peak, GiB | driver | workers | rest of Ray | shared memory | s |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, peak, parts, seconds in rows:
        held_by = " | ".join(f"{parts[part] / GIB:.2f}" for part in PARTS)
        print(f"| {name} | {peak / GIB:.2f} | {held_by} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
