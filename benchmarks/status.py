"""How long ``musweep status`` of a large study takes: ``python benchmarks/status.py results/demo [--records N] [--save]``.

The trials of a study that has run are copied, with keys and numbers of their own, until there are so many; phases keep their shares. Printed
is the whole command, from the start of its process to its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import processor
from mu import record as records


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="put the figure into results.csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trials.jsonl"
        records.write(file, copies(given.study / "trials.jsonl", given.records))
        size = file.stat().st_size / given.records
        seconds = sorted(timed(Path(scratch)) for _ in range(given.repeat))
    middle = seconds[len(seconds) // 2]
    print(f"{given.records:,} records of {size / 1000:.1f} KB: {middle:.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})")  # fmt: skip
    if given.save:
        name = f"status of {given.records:,} records of {size / 1000:.1f} KB"
        figures.save([Figure("status", name, f"{middle:.2f} s", target="at most 2")], processor())


def copies(path: Path, wanted: int) -> Iterator[str]:
    """Yield the lines of a study with so many trials: references once, the others again and again."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    study = next(line for line in reversed(lines) if line["kind"] == "study")
    trials = [line for line in lines if line["kind"] == "trial"]
    step = 1 + max((t["number"] for t in trials if t["number"] is not None), default=0)
    for method in study["methods"].values():
        method["trials"] = wanted * step
    yield json.dumps(study, separators=(",", ":"))
    for round_ in range(wanted):
        for position, trial in enumerate(trials):
            if round_ and trial["phase"] == "reference":
                continue
            if not wanted:
                return
            wanted -= 1
            yield json.dumps(another(trial, round_, step, position), separators=(",", ":"))


def another(trial: dict[str, Any], round_: int, step: int, position: int) -> dict[str, Any]:
    """Return a trial under another key and number; in the first round as it is."""
    if not round_:
        return trial
    number = None if trial["number"] is None else trial["number"] + round_ * step
    return {**trial, "key": f"{round_}/{position}", "number": number}


def timed(folder: Path) -> float:
    """Return the seconds that the command takes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "sweeps", "status", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
