"""The two errors that a user is told in one line; every other exception is a fault of this program."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StudyError(ValueError):
    """What the user wrote is wrong: file, key, what was given and what is allowed. Exit code 2."""


class DataMissingError(StudyError):
    """The study's data is not on this machine: it cannot run here, but its plan can be printed."""


class SweepError(RuntimeError):
    """The study is right, but could not be run to its end, such as when a reference cannot be trained. Exit code 1."""


@contextmanager
def errors_at(where: str = "") -> Iterator[None]:
    """Raise a ValueError from within as a StudyError that says where what is wrong stands, unless the error does so itself."""
    try:
        yield
    except ValueError as error:
        raise StudyError(f"{where}: {error}" if where else str(error)) from error


PAGES = {
    "data": "data",
    "forget": "data",
    "model": "models",
    "original": "models",
    "retrain": "models",
    "methods": "methods",
    "published": "papers",
    "resources": "operations",
    "budget": "operations",
    "notify": "operations",
    "--address": "operations",
    "--storage": "operations",
    "--tracking-uri": "operations",
    "--methods-path": "own-methods",
    "keep": "unlearn",
    "unlearn": "unlearn",
    **dict.fromkeys(
        (
            "--augment",
            "--data",
            "--forget-indices",
            "--knobs",
            "--method",
            "--model",
            "--out",
            "--weights",
        ),
        "unlearn",
    ),
}
"""What an error is about to the page of `docs/` that explains it."""
STUDY_PAGE = "study"
"""The page of all other keys of a study file."""


def page_for(message: str) -> str | None:
    """Return the page of `docs/` on what a message is about; None where no key or option is named in it."""
    parts = [part.strip() for part in message.split(": ")[:3]]
    for part in parts:
        word = part.partition(" ")[0].partition(".")[0]
        if word in PAGES:
            return page(PAGES[word])
    if len(parts) == 3 and parts[0].endswith((".yaml", ".yml")):
        return page(STUDY_PAGE)
    return None


def page(name: str) -> str:
    """Return where a page of `docs/` is: under that name in a checkout, elsewhere where pip has put it."""
    here = Path(__file__).parents[1]
    if not (here / "docs" / f"{name}.md").is_file():
        for folder in (Path(sysconfig.get_path("data")), here):
            installed = folder / "share/doc/musweep" / f"{name}.md"
            if installed.is_file():
                return str(installed)
    return f"docs/{name}.md"
