"""Commands that show a study, or send it somewhere to be seen: status, ui, dashboard, sync."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mu import record
from sweeps.commands.common import DONE, add_storage, path, read_study
from sweeps.errors import StudyError, SweepError
from sweeps.state import results
from sweeps.state.credentials import hide


def add(commands: Any) -> None:
    """Add the commands that show a study, or send it somewhere to be seen."""
    status = commands.add_parser("status", help="show how far a study is")
    status.add_argument("folder", metavar="STUDY_DIR")  # of the cluster's head with --address
    status.add_argument(
        "--address",
        help="dashboard of the cluster where STUDY_DIR is, such as http://localhost:8265",
    )
    status.set_defaults(command=_status)

    ui = commands.add_parser("ui", help="serve the MLflow UI of a study")
    ui.add_argument("folder", type=path, metavar="STUDY_DIR", nargs="?")
    ui.add_argument("--tracking-uri", help="MLflow store (mlflow.db in STUDY_DIR)")
    _add_server(ui, port=5000)
    ui.add_argument("--open", action="store_true", help="open the study's runs in a browser")
    ui.set_defaults(command=_ui)

    dashboard = commands.add_parser("dashboard", help="serve Optuna's dashboard of a study")
    dashboard.add_argument("folder", type=path, metavar="STUDY_DIR")
    dashboard.add_argument(
        "--optuna-storage", default=os.environ.get("MUSWEEP_OPTUNA_STORAGE"), metavar="URL",
        help="Optuna's database ($MUSWEEP_OPTUNA_STORAGE, or the journal in STUDY_DIR)",
    )  # fmt: skip
    _add_server(dashboard, port=8080)
    dashboard.set_defaults(command=_dashboard)

    sync = commands.add_parser("sync", help="send MLflow what it lacks: trials, results, report")
    sync.add_argument("folder", type=path, metavar="STUDY_DIR")
    sync.add_argument(
        "--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"), metavar="URI",
        help="MLflow ($MLFLOW_TRACKING_URI, or mlflow.db in STUDY_DIR)",
    )  # fmt: skip
    sync.add_argument(
        "--models",
        action="store_true",
        help="also the models that the study kept, with their cards",
    )
    add_storage(sync)
    sync.set_defaults(command=_sync)


def _add_server(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=port)


@record.without_collection()  # among the records of a large study it takes longer than all else here
def _status(options: argparse.Namespace) -> int:
    if options.address is not None:
        from sweeps.tracking import remote

        print(remote.run(["status", options.folder], options.address), end="")
        return DONE
    from sweeps.tracking import status

    folder = path(options.folder)
    line, records = read_study(folder)
    status.show(folder, line, records, Console())
    return DONE


def _ui(options: argparse.Namespace) -> int:
    from sweeps.tracking import mlflow_ui
    from sweeps.tracking.mlflow import local_uri

    folder, uri = options.folder, options.tracking_uri
    if uri is None and folder is None:
        raise StudyError("ui: give STUDY_DIR or --tracking-uri")
    serves_itself = uri is not None and uri.startswith("http")
    if serves_itself and folder is None:
        raise StudyError(f"--tracking-uri {uri}: is a server; open it in a browser")
    if uri is None and not (folder / "mlflow.db").is_file():
        raise StudyError(f"{folder}: there is no mlflow.db; give --tracking-uri")
    uri = uri or local_uri(folder)
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    address = uri.rstrip("/") if serves_itself else f"http://{host}:{options.port}"
    pages = _study_pages(folder, uri)
    if not serves_itself:
        print(f"MLflow UI on {address} (Ctrl-C ends it)")
    for name, page in pages.items():
        print(f"{name:6}  {hide(address)}/{page}", flush=True)
    if options.open:
        mlflow_ui.open_when_ready(address, pages.get("runs", ""))
    if serves_itself:
        return DONE
    sys.stdout.flush()
    command = [sys.executable, "-m", *mlflow_ui.ui_command(options.host, options.port)]
    os.execve(sys.executable, command, mlflow_ui.ui_environment(uri))


def _study_pages(folder: Path | None, uri: str) -> Mapping[str, str]:
    """The pages of a study in MLflow's UI; none where there is no study, or MLflow does not know it."""
    from sweeps.tracking import mlflow_ui

    if folder is None or not (folder / results.TRIALS).is_file():
        return {}
    line, _ = read_study(folder)
    try:
        return mlflow_ui.study_pages(uri, line["study"], line.get("uuid", ""))
    except Exception as error:
        raise StudyError(f"{uri}: MLflow cannot be read: {error}") from error


def _dashboard(options: argparse.Namespace) -> int:
    from sweeps.search import dashboard

    location = options.optuna_storage or str(options.folder / "optuna.journal")
    dashboard.serve(location, options.host, options.port)
    return DONE


def _sync(options: argparse.Namespace) -> int:
    from sweeps.tracking.mlflow import artifact_location, describe, local_uri
    from sweeps.tracking.mlflow_process import write_files, write_results
    from sweeps.tracking.mlflow_runs import Tracker

    line, records = read_study(options.folder)
    uri = options.tracking_uri or local_uri(options.folder)
    study = line["study"], line.get("uuid", "")
    try:
        tracker = Tracker(uri, study, artifact_location(uri, options.folder))
        tracker.facts = describe(line)
        sent = tracker.sync(records)
        failed = write_results(tracker, options.folder) or write_files(tracker, options.folder)
        models = _send_models(tracker, options) if options.models else None
        tracker.close()
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(f"{uri}: MLflow cannot be written to: {error}") from error
    print(f"{line['study']}: sent {sent} of {len(records)} records, the others were there")
    if models is not None:
        print(f"{line['study']}: sent {models} models")
    if failed:
        raise SweepError(f"{uri}: MLflow did not take all of the results: {failed}")
    return DONE


def _send_models(tracker: Any, options: argparse.Namespace) -> int:
    from sweeps.unlearned import to_mlflow

    return to_mlflow.send(tracker, options.folder, options.storage)
