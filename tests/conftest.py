"""Fixtures the suites share: the toy problem of ``toy.py``, trained once per session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import failures
import pytest
from filelock import FileLock
from servers import postgres as postgres
from servers import s3 as s3

# What pytest-xdist's first process reads too, which runs no test: torch and Optuna are imported where they are used.
if TYPE_CHECKING:
    import torch

    from mu.data import Dataset
    from mu.problem import Problem, Weights
    from mu.split import Split

# Ray's workers give way to all else by default. Here they do the work that tests wait for.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin to note what studies print."""
    failures.begin()


def uses_ray(item: pytest.Item | None) -> bool:
    """Return whether a test works with the Ray of this process."""
    return isinstance(item, pytest.Function) and "ray_here" in item.fixturenames


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that use Ray first and together: one process starts it, once, and ends it when they are over."""
    items.sort(key=lambda item: not uses_ray(item))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the Ray of this process with the last test that uses it; idle, it would go on to need the CPU."""
    if uses_ray(item) and not uses_ray(nextitem):
        import ray

        ray.shutdown()


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
    import studies

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


@pytest.fixture
def ray_here() -> None:
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


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Dataset:
    from toy import toy_data

    return toy_data()


@pytest.fixture(scope="session")
def problem() -> Problem:
    """The toy problem with a whole class to forget."""
    from toy import toy_problem

    return toy_problem("full_class")


@pytest.fixture(scope="session")
def original() -> Weights:
    """Weights of the toy problem's original model, which every request shares."""
    from toy import toy_reference

    return toy_reference("original")


@pytest.fixture
def model(problem: Problem, original: Weights) -> torch.nn.Module:
    """A fresh copy of the original model."""
    return problem.load(original)


@pytest.fixture
def split(problem: Problem) -> Split:
    """Everything the toy problem could hand to a method, with an empty memo."""
    return problem.split()
