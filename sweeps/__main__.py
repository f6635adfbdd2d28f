"""The command line: parse, call, print. ``musweep`` and ``python -m sweeps`` are the same program."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mu import methods, record
from sweeps import preflight
from sweeps.errors import StudyError, SweepError
from sweeps.state import credentials, results
from sweeps.state.credentials import hide
from sweeps.study import study, yaml_file
from sweeps.study.study_file import json_schema

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 some trials failed, 2 the input is wrong."""
    lines = logging.StreamHandler()
    lines.setFormatter(credentials.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    options = _parser().parse_args(arguments)
    urls = (getattr(options, name, None) for name in ("storage", "tracking_uri", "optuna_storage"))
    credentials.remember(*urls)
    try:
        return int(options.command(options))
    except StudyError as error:
        print(f"musweep: {hide(error)}", file=sys.stderr)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="musweep", description="Hyperparameter sweeps for machine unlearning."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a study, or continue it")
    run.add_argument("study", help="study file, or the name of one that ships with musweep")
    given = os.environ.get
    run.add_argument(
        "--results", default=given("MUSWEEP_RESULTS", "results"), type=Path,
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
    run.add_argument("--methods-path", type=Path, help="folder with methods of your own")
    run.add_argument("--code-path", type=Path, help="folder with modules of your own models")
    run.add_argument("--dry-run", action="store_true", help="print what would run, and stop")
    run.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="replace a part of the study, such as search.trials=5",
    )  # fmt: skip
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="write the report of a study again")
    report.add_argument("folder", type=Path, metavar="STUDY_DIR")
    report.add_argument("--out", type=Path, help="where to write it (STUDY_DIR/report)")
    report.set_defaults(command=_report)

    shipped = commands.add_parser("studies", help="list the studies that ship with musweep")
    shipped.set_defaults(command=_studies)

    schema = commands.add_parser("schema", help="print the JSON schema of a study file")
    schema.set_defaults(command=_schema)

    listing = commands.add_parser("methods", help="list the unlearning methods")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.add_argument("--methods-path", type=Path, help="folder with methods of your own")
    listing.set_defaults(command=_methods)

    status = commands.add_parser("status", help="show how far a study is")
    status.add_argument("folder", type=Path, metavar="STUDY_DIR")
    status.add_argument(
        "--address",
        help="dashboard of the cluster where STUDY_DIR is, such as http://localhost:8265",
    )
    status.set_defaults(command=_status)

    ui = commands.add_parser("ui", help="serve the MLflow UI of a study")
    ui.add_argument("folder", type=Path, metavar="STUDY_DIR", nargs="?")
    ui.add_argument("--tracking-uri", help="MLflow store (mlflow.db in STUDY_DIR)")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(command=_ui)

    sync = commands.add_parser("sync", help="send records to MLflow that it does not have yet")
    sync.add_argument("folder", type=Path, metavar="STUDY_DIR")
    sync.add_argument(
        "--tracking-uri", default=given("MLFLOW_TRACKING_URI"), metavar="URI",
        help="MLflow ($MLFLOW_TRACKING_URI, or mlflow.db in STUDY_DIR)",
    )  # fmt: skip
    sync.set_defaults(command=_sync)
    return parser


def _run(options: argparse.Namespace) -> int:
    from sweeps import splits
    from sweeps.plan import Plan
    from sweeps.run import Locations, Sweep, open_results

    console = Console()
    path = yaml_file.find_study(options.study)
    folders = _folders(options.methods_path)
    _import_from(options.code_path)
    wanted = study.read(path, options.overrides, folders, options.code_path is not None)
    credentials.remember(wanted.settings.notify)
    if options.address is None and not options.dry_run:  # which plans for other machines, too
        _check_machine(wanted)
    plan = Plan(wanted, preflight.load_data(wanted, str(path)))
    if options.dry_run:
        _print_plan(plan, console)
        return DONE
    places = Locations(
        options.results.expanduser() / wanted.name,
        options.storage,
        options.tracking_uri,
        options.optuna_storage,
    )
    _stop_on_sigterm()
    try:
        if plan.rankings:
            _rank(plan, options, console)
    except KeyboardInterrupt:
        _say(console, f"\n{wanted.name}: stopped before any trial")
        return INTERRUPTED
    found = open_results(plan, places)
    again = f"musweep run {shlex.quote(options.study)}"
    try:
        splits.write(plan, places.folder / "splits")
        sweep = Sweep(plan, found, places, console)
        if sweep.done:
            _say(
                console, f"{wanted.name}: nothing to do, all {len(found.records)} trials are there"
            )
        else:
            _sweep(sweep, options, console)
            _tell(wanted, found, "finished")
    except (KeyboardInterrupt, Exception) as error:
        if _interrupted(error):
            _tell(wanted, found, "stopped")
            _say(
                console,
                f"\n{wanted.name}: stopped; {len(found.records)} trials are kept. "
                f"Continue with the same command: {again} ...",
            )
            return INTERRUPTED
        _tell(wanted, found, "failed", str(error))
        if isinstance(error, OSError):  # such as a full disk
            raise SweepError(f"{error}; what has ended is kept, continue with: {again}") from error
        raise
    finally:
        found.close()
    return _finish(places.folder, found, options, console)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: what a library does on its way out may raise another in its place."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _tell(wanted: study.Study, found: results.Results, event: str, reason: str = "") -> None:
    """Tell the study's `notify` address, if it has one, how a run ended: `finished`, `stopped` or `failed`."""
    from sweeps.tracking.notify import tell

    if wanted.settings.notify is None:
        return
    counts = results.counts(found.records)
    failed = sum(statuses.get("failed", 0) for statuses in counts.values())
    text = f"{wanted.name}: {event}, {len(found.records)} trials, {failed} failed"
    content = {
        "text": f"{text}: {hide(reason)}" if reason else text,
        "study": wanted.name,
        "event": event,
        "trials": len(found.records),
        "failed": failed,
        "counts": counts,
        "reason": hide(reason),
    }
    tell(wanted.settings.notify, content)


def _rank(plan: Any, options: argparse.Namespace, console: Console) -> None:
    """Settle which samples the ranked requests select, on a cluster of its own where they are not known yet."""
    from sweeps import splits

    @contextmanager
    def workers() -> Iterator[Any]:
        from sweeps.workers import cluster
        from sweeps.workers import trainers as training

        _say(console, f"{plan.study.name}: ranking samples for {', '.join(plan.rankings)}")
        with cluster.join(options.address, plan.study.resources):
            yield training.Trainers(plan)

    splits.resolve_ranked_requests(plan, _store(options), workers)


def _store(options: argparse.Namespace) -> Any:
    from sweeps.state.store import Store

    try:
        store = Store(options.storage)
        store.check()
    except Exception as error:  # each protocol has errors of its own
        raise StudyError(f"--storage {options.storage}: cannot be written to: {error}") from error
    return store


def _sweep(sweep: Any, options: argparse.Namespace, console: Console) -> None:
    from sweeps.tracking.mlflow import Tracking, describe, local_uri

    folder = sweep.places.folder
    store = _store(options)
    local = options.tracking_uri is None
    uri = options.tracking_uri or local_uri(folder)
    artifacts = (folder / "mlartifacts").resolve().as_uri() if local else None
    facts = describe(sweep.results.study)
    tracking = Tracking(uri, sweep.study, facts, sweep.results.path, artifacts)
    try:
        from sweeps.workers import cluster, tuner

        try:
            tracking.wait()
        except OSError as error:
            raise StudyError(
                f"--tracking-uri {uri}: MLflow cannot be written to: {error}"
            ) from error
        sweep.tracking = tracking
        with cluster.join(options.address, sweep.plan.study.resources) as joined:
            try:
                sweep.run(tuner.Workers(sweep.plan, joined), store)
            finally:
                sweep.summarize("ended")
    finally:
        unsent = tracking.close()
        if sweep.tracking is not None and unsent != 0:
            _say(
                console,
                f"MLflow did not take {'all' if unsent is None else unsent} records; "
                f"send them with: musweep sync {folder}",
            )


def _finish(
    folder: Path, found: results.Results, options: argparse.Namespace, console: Console
) -> int:
    """Write the report, print the main table, and say where everything is."""
    from reports import page

    index = page.build(folder)
    table = index.parent / "tables" / "main.md"
    _say(console, f"\n{table.read_text(encoding='utf-8')}")
    _say(console, f"Report: {index}")
    if options.tracking_uri is None:
        _say(console, f"MLflow: musweep ui {folder}")
    else:
        _say(console, f"MLflow: {hide(options.tracking_uri)}")
    failed = sum(r.status == "failed" for r in found.records.values())
    if failed:
        _say(console, f"{failed} trials failed; the report says which and why")
        return SOME_FAILED
    return DONE


def _say(console: Console, text: str) -> None:
    """Print text as it is, long paths in one piece."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_plan(plan: Any, console: Console) -> None:
    from sweeps.estimate import seconds_per_sample
    from sweeps.tracking.progress import duration

    wanted = plan.study
    console.print(f"{wanted.name}: {len(plan.cells)} cells (forget request x method)")
    cells = Table("method", *wanted.forget, "searched knobs", box=None, padding=(0, 2, 0, 0))
    for tuned in wanted.methods:
        spans = ", ".join(span.knob for span in tuned.ranges) or "none"
        trials = [
            str(wanted.trials(tuned.name)) if f in tuned.forget else "-" for f in wanted.forget
        ]
        cells.add_row(tuned.name, *trials, spans)
    console.print(cells)
    rate = seconds_per_sample(plan)
    phases = Table("phase", "trials", "estimate", box=None, padding=(0, 2, 0, 0))
    total = 0.0
    for phase, count in plan.counts.items():
        seconds = plan.samples[phase] * rate
        total += seconds
        phases.add_row(phase, str(count), duration(seconds))
    if plan.rankings:
        trained = len(plan.rankings) * wanted.training.epochs * len(plan.data.parts["train"])
        total += trained * rate
        phases.add_row("ranking", str(len(plan.rankings)), duration(trained * rate))
    phases.add_row("all", str(sum(plan.counts.values())), duration(total))
    console.print(phases)
    console.print(
        "Estimates are of compute on one slot of this machine, an epoch of a method counted as one "
        "pass over the training data; divide by the number of slots."
    )


def _report(options: argparse.Namespace) -> int:
    from reports import page

    try:
        print(page.build(options.folder, options.out))
    except ValueError as error:
        raise StudyError(str(error)) from error
    return DONE


def _studies(options: argparse.Namespace) -> int:
    shipped = yaml_file.shipped_studies()
    width = max(map(len, shipped))
    for name, path in shipped.items():  # a line each, to be searched
        print(f"{name:{width}}  {yaml_file.first_comment(path)}")
    return DONE


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return DONE


def _methods(options: argparse.Namespace) -> int:
    found = []
    for name in methods.names(folders := _folders(options.methods_path)):
        try:
            found.append(methods.load(name, folders))
        except ValueError as error:
            raise StudyError(str(error)) from error
    if options.json:
        content = [
            {
                "name": method.name,
                "summary": method.summary,
                "needs": method.needs,
                "requests": method.requests,
                "knobs": {
                    knob.name: {"default": knob.default, "accepts": knob.accepts}
                    for knob in method.knobs.values()
                },
            }
            for method in found
        ]
        print(json.dumps(content, indent=2))
        return DONE
    table = Table("method", "what it does", "needs", "knobs", box=None, padding=(0, 2, 1, 0))
    for method in found:
        knobs = ", ".join(f"{k.name}={k.default}" for k in method.knobs.values())
        summary = method.summary.partition(": ")[2] or method.summary
        table.add_row(method.name, summary, ", ".join(method.needs), knobs)
    Console().print(table)
    return DONE


def _status(options: argparse.Namespace) -> int:
    if options.address is not None:
        from sweeps.tracking import remote as jobs

        print(jobs.run(["status", str(options.folder)], options.address), end="")
        return DONE
    from sweeps.tracking import status

    line, found = _read(options.folder)
    status.show(options.folder, line, found, Console())
    return DONE


def _ui(options: argparse.Namespace) -> int:
    from sweeps.tracking.mlflow import local_uri, ui_command, ui_environment

    if options.tracking_uri is None and options.folder is None:
        raise StudyError("ui: give STUDY_DIR or --tracking-uri")
    if options.tracking_uri is not None and options.tracking_uri.startswith("http"):
        raise StudyError(
            f"--tracking-uri {options.tracking_uri}: is a server; open it in a browser"
        )
    if options.tracking_uri is None and not (options.folder / "mlflow.db").is_file():
        raise StudyError(f"{options.folder}: there is no mlflow.db; give --tracking-uri")
    uri = options.tracking_uri or local_uri(options.folder)
    command = ui_command(options.host, options.port)
    print(f"MLflow UI on http://{options.host}:{options.port} (Ctrl-C ends it)", flush=True)
    os.execve(sys.executable, [sys.executable, "-m", *command], ui_environment(uri))


def _sync(options: argparse.Namespace) -> int:
    from sweeps.tracking.mlflow import describe, local_uri
    from sweeps.tracking.mlflow_process import Tracker

    line, found = _read(options.folder)
    uri = options.tracking_uri or local_uri(options.folder)
    try:
        tracker = Tracker(uri, line["study"])
        tracker.facts = describe(line)
        sent = tracker.sync(found)
        tracker.close()
    except Exception as error:
        raise StudyError(f"{uri}: MLflow cannot be written to: {error}") from error
    print(f"{line['study']}: sent {sent} of {len(found)} records, the others were there")
    return DONE


def _read(folder: Path) -> tuple[dict[str, Any], list[record.TrialRecord]]:
    path = folder.expanduser() / results.TRIALS
    if not path.is_file():
        raise StudyError(f"{folder}: there is no {results.TRIALS}; give the folder of a study")
    try:
        line, found = record.read(path)
    except ValueError as error:
        raise StudyError(str(error)) from error
    if not line:
        raise StudyError(f"{path}: no study has been started here")
    return line, found


def _cluster_of_this_job() -> str | None:
    """The cluster that Ray names to the jobs submitted to it; not the address of its dashboard."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if not address or address.startswith("http") else address


def _folders(path: Path | None) -> list[Path]:
    if path is not None and not path.is_dir():
        raise StudyError(f"--methods-path {path}: is not a folder")
    return [path] if path is not None else []


def _import_from(folder: Path | None) -> None:
    """Let a study's model be imported from a folder; only what the command line names is ever searched."""
    if folder is None:
        return
    if not folder.is_dir():
        raise StudyError(f"--code-path {folder}: is not a folder")
    sys.path.insert(0, str(folder.resolve()))


def _check_machine(wanted: study.Study) -> None:
    """Refuse trials that this machine can never hold; a cluster may still grow."""
    import torch

    there = {"cpus": os.cpu_count() or 1, "gpus": torch.cuda.device_count()}
    resources = wanted.resources
    for what, share in (("trial", resources.trial), ("training", resources.reference)):
        for name, asked in share.amounts.items():
            if asked > there.get(name, 0):
                raise StudyError(
                    f"resources: {name}: {asked:g} are asked for each {what}, this machine has "
                    f"{there.get(name, 0)}; set resources.{name}, or --address of a cluster"
                )


def _stop_on_sigterm() -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main())
