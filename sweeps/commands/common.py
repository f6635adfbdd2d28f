"""What several commands share: exit codes, and types of arguments."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from mu import record
from mu.current import read_current
from sweeps.errors import StudyError, errors_at
from sweeps.state import results

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
PIPE_WIDTH = 240
"""Columns of a table that does not go to a terminal."""


def path(text: str) -> Path:
    """Return a path of this machine, also where a shell did not expand its `~`."""
    return Path(text).expanduser()


def add_storage(command: argparse.ArgumentParser) -> None:
    """Add the option that says where models are."""
    command.add_argument(
        "--storage", default=os.environ.get("MUSWEEP_STORAGE", "storage"), metavar="DIR_OR_URL",
        help="folder or URL of models ($MUSWEEP_STORAGE, or storage)",
    )  # fmt: skip


def wide_console() -> Console:
    """Return a console as wide as the terminal, or with room for long lines where the output is a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def read_study(folder: Path) -> tuple[dict[str, Any], list[record.TrialRecord]]:
    """Return the study line of a results folder, and its records.

    Raises:
        StudyError: There are no records, or they cannot be read.
    """
    path = folder / results.TRIALS
    if not path.is_file():
        raise StudyError(f"{folder}: there is no {results.TRIALS}; give the folder of a study")
    with errors_at():
        line, records = read_current(path)
    if not line:
        raise StudyError(f"{path}: no study has been started here")
    return line, records
