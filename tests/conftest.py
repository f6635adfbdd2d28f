"""Fixtures the suites share: the toy problem of ``toy.py``, trained once per session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import failures
import pytest
import studies
import torch
from filelock import FileLock
from servers import postgres as postgres
from servers import s3 as s3
from toy import toy_data, toy_problem, toy_reference

from mu.data import Dataset
from mu.problem import Problem, Weights
from mu.split import Split

torch.set_num_threads(1)
# Ray's workers give way to all else by default. Here they do the work that tests wait for.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin to note what studies print."""
    failures.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what studies printed below the traceback of a test that failed."""
    report = yield
    if report.failed:
        report.sections += failures.sections()
    return report


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run once without disturbance; its folder holds study.yaml, results/ and storage/.

    All processes of the test run share the run, and each has a copy of the folder.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not (folder / "output.txt").exists():
            folder.mkdir()
            studies.write(folder, studies.tiny())
            done = studies.musweep(folder, "run", "study.yaml")
            assert done.returncode == 0, done.stderr
            (folder / "output.txt").write_text(done.stdout + done.stderr)
    return Path(shutil.copytree(folder, own / "copy_of_finished"))


@pytest.fixture(scope="session")
def _leave_ray() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.fixture
def ray_here(_leave_ray: None) -> None:
    """A Ray of this process, which studies that run in this process use one after the other."""
    import ray

    from sweeps.workers import cluster

    if not ray.is_initialized():
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        with cluster.loopback_only():
            ray.init(address="local", namespace="musweep", **options)


@pytest.fixture
def no_ray_here() -> None:
    """Leave the Ray of this process, so that a study starts one with settings of its own."""
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def data() -> Dataset:
    return toy_data()


@pytest.fixture(scope="session")
def problem() -> Problem:
    """The toy problem with a whole class to forget."""
    return toy_problem("full_class")


@pytest.fixture(scope="session")
def original() -> Weights:
    """Weights of the toy problem's original model, which every request shares."""
    return toy_reference("original")


@pytest.fixture
def model(problem: Problem, original: Weights) -> torch.nn.Module:
    """A fresh copy of the original model."""
    return problem.load(original)


@pytest.fixture
def split(problem: Problem) -> Split:
    """Everything the toy problem could hand to a method, with an empty memo."""
    return problem.split()
