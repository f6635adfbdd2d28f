"""Real servers on loopback for the tests: PostgreSQL, MLflow and an S3 endpoint. Whoever starts one ends it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"
START_SECONDS = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server; raise AssertionError with the end of its log when it dies or does not come."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        late = time.monotonic() > deadline
        assert process.poll() is None and not late, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


def parents() -> dict[int, int]:
    """Return the parent of every process, by process."""
    parent_of = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            parent_of[int(process.name)] = int(fields[1])
    return parent_of


def with_descendants(pid: int) -> set[int]:
    """Return a process and all that it has started, those that were started by these too."""
    parent_of, family = parents(), {pid}
    while more := {child for child, parent in parent_of.items() if parent in family} - family:
        family |= more
    return family


def listening(pids: set[int]) -> set[str]:
    """Return the addresses, as /proc writes them, on which these processes listen."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):  # it has just been closed
                inodes.add(os.readlink(handle))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def command_line(pid: int) -> str:
    """Return a process's name and arguments; empty when it has ended, also where nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


class Postgres:
    """A PostgreSQL server with data of its own, which an unprivileged user runs.

    Args:
        programs: Folder of initdb and postgres.

    ``stop`` and ``start`` take it away and bring it back on the same port, with its data. While it is ``held``, it
    stays connected and does not answer.
    """

    user = "musweep"

    def __init__(self, programs: Path):
        self.programs = programs
        self.password = f"hush{secrets.token_hex(12)}"
        self.port = free_port()
        # Not pytest's folder: the unprivileged user could not enter it.
        self.folder = Path(tempfile.mkdtemp(prefix="musweep-postgres-"))
        self.log = self.folder / "log"
        self._run_as: dict[str, Any] = {}
        if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
            self._run_as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # the server lives for a minute
        subprocess.run(
            [programs / "initdb", "-D", self.folder / "data", "-U", self.user, "-E", "UTF8",
             "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--locale=C"],
            check=True, cwd=self.folder, capture_output=True, **self._run_as,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port),
                 "-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories=",
                 "-c", "fsync=off", "-c", "max_connections=40"],
                cwd=self.folder, stdout=log, stderr=log, **self._run_as,
            )  # fmt: skip
        wait_until(self._answers, self._process, self.log)

    def stop(self) -> None:
        """End the server, and every connection, at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop all processes of the server, each of which is a session of its own, until the context ends."""
        assert self._process is not None
        postmaster = self._process.pid
        os.kill(postmaster, signal.SIGSTOP)  # first, so that it starts no more
        pids = [postmaster, *(pid for pid, parent in parents().items() if parent == postmaster)]
        try:
            for pid in pids[1:]:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids[::-1]:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """Return the URL of a database, with user and password."""
        return f"postgresql://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database and return its URL."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')  # type: ignore[arg-type]
        return self.url(database)

    def dump(self, database: str) -> str:
        """Return all tables of a database, as text."""
        return subprocess.run(
            [self.programs / "pg_dump", self.url(database)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip


def postgres_programs() -> list[Path]:
    """Return the folders with PostgreSQL's programs, the latest version last."""
    program = shutil.which("postgres")
    folders = [*([Path(program).parent] if program else []),
               *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]  # fmt: skip
    return [folder for folder in folders if (folder / "initdb").exists()]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the session; its ``create`` makes a database for one test."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (musweep[cluster])")
    programs = postgres_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed here (Debian's package postgresql)")
    server = Postgres(programs[-1])
    yield server
    server.close()


def mlflow_process(store: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start an MLflow server over a store, as `musweep ui` does, in a process group of its own."""
    from sweeps.tracking.mlflow_ui import ui_command, ui_environment

    log = folder / f"mlflow-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *ui_command(LOOPBACK, port)],
            cwd=folder, stdout=output, stderr=output, start_new_session=True,
            env=ui_environment(store),
        )  # fmt: skip
    wait_until(lambda: _healthy(f"http://{LOOPBACK}:{port}"), process, log)
    return process


@contextmanager
def mlflow_server(store: str, folder: Path) -> Iterator[str]:
    """Run an MLflow server over a store; yields its address."""
    port = free_port()
    process = mlflow_process(store, folder, port)
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 endpoint with the bucket `musweep`, as the environment in which clients find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=LOOPBACK, port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "musweep-test",
        "AWS_SECRET_ACCESS_KEY": f"hush{secrets.token_hex(12)}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="musweep")
    yield environment
    server.stop()
