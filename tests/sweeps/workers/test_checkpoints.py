"""Long work is saved between epochs: the loss of a worker, node or driver costs the epochs since then, and changes no numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import studies
from job_source import OneTraining
from lose_nodes import wait_for
from ray.cluster_utils import Cluster
from studies import numbers, records

from sweeps import preflight
from sweeps.plan import Plan
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.store import Store
from sweeps.study import study as study_files
from sweeps.workers import cluster, tuning

METHOD = '''"""slow: finetunes slowly, and may lose its worker once, as long as a file is there.

Paper: none.
"""
import os, signal, time
from pathlib import Path

from mu.snapshot import resumable
from mu.training import make_optimizer, one_pass

NEEDS = ("retain",)
SLOW, LOG, KILLED = Path({slow!r}), Path({log!r}), {killed}


def unlearn(model, split, generator, *, epochs: int = 12):
    """Yields after each epoch."""
    stepper = make_optimizer(model, "sgd", 0.01)
    for epoch in resumable(epochs, generator, model, stepper):
        with LOG.open("a") as log:
            print(os.getpid(), epoch, file=log, flush=True)
        if SLOW.exists():
            if KILLED and epoch == 5 and len({{line.split()[0] for line in LOG.read_text().splitlines()}}) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.8)
        one_pass(model, stepper, split.retain, generator, 64)
        yield
'''
DRIVER = """
import sys
from sweeps.workers import tuning
tuning.SAVE_SECONDS = {"trial": 0.1, "reference": 60}
from sweeps.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def logged(log: Path) -> dict[str, list[int]]:
    """Return the epochs that each process ran."""
    epochs = defaultdict(list)
    for line in log.read_text().splitlines() if log.exists() else []:
        process, epoch = line.split()
        epochs[process].append(int(epoch))
    return dict(epochs)


COMMAND = ("run", "study.yaml", "--methods-path", "own")
NOTICE_SECONDS = 5


def long_study(folder: Path, killed: bool) -> tuple[Path, Path]:
    """Write a study of one long trial; returns the file that makes it slow, and its log."""
    slow, log, own = folder / "slow", folder / "log", folder / "own"
    own.mkdir()
    (own / "slow.py").write_text(METHOD.format(slow=str(slow), log=str(log), killed=killed))
    study = studies.tiny(
        forget={"some": studies.TINY["forget"]["some"]},
        methods=["slow"],
        seeds={"search": [0], "report": [1], "retrain": 1},
        search__trials=1,
        experiments={"defaults": False},
    )
    studies.write(folder, study)
    return slow, log


def outcomes(folder: Path) -> dict[Any, Any]:
    """What came of each trial. Keys are no part of it: the method's code names files, and so is another in each folder."""
    found = records(folder / "results/tiny")
    kept = numbers(found)
    return {(r.phase, r.role, r.method, r.seed, r.number): kept[key] for key, r in found.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of the study when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    long_study(folder, killed=False)
    done = studies.musweep(folder, *COMMAND)
    assert done.returncode == 0, done.stderr
    return outcomes(folder)


@pytest.mark.slow
@pytest.mark.fault
def test_a_long_trial_goes_on_when_its_worker_and_its_driver_are_lost(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    slow, log = long_study(tmp_path, killed=True)
    slow.touch()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *COMMAND], cwd=tmp_path, env=studies.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: any(ran[-1] >= 9 for ran in logged(log).values()), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert list((tmp_path / "storage" / "running").rglob("*.npz"))

    slow.unlink()
    done = studies.musweep(tmp_path, *COMMAND)
    assert done.returncode == 0, done.stderr
    first, second, third, *_ = logged(log).values()
    third = third[: 12 - third[0]]  # what follows is another trial, on the same actor
    assert first == [0, 1, 2, 3, 4, 5]
    assert second[0] in range(1, 6), "it went on behind an epoch that was saved"
    assert third[0] in range(second[0] + 1, 10)
    assert (second, third) == (
        list(range(second[0], second[-1] + 1)),
        list(range(third[0], 12)),
    )
    found = records(tmp_path / "results/tiny")
    assert outcomes(tmp_path) == undisturbed
    (searched,) = [r for r in found.values() if r.phase == "search"]
    assert [point["epoch"] for point in searched.curve] == list(range(13))
    assert searched.time_unlearn > 0.8 * third[0], "what lost processes did is billed once"
    assert not list((tmp_path / "storage").rglob("running/*/*.npz"))


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head that takes no trials."""
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield head
    finally:
        ray.shutdown()
        head.shutdown()


@pytest.mark.slow
@pytest.mark.fault
def test_a_trial_is_saved_between_sigterm_and_the_end_of_its_node(
    tmp_path: Path, nodes: Cluster, undisturbed: dict[str, Any]
) -> None:
    slow, log = long_study(tmp_path, killed=False)
    slow.touch()
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={nodes.address}"]
    node = subprocess.Popen(
        [*start, "--num-cpus=1", "--block"], start_new_session=True,
        env={**studies.environment(), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE_SECONDS)},
    )  # fmt: skip
    driver = subprocess.Popen(
        [sys.executable, "-m", "sweeps", *COMMAND, "--address", nodes.address],
        cwd=tmp_path, env=studies.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(lambda: any(ran[-1] >= 2 for ran in logged(log).values()), driver)
        ((first, before),) = logged(log).items()
        node.send_signal(signal.SIGTERM)
        nodes.add_node(num_cpus=1)
        wait_for(lambda: len(logged(log)) > 1, driver)
        slow.unlink()
        shown, _ = driver.communicate(timeout=studies.LIMIT_SECONDS)
        assert driver.returncode == 0, shown
        assert node.wait(timeout=300) == 1
    finally:
        driver.kill()
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
    ran = logged(log)
    second = next(ran[process] for process in ran if process != first)
    second = second[: 12 - second[0]]  # what follows is another trial, on the same actor
    assert ran[first] == list(range(ran[first][-1] + 1))
    assert ran[first][-1] > before[-1] + 2, "it used the time that was left"
    assert second == list(range(second[0], 12))
    assert second[0] > before[-1], "what was done before the notice was saved"
    assert outcomes(tmp_path) == undisturbed


class Saved(Exception):
    pass


@pytest.mark.slow
@pytest.mark.fault
def test_a_training_is_saved_when_its_node_is_drained(nodes: Cluster) -> None:
    wanted = study_files.parse(studies.tiny(training__epochs=100_000), "study.yaml")
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    node = nodes.add_node(num_cpus=1)
    drain = [
        *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
        *("--address", nodes.address, "--node-id", node.node_id),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "notice"),
    ]
    drained = threading.Event()

    def notice() -> None:
        drained.set()
        subprocess.run(drain, env=studies.environment(), check=True, timeout=300)

    def saved(arrays: Any) -> None:
        assert arrays["method"].size
        raise Saved

    with cluster.join(nodes.address, wanted.resources) as joined:
        timer = threading.Timer(5, notice)
        timer.start()
        with pytest.raises(Saved):
            tuning.Workers(plan, joined).run(
                OneTraining(plan.problem("some", 1), saved), plan.problems
            )
        timer.join()
    assert drained.is_set(), "it is not saved before a minute has passed, unless there is notice"


def test_checkpoints_are_found_by_the_next_run_until_they_are_dropped(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    assert store.get("ab") is None
    for state in range(3):
        store.put("ab", {"state": np.array(state)})
    store.put("cd", {"state": np.array(9)})
    store.drop("cd")
    store.close()
    later = CheckpointStore(str(tmp_path))
    arrays = later.get("ab")
    assert arrays is not None and arrays["state"] == 2
    assert later.get("cd") is None
    later.drop("ab")
    later.drop("never there")
    later.close()
    assert Store(str(tmp_path / "running")).keys() == set()


def test_a_checkpoint_that_cannot_be_written_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(str(tmp_path))
    (tmp_path / "running").write_text("in the way")
    store.put("ab", {"state": np.array(1)})
    store.close()
    assert "a checkpoint of running work cannot be saved" in caplog.text


def test_nothing_waits_for_a_slow_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, go, written = CheckpointStore(str(tmp_path)), threading.Event(), []

    def put(key: str, arrays: dict[str, np.ndarray]) -> None:
        go.wait(30)
        written.append(int(arrays["state"]))

    monkeypatch.setattr(store.store, "put", put)
    for state in range(50):
        store.put("ab", {"state": np.array(state)})
    go.set()
    store.close()
    assert len(written) <= 2, "only the newest is worth writing"
    assert written[-1] == 49
