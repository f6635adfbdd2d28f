"""Nodes that lose one job after the other, which get no more work for a while."""

from __future__ import annotations

import inspect
import logging
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import ray
from ray.util import placement_group

from sweeps.study.resources import Slot
from sweeps.workers.slots import fit

logger = logging.getLogger(__name__)
LOSSES = 4
"""Workers in a row that a node loses, with more than one job, before it gets no more."""
LOSSES_OF_ONE_JOB = 3
"""How often a node may lose the same job before this job, which may itself be at fault, has to go elsewhere."""
REST_SECONDS = 600.0
"""How long such a node gets no work."""
LABEL = "ray.io/node-id"
"""The label by which Ray's placement groups tell nodes apart."""


class NodeWatch:
    """What is known of the nodes of a cluster: who lost work, and who gets none for now.

    Args:
        slot: What work occupies. A node is avoided only while another one can hold this.
    """

    def __init__(self, slot: Slot):
        self._slot = slot
        self._nodes: dict[str, str] = {}
        self._lost: dict[str, list[str]] = {}
        self._together: Counter[tuple[str, str]] = Counter()
        self._until: dict[str, float] = {}

    def worked(self, actor: str) -> None:
        """Note that an actor has ended a job: its node works."""
        self._lost.pop(self._node(actor), None)

    def lost(self, actor: str, job: str) -> None:
        """Note that an actor was lost with a job, and avoid its node when it was the last of LOSSES."""
        node = self._node(actor)
        if not node:
            return
        self._together[node, job] += 1
        jobs = self._lost.setdefault(node, [])
        jobs.append(job)
        if len(jobs) < LOSSES or len({*jobs}) == 1 or node in self.avoided():
            return
        del self._lost[node]
        where = f"node {node[:12]} lost {len(jobs)} workers in a row"
        if not self._others(node):
            logger.warning("%s; it stays in use, since no other can hold their work", where)
            return
        logger.warning("%s; it gets no more work for %g min", where, REST_SECONDS / 60)
        self._until[node] = time.monotonic() + REST_SECONDS

    def avoided(self) -> Collection[str]:
        """Return the nodes that get no work now."""
        now = time.monotonic()
        self._until = {node: until for node, until in self._until.items() if until > now}
        return self._until.keys()

    def elsewhere(self, job: str) -> dict[str, Any]:
        """Return the options of a job's placement group that keep it off the avoided nodes, and off one that lost it often.

        A version of Ray without selectors of labels places it there all the same.
        """
        nodes = set(self.avoided())
        for (node, lost), times in self._together.items():
            if lost == job and times >= LOSSES_OF_ONE_JOB and self._others(node):
                nodes.add(node)
        known = "bundle_label_selector" in inspect.signature(placement_group).parameters
        if not nodes or not known:
            return {}
        return {"bundle_label_selector": [{LABEL: f"!in({','.join(sorted(nodes))})"}]}

    def _others(self, node: str) -> bool:
        """Return whether a node besides this one can hold work."""
        there = [each for each in ray.nodes() if each["Alive"] and each["NodeID"] != node]
        return any(
            fit(self._slot, each["Resources"]) and each["NodeID"] not in self.avoided()
            for each in there
        )

    def _node(self, actor: str) -> str:
        """Return the node of an actor, also of one that is dead; empty where Ray does not say.

        Ray has no public name for this without its dashboard. Where it was moved, no node is ever avoided.
        """
        if actor and not self._nodes.get(actor):
            try:
                told = ray._private.state.actors(actor)
                self._nodes[actor] = told["Address"]["NodeID"]
            except (AttributeError, KeyError, TypeError):
                return ""
        return self._nodes.get(actor, "")
