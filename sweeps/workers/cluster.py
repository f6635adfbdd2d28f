"""A running Ray: started here or joined, and how many trials it holds while it grows and shrinks."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from sweeps.errors import SweepError
from sweeps.study.resources import Resources, Slot

LOOK_SECONDS = 2.0
"""How often the nodes of the cluster are counted."""
AHEAD = 64
"""Least number of trials asked for on a cluster: those that wait are what an autoscaler grows for."""


class Slots:
    """How many pieces of work fit on the cluster at once, and the sum of this over time.

    Args:
        slot: What each piece of work occupies.
        limit: Most at once; None is as many as fit.
    """

    def __init__(self, slot: Slot, limit: int | None):
        self._limit = limit
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._counted = time.monotonic()
        self._slot = slot
        self.now = self._fit()
        self.most = self.now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="slots", daemon=True)
        self._thread.start()

    def use(self, slot: Slot) -> None:
        """Count slots of another size from now on."""
        self._slot = slot
        self._count()

    @property
    def seconds(self) -> float:
        """Slots times seconds so far: what there was to use."""
        with self._lock:
            return self._seconds + self.now * (time.monotonic() - self._counted)

    def close(self) -> None:
        """Stop counting."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._count()

    def _count(self) -> None:
        count = self._fit()
        with self._lock:
            time_counted = time.monotonic()
            self._seconds += self.now * (time_counted - self._counted)
            self._counted, self.now = time_counted, count
            self.most = max(self.most, count)

    def _fit(self) -> int:
        count = sum(fit(self._slot, node["Resources"]) for node in ray.nodes() if node["Alive"])
        return count if self._limit is None else min(count, self._limit)


def fit(slot: Slot, node: dict[str, float]) -> int:
    """Return how many slots a node holds.

    Args:
        node: Resources of the node, by Ray's names.
    """
    counts = []
    for name, amount in ray_resources(slot).items():
        available = node.get(name, 0.0)
        if name == "GPU" and amount < 1:
            # A part of a GPU is on one device: two halves of two devices hold nothing.
            counts.append(int(available) * int(1 / amount + 1e-9))
        else:
            counts.append(int(available / amount + 1e-9))
    return min(counts)


def ray_resources(slot: Slot) -> dict[str, float]:
    """Return the resources of a slot by Ray's names, without those of which it needs none."""
    amounts = {"CPU": slot.cpus, "GPU": slot.gpus, **slot.custom}
    return {name: amount for name, amount in amounts.items() if amount}


def ray_options(slot: Slot) -> dict[str, Any]:
    """Return the options of a Ray task that occupies a slot."""
    return {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "resources": dict(slot.custom)}


@dataclass(frozen=True)
class Cluster:
    """A running Ray.

    Args:
        local: Whether this process started it, on this machine alone.
        slots: How many trials fit at once.
        concurrent: Most trials at once by the study; None is as many as fit.
    """

    local: bool
    slots: Slots
    concurrent: int | None

    def wanted(self) -> int:
        """Return how many trials should run or wait at this moment."""
        if self.concurrent is not None:
            return self.concurrent
        return max(1, self.slots.now) if self.local else max(AHEAD, 2 * self.slots.now)


@contextmanager
def join(address: str | None, resources: Resources) -> Iterator[Cluster]:
    """Start Ray on this machine, on loopback alone, or join a running cluster at `address`; leaves it at the end.

    Raises:
        SweepError: A Ray that was started here can be reached from other machines.
    """
    local = address is None
    options: dict[str, Any] = {"include_dashboard": False} if local else {}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with loopback_only() if local else nullcontext():
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="musweep",
            **options,
        )
    if threading.current_thread() is threading.main_thread():
        # Ray sets a handler of its own, which exits on the spot.
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        if local:
            _check_loopback(ray.util.get_node_ip_address())
        for name in ("ray", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        slots = Slots(resources.trial, resources.concurrent)
        try:
            yield Cluster(local, slots, resources.concurrent)
        finally:
            slots.close()
    finally:
        _shut_down()


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
