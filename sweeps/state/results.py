"""The records of a study on disk: one fsynced line for each ended trial. Everything else follows from them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml

from mu import record as records
from mu.record import TrialRecord
from mu.relative import Comparison
from sweeps.errors import StudyError, SweepError
from sweeps.phases import PHASES
from sweeps.state.store import write_atomically

TRIALS = "trials.jsonl"
LOCK_TRIES, LOCK_PAUSE_SECONDS = 5, 0.1


class Results:
    """The folder of one study, held by one driver at a time.

    Args:
        folder: ``results/<study>``; made when absent.

    Attributes:
        study: The last `study` line; empty before the first.
        records: Key to record, with its gaps to the retrained models that there were when it was read or added.

    Raises:
        StudyError: Another driver holds the folder, it cannot be written to, or its results cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / TRIALS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / ".lock")
        except OSError as error:
            raise StudyError(f"{folder}: cannot be written to: {error}") from error
        try:
            self.study, trials = records.read(self.path) if self.path.exists() else ({}, [])
            drop_partial_line(self.path)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            self._lock.close()
            raise StudyError(f"{folder}: cannot be written to: {error}") from error
        except ValueError as error:
            self._lock.close()
            raise StudyError(str(error)) from error
        self.records: dict[str, TrialRecord] = {}
        self.keep(trials)

    def begin(self, study_line: Mapping[str, Any]) -> None:
        """Write what the study asks for now, as a line and as ``study.yaml``. The folder's first line gives it a UUID."""
        known = self.study.get("uuid") or uuid.uuid4().hex
        definition = study_line["definition"]
        text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
        write_atomically(self.folder / "study.yaml", text.encode())
        self.study = {**study_line, "uuid": known}
        self._write(records.to_line("study", self.study))
        self.keep(self.records.values())

    def append(self, record: TrialRecord) -> bool:
        """Write a record, and note it with its gaps; return False when its key is already there."""
        if record.key in self.records:
            return False
        self._write(records.trial_line(record))
        self._comparison.note(record)
        self.records[record.key] = self._comparison.complete(record)
        return True

    def keep(self, wanted: Iterable[TrialRecord]) -> None:
        """Let these records alone count, with their gaps; the others stay in the file."""
        self._comparison, listed = Comparison(self.study), list(wanted)
        for record in listed:
            self._comparison.note(record)
        self.records = {record.key: self._comparison.complete(record) for record in listed}

    def set_aside(self, unwanted: Callable[[TrialRecord], bool]) -> None:
        """Drop some trials from `records`, so that they are run again; their new lines replace the old ones."""
        self.records = {k: record for k, record in self.records.items() if not unwanted(record)}

    def _write(self, line: str) -> None:
        """Add a whole line or nothing.

        Raises:
            SweepError: The disk is full, or can no longer be written to.
        """
        content, start = f"{line}\n".encode(), self._file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise SweepError(f"{self.path}: cannot be written to: {error}") from error

    def close(self) -> None:
        self._file.close()
        self._lock.close()


def incompatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the differences between two study lines that make another study of it: in data, model, training or checkpoints.

    Everything else may change. Records carry keys by which the trials of the study as it is now are told from others.

    Returns:
        Texts such as ``training.epochs: was 30, is 40``; empty when the study can continue.
    """
    before, after = _comparable(old), _comparable(new)
    return [
        f"{key}: was {before[key]!r}, is {after[key]!r}"
        for key in before
        if key in after and before[key] != after[key]
    ]


def _comparable(line: Mapping[str, Any]) -> dict[str, Any]:
    definition = line["definition"]
    flat: dict[str, Any] = {
        "data.fingerprint": line["data"]["fingerprint"],
        "model": line["model"],
    }
    flat |= {f"training.{key}": value for key, value in definition["training"].items()}
    seeds = {seed for role in ("search", "report") for seed in definition["seeds"][role]}
    supplied = line.get("checkpoints", {})
    for name in (f"{forget} {seed}" for forget in definition["forget"] for seed in seeds):
        for role in records.REFERENCE_ROLES:
            flat[f"{role} {name}"] = supplied.get(f"{role} {name}", "trained")
    return json.loads(json.dumps(flat))


def counts(trials: Mapping[str, TrialRecord]) -> dict[str, dict[str, int]]:
    """Count trials by phase and status."""
    table = {phase: Counter[str]() for phase in PHASES}
    for record in trials.values():
        table.setdefault(record.phase, Counter())[record.status] += 1
    return {phase: dict(counter) for phase, counter in table.items() if counter}


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, whole or not at all."""
    text = json.dumps(summary, indent=2, sort_keys=True)
    write_atomically(folder / "summary.json", text.encode())


def drop_partial_line(path: Path) -> None:
    """Cut off a last line that a crash left incomplete."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def owner(folder: Path) -> str:
    """Return who runs the study of a folder: process, host and start; empty when no run is seen from here."""
    try:
        with (folder / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (folder / ".lock").read_text(encoding="utf-8").strip()
    except OSError:
        pass
    return ""


def _lock(path: Path) -> TextIO:
    """Lock a study against a second driver.

    Raises:
        StudyError: Another driver holds it; the message names its host and process.
    """
    handle = path.open("a+")
    for _ in range(LOCK_TRIES):  # ``owner`` holds it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
    else:
        handle.seek(0)
        holder = handle.read().strip() or "another driver"
        handle.close()
        raise StudyError(f"{path.parent}: the study is being run by {holder}")
    handle.truncate(0)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    handle.write(f"process {os.getpid()} on {platform.node()}, started {started}\n")
    handle.flush()
    return handle
