"""The file ``run.log`` of a study: what the console says, warnings of every library, and the end of each trial."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from sweeps.state import credentials

NAME = "run.log"
MEGABYTE = 2**20
MOST_BYTES, OLDER_FILES = 10 * MEGABYTE, 3
OWN = ("mu", "reports", "sweeps")
"""Our own loggers: what they say at the level INFO is in the file."""
SHOWN = {"shown": True}
"""What records carry, as ``extra``, that the console shows in its own form."""


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler that writes to what is standard error at that moment, without what is shown there already.

    Args:
        verbose: Whether it writes all that is in ``run.log``, and not warnings alone.
    """

    def __init__(self, verbose: bool):
        super().__init__()
        self.setLevel(logging.INFO if verbose else logging.WARNING)
        self.setFormatter(credentials.Formatter("%(levelname)s: %(message)s"))
        self.addFilter(lambda record: not getattr(record, "shown", False))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


class _RunLogHandler(RotatingFileHandler):
    """A file that is given up in silence when its disk is full: the records say so, and end the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing."""


@contextmanager
def on_console(verbose: bool) -> Iterator[None]:
    """Show warnings on the console, or with `verbose` all that is in ``run.log``."""
    with _attached(ConsoleHandler(verbose), with_ray=verbose):
        yield


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Write ``run.log`` in a results folder; a file of ten megabytes is set aside, and the last three are kept."""
    handler = _RunLogHandler(
        folder / NAME, maxBytes=MOST_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True
    )
    handler.setFormatter(credentials.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = {name: logging.getLogger(name).level for name in OWN}
    logging.captureWarnings(True)
    for name in OWN:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        with _attached(handler, with_ray=True):
            yield
    finally:
        handler.close()
        logging.captureWarnings(False)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class _Relay(logging.Handler):
    """A handler that gives records to another one, whose form Ray cannot change: it sets its own on all it finds."""

    def __init__(self, to: logging.Handler):
        super().__init__()
        self.to = to

    def emit(self, record: logging.LogRecord) -> None:
        """Give a record on."""
        if record.levelno >= self.to.level:
            self.to.handle(record)


@contextmanager
def _attached(handler: logging.Handler, with_ray: bool) -> Iterator[None]:
    """Attach a handler to the root logger, and to that of Ray, which keeps what it says from the root."""
    root, ray, relay = logging.getLogger(), logging.getLogger("ray"), _Relay(handler)
    root.addHandler(handler)
    if with_ray:
        ray.addHandler(relay)
    try:
        yield
    finally:
        root.removeHandler(handler)
        ray.removeHandler(relay)
