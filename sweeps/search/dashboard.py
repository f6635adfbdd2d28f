"""optuna-dashboard over the searches of a study: a page for each cell, which follows the search while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeps.errors import StudyError
from sweeps.search.optuna_storage import open_storage


class _ReadOnlyJournal(JournalFileBackend):
    """A journal that takes no entries: a study may be running, and only its driver may write."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise PermissionError("musweep dashboard changes nothing")


def open_for_reading(location: str) -> BaseStorage:
    """Open a journal by path, so that nothing can be written to it; or a database by URL, which may be written to.

    Raises:
        StudyError: There is no such journal, or the database cannot be opened.
    """
    if "://" in location:
        return open_storage(location)
    if not Path(location).is_file():
        raise StudyError(f"{location}: there is no such journal; give --optuna-storage")
    return JournalStorage(_ReadOnlyJournal(location))


def serve(location: str, host: str, port: int) -> None:
    """Serve the dashboard until Ctrl-C.

    Raises:
        StudyError: optuna-dashboard is not installed, or ``open_for_reading`` raises it.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise StudyError(
            f"dashboard: {error.name or 'optuna-dashboard'} is not installed; "
            "pip install 'musweep[dashboard]'"
        ) from error
    storage = open_for_reading(location)
    print(f"Optuna dashboard on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    run_server(storage, host=host, port=port)
