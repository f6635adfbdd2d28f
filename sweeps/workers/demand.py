"""What a study asks of the autoscaler of a cluster: room for all jobs that are left, as far as they may run at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ray.autoscaler import sdk

Bundles = Sequence[Mapping[str, float]]
ASK_SECONDS = 5.0
"""How often at most the autoscaler is asked for something else."""
MOST = 1000
"""Most jobs that room is asked for; a cluster has a limit of its own as well."""


def _request(bundles: Bundles) -> None:
    sdk.request_resources(bundles=[dict(bundle) for bundle in bundles])


class Demand:
    """The request for room that a driver keeps up while it runs.

    The jobs of a search are not all known before the first results, so that jobs which wait in Ray say nothing of how
    many nodes the study can use. Ray keeps a request until the next one, so ``close`` takes it back.

    Args:
        bundle: What one job occupies, by Ray's names.
        limit: Most jobs at once; None is as many as there are.
        request: Asks the autoscaler; Ray's own unless a test gives another.
    """

    def __init__(
        self,
        bundle: Mapping[str, float],
        limit: int | None,
        request: Callable[[Bundles], None] | None = None,
    ):
        self._bundle, self._limit, self._request = bundle, limit, request or _request
        self._count, self._asked = 0, float("-inf")

    def update(self, left: int) -> None:
        """Ask for room for the jobs that are left; call it often, it asks rarely."""
        now = time.monotonic()
        if now - self._asked < ASK_SECONDS:
            return
        self._asked = now
        count = min(left, MOST if self._limit is None else self._limit)
        if count != self._count:
            self._count = count
            self._request([self._bundle] * count)

    def close(self) -> None:
        """Take the request back, so that the cluster may shrink."""
        if self._count:
            self._request([])
            self._count = 0
