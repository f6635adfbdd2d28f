"""The machine under a benchmark: its name, its matrix-multiply peak, and what a process and its descendants use of it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.2
"""How often the processor time of descendants is read. What one uses after its last reading is lost."""


def processor() -> str:
    """Return the number and the name of the processor's cores, and whether AVX-512 is used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    capable = any(line.startswith("flags") and "avx512f" in line for line in lines)
    limited = os.environ.get("DNNL_MAX_CPU_ISA", "").upper().startswith("AVX2")
    return f"{len(names)} x {names[0]}, {'AVX-512' if capable and not limited else 'AVX2'}"


def descendants(root: int) -> dict[int, str]:
    """Return the command of every process below one, by id."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat[1])
    below = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            return {pid: commands[pid] for pid in below - {root} if pid in commands}
        below |= more


def processor_seconds(pid: int) -> tuple[int, float] | None:
    """Return when a process started, in ticks since the boot, and its processor seconds; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(stat[19]), (int(stat[11]) + int(stat[12])) / TICK


class ProcessorTime(threading.Thread):
    """Adds up the processor time of all descendants of this process while it runs, orphans among them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[tuple[int, int], float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        known = {pid for pid, _ in self._seconds}  # a process that lost its parent is no descendant
        for pid in known | set(descendants(os.getpid())):
            read = processor_seconds(pid)
            if read is not None and (pid not in known or (pid, read[0]) in self._seconds):
                self._seconds[pid, read[0]] = read[1]

    def end(self) -> float:
        """Return the seconds."""
        self._sample()
        self._ended.set()
        self.join()
        return sum(self._seconds.values())


def measure(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> tuple[float, float]:
    """Run a command to its end; return the seconds of the clock and of the processor, of all its descendants.

    Args:
        environment: All environment variables of the command.
        log: File for what it prints.

    Raises:
        SystemExit: It failed; the message is the end of what it printed.
    """
    clock, began = ProcessorTime(), time.perf_counter()
    clock.start()
    with log.open("w") as file:
        ended = subprocess.run(
            command, env=dict(environment), stdout=file, stderr=file, check=False
        )
    seconds = time.perf_counter() - began
    spent = clock.end()
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{log.read_text()[-4000:]}")
    return seconds, spent


def least_milliseconds(action: Callable[[], object], seconds: float) -> float:
    """Return the milliseconds of the fastest of the runs that take some seconds together."""
    action()
    took, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(took) < 3:
        began = time.perf_counter()
        action()
        took.append(1e3 * (time.perf_counter() - began))
    return min(took)


def peak_gflops(side: int = 1024, seconds: float = 1.0) -> float:
    """Return the GFLOP/s of a float32 matrix product in this process's threads, its fastest run."""
    import torch

    left, right, product = torch.randn(3, side, side).unbind()
    took = least_milliseconds(lambda: torch.mm(left, right, out=product), seconds)
    return 2e-6 * side**3 / took
