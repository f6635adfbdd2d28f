"""Run the tiny study on a Ray cluster that loses nodes and workers: ``python tests/lose_nodes.py FOLDER``.

The cluster has a head without CPUs and two nodes with a GPU each. A node is killed while references are trained, then a
worker and another node during the search; a new node replaces each. The script prints what it did, and exits as the
study does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import studies
from ray.cluster_utils import Cluster
from servers import command_line, parents

NODE = {"num_cpus": 1, "num_gpus": 1, "resources": {"place": 2}}
"""A node with a GPU that is only declared: work there finds no GPU, and stays on the CPU."""


def wait_for(ready: Callable[[], Any], driver: subprocess.Popen[str]) -> Any:
    """Call `ready` until it returns something that is true, and return that."""
    deadline = time.monotonic() + studies.LIMIT_SECONDS
    while not (value := ready()):
        assert driver.poll() is None, f"the study ended too early: {driver.communicate()[0]}"
        assert time.monotonic() < deadline, f"nothing came of {ready}"
        time.sleep(0.02)
    return value


ACTORS = ("ray::StudyActor", "ray::ResourceTrainable")
"""Names of processes that work for a study: Tune names some after the class that it makes of the actor."""


def workers(node: Any) -> list[int]:
    """Return the processes of a node that work for a study."""
    raylet = node.all_processes["raylet"][0].process.pid
    return [
        pid
        for pid, parent in parents().items()
        if parent == raylet and command_line(pid).startswith(ACTORS)
    ]


def main(folder: Path) -> int:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    first, second = cluster.add_node(**NODE), cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    driver = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "run", "study.yaml", "--address", cluster.address],
        cwd=folder, env=studies.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    trials = folder / "results/tiny/trials.jsonl"

    def searched(count: int) -> bool:
        return trials.exists() and trials.read_text().count('"phase":"search"') >= count

    try:
        wait_for(lambda: workers(first), driver)
        cluster.remove_node(first, allow_graceful=False)
        print("killed a node that trained a reference", flush=True)
        first = cluster.add_node(**NODE)
        wait_for(lambda: searched(2), driver)
        pids = wait_for(lambda: workers(second), driver)
        os.kill(pids[0], signal.SIGKILL)
        print("killed a worker of the search", flush=True)
        wait_for(lambda: searched(4), driver)
        cluster.remove_node(second, allow_graceful=False)
        print("killed a node of the search", flush=True)
        cluster.add_node(**NODE)
        shown, _ = driver.communicate(timeout=studies.LIMIT_SECONDS)
        print(shown[-3000:])
        return driver.returncode
    finally:
        driver.kill()
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
