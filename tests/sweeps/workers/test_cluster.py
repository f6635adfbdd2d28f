"""Slots and loopback; cluster files that Ray accepts and that keep their promises; what `ray submit`'s file hands on."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import studies
import yaml
from ray._private import ray_constants
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import drain_node
from servers import LOOPBACK, free_port

from sweeps.__main__ import main
from sweeps.errors import SweepError
from sweeps.study.resources import Resources, Slot
from sweeps.submit import arguments
from sweeps.workers import cluster as clusters
from sweeps.workers.cluster import loopback_only
from sweeps.workers.slots import fit, ray_resources

FILES = ("cluster.yaml", "cluster.local.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((studies.ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_file_fits_rays_own_schema(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_cluster_file_would_be_found(name: str) -> None:
    wrong = read(name)
    wrong["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(wrong))


def test_workers_have_gpus_and_the_head_runs_no_trials_and_is_never_spot() -> None:
    types = read("cluster.yaml")["available_node_types"]
    head = types.pop(read("cluster.yaml")["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(
        kind["resources"]["GPU"] >= 1 and kind["min_workers"] == 0 for kind in types.values()
    )


def launched(gpus: int, available: dict[str, float]) -> dict[str, int]:
    """What Ray's autoscaler starts for so many tasks of a GPU each, by its own scheduler."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

    config = AutoscalingConfig(read("cluster.yaml"), skip_content_hash=True)
    wanted = ResourceRequestByCount(
        request=ResourceRequestUtil.make({"CPU": 1, "GPU": 1}), count=gpus
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=[wanted],
            recoverable_resource_availabilities=available,
        )
    )
    return {
        each.instance_type: each.count for each in reply.to_launch if each.instance_type != "head"
    }


def test_spot_is_tried_first_and_on_demand_is_what_it_falls_back_to() -> None:
    assert launched(3, {}) == {"gpu_spot": 3}
    assert launched(3, {"gpu_spot": 0.0}) == {"gpu_on_demand": 3}


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_a_cluster_is_open_to_everyone(name: str) -> None:
    cluster = read(name)
    commands = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in commands
    assert "0.0.0.0" not in commands + " ".join(cluster["worker_start_ray_commands"])
    assert "musweep ui" in commands and "--host" not in commands.partition("musweep ui")[2]
    assert any(path.endswith(".ray/auth_token") for path in cluster["file_mounts"])
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"])


@pytest.mark.parametrize("name", FILES)
def test_every_command_of_a_cluster_is_one_that_bash_can_parse(name: str) -> None:
    cluster = read(name)
    for kind in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in cluster[kind]:
            checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_profile_of_a_node_names_variables_that_the_command_line_reads(
    name: str, tmp_path: Path
) -> None:
    """The setup's own command, run in an empty home."""
    (tmp_path / ".musweep").mkdir()
    for command in read(name)["setup_commands"][-2:]:
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path)}, check=True)
    profile = (tmp_path / ".musweep/profile").read_text()
    commands = studies.ROOT / "sweeps/commands"
    source = "".join((commands / name).read_text() for name in ("run.py", "common.py"))
    for variable in ("MUSWEEP_RESULTS", "MUSWEEP_STORAGE", "MLFLOW_TRACKING_URI"):
        assert f"{variable}=" in profile and f'"{variable}"' in source
    assert ". ~/.musweep/profile" in (tmp_path / ".bashrc").read_text()


def test_the_rayjob_runs_the_locked_ray_with_gpus_and_keeps_its_state_outside_its_pods() -> None:
    path = studies.ROOT / "docs/cluster/rayjob.yaml"
    job, claim = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["entrypoint"].startswith("musweep run ")
    cluster = job["spec"]["rayClusterSpec"]
    lock = (studies.ROOT / "requirements.lock").read_text()
    assert f"\nray=={cluster['rayVersion']}\n" in lock
    assert f"ray:{cluster['rayVersion']}-" in (path.parent / "Dockerfile").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (container,) = head["template"]["spec"]["containers"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    state = {each["name"]: each["value"] for each in container["env"]}
    volumes = {each["name"]: each for each in head["template"]["spec"]["volumes"]}
    results = volumes[mounts[state["MUSWEEP_RESULTS"]]]
    assert results["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "://" in state["MUSWEEP_STORAGE"] and ":" not in state["MUSWEEP_OPTUNA_STORAGE"][13:]
    (workers,) = cluster["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1" and workers["minReplicas"] == 0


def test_submit_joins_the_running_cluster_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert arguments(["--", "run", "x.yaml"]) == ["run", "x.yaml", "--address", "auto"]
    assert arguments(["run", "x.yaml", "--address=1.2.3.4:6379"])[-1] == "--address=1.2.3.4:6379"
    assert arguments(["report", "results/x"]) == ["report", "results/x"]
    monkeypatch.setenv("RAY_ADDRESS", "1.2.3.4:6379")
    assert arguments(["run", "x.yaml"]) == ["run", "x.yaml"]


def test_the_locked_versions_cover_what_a_cluster_needs() -> None:
    """Nodes install the lock alone: S3 and PostgreSQL must be in it."""
    extra = re.search(r"^cluster = \[(.*?)\] ", (studies.ROOT / "pyproject.toml").read_text(), re.M)
    assert extra is not None
    lock = (studies.ROOT / "requirements.lock").read_text()
    for name in re.findall(r'"([a-z0-9]+)', extra[1]):
        assert f"\n{name}==" in lock


def test_status_from_a_cluster_that_is_not_there_is_one_clear_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"http://{LOOPBACK}:{free_port()}"
    assert main(["status", "results/x", "--address", address]) == 2
    shown = capsys.readouterr().err
    assert f"--address {address}: no job can be sent there" in shown
    assert "Traceback" not in shown


class _Metadata(http.server.BaseHTTPRequestHandler):
    """What a spot instance is told of itself: nothing, until the third time it asks."""

    asked = 0

    def do_PUT(self) -> None:
        self._answer(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400, b"mine")

    def do_GET(self) -> None:
        type(self).asked += self.headers["X-aws-ec2-metadata-token"] == "mine"
        notice = self.path == "/latest/meta-data/spot/instance-action" and self.asked > 2
        self._answer(200 if notice else 404, b'{"action": "terminate"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if status == 200 else b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_spot_instance_drains_its_node_when_it_gets_notice(tmp_path: Path) -> None:
    """The command of a worker, with another address for the instance's metadata."""
    (tmp_path / "ray").write_text('#!/bin/sh\necho "$@" >> "$HOME/called"\n')
    (tmp_path / "ray").chmod(0o755)
    server = http.server.HTTPServer((LOOPBACK, 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = read("cluster.yaml")["worker_start_ray_commands"][-1]
    for theirs, ours in (
        ("http://169.254.169.254", f"http://{LOOPBACK}:{server.server_port}"),
        ("sleep 5", "sleep 0.1"),
    ):
        assert theirs in command
        command = command.replace(theirs, ours)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RAY_HEAD_IP": "10.0.0.1",
    }
    called = tmp_path / "called"
    try:
        subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=300)
        deadline = time.monotonic() + 300
        while not called.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        server.shutdown()
        server.server_close()
    (given,) = called.read_text().splitlines()
    assert _Metadata.asked == 3
    assert given.split()[:2] == ["drain-node", "--address=10.0.0.1:6379"]
    known = {option for each in drain_node.params for option in each.opts}
    assert {option.partition("=")[0] for option in given.split()[1:]} <= known
    assert "--reason=DRAIN_NODE_REASON_PREEMPTION" in given


@pytest.mark.parametrize(
    ("slot", "node", "count"),
    [
        (Slot(cpus=1), {"CPU": 8.0}, 8),
        (Slot(cpus=3), {"CPU": 8.0}, 2),
        (Slot(cpus=1), {}, 0),
        (Slot(cpus=1, gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 8),
        (Slot(cpus=4, gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 4),
        (Slot(cpus=0, gpus=0.4), {"CPU": 1.0, "GPU": 2.0}, 4),  # two on each, and none on both
        (Slot(cpus=0, gpus=0.1), {"GPU": 1.0}, 10),
        (Slot(cpus=1, gpus=2), {"CPU": 16.0, "GPU": 5.0}, 2),
        (Slot(cpus=1, custom={"place": 0.5}), {"CPU": 16.0, "place": 2.0}, 4),
        (Slot(cpus=1, custom={"place": 1}), {"CPU": 16.0}, 0),
    ],
)
def test_a_node_holds_as_many_as_all_its_resources_do(
    slot: Slot, node: dict[str, float], count: int
) -> None:
    assert fit(slot, node) == count


def test_a_slot_is_asked_of_ray_by_its_names() -> None:
    slot = Slot(cpus=2, gpus=0.5, custom={"place": 1})
    assert ray_resources(slot) == {"CPU": 2, "GPU": 0.5, "place": 1}
    assert ray_resources(Slot(cpus=1)) == {"CPU": 1}


@pytest.mark.parametrize("before", [None, "1"])
def test_ray_is_kept_to_loopback_while_it_starts_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    with loopback_only():
        assert (os.environ[name], ray_constants.ENABLE_RAY_CLUSTER) == ("0", False)
    assert (os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER) == (before, True)


def test_a_ray_that_cannot_be_kept_to_loopback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of Ray without the constant, which starts on every interface."""
    monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    left: list[str] = []
    monkeypatch.setattr(clusters.ray, "init", lambda **options: None)
    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: False)  # by another test
    monkeypatch.setattr(clusters.ray, "shutdown", lambda: left.append("Ray"))
    monkeypatch.setattr(clusters.ray.util, "get_node_ip_address", lambda: "192.0.2.7")
    with (
        pytest.raises(SweepError, match=r"listens on 192\.0\.2\.7"),
        clusters.join(None, Resources()),
    ):
        raise AssertionError("it was joined")
    assert left == ["Ray"]
    assert not hasattr(ray_constants, "ENABLE_RAY_CLUSTER")
