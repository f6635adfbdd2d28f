"""When running work is saved: from time to time, and at once when its node is about to be taken away.

Ray drains a node when its ``ray start --block`` gets SIGTERM, as on Kubernetes, or by ``ray drain-node``, which the
workers of ``cluster.yaml`` call when their cloud gives notice. Work on that node may go on until the node is gone.
"""

from __future__ import annotations

import time

import ray

LOOK_SECONDS = 2.0
"""How often at most a worker looks whether its node is drained, and saves its work while it is."""


class SaveTimer:
    """A clock that says when the work of this worker is due to be saved.

    Args:
        every_seconds: How often work is saved while nothing is wrong.
    """

    def __init__(self, every_seconds: float):
        self.every_seconds = every_seconds
        self._node = ray.get_runtime_context().get_node_id()
        self._looked = self._saved = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to save; call it between two epochs."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if _is_drained(self._node):
                self.every_seconds = min(self.every_seconds, LOOK_SECONDS)
        return now - self._saved >= self.every_seconds

    def saved(self) -> None:
        """Note that the work has just been saved."""
        self._saved = time.monotonic()


def _is_drained(node: str) -> bool:
    """Return whether Ray drains a node, as far as this can be asked.

    Ray Train asks in this way, and there is no public name for it. In a version of Ray that has moved it, work is
    saved from time to time only, and an early notice is of no use.
    """
    try:
        return node in ray._private.state.state.get_draining_nodes()
    except (AttributeError, ImportError, TypeError):
        return False
