"""An address where no cluster answers is one line within seconds, for `run` before the data is loaded, and for `status`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import studies
from servers import LOOPBACK, free_port

from sweeps.errors import StudyError, SweepError
from sweeps.study.resources import Resources
from sweeps.tracking import remote
from sweeps.workers import address as addresses
from sweeps.workers import cluster as clusters
from sweeps.workers.address import check_cluster


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    for module in (addresses, remote):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


def one_line(folder: Path, *arguments: str) -> str:
    """What a command says that is refused, within seconds."""
    began = time.monotonic()
    ended = studies.here(folder, *arguments)
    assert time.monotonic() - began < 20
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    return line


def test_a_run_at_an_address_where_nobody_answers_ends_before_the_data_is_loaded(
    tmp_path: Path,
) -> None:
    study = studies.tiny(data={"name": "image_folder", "root": "absent"})
    studies.write(tmp_path, study)
    address = f"{LOOPBACK}:{free_port()}"
    line = one_line(tmp_path, "run", "study.yaml", "--address", address)
    assert line.startswith(f"musweep: --address {address}: no Ray cluster answers there: ")


def test_a_server_that_says_nothing_is_no_cluster(silent: int) -> None:
    with pytest.raises(StudyError, match=r"what answers there is no Ray cluster; .* port 6379"):
        check_cluster(f"{LOOPBACK}:{silent}")


@pytest.mark.parametrize("address", ["somewhere", "", ":6379", "host:port", "ray://host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(StudyError, match=f"^--address {address}: "):
        check_cluster(address)


def test_auto_without_a_ray_on_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ray._private.services.canonicalize_bootstrap_address", lambda address: None
    )
    with pytest.raises(StudyError, match=r"^--address auto: no Ray runs on this machine"):
        check_cluster("auto")


def test_a_server_that_speaks_rays_protocol_passes() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    try:
        check_cluster(f"{LOOPBACK}:{port}")
        check_cluster(f"ray://{LOOPBACK}:{port}")
    finally:
        server.stop(None)


def test_a_cluster_that_cannot_be_joined_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise RuntimeError(
            "Version mismatch: the cluster was started with Ray 2.9\nThis process: ..."
        )

    monkeypatch.setattr(clusters.ray, "init", refuse)
    with (
        pytest.raises(StudyError, match=r"^--address a:1: cannot be joined: Version .* Ray 2\.9$"),
        clusters.join("a:1", Resources()),
    ):
        raise AssertionError("it was joined")


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise RuntimeError("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(clusters.ray, "init", init)
    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: False)
    with (
        pytest.raises(
            SweepError, match=r"^Ray could not be .* timed out during startup\.; when it"
        ),
        clusters.join(None, Resources()),
    ):
        raise AssertionError("it was started")


def test_status_from_a_dashboard_that_never_answers_ends(silent: int, tmp_path: Path) -> None:
    address = f"http://{LOOPBACK}:{silent}"
    line = one_line(tmp_path, "status", "results/x", "--address", address)
    assert (
        line
        == f"musweep: --address {address}: no job can be sent there: timed out (see docs/operations.md)"
    )
