"""Run a study while its parts are killed at random, and compare it with an undisturbed run.

From the root of the project: ``PYTHONPATH=.:tests python tests/faults/soak.py FOLDER``.

The study runs on a Ray of a head without CPUs and three nodes, with Optuna in PostgreSQL and an MLflow server. Every few
seconds a worker, a node, the driver, MLflow or PostgreSQL is killed and started again, until all trials are recorded. Then
the same study runs on one machine without disturbance. The script prints what it killed and what differs; it exits with 1
when a trial is lost or there twice, a number differs, a run is missing in MLflow, or the bill is more than 2 % off.

The bill is compared with what Linux shows: ten times a second the script counts the processes that are named after a
call of a job. Between the calls of a job the driver has the word, which the bill counts and Linux does not; so the
undisturbed run is counted as well, and the bills of both runs must be in the same proportion to what was counted.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import studies
from lose_nodes import workers
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster
from servers import (
    LOOPBACK,
    Postgres,
    command_line,
    free_port,
    mlflow_process,
    mlflow_server,
    parents,
    postgres_programs,
)

from sweeps.tracking.mlflow_runs import KEY

BUSY = "ray::ResourceTrainable."
"""How the name of a worker's process begins while it does a job; Tune names the class so, and the method follows."""
NODE = {"num_cpus": 1}
NODES = 3
PAUSE_SECONDS = (8.0, 25.0)
AWAY_SECONDS = 5.0
SAMPLE_SECONDS = 0.1
BILL = 0.02


def soak_study(trials: int) -> dict[str, Any]:
    """Return a study whose draws do not depend on the order in which trials end.

    Its trials take seconds, so that what a loss costs until Ray notices it is a small part of the bill.
    """
    methods = [{"name": name, "fix": {"epochs": 20}} for name in ("finetune", "amnesiac")]
    return studies.tiny(
        study="soak", methods=methods, search__trials=trials, experiments__sufficient={"epochs": 25},
        seeds={"search": [0], "report": [1, 2, 3], "retrain": 3},
    )  # fmt: skip


class Busy:
    """Seconds for which workers do jobs, summed over all of them, as Linux shows it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(SAMPLE_SECONDS):
            count, now = _busy_workers(), time.monotonic()
            self.seconds += count * (now - looked)
            looked = now

    def end(self) -> float:
        """Stop to count; return the seconds."""
        self._ended.set()
        self._thread.join()
        return self.seconds


def _busy_workers() -> int:
    """Count the living workers below this process that do a job; others may run studies beside it."""
    parent_of = parents()
    return sum(command_line(pid).startswith(BUSY) and _below(pid, parent_of) for pid in parent_of)


def _below(pid: int, parent_of: dict[int, int]) -> bool:
    """Return whether this process is an ancestor of another."""
    while pid and pid != os.getpid():
        pid = parent_of.get(pid, 0)
    return pid != 0


class Study:
    """The study on a cluster, with servers of its own; every part can be killed and comes back.

    Args:
        folder: Where the study is, and where its results go.
        draw: Chooses among the workers and nodes.
    """

    def __init__(self, folder: Path, draw: random.Random):
        self.folder, self.draw = folder, draw
        self.postgres = Postgres(postgres_programs()[-1])
        self.optuna = self.postgres.create("optuna")
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.port = free_port()
        self.mlflow = mlflow_process(self.store, folder, self.port)
        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(**NODE) for _ in range(NODES)]
        self.cluster.wait_for_nodes()
        self.driver = self._run()

    def _run(self) -> subprocess.Popen[bytes]:
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sweeps", "run", "study.yaml",
                 "--address", self.cluster.address, "--optuna-storage", self.optuna,
                 "--tracking-uri", f"http://{LOOPBACK}:{self.port}"],
                cwd=self.folder, env=studies.environment(), stdout=log, stderr=log,
            )  # fmt: skip

    def kill_worker(self) -> None:
        """Kill one of the workers, if there is one."""
        found = [pid for node in self.nodes for pid in workers(node)]
        if found:
            os.kill(self.draw.choice(found), signal.SIGKILL)

    def kill_node(self) -> None:
        """Kill a node with all that it runs, and add another."""
        node = self.nodes.pop(self.draw.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(**NODE))

    def kill_driver(self) -> None:
        """Kill the driver; ``go_on`` starts another."""
        self.driver.kill()
        self.driver.wait()

    def kill_mlflow(self) -> None:
        """Kill the MLflow server, and bring it back after a while."""
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.mlflow.wait()
        time.sleep(self.draw.uniform(0, AWAY_SECONDS))
        self.mlflow = mlflow_process(self.store, self.folder, self.port)

    def kill_postgres(self) -> None:
        """End PostgreSQL at once, and bring it back after a while."""
        self.postgres.stop()
        time.sleep(self.draw.uniform(0, AWAY_SECONDS))
        self.postgres.start()

    def go_on(self) -> bool:
        """Start the driver again unless it has ended well. Return whether it runs."""
        code = self.driver.poll()
        if code is not None and code != 0:
            self.driver = self._run()
        return code != 0

    def close(self) -> None:
        """End everything."""
        self.driver.kill()
        self.driver.wait()
        self.cluster.shutdown()
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.mlflow.wait()
        self.postgres.close()


def disturb(study: Study, draw: random.Random, say: Callable[[str], None]) -> Counter[str]:
    """Kill a part every few seconds until the study has ended; return how often which."""
    kills = [study.kill_worker, study.kill_node, study.kill_driver, study.kill_mlflow, study.kill_postgres]  # fmt: skip
    killed: Counter[str] = Counter()
    pause = draw.uniform(*PAUSE_SECONDS)
    last = time.monotonic()
    while study.go_on():
        time.sleep(0.2)
        if time.monotonic() - last > pause and study.driver.poll() is None:
            kill = draw.choice(kills)
            say(kill.__name__.replace("_", " "))
            kill()
            killed[kill.__name__.removeprefix("kill_")] += 1
            pause, last = draw.uniform(*PAUSE_SECONDS), time.monotonic()
    return killed


def compare(folder: Path, plain: Path, store: str, busy: tuple[float, float]) -> list[str]:
    """Return what is wrong with a disturbed run, one line each.

    Args:
        busy: Seconds that Linux counted in the disturbed and in the undisturbed run.
    """
    lines = (folder / "results/soak/trials.jsonl").read_text().splitlines()[1:]
    disturbed = studies.records(folder / "results/soak")
    expected = studies.records(plain / "results/soak")
    wrong = []
    if lost := expected.keys() - disturbed.keys():
        wrong.append(f"{len(lost)} trials are lost")
    if more := disturbed.keys() - expected.keys():
        wrong.append(f"{len(more)} trials are no part of the study")
    if len(lines) != len(disturbed):
        wrong.append(f"{len(lines) - len(disturbed)} trials are there twice")
    one, other = studies.numbers(disturbed), studies.numbers(expected)
    if differ := [key for key in one if one[key] != other.get(key)]:
        wrong.append(f"{len(differ)} trials have other numbers, such as {differ[0]}")
    sent = Counter(_keys_in_mlflow(store))
    if missing := disturbed.keys() - sent.keys():
        wrong.append(f"{len(missing)} runs are missing in MLflow")
    if twice := sum(count > 1 for count in sent.values()):
        wrong.append(f"{twice} runs are in MLflow twice")
    shares = []
    for name, found, seconds in zip(("disturbed", "plain"), (disturbed, expected), busy):
        billed = sum(record.time_total for record in found.values())
        shares.append(billed / seconds)
        print(f"{name}: billed {billed:.1f} s, busy {seconds:.1f} s")
    off = shares[0] / shares[1] - 1
    print(f"the bill of the disturbed run is {off:+.2%} off")
    return [*wrong, "the bill is wrong"] if abs(off) > BILL else wrong


def _musweep(folder: Path, *arguments: str) -> None:
    done = studies.musweep(folder, *arguments)
    assert done.returncode == 0, done.stderr


def _keys_in_mlflow(store: str) -> list[str]:
    client = MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    keys, token = [], None
    while token != "":
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        keys += [run.data.tags[KEY] for run in page if KEY in run.data.tags]
        token = page.token or ""
    return keys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=60, help="of each of four cells")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    disturbed, plain = options.folder.resolve() / "disturbed", options.folder.resolve() / "plain"
    for folder in (disturbed, plain):
        folder.mkdir(parents=True)
        studies.write(folder, soak_study(options.trials))
    study, busy = Study(disturbed, random.Random(options.seed)), Busy()
    try:
        killed = disturb(study, random.Random(options.seed + 1), say)
        seconds = busy.end()
    finally:
        study.close()
    say("ended; killed " + ", ".join(f"{part} {count}" for part, count in sorted(killed.items())))
    with mlflow_server(study.store, disturbed) as address:
        _musweep(disturbed, "sync", "results/soak", "--tracking-uri", address)
    busy = Busy()
    _musweep(plain, "run", "study.yaml")
    say("the undisturbed run has ended")
    wrong = compare(disturbed, plain, study.store, (seconds, busy.end()))
    print(
        "\n".join(wrong)
        or f"all {len(studies.records(plain / 'results/soak'))} trials are there once, with equal numbers"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
