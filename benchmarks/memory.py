"""Host memory of a whole run beside the size of its decoded data: ``python benchmarks/memory.py``.

A made-up data set is decoded into the cache as a real one would be, and a study of two methods runs on it with two
slots. Meanwhile the memory of the driver, of Ray's processes and of its object store is sampled: what is private to a
process, and shared memory once. Clean pages of the decoded files belong to the system, which takes them back when it
needs them. The same study on a tiny data set says what the processes need without any data.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from mu.data.loaders import LOADERS
from mu.data.spec import DataSpec, Loader, Raw
from mu.models.architectures import MODELS

CLASSES = 10
SIDE = 128
GIB = 2**30


def pooled(shape: Any, num_classes: int) -> nn.Module:
    """A network that costs next to nothing on images of any size."""
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(shape[0] * 16, num_classes))


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
        while not self.ended.wait(0.1):
            parts = measure()
            if sum(parts.values()) > self.peak:
                self.peak, self.parts = sum(parts.values()), parts


def measure() -> dict[str, float]:
    """Bytes by who holds them: this process, Ray's workers, the rest of Ray, and what they share."""
    parts = dict.fromkeys(("driver", "workers", "Ray", "shared"), 0.0)
    for pid, command in {os.getpid(): "driver", **descendants(os.getpid())}.items():
        name = (
            "workers" if command.startswith("ray::") else command if command == "driver" else "Ray"
        )
        parts[name] += held(pid, "Anonymous")
        parts["shared"] += held(pid, "Pss_Shmem")
    return parts


def descendants(root: int) -> dict[int, str]:
    """Command of every process below one, by id."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            commands[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return {pid: commands.get(pid, "") for pid in found - {root}}
        found |= more


def held(pid: int, kind: str) -> float:
    """Bytes of a kind in a process: `Anonymous` is its own, `Pss_Shmem` its share of shared memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return 1024.0 * sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{kind}:")
    )


def run(count: int, folder: Path) -> tuple[float, dict[str, float]]:
    """Peak bytes of a study on `count` training images."""
    from sweeps.__main__ import main

    study = {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gib", type=float, default=1.0, help="size of the decoded training images"
    )
    options = parser.parse_args()
    MODELS["pooled"] = pooled
    LOADERS["made_up"] = Loader(made_up, ("size",))
    count = int(options.gib * GIB / (3 * SIDE * SIDE))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MUSWEEP_CACHE"] = folder
        made_up(DataSpec("made_up", size=count), Path(folder))
        rows = []
        for images in (200, count):
            began = time.time()
            peak, parts = run(images, Path(folder))
            rows.append((images, peak, parts, time.time() - began))
    data = 1.1 * count * 3 * SIDE * SIDE
    print(
        f"\nPython {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores\n\n"
        "| training images | peak, GiB | driver | workers | rest of Ray | shared memory | s |\n"
        "|---|---|---|---|---|---|---|"
    )
    for images, peak, parts, seconds in rows:
        found = " | ".join(
            f"{parts[name] / GIB:.2f}" for name in ("driver", "workers", "Ray", "shared")
        )
        print(f"| {images} | {peak / GIB:.2f} | {found} | {seconds:.0f} |")
    extra = rows[1][1] - rows[0][1]
    print(
        f"\ndecoded data {data / GIB:.2f} GiB; memory that they take {extra / GIB:.2f} GiB, "
        f"{extra / data:.2f} times as much"
    )


if __name__ == "__main__":
    main()
