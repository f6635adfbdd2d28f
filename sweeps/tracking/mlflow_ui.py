"""How the MLflow UI of a study is served: the command, the environment of its process, and the pages to open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from sweeps.state.credentials import database_url


def ui_command(host: str, port: int) -> list[str]:
    """Return the command that serves the UI of a store, with one worker: more only slow it down."""
    return ["mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment(uri: str) -> dict[str, str]:
    """Return the environment of the UI's process.

    It holds the store's URL, since a list of processes would show a password on the command line, and no variable that
    weakens the UI's host checks.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"
    }
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        # MLflow's server imports it, and nobody who reads the warning can change that.
        "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi is deprecated",
        **inherited,
        "MLFLOW_BACKEND_STORE_URI": database_url(uri),
    }


def study_pages(uri: str, name: str, study_id: str) -> Mapping[str, str]:
    """Return the addresses of a study in the UI, after that of the server; none where MLflow does not know it."""
    from sweeps.tracking.mlflow_runs import find_pages

    return find_pages(uri, name, study_id)


def open_when_ready(address: str, page: str) -> None:
    """Open a page in a browser as soon as a server answers, from a process of its own; returns at once."""
    command = [sys.executable, "-m", "sweeps.tracking.open_page", address, page]
    subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
