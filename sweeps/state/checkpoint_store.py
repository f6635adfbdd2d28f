"""Checkpoints of running work: another worker, or the next run of the study, goes on from them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from sweeps.state.store import Arrays, Store

logger = logging.getLogger(__name__)


class CheckpointStore:
    """Checkpoints of running trainings and trials, by key.

    A thread writes them, so that nothing waits for the disk. If one cannot be written, work is only repeated.

    Args:
        location: Of the store; checkpoints are in its folder `running`.
    """

    def __init__(self, location: str):
        self.store = Store(f"{location.rstrip('/')}/running")
        self._known = self.store.keys()
        self._waiting: dict[str, Arrays | None] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the checkpoint that an earlier run of the study left of a piece of work; None without one."""
        return self.store.get(key) if key in self._known else None

    def put(self, key: str, arrays: Arrays) -> None:
        """Replace the checkpoint of a piece of work; returns at once."""
        self._known.add(key)
        self._waiting[key] = arrays
        self._writer.submit(self._write, key)

    def drop(self, key: str) -> None:
        """Delete the checkpoint of a piece of work that has ended; returns at once."""
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
            logger.warning("a checkpoint of running work cannot be saved: %s", error)

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.shutdown()
