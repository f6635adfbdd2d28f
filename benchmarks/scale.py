"""What a trial costs beside its own work: ``python benchmarks/scale.py [--trials N] [--seconds S] [--nodes N] [--save]``.

A whole study runs through Ray Tune, Optuna, the results file and MLflow, with trials that do nothing but hand back
made-up numbers (or sleep). Everything else is what a real sweep does: 40 cells on the digits, references trained,
knobs asked and told, records fsynced, MLflow written by its process. Printed are milliseconds by the clock for
each trial, early and late in the search, where the driver spent them, and the driver's memory; on simulated nodes
also which of them trials ran on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import ray
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import processor
from mu import record as records
from mu.keys import derive_seed
from mu.metrics import METRICS
from sweeps import __main__ as command_line
from sweeps import launch
from sweeps.search.cells import Cells
from sweeps.state.results import Results
from sweeps.tracking.mlflow import Tracking
from sweeps.tracking.progress import Progress
from sweeps.workers import actor, tuning

METHODS = ("finetune", "ga", "ssd", "ugradsl")
EPOCHS = 5
NAMES = [name for name, metric in METRICS.items() if metric.when == "trial"]
PARTS: dict[str, tuple[Any, str]] = {
    "asking Optuna": (Cells, "next"),
    "telling Optuna": (Cells, "ended"),
    "writing the record": (Results, "append"),
    "progress": (Progress, "ended"),
    "MLflow, waited for at the end": (Tracking, "close"),
}


class NoWork(actor.StudyActor):
    """A trial that ends at once, or after a while, with numbers that follow from its knobs."""

    seconds = 0.0
    nodes: Path | None = None

    def step(self) -> dict[str, Any]:
        if self.job.work != "trial":
            return super().step()
        if self.nodes is not None:
            with (self.nodes / ray.get_runtime_context().get_node_id()).open("a") as file:
                print(time.time(), file=file)
        if self.seconds:
            time.sleep(self.seconds)
        draws = np.random.default_rng(derive_seed("benchmark", self.job.key))
        values = dict(zip(NAMES, draws.uniform(0, 1, len(NAMES)).tolist()))
        outcome = self.running.result
        outcome.curve = [
            {"epoch": epoch, "seconds": 0.1 * epoch, "acc_forget": 1.0, "avg_gap_natmu": 0.1}
            for epoch in range(EPOCHS + 1)
        ]
        outcome.metrics = {view: dict(values) for view in self.job.views}
        outcome.time_unlearn = 1.0
        return self._report(done=True)


def study(trials: int, concurrent: int | None, by_node: bool) -> dict[str, Any]:
    """40 cells: every digit as a forget request, four methods; `by_node` asks for what few nodes declare."""
    places = {"custom": {"trials": 1}, "references": {"custom": {"references": 1}}}
    return {
        "study": "scale",
        "data": "digits",
        "training": {"epochs": 1, "batch_size": 64},
        "forget": {f"digit{n}": {"kind": "full_class", "class": str(n)} for n in range(10)},
        "methods": list(METHODS),
        "seeds": {"search": [0], "report": [1], "retrain": 1},
        "search": {"trials": trials},
        "experiments": {"defaults": False},
        "metrics": {"costly": []},
        "resources": {"cpus": 1, "concurrent": concurrent, **(places if by_node else {})},
    }


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up the time in the parts of a driver."""

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.perf_counter() - began

        return run

    plain = {name: getattr(owner, method) for name, (owner, method) in PARTS.items()}
    for name, (owner, method) in PARTS.items():
        setattr(owner, method, wrap(name, plain[name]))
    try:
        yield
    finally:
        for name, (owner, method) in PARTS.items():
            setattr(owner, method, plain[name])


def windows(ended: list[float]) -> list[tuple[int, float]]:
    """Trials so far and milliseconds for each of the last ones, for growing numbers of trials."""
    marks = [n for n in (100, 300, 1000, 3000, 10_000, 30_000) if n < len(ended)] + [len(ended)]
    found = []
    for before, at in zip([1, *marks], marks):
        count = min(at - before, max(100, at // 5))
        found.append((at, 1000 * (ended[at - 1] - ended[at - 1 - count]) / count))
    return found


@contextmanager
def simulated(count: int) -> Iterator[str]:
    """The address of a cluster of nodes of one CPU on this machine; one in six of them takes trials."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_enable_worker_prestart"] = "0"  # noqa: SIM112 (an idle process on every node)
    each = {"num_cpus": 1, "object_store_memory": 78 * 2**20}
    began = time.monotonic()
    cluster = Cluster(
        initialize_head=True, head_node_args={**each, "resources": {"references": 1.0}}
    )
    try:
        for number in range(1, count):
            declared = {"trials": 1.0} if number % 6 == 0 else {}
            cluster.add_node(wait=False, resources=declared, **each)
        cluster.wait_for_nodes(timeout=600)
        print(f"{count} nodes after {time.monotonic() - began:.0f} s", flush=True)
        yield cluster.address
    finally:
        cluster.shutdown()


def placed(nodes: Path) -> str:
    """Which nodes trials ran on."""
    times = {file.name: [float(line) for line in file.open()] for file in nodes.iterdir()}
    began = sorted(found[0] for found in times.values())
    most, least = max(map(len, times.values())), min(map(len, times.values()))
    return (
        f"trials on {len(times)} nodes, {least} to {most} on each; all of them in use "
        f"{began[-1] - began[0]:.1f} s after the first"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=250, help="search trials of each of 40 cells")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a trial sleeps")
    parser.add_argument("--without-mlflow", action="store_true", help="for comparison")
    parser.add_argument("--concurrent", type=int, help="most trials at once; as many as fit")
    parser.add_argument(
        "--nodes", type=int, default=0, help="simulated nodes, one in six for trials"
    )
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    NoWork.seconds = given.seconds
    tuning.StudyActor = NoWork  # type: ignore[misc]
    if given.without_mlflow:
        Tracking.put = lambda self, record: None  # type: ignore[method-assign]
    spent: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = []
        if given.nodes:
            NoWork.nodes = scratch / "nodes"
            NoWork.nodes.mkdir()
            address = ["--address", stack.enter_context(simulated(given.nodes))]
        file = scratch / "scale.yaml"
        file.write_text(yaml.safe_dump(study(given.trials, given.concurrent, given.nodes > 0)))
        places = ["--storage", str(scratch / "models"), "--results", str(scratch / "results")]
        stack.enter_context(timed(spent))
        memory = stack.enter_context(remembered())
        began, worked = time.perf_counter(), time.process_time()
        code = command_line.main(["run", str(file), *places, *address])
        total, worked = time.perf_counter() - began, time.process_time() - worked
        memory.append(_peak())
        if code:
            raise SystemExit(code)
        folder = scratch / "results" / "scale"
        summary = json.loads((folder / "summary.json").read_text())
        found = [r for r in records.read(folder / "trials.jsonl")[1] if r.phase == "search"]
        ended, began_search = [r.ended for r in found], min(r.started for r in found)
        began = time.perf_counter()
        command_line.main(["status", str(folder)])
        status = time.perf_counter() - began
        began = time.perf_counter()
        command_line.main(["report", str(folder)])
        report = time.perf_counter() - began
        where = placed(NoWork.nodes) if NoWork.nodes is not None else ""
    search = max(ended) - began_search
    show(sorted(ended), search, worked, spent, given.seconds, summary["slots"])
    if where:
        print(where)
    print(f"efficiency {summary['efficiency']:.3f}")
    print(f"status {status:.2f} s, report {report:.1f} s, whole command {total:.1f} s")
    running, reported = (f"{peak:.2f} GiB" for peak in memory)
    print(f"driver memory at most {running} while trials run, {reported} with the report")
    if given.save and not given.seconds and not given.nodes:
        save(len(ended), search, running, reported, status)


def save(trials: int, search: float, running: str, reported: str, status: float) -> None:
    """Put the figures of a whole study into the table."""
    of = f"of {trials:,} trials without work"
    measured = [
        Figure("scale", f"a trial {of}", f"{1000 * search / trials:.1f} ms", target="at most 20"),
        Figure("scale", f"driver memory {of}", running, target="at most 1.3"),
        Figure("scale", f"driver memory {of}, report included", reported, target="at most 1.3"),
        Figure("scale", f"status {of}", f"{status:.2f} s", target="at most 2"),
    ]
    figures.save(measured, processor())


@contextmanager
def remembered() -> Iterator[list[float]]:
    """Yield a list that gets the most memory of this process before the report of the run."""
    memory: list[float] = []
    report = launch._report

    def remember_first(*given: Any) -> Any:
        memory.append(_peak())
        return report(*given)

    launch._report = remember_first
    try:
        yield memory
    finally:
        launch._report = report


def _peak() -> float:
    """The most memory that this process has had so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def show(
    ended: list[float],
    search: float,
    worked: float,
    spent: dict[str, float],
    asleep: float,
    slots: int,
) -> None:
    """Print what a trial cost.

    Args:
        ended: When each search trial ended, in order.
        search, worked: Seconds of the search by the clock, and of the driver's processor.
        spent: Seconds in each part of the driver.
        asleep: Seconds that each trial slept.
    """
    versions = f"Ray {ray.__version__}, Optuna {optuna.__version__}, MLflow {mlflow.__version__}"
    print(f"\n{len(ended):,} search trials in 40 cells, {slots} slots, {versions}")
    print(f"Python {platform.python_version()}; trials of {asleep:g} s\n")
    print(f"search {search:.1f} s: {1000 * search / len(ended):.2f} ms a trial by the clock")
    for count, each in windows(ended):
        print(f"  {each:7.2f} ms a trial up to trial {count:,}")
    for name, seconds in spent.items():
        print(f"  {1000 * seconds / len(ended):7.2f} ms a trial {name}")
    print(
        f"  {1000 * worked / len(ended):7.2f} ms a trial of the processor, in the driver, report included"
    )


if __name__ == "__main__":
    main()
