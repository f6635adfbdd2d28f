"""A running Ray: started here or joined, and how many trials it holds while it grows and shrinks."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from sweeps.study.resources import Resources, Slot
from sweeps.workers import loopback

LOOK_SECONDS = 2.0
"""How often the nodes of the cluster are counted."""
AHEAD = 64
"""Least number of trials asked for on a cluster: those that wait are what an autoscaler grows for."""


class Slots:
    """How many pieces of work fit at once, and their sum over time.

    Args:
        share: What each occupies.
        limit: Most at once; None is as many as fit.
    """

    def __init__(self, share: Slot, limit: int | None):
        self._limit = limit
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._counted = time.monotonic()
        self._share = share
        self.now = self._fit()
        self.most = self.now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="slots", daemon=True)
        self._thread.start()

    def use(self, share: Slot) -> None:
        """Count for other shares from here on."""
        self._share = share
        self._count()

    @property
    def seconds(self) -> float:
        """Slots times seconds so far: what there was to use."""
        with self._lock:
            return self._seconds + self.now * (time.monotonic() - self._counted)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._count()

    def _count(self) -> None:
        found = self._fit()
        with self._lock:
            passed = time.monotonic()
            self._seconds += self.now * (passed - self._counted)
            self._counted, self.now = passed, found
            self.most = max(self.most, found)

    def _fit(self) -> int:
        found = sum(fit(self._share, node["Resources"]) for node in ray.nodes() if node["Alive"])
        return found if self._limit is None else min(found, self._limit)


def fit(share: Slot, there: dict[str, float]) -> int:
    """How many pieces of work a node holds.

    Args:
        there: What the node has, by Ray's names.
    """
    most = []
    for name, amount in ray_resources(share).items():
        have = there.get(name, 0.0)
        if name == "GPU" and amount < 1:  # a share of one device: none is made of two halves
            most.append(int(have) * int(1 / amount + 1e-9))
        else:
            most.append(int(have / amount + 1e-9))
    return min(most)


def ray_resources(share: Slot) -> dict[str, float]:
    """A share by Ray's names, without what is 0."""
    wanted = {"CPU": share.cpus, "GPU": share.gpus, **share.custom}
    return {name: amount for name, amount in wanted.items() if amount}


def ray_options(share: Slot) -> dict[str, Any]:
    """A share as the options of a Ray task."""
    return {"num_cpus": share.cpus, "num_gpus": share.gpus, "resources": dict(share.custom)}


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
        """How many trials should run or wait at this moment."""
        if self.concurrent is not None:
            return self.concurrent
        return max(1, self.slots.now) if self.local else max(AHEAD, 2 * self.slots.now)


@contextmanager
def join(address: str | None, resources: Resources) -> Iterator[Cluster]:
    """Start Ray on this machine, on loopback alone, or join a running cluster at `address`; leaves it at the end."""
    options: dict[str, Any] = {} if address is not None else {"include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with loopback.only() if address is None else nullcontext():
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="musweep",
            **options,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, on_sigterm
        )  # Ray sets one of its own, which exits on the spot
    try:
        for name in ("ray", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        slots = Slots(resources.trial, resources.concurrent)
        try:
            yield Cluster(address is None, slots, resources.concurrent)
        finally:
            slots.close()
    finally:
        _shut_down()


def _shut_down() -> None:
    """Leave Ray. No thread may collect references to objects meanwhile: Ray ends a process that lets go of one then."""
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
