"""When work that has begun is saved: from time to time, and at once when its node is about to be taken away.

Ray drains a node when its ``ray start --block`` gets SIGTERM, as on Kubernetes, or by ``ray drain-node``, which the
workers of ``cluster.yaml`` call when their cloud gives notice. What runs there may go on until the node is gone.
"""

from __future__ import annotations

import time

import ray

LOOK_SECONDS = 2.0
"""How often at most a worker looks whether its node is drained, and is saved when it is."""


class SaveTimer:
    """Says when the work of this worker is due to be saved.

    Args:
        every_seconds: How often, while nothing is wrong.
    """

    def __init__(self, every_seconds: float):
        self.every_seconds = every_seconds
        self._node = ray.get_runtime_context().get_node_id()
        self._looked = self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time; to be asked between two epochs."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            # As Ray Train does; there is no public name for it.
            if self._node in ray._private.state.state.get_draining_nodes():
                self.every_seconds = min(self.every_seconds, LOOK_SECONDS)
        return now - self._saved >= self.every_seconds

    def saved(self) -> None:
        """It was."""
        self._saved = time.monotonic()
