"""The two errors that a user is told in one line; every other exception is a fault of this program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StudyError(ValueError):
    """What the user wrote is wrong: file, key, what was given and what is allowed. Exit code 2."""


class DataMissingError(StudyError):
    """The study's data is not on this machine: it cannot run here, but its plan can be printed."""


class SweepError(RuntimeError):
    """The study is right, but could not be run to its end, such as when a reference cannot be trained. Exit code 1."""


@contextmanager
def errors_at(where: str) -> Iterator[None]:
    """Raise a ValueError from within as a StudyError that says where what is wrong stands."""
    try:
        yield
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
