"""The command line: parse, call, print. ``musweep`` and ``python -m sweeps`` are the same program."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from mu import record
from mu.current import read_current
from sweeps.errors import StudyError, SweepError, errors_at, page_for
from sweeps.state import credentials, results
from sweeps.state.credentials import hide
from sweeps.study import yaml_file
from sweeps.tracking import run_log

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
PIPE_WIDTH = 240
"""Columns of a table that does not go to a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 some trials failed, 2 the input is wrong, 130 interrupted."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a command may go on
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    urls = (getattr(options, name, None) for name in ("storage", "tracking_uri", "optuna_storage"))
    credentials.remember(*urls)
    with run_log.on_console(getattr(options, "verbose", False)):
        return _call(options)


def _call(options: argparse.Namespace) -> int:
    """Run the command and return its exit code; tell errors of the user in one line."""
    try:
        return int(options.command(options))
    except StudyError as error:
        text = hide(error)
        page = page_for(text)
        print(f"musweep: {text}" + (f" (see {page})" if page else ""), file=sys.stderr)
        return WRONG
    except SweepError as error:
        print(f"musweep: {hide(error)}", file=sys.stderr)
        return SOME_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:
        print(hide(traceback.format_exc()), file=sys.stderr, end="")
        return SOME_FAILED


def _path(text: str) -> Path:
    """A path of this machine, also where a shell did not expand its `~`."""
    return Path(text).expanduser()


class _ShowVersion(argparse.Action):
    """An option that prints the version. The digest is computed only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from sweeps.state import code

        print(parser.prog, code.running())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="musweep", description="Hyperparameter sweeps for machine unlearning."
    )
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show version and digest of the source"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_models(commands)
    _add_reports(commands)
    _add_catalogue(commands)
    _add_watching(commands)
    return parser


def _add_catalogue(commands: Any) -> None:
    """Add the commands that write a first study, or show what ships."""
    init = commands.add_parser("init", help="write a study for your data")
    init.add_argument(
        "place", nargs="?", default=".", metavar="DATA",
        help="folder or .zip of images or of a data set, or a data set by name (this folder)",
    )  # fmt: skip
    init.add_argument("--out", type=_path, default=Path("study.yaml"), help="file (study.yaml)")
    init.set_defaults(command=_init)

    shipped = commands.add_parser("studies", help="list the studies that ship with musweep")
    shipped.set_defaults(command=_studies)

    schema = commands.add_parser("schema", help="print the JSON schema of a study file")
    schema.set_defaults(command=_schema)

    listing = commands.add_parser("methods", help="list the unlearning methods, or show one")
    one = listing.add_argument("name", nargs="?", help="a method to show in full")
    one.completer = _complete_methods
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.add_argument("--methods-path", type=_path, help="folder with methods of your own")
    listing.set_defaults(command=_methods)


def _complete_studies(prefix: str, **_: Any) -> list[str]:
    """Return study files, folders and shipped studies that begin so, for a shell's completion."""
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter(("yaml", "yml"))(prefix)
    return [*files, *(name for name in yaml_file.shipped_studies() if name.startswith(prefix))]


def _complete_methods(prefix: str, **_: Any) -> list[str]:
    """Return the methods that begin so, for a shell's completion."""
    from sweeps import catalogue

    return [name for name in catalogue.method_files(()) if name.startswith(prefix)]


def _add_watching(commands: Any) -> None:
    """Add the commands that show a study, or send it somewhere to be seen."""
    status = commands.add_parser("status", help="show how far a study is")
    status.add_argument("folder", metavar="STUDY_DIR")  # of the cluster's head with --address
    status.add_argument(
        "--address",
        help="dashboard of the cluster where STUDY_DIR is, such as http://localhost:8265",
    )
    status.set_defaults(command=_status)

    ui = commands.add_parser("ui", help="serve the MLflow UI of a study")
    ui.add_argument("folder", type=_path, metavar="STUDY_DIR", nargs="?")
    ui.add_argument("--tracking-uri", help="MLflow store (mlflow.db in STUDY_DIR)")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=5000)
    ui.add_argument("--open", action="store_true", help="open the study's runs in a browser")
    ui.set_defaults(command=_ui)

    dashboard = commands.add_parser("dashboard", help="serve Optuna's dashboard of a study")
    dashboard.add_argument("folder", type=_path, metavar="STUDY_DIR")
    dashboard.add_argument(
        "--optuna-storage", default=os.environ.get("MUSWEEP_OPTUNA_STORAGE"), metavar="URL",
        help="Optuna's database ($MUSWEEP_OPTUNA_STORAGE, or the journal in STUDY_DIR)",
    )  # fmt: skip
    dashboard.add_argument("--host", default="127.0.0.1")
    dashboard.add_argument("--port", type=int, default=8080)
    dashboard.set_defaults(command=_dashboard)

    sync = commands.add_parser("sync", help="send MLflow what it lacks: trials, results, report")
    sync.add_argument("folder", type=_path, metavar="STUDY_DIR")
    sync.add_argument(
        "--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"), metavar="URI",
        help="MLflow ($MLFLOW_TRACKING_URI, or mlflow.db in STUDY_DIR)",
    )  # fmt: skip
    sync.set_defaults(command=_sync)


def _add_reports(commands: Any) -> None:
    report = commands.add_parser("report", help="write the report of a study again")
    report.add_argument("folder", type=_path, metavar="STUDY_DIR")
    report.add_argument("--out", type=_path, help="where to write it (STUDY_DIR/report)")
    which = ("main", "all", "none")
    report.add_argument("--figures", choices=which, default="main", help="which to write as files")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="compare the results of several studies")
    compare.add_argument("folders", type=_path, metavar="STUDY_DIR", nargs="+")
    compare.add_argument(
        "--out", type=_path, default="comparison", help="where to write it (comparison)"
    )
    compare.set_defaults(command=_compare)

    portfolio = commands.add_parser(
        "portfolio",
        help="choose a few configurations of each method that were good in several studies",
    )
    portfolio.add_argument("folders", type=_path, metavar="STUDY_DIR", nargs="+")
    portfolio.add_argument("--size", type=int, default=5, help="most configurations (5)")
    portfolio.add_argument(
        "--out", type=_path, metavar="FOLDER",
        help="write them into the search spaces in this folder, which are made where they are missing",
    )  # fmt: skip
    portfolio.add_argument("--methods-path", type=_path, help="folder with methods of your own")
    portfolio.set_defaults(command=_portfolio)


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a study, or continue it")
    _add_run_options(run)
    run.set_defaults(command=_run, oracle=True, again="run")
    choose = commands.add_parser(
        "choose", help="choose methods and knobs for your own model without a retrained one"
    )
    _add_run_options(choose)
    choose.add_argument(
        "--no-oracle", dest="oracle", action="store_false", required=True,
        help="retrain nothing: rules that need no retrained model choose from a menu of knobs",
    )  # fmt: skip
    choose.set_defaults(command=_run, again="choose --no-oracle")


def _add_run_options(run: Any) -> None:
    given = os.environ.get
    study = run.add_argument("study", help="study file, or the name of one that ships with musweep")
    study.completer = _complete_studies
    run.add_argument(
        "--results", default=given("MUSWEEP_RESULTS", "results"), type=_path,
        help="folder of all results ($MUSWEEP_RESULTS, or results)",
    )  # fmt: skip
    run.add_argument(
        "--storage", default=given("MUSWEEP_STORAGE", "storage"), metavar="DIR_OR_URL",
        help="folder or URL of models ($MUSWEEP_STORAGE, or storage)",
    )  # fmt: skip
    run.add_argument(
        "--tracking-uri", default=given("MLFLOW_TRACKING_URI"), metavar="URI",
        help="MLflow ($MLFLOW_TRACKING_URI, or mlflow.db in the study's results)",
    )  # fmt: skip
    run.add_argument(
        "--optuna-storage", default=given("MUSWEEP_OPTUNA_STORAGE"), metavar="URL",
        help="Optuna's database ($MUSWEEP_OPTUNA_STORAGE, or a journal in the study's results)",
    )  # fmt: skip
    run.add_argument(
        "--address", default=_cluster_of_this_job(),
        help="running Ray cluster to join, or auto ($RAY_ADDRESS; none: start Ray here)",
    )  # fmt: skip
    run.add_argument("--methods-path", type=_path, help="folder with methods of your own")
    run.add_argument("--code-path", type=_path, help="folder with modules of your own models")
    run.add_argument(
        "-v", "--verbose", action="store_true", help="also show what goes to run.log of the results"
    )
    run.add_argument(
        "--accept-code-change", action="store_true",
        help="keep trials of methods whose code has changed since",
    )  # fmt: skip
    run.add_argument(
        "--sample", type=float, metavar="SHARE",
        help="run it small, to see that it works: a share of the images, two epochs, two trials",
    )  # fmt: skip
    run.add_argument("--dry-run", action="store_true", help="print what would run, and stop")
    run.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="replace a part of the study, such as search.trials=5",
    )  # fmt: skip


def _add_models(commands: Any) -> None:
    """Add the commands that end with a model."""
    _add_export(commands)
    _add_unlearn(commands)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a model that a study kept to a file")
    export.add_argument("folder", type=_path, metavar="STUDY_DIR")
    export.add_argument("--forget", required=True, metavar="REQUEST", help="forget request")
    export.add_argument("--method", required=True, help="method, as the study calls it")
    export.add_argument("--seed", type=int, help="report seed (the first that has finished)")
    _add_out(export)
    export.add_argument(
        "--storage", default=os.environ.get("MUSWEEP_STORAGE", "storage"), metavar="DIR_OR_URL",
        help="folder or URL of models ($MUSWEEP_STORAGE, or storage)",
    )  # fmt: skip
    export.set_defaults(command=_export)


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", required=True, type=_path, metavar="FILE.pt",
        help="where the state dict goes; its card goes beside it, as FILE.json",
    )  # fmt: skip


def _add_unlearn(commands: Any) -> None:
    unlearn = commands.add_parser(
        "unlearn", help="run one method on a model of your own, without a study"
    )
    add = unlearn.add_argument
    add("--model", required=True, help="network, module:function, or a mapping as in a study")
    add("--weights", required=True, type=_path, help="state dict of the original model")
    add("--data", required=True, help="data set, folder of images, mapping or study file")
    add("--root", help="where the files of the data set are")
    add("--forget-indices", required=True, type=_path, metavar="FILE.npy",
        help="positions of the samples to forget among all training samples")  # fmt: skip
    add("--method", required=True, help="one of musweep methods")
    add("--knobs", default="defaults", metavar="KNOBS",
        help="defaults, a YAML file, or tuned:STUDY_DIR[:REQUEST] (defaults)")  # fmt: skip
    _add_out(unlearn)
    add("--seed", type=int, default=0, help="of all that is drawn (0)")
    add("--augment", help="augmentation that the model was trained with, such as crop_flip")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--methods-path", type=_path, help="folder with methods of your own")
    add("--code-path", type=_path, help="folder with modules of your own models")
    unlearn.set_defaults(command=_unlearn)


def _export(options: argparse.Namespace) -> int:
    from sweeps import export

    study = export.read_study(options.folder)
    asked = (options.forget, options.method, options.seed)
    unlearned = export.find_kept(study, *asked, options.storage)
    card = export.export(unlearned, options.folder, options.out)
    name = f"{card['method']} on {card['forget']['name']}, seed {card['seed']}"
    print(f"{options.out}: {name}, sha256 {card['file']['sha256'][:12]}; its card is beside it")
    return DONE


def _unlearn(options: argparse.Namespace) -> int:
    from sweeps import launch, unlearn, unlearn_task

    launch.import_from(options.code_path)
    yaml_file.method_folders(options.methods_path)
    names = [each.name for each in dataclasses.fields(unlearn_task.Asked)]
    task = unlearn_task.task_of(
        unlearn_task.Asked(**{name: getattr(options, name) for name in names})
    )
    launch.stop_on_sigterm()
    try:
        unlearn.run(task, Console())
    except KeyboardInterrupt:
        print("musweep: stopped; the same command goes on behind the last epoch that was saved",
              file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    return DONE


def _run(options: argparse.Namespace) -> int:
    from sweeps import launch

    console = Console()
    asked = launch.Options(
        **{each.name: getattr(options, each.name) for each in dataclasses.fields(launch.Options)}
    )
    if options.dry_run:
        launch.dry_run(options.study, asked, console)
        return DONE
    plan = launch.make_plan(options.study, asked)
    launch.stop_on_sigterm()
    try:
        again = f"musweep {options.again} {shlex.quote(options.study)}"
        ended = launch.run(plan, asked, console, again)
    except KeyboardInterrupt:
        return INTERRUPTED
    return SOME_FAILED if ended.failed else DONE


def _report(options: argparse.Namespace) -> int:
    from reports import page

    with errors_at():
        print(page.build(options.folder, options.out, options.figures))
    return DONE


def _compare(options: argparse.Namespace) -> int:
    from reports import compare

    with errors_at():
        print(compare.build(options.folders, options.out))
    return DONE


def _portfolio(options: argparse.Namespace) -> int:
    from sweeps import portfolio

    methods = yaml_file.method_folders(options.methods_path)
    portfolio.conclude(options.folders, options.size, methods, options.out, _console())
    return DONE


def _init(options: argparse.Namespace) -> int:
    from sweeps import first_study, launch

    out: Path = options.out
    if out.exists():
        raise StudyError(f"{out}: is there already; say another --out")
    text = first_study.text_for(options.place, str(out))
    draft = out.with_name(f".{out.name}.draft.yaml")
    try:
        draft.write_text(text, encoding="utf-8")
        launch.dry_run(str(draft), launch.Options(), Console())
        draft.rename(out)
    except OSError as error:
        raise StudyError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    print(f"{out} is written; next: musweep run {shlex.quote(str(out))} --sample 0.05")
    return DONE


def _studies(options: argparse.Namespace) -> int:
    from sweeps import catalogue

    catalogue.print_studies(_console())
    return DONE


def _schema(options: argparse.Namespace) -> int:
    print(
        resources.files("sweeps.study").joinpath("schema.json").read_text(encoding="utf-8"), end=""
    )
    return DONE


def _methods(options: argparse.Namespace) -> int:
    from sweeps import catalogue

    folders = yaml_file.method_folders(options.methods_path)
    if options.json:
        print(json.dumps(catalogue.methods_as_data(options.name, folders), indent=2))
    elif options.name is not None:
        catalogue.print_method(options.name, folders, _console())
    else:
        catalogue.print_methods(folders, _console())
    return DONE


def _console() -> Console:
    """Return a console as wide as the terminal, or with room for long lines where the output is a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def _status(options: argparse.Namespace) -> int:
    if options.address is not None:
        from sweeps.tracking import remote

        print(remote.run(["status", options.folder], options.address), end="")
        return DONE
    from sweeps.tracking import status

    folder = _path(options.folder)
    line, records = _read(folder)
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
    if not serves_itself:
        print(f"MLflow UI on {address} (Ctrl-C ends it)")
    pages = _study_pages(folder, uri)
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
    line, _ = _read(folder)
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

    line, records = _read(options.folder)
    uri = options.tracking_uri or local_uri(options.folder)
    study = line["study"], line.get("uuid", "")
    try:
        tracker = Tracker(uri, study, artifact_location(uri, options.folder))
        tracker.facts = describe(line)
        sent = tracker.sync(records)
        failed = write_results(tracker, options.folder) or write_files(tracker, options.folder)
        tracker.close()
    except Exception as error:
        raise StudyError(f"{uri}: MLflow cannot be written to: {error}") from error
    print(f"{line['study']}: sent {sent} of {len(records)} records, the others were there")
    if failed:
        raise SweepError(f"{uri}: MLflow did not take all of the results: {failed}")
    return DONE


def _read(folder: Path) -> tuple[dict[str, Any], list[record.TrialRecord]]:
    path = folder / results.TRIALS
    if not path.is_file():
        raise StudyError(f"{folder}: there is no {results.TRIALS}; give the folder of a study")
    with errors_at():
        line, records = read_current(path)
    if not line:
        raise StudyError(f"{path}: no study has been started here")
    return line, records


def _cluster_of_this_job() -> str | None:
    """The cluster that Ray names to the jobs submitted to it; not the address of its dashboard."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if not address or address.startswith("http") else address


if __name__ == "__main__":
    sys.exit(main())
