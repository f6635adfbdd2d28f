"""Work is saved when its node is about to be taken away, and goes on elsewhere behind the epoch it was at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import studies
from lose_nodes import wait_for
from ray.cluster_utils import Cluster
from studies import numbers, records
from test_drafts import METHOD, logged

from sweeps import cluster, problems, study
from sweeps.plan import Plan
from sweeps.store import Drafts
from sweeps.training import Trainers

pytestmark = pytest.mark.slow

NOTICE_SECONDS = 5


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head that takes no trials."""
    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_a_trial_is_saved_between_sigterm_and_the_end_of_its_node(
    tmp_path: Path, nodes: Cluster
) -> None:
    slow, log, own = tmp_path / "slow", tmp_path / "log", tmp_path / "own"
    own.mkdir()
    (own / "slow.py").write_text(METHOD.format(slow=str(slow), log=str(log), killed=False))
    wanted = studies.tiny(
        forget={"some": studies.TINY["forget"]["some"]},
        methods=["slow"],
        seeds={"search": [0], "report": [1]},
        search__trials=1,
        experiments={"defaults": False},
    )
    studies.write(tmp_path, wanted)
    command = ["run", "study.yaml", "--methods-path", "own"]
    undisturbed = studies.musweep(tmp_path, *command, "--results", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr

    slow.touch()
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={nodes.address}"]
    node = subprocess.Popen(
        [*start, "--num-cpus=1", "--block"], start_new_session=True,
        env={**studies.environment(), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE_SECONDS)},
    )  # fmt: skip
    driver = subprocess.Popen(
        [sys.executable, "-m", "sweeps", *command, "--address", nodes.address],
        cwd=tmp_path, env=studies.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(lambda: any(ran[-1] >= 2 for ran in logged(log).values()), driver)
        ((first, before),) = logged(log).items()
        node.send_signal(signal.SIGTERM)
        nodes.add_node(num_cpus=1)
        shown, _ = driver.communicate(timeout=200)
        assert driver.returncode == 0, shown
        assert node.wait(timeout=60) == 1
    finally:
        driver.kill()
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
    ran = logged(log)
    second = next(ran[process] for process in ran if process != first)
    assert ran[first] == list(range(ran[first][-1] + 1))
    assert ran[first][-1] > before[-1] + 2, "it used the time that was left"
    assert second == list(range(second[0], 12))
    assert second[0] > before[-1], "what was done before the notice was saved"
    assert numbers(records(tmp_path / "results/tiny")) == numbers(
        records(tmp_path / "undisturbed/tiny")
    )


class Saved(Exception):
    pass


class Noticing(Drafts):
    """Drafts that end the test when a training is saved."""

    def put(self, key: str, arrays: Any) -> None:
        super().put(key, arrays)
        raise Saved


def test_a_training_is_saved_when_its_node_is_drained(tmp_path: Path, nodes: Cluster) -> None:
    wanted = study.parse(studies.tiny(training__epochs=100_000), "study.yaml")
    plan = Plan(wanted, problems.load_data(wanted, "study.yaml"))
    problem = plan.problem("some", 1)
    key = problem.reference_key("retrain")
    node = nodes.add_node(num_cpus=1)
    drafts = Noticing(str(tmp_path))
    drain = [
        *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
        *("--address", nodes.address, "--node-id", node.node_id),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "notice"),
    ]
    drained = threading.Event()

    def notice() -> None:
        drained.set()
        subprocess.run(drain, env=studies.environment(), check=True, timeout=60)

    with cluster.join(nodes.address, wanted.resources):
        steps = Trainers(plan).train({key: (problem, "retrain")}, drafts)
        timer = threading.Timer(5, notice)
        timer.start()
        with pytest.raises(Saved):
            next(steps)
        timer.join()
        drafts.close()
    assert drained.is_set(), "it is not saved before a minute has passed, unless there is notice"
    assert drafts.store.keys() == {key}
