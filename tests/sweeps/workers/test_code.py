"""Workers run the driver's own code, whatever their nodes have; where they cannot, both versions are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import studies

from sweeps.errors import StudyError
from sweeps.state import code
from sweeps.study.resources import Resources
from sweeps.workers import cluster as clusters

CLUSTER = """
import json, os, subprocess, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
environment = {**os.environ, **json.loads(sys.argv[1])}
command = [sys.executable, "-m", "sweeps", "run", "study.yaml", "--address", cluster.address]
try:
    for more in json.loads(sys.argv[2]):
        done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True)
        print(json.dumps([done.returncode, done.stdout + done.stderr]))
finally:
    cluster.shutdown()
"""
"""Runs studies one after the other on a cluster whose nodes have another environment than the drivers."""


def options_of_init(address: str | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray is started or joined with."""
    given: dict[str, Any] = {}

    def init(**options: Any) -> None:
        given.update(options)
        raise RuntimeError("far enough")

    monkeypatch.setattr(clusters.ray, "init", init)
    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: False)  # by another test
    with pytest.raises((RuntimeError, StudyError)), clusters.join(address, Resources()):
        pass
    return given


def test_the_packages_go_to_a_cluster_and_nothing_goes_to_a_ray_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "runtime_env" not in options_of_init(None, monkeypatch)
    sent = options_of_init("10.0.0.1:6379", monkeypatch)["runtime_env"]["py_modules"]
    assert sent == [str(studies.ROOT / name) for name in ("mu", "search_spaces", "sweeps")]


def test_a_job_that_brings_modules_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clusters.JOB_VARIABLE, json.dumps({"runtime_env": {"py_modules": ["a"]}}))
    assert "runtime_env" not in options_of_init("auto", monkeypatch)
    own = {"runtime_env": {"working_dir": "gcs://x.zip", "excludes": ["data"]}}
    monkeypatch.setenv(clusters.JOB_VARIABLE, json.dumps(own))
    sent = options_of_init("auto", monkeypatch)["runtime_env"]
    assert sent.keys() == {"py_modules"}, "Ray refuses a key that both give"


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
def test_nodes_with_other_code_run_the_drivers_and_else_are_refused(tmp_path: Path) -> None:
    old = tmp_path / "old"
    for folder in code.folders():
        shutil.copytree(folder, old / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    with (old / "sweeps/workers/actor.py").open("a") as file:
        file.write("# as it was\n")
    job = {"runtime_env": {"py_modules": [str(old / each.name) for each in code.folders()]}}
    study = studies.tiny(
        methods=[studies.JIT], forget={"three": {"kind": "full_class", "class": 3}}, search__trials=1,
        seeds__report=[1], seeds__retrain=1, experiments={"defaults": False},
    )  # fmt: skip
    studies.write(tmp_path, study)
    drivers = {"PYTHONPATH": studies.environment()["PYTHONPATH"]}
    own_job = {clusters.JOB_VARIABLE: json.dumps(job), "MUSWEEP_RESULTS": str(tmp_path / "second")}
    ended = subprocess.run(
        [sys.executable, "-c", CLUSTER, json.dumps(drivers), json.dumps([{}, own_job])],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(old)},
        capture_output=True, text=True, timeout=studies.LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    (first, shown), (second, said) = map(json.loads, ended.stdout.splitlines())
    assert first == 0, shown
    assert second == 1, said
    (line,) = [line for line in said.splitlines() if line.startswith("musweep: ")]
    assert "workers on " in line and line.count("(source ") == 2
    assert f"the driver runs {code.running()}: all nodes need the same" in line
