"""Optuna's storage: a journal file, or a database that may be away for a while."""

from __future__ import annotations

import json
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeps.errors import StudyError
from sweeps.state.credentials import database_url, hide


def open_storage(location: str) -> BaseStorage:
    """Open a journal file by path, or any database that Optuna knows by URL (such as PostgreSQL).

    Raises:
        StudyError: It cannot be opened.
    """
    try:
        if "://" not in location:
            return JournalStorage(_Journal(location))
        from sweeps.search.optuna_database import CONNECTION, RetryingStorage

        url = database_url(location)
        connection = CONNECTION if url.startswith("postgresql") else {}
        return RetryingStorage(
            url, engine_kwargs={"pool_pre_ping": True, "connect_args": connection}
        )
    except Exception as error:
        raise StudyError(
            f"--optuna-storage {hide(location)}: cannot be opened: "
            f"{hide(str(error).strip().splitlines()[0])}"
        ) from error


class _Journal(JournalFileBackend):
    """Optuna's journal without its wait for the disk at each entry, and without its lock: a study has one driver.

    A crash of the machine may cut entries from its end. The records, which do wait for the disk, restore them (see
    ``cell_search``). The lock would outlive a driver that is killed, and turns Ctrl-C while it is held into an OSError.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab") as file:
            file.write(content.encode())
