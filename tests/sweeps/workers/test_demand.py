"""A study asks the autoscaler for room for what is left, and takes the request back at its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import studies
from job_source import Source, TwoSlots, report
from ray.util import get_node_ip_address
from servers import free_port

from sweeps.workers import demand
from sweeps.workers.demand import Demand
from sweeps.workers.job_searcher import JobSearcher


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves on."""
    now = [0.0]
    monkeypatch.setattr(demand.time, "monotonic", lambda: now[0])
    return now


def test_it_asks_for_what_is_left_and_not_more_often_than_it_should(clock: list[float]) -> None:
    asked: list[Any] = []
    one = Demand({"CPU": 2.0}, None, asked.append)
    for left, seconds in ((3, 0.0), (2, 1.0), (2, 6.0), (2, 12.0), (0, 18.0)):
        clock[0] = seconds
        one.update(left)
    assert asked == [[{"CPU": 2.0}] * 3, [{"CPU": 2.0}] * 2, []]
    one.close()
    assert len(asked) == 3, "there is nothing to take back"


def test_it_asks_for_no_more_than_may_run_at_once_and_takes_it_back(clock: list[float]) -> None:
    asked: list[Any] = []
    one = Demand({"GPU": 0.5}, 4, asked.append)
    one.update(100_000)
    one.close()
    assert [len(bundles) for bundles in asked] == [4, 0]
    endless = Demand({"GPU": 0.5}, None, asked.append)
    endless.update(100_000)
    assert len(asked[-1]) == demand.MOST


def test_a_searcher_says_what_runs_and_is_left(source: Source) -> None:
    room = TwoSlots()
    searcher = JobSearcher(source, room, None)
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.suggest("c")
    assert room.known_left == 3
    report(searcher, "a")
    report(searcher, "b")
    searcher.suggest("c")
    searcher.suggest("d")
    assert room.known_left == 1


AUTOSCALED: dict[str, Any] = {
    "cluster_name": "made-up",
    "max_workers": 3,
    "upscaling_speed": 10,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3},
    },
    "auth": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "initialization_commands": [],
    **{f"{node}_setup_commands": [] for node in ("head", "worker")},
    **{f"{node}_start_ray_commands": [] for node in ("head", "worker")},
    "setup_commands": [],
}
"""A cluster file: nodes of one CPU, three at most, which Ray's own provider for tests starts on this machine."""


NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
"""Without it, `ray start` demands the token of a machine where somebody has made one."""


@pytest.fixture
def autoscaled(tmp_path: Path) -> Iterator[str]:
    """The address of a head without CPUs that has an autoscaler."""
    port, file = free_port(), tmp_path / "autoscaling.json"
    provider = {**AUTOSCALED["provider"], "gcs_address": f"{get_node_ip_address()}:{port}"}
    file.write_text(json.dumps({**AUTOSCALED, "provider": provider}))
    settings = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", **NO_TOKEN}
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = [f"--port={port}", f"--autoscaling-config={file}", "--include-dashboard=false"]
    head = subprocess.Popen(
        [*start, *options, "--num-cpus=0", "--disable-usage-stats"],
        env={**studies.environment(), **settings}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


WATCH = """
import sys, time
import ray
while True:
    try:
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
        break
    except ConnectionError:
        time.sleep(0.5)
before = None
while True:
    count = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    if count != before:
        print(count, flush=True)
    before = count
    time.sleep(0.2)
"""


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.soak
def test_a_cluster_grows_for_what_is_left_and_shrinks_after(
    autoscaled: str, tmp_path: Path
) -> None:
    """The search of two cells asks for little more than fits; the nodes that are there at most are all it may have."""
    studies.write(tmp_path, studies.tiny(search__trials=8))
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, autoscaled], env={**studies.environment(), **NO_TOKEN}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert watch.stdout is not None
    counts = [int(watch.stdout.readline())]
    reader = threading.Thread(target=lambda: counts.extend(map(int, watch.stdout or ())))
    reader.start()
    try:
        command = ("run", "study.yaml", "--address", autoscaled)
        done = studies.musweep(tmp_path, *command, environment=NO_TOKEN)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + studies.LIMIT_SECONDS
        while counts[-1] and time.monotonic() < deadline:
            time.sleep(0.5)
    finally:
        watch.kill()
        reader.join()
    assert counts[0] == 0, "nobody had asked for anything"
    assert max(counts) == 3
    assert counts[-1] == 0, "the request was taken back"
