"""How many trials fit on a Ray that grows and shrinks, and what one occupies by Ray's names."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import ray

from sweeps.study.resources import Slot

logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How often the nodes of the cluster are counted."""
SHOWN_KINDS = 3
"""Kinds of nodes that a warning lists."""


class Slots:
    """How many pieces of work fit on the cluster at once, and the sum of this over time.

    Args:
        slot: What each piece of work occupies.
        limit: Most at once; None is as many as fit.
        training: What a training occupies, if it is something else.
        avoided: Returns the nodes that get no work now.

    Attributes:
        now: How many fit at this moment.
        most: How many there were at once.
        lack: Which work no node can hold, and what the nodes have; empty where all work has a place.
        looked: Is called each time that the nodes were counted.
    """

    def __init__(
        self,
        slot: Slot,
        limit: int | None,
        training: Slot | None = None,
        avoided: Callable[[], Collection[str]] = tuple,
    ):
        self._limit = limit
        self._avoided = avoided
        self._work = {"trial": slot, "training": training or slot}
        self.lack = ""
        self.looked: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._counted = time.monotonic()
        self._slot = slot
        self.now = self._fit(slot)
        self.most = self.now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="slots", daemon=True)
        self._thread.start()

    def load(self, slot: Slot) -> float:
        """Return the number of slots of this size that work of another size takes the place of."""
        if slot == self._slot:
            return 1.0
        fit_there = self._fit(slot)
        return self.now / fit_there if fit_there and self.now else 1.0

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
            self.looked()

    def _count(self) -> None:
        count = self._fit(self._slot)
        with self._lock:
            time_counted = time.monotonic()
            self._seconds += self.now * (time_counted - self._counted)
            self._counted, self.now = time_counted, count
            self.most = max(self.most, count)

    def _fit(self, slot: Slot) -> int:
        avoided = self._avoided()
        nodes = [
            node["Resources"]
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in avoided
        ]
        self._note_lack(nodes)
        count = sum(fit(slot, node) for node in nodes)
        return count if self._limit is None else min(count, self._limit)

    def _note_lack(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Warn of work that no node can hold, once for each change of the nodes: a cluster may still grow."""
        lacks = (lack(work, slot, nodes) for work, slot in self._work.items())
        text = next(filter(None, lacks), "")
        if text and text != self.lack:
            logger.warning("%s; nothing of this kind starts unless the cluster grows", text)
        self.lack = text


def lack(work: str, slot: Slot, nodes: Sequence[Mapping[str, float]]) -> str:
    """Return what `work` needs against what the nodes have; an empty text when a node can hold it.

    Args:
        nodes: Resources of each node, by Ray's names.
    """
    if any(fit(slot, node) for node in nodes):
        return ""
    needed = ray_resources(slot)

    def amounts(of: Mapping[str, float]) -> str:
        return ", ".join(f"{of.get(name, 0.0):g} {name}" for name in needed)

    kinds = Counter(amounts(node) for node in nodes)
    there = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(SHOWN_KINDS))
    return f"no node can hold a {work}: it needs {amounts(needed)}, " + (
        f"the nodes have {there}" if nodes else "there is no node"
    )


def fit(slot: Slot, node: Mapping[str, float]) -> int:
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
