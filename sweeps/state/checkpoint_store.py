"""Checkpoints of running work, for whoever goes on with it when its worker or its driver is lost."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from sweeps.state.store import Arrays, Store

logger = logging.getLogger(__name__)


class CheckpointStore:
    """Trainings and trials that have begun, by key, for whoever goes on with them when their worker or driver is lost.

    They are written by a thread of their own, so that nothing waits for it; one that cannot be written is no loss.

    Args:
        location: Of the store; drafts are in `begun` there.
    """

    def __init__(self, location: str):
        self.store = Store(f"{location.rstrip('/')}/begun")
        self._known = self.store.keys()
        self._waiting: dict[str, Arrays | None] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="drafts")

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """What an earlier run of the study has left of a piece of work."""
        return self.store.get(key) if key in self._known else None

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep a newer state of a piece of work; returns at once."""
        self._known.add(key)
        self._waiting[key] = arrays
        self._writer.submit(self._write, key)

    def drop(self, key: str) -> None:
        """Forget a piece of work that has ended; returns at once."""
        if key in self._known:
            self._known.discard(key)
            self._waiting[key] = None
            self._writer.submit(self._write, key)

    def _write(self, key: str) -> None:
        if key not in self._waiting:
            return  # something newer was written already
        arrays = self._waiting.pop(key)
        try:
            if arrays is None:
                self.store.delete(key)
            else:
                self.store.put(key, arrays)
        except OSError as error:
            logger.warning("what has begun cannot be saved: %s", error)

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.shutdown()
