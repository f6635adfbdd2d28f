"""The connection to MLflow: settings, client, and the experiment of a study. The only module that imports MLflow."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
# Two lines for each trial, with the server's URL as it was given: with its password.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# A server that is away is noticed in seconds instead of minutes: what it missed is sent later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from sweeps.state.credentials import database_url
from sweeps.tracking.mlflow import ARTIFACTS

__all__ = [
    "Metric",
    "MlflowClient",
    "Param",
    "RunTag",
    "connect",
    "open_experiment",
]
PORTS = {"postgres": 5432, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# The kind of experiment that the UI shows training runs and their curves for.
KIND = ("mlflow.experimentKind", "custom_model_development")


def connect(uri: str) -> MlflowClient:
    """Return a client of a tracking URI.

    Raises:
        mlflow.exceptions.MlflowException, OSError: The store does not answer, or cannot be written to.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _check_reachable(uri)
    _write_ahead(uri)
    _move_artifacts(uri)
    return MlflowClient(_without_password(database_url(uri)))


def open_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Find or create an experiment, and return its ID.

    Args:
        artifacts: Where artifacts of a new experiment go; None leaves it to the server.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        number = client.create_experiment(name, artifact_location=artifacts)
    else:
        number = experiment.experiment_id
    client.set_experiment_tag(number, *KIND)
    return str(number)


def _move_artifacts(uri: str) -> None:
    """Let the database of a results folder look for artifacts beside it, also after that folder was moved or copied.

    MLflow stores absolute paths, and has no call that changes them.
    """
    path = Path(_sqlite_path(uri) or "")
    if path.name != "mlflow.db" or not path.with_name("trials.jsonl").exists() or not path.exists():
        return
    here = path.resolve().with_name(ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        tables = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchall()
        known = (
            file.execute("SELECT artifact_location FROM experiments").fetchall() if tables else []
        )
        for (earlier,) in known:
            if earlier and earlier != here and earlier.endswith(f"/{ARTIFACTS}"):
                for table, column in (
                    ("runs", "artifact_uri"),
                    ("experiments", "artifact_location"),
                ):
                    file.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ?",
                        (here, len(earlier) + 1, f"{earlier}%"),
                    )


def _without_password(uri: str) -> str:
    """Move user and password from a server's address to the environment, where MLflow finds them for artifacts as well."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("http") or "@" not in parts.netloc:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_reachable(uri: str) -> None:
    """Raise OSError when nothing listens where a database should, which MLflow finds out in two minutes."""
    parts = urlsplit(uri)
    if parts.hostname and not parts.scheme.startswith("http"):
        port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
        if port is not None:
            socket.create_connection((parts.hostname, port), timeout=10).close()


def _sqlite_path(uri: str) -> str | None:
    url = make_url(database_url(uri)) if uri.startswith("sqlite") else None
    return url.database if url is not None else None


def _write_ahead(uri: str) -> None:
    """Let an SQLite file take commits without waiting for the disk, a fifth of the time: records can be sent again."""
    if path := _sqlite_path(uri):
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA journal_mode=WAL")


@event.listens_for(Engine, "connect")
def _keep_pace(connection: Any, _: Any) -> None:
    """With a write-ahead log a crash of the machine may lose the last commits, but never breaks the file."""
    if isinstance(connection, sqlite3.Connection):
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
