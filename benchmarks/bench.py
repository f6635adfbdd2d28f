"""All benchmarks in short, and the table of their figures: ``python benchmarks/bench.py [--cifar ZIP] [NAME ...]``, or ``make bench``.

Each runs in a process of its own, and its figures replace those of the same name in ``results.csv``. One that fails does not keep the others from
running; then this ends with 1. What is not listed here takes longer (``search.py``, ``early_stop.py``) or a GPU (``gpu.py``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures

SHORT = {
    "attacks": ("attacks", "--repeats", "10"),
    "packing": ("packing",),
    "report": ("report", "--repeat", "1"),
    "peers": ("peers",),
    "sweep": ("memory", "sweep"),
    "memory": ("memory", "data", "--gib", "0.5"),
    "scale": ("scale", "--trials", "25"),
}
"""Name to script and arguments."""
WITH_CIFAR = ("peers",)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHORT)}; else all")
    parser.add_argument("--cifar", help="CIFAR-10 as image folders or .zip, for what can use it")
    given = parser.parse_args()
    if unknown := set(given.names) - set(SHORT):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SHORT)}")
    failed = []
    for name in given.names or SHORT:
        script, *arguments = SHORT[name]
        if given.cifar and name in WITH_CIFAR:
            arguments += ["--cifar", given.cifar]
        began = time.monotonic()
        print(f"== {name}", flush=True)
        file = Path(__file__).with_name(f"{script}.py")
        ended = subprocess.run([sys.executable, str(file), *arguments, "--save"], check=False)
        print(f"== {name}: {time.monotonic() - began:.0f} s\n", flush=True)
        if ended.returncode:
            failed.append(name)
    print(figures.table(figures.read()))
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
