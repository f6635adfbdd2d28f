"""The report of a study that still runs: written again while trials end, by a process that nothing waits for."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sweeps.state.results import TRIALS

logger = logging.getLogger(__name__)
EVERY_SECONDS = 60.0
"""How often a report is written at most."""
SHARE = 0.1
"""The part of the time that writing may take at most: a long report is written less often."""
LOWEST = 19
"""Niceness of the process: it runs when no trial wants the CPU."""
REPORT = "report"


class LiveReport:
    """Writes the report of a study again and again while the context lasts, when trials have ended since.

    Each time a process of the lowest priority reads the records and replaces the folder as a whole. It is ended with the
    context. Whatever happens to it, the study goes on.

    Args:
        folder: The study's results.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._written = self._size()
        self._warned = False
        self._thread = threading.Thread(target=self._write, name="live report", daemon=True)

    def __enter__(self) -> LiveReport:
        remove_drafts(self._folder)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()
        remove_drafts(self._folder)

    def _write(self) -> None:
        pause = EVERY_SECONDS
        while not self._stop.wait(pause):
            size = self._size()
            if size == self._written:
                continue
            began = time.monotonic()
            if not self._build():
                return
            self._written, took = size, time.monotonic() - began
            pause = max(EVERY_SECONDS, took / SHARE - took)

    def _size(self) -> int:
        """Return how long the records are: they only ever grow."""
        try:
            return (self._folder / TRIALS).stat().st_size
        except OSError:
            return 0

    def _build(self) -> bool:
        """Write the report once; return whether to go on."""
        with self._lock:
            if self._stop.is_set():
                return False
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "reports", str(self._folder), "--figures", "none"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the study
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                         "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
                os.setpriority(os.PRIO_PROCESS, self._process.pid, LOWEST)
            except OSError as error:
                self._warn(str(error))
                return False
        _, said = self._process.communicate()
        if self._process.returncode and not self._stop.is_set():
            self._warn((said.decode(errors="replace").strip().splitlines() or ["it ended"])[-1])
        return True

    def _warn(self, reason: str) -> None:
        """Say once that there is no report; with more records there may be one."""
        if not self._warned:
            logger.warning("the report is not written while the study runs: %s", reason)
        self._warned = True


def remove_drafts(folder: Path) -> None:
    """Remove what a process that was ended amid a report left, and put back a report that it had set aside."""
    for path in folder.glob(f".{REPORT}-*"):
        if path.name.endswith("-earlier") and not (folder / REPORT).exists():
            with suppress(OSError):
                os.replace(path, folder / REPORT)
        shutil.rmtree(path, ignore_errors=True)
