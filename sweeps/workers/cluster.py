"""A running Ray: started here, reachable from this machine alone, or joined."""

from __future__ import annotations

import gc
import ipaddress
import json
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from sweeps.errors import StudyError, SweepError
from sweeps.plan import Job
from sweeps.state import code
from sweeps.study.resources import Resources, Slot
from sweeps.workers.demand import Demand
from sweeps.workers.nodes import NodeWatch
from sweeps.workers.slots import Slots, ray_resources

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells a job that was submitted to it its runtime environment."""
AHEAD = 1.1
"""How many jobs run or wait for each that fits: what waits fills a slot at once, and a search knows more that asks later."""


@dataclass(frozen=True)
class Cluster:
    """A running Ray.

    Args:
        local: Whether it is this machine alone.
        slots: How many trials fit at once.
        resources: What jobs occupy.
        nodes: Which nodes lose work.
        demand: What the autoscaler is asked for; None without one.
    """

    local: bool
    slots: Slots
    resources: Resources
    nodes: NodeWatch
    demand: Demand | None = None

    def wanted(self) -> float:
        """Return how many trials should run or wait at this moment."""
        if self.resources.concurrent is not None:
            return self.resources.concurrent
        fit = max(1, self.slots.now)
        return fit if self.local else math.ceil(AHEAD * fit)

    def note_left(self, left: Callable[[], int]) -> None:
        """Ask the autoscaler for room for the jobs that are left."""
        if self.demand is not None:
            self.demand.update(left())

    def slot(self, job: Job) -> Slot:
        """Return what a job occupies."""
        return self.resources.trial if job.work == "trial" else self.resources.references

    def load(self, job: Job) -> float:
        """Return the number of trials that would fit in the place of a job."""
        return self.slots.load(self.slot(job))

    def placement(self, job: Job) -> dict[str, Any]:
        """Return the options of a job's placement group that say on which nodes it may be."""
        return self.nodes.elsewhere(job.key)

    def worked(self, actor: str) -> None:
        """Note that an actor has ended a job."""
        self.nodes.worked(actor)

    def lost(self, actor: str, job: Job) -> None:
        """Note that an actor was lost with a job. The one node of a local Ray has no other beside it."""
        if not self.local:
            self.nodes.lost(actor, job.key)


@contextmanager
def join(address: str | None, resources: Resources) -> Iterator[Cluster]:
    """Start Ray on this machine, on loopback alone, or join a running cluster at `address`; leaves it at the end.

    Without an address, a Ray that this process is connected to already is used, and left as it is.

    Raises:
        StudyError: The cluster cannot be joined.
        SweepError: Ray cannot be started here, or one that was started here can be reached from other machines.
    """
    local = address is None
    with nullcontext() if local and ray.is_initialized() else _connected(address):
        _quieten()
        nodes = NodeWatch(resources.trial)
        slots = Slots(resources.trial, resources.concurrent, resources.references, nodes.avoided)
        demand = None
        if not local:
            demand = Demand(ray_resources(resources.trial), resources.concurrent)
        try:
            yield Cluster(local, slots, resources, nodes, demand)
        finally:
            slots.close()
            if demand is not None:
                demand.close()


def _quieten() -> None:
    """Keep what Ray says off the console; ``run.log`` has its warnings."""
    for name in ("ray", "ray.tune", "ray.data"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        for handler in logger.handlers:
            if type(handler).__module__.startswith("ray."):
                handler.setLevel(logging.CRITICAL)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect this process to a cluster, or start one on this machine when `address` is None."""
    local = address is None
    options: dict[str, Any] = {"include_dashboard": False} if local else source_code()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with loopback_only() if local else nullcontext():
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="musweep",
                **options,
            )
        except Exception as error:  # such as of a cluster of another version of Ray or Python
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if local:  # such as on a machine that is too busy to start it in time
                raise SweepError(
                    f"Ray could not be started on this machine: {reason}; "
                    "when it is less busy, the same command starts or goes on"
                ) from error
            raise StudyError(f"--address {address}: cannot be joined: {reason}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray sets a handler of its own, which exits on the spot.
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        if local:
            _check_loopback(ray.util.get_node_ip_address())
        yield
    finally:
        _shut_down()


def source_code() -> dict[str, Any]:
    """Return the option of ``ray.init`` that gives workers this process's own packages, whatever their nodes have.

    They are uploaded once, some two megabytes, and precede what is installed there. A Ray job that brings modules
    itself keeps its own: Ray refuses both.
    """
    job = json.loads(os.environ.get(JOB_VARIABLE) or "{}").get("runtime_env") or {}
    if job.get("py_modules"):
        return {}
    modules = [str(folder) for folder in code.folders()]
    own = {"py_modules": modules, "excludes": ["__pycache__"]}
    return {"runtime_env": {key: value for key, value in own.items() if key not in job}}


@contextmanager
def loopback_only() -> Iterator[None]:
    """Have a Ray that is started inside this context listen on loopback alone, as it does on macOS and Windows.

    Elsewhere Ray listens on every interface, and replaces a loopback address that ``ray.init`` is given by another.
    Its only switch is an environment variable, which Ray reads once, when it is imported. So the variable is set for
    the processes that Ray starts, and the private constant that was read from it for this process. In a version of
    Ray without this constant, ``join`` refuses to go on unless Ray's address is on loopback all the same.
    """
    name, constant = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "ENABLE_RAY_CLUSTER"
    constants = getattr(ray._private, "ray_constants", None)
    variable, value = os.environ.get(name), getattr(constants, constant, None)
    os.environ[name] = "0"
    if value is not None:
        setattr(constants, constant, False)
    try:
        yield
    finally:
        if value is not None:
            setattr(constants, constant, value)
        del os.environ[name]
        if variable is not None:
            os.environ[name] = variable


def _check_loopback(address: str) -> None:
    """Raise SweepError when Ray listens on an address that other machines may reach."""
    if not ipaddress.ip_address(address).is_loopback:
        raise SweepError(
            f"Ray {ray.__version__} listens on {address}, where other machines may reach it: use a version that "
            "musweep supports"
        )


def _shut_down() -> None:
    """Leave Ray. Meanwhile no thread may collect garbage: Ray ends a process that drops a reference to an object then."""
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
