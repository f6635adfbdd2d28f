"""What a failed test shows besides its traceback: the log of each study that it ran, and what Ray wrote meanwhile."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SAID: list[tuple[str, str]] = []
"""Command and output of every study that the present test has run."""
LINES = 60
"""Most lines that are shown of one log."""
TROUBLE = re.compile(r"error|exception|traceback|killed|fatal|out of memory", re.IGNORECASE)
_began = [0.0]


def begin() -> None:
    """Forget the studies of the test before."""
    SAID.clear()
    _began[0] = time.time()


def note(arguments: Sequence[str], output: str) -> None:
    """Remember what a study printed."""
    SAID.append((f"musweep {' '.join(arguments)}", output))


def sections() -> Iterator[tuple[str, str]]:
    """Yield the titles and texts that the report of a failed test gets."""
    for title, output in SAID:
        yield f"what `{title}` printed", tail(output.splitlines())
    if SAID and (text := ray_log(Path(tempfile.gettempdir()) / "ray", _began[0])):
        yield "what Ray's logs say of trouble", text


def tail(lines: Sequence[str]) -> str:
    """Return the last lines of a log, and how many there were before."""
    before = [f"({len(lines) - LINES} lines before)"] if len(lines) > LINES else []
    return "\n".join([*before, *lines[-LINES:]])


def ray_log(folder: Path, since: float) -> str:
    """Return the lines of trouble in the logs of Ray's last session that were written since a time."""
    files = [
        (path.stat().st_mtime, path)
        for path in (folder / "session_latest" / "logs").glob("*")
        if path.suffix in (".err", ".log", ".out") and path.is_file()
    ]
    return tail(
        [
            f"{path.name}: {line}"
            for changed, path in sorted(files)
            if changed >= since
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-1000:]
            if TROUBLE.search(line)
        ]
    )
