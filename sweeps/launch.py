"""A run of a study from its file to its report: what ``musweep run`` does, and what a program can call."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mu.failing import failing_cells, say_failing
from sweeps import choosing, preflight
from sweeps.errors import DataMissingError, StudyError, SweepError
from sweeps.flow import splits
from sweeps.flow.changes import open_results, run_unkept_again
from sweeps.flow.sweep import Locations, Sweep
from sweeps.plan import Plan
from sweeps.plan.outline import Outline
from sweeps.plan.study_line import versions
from sweeps.search.earlier import first_knobs, say_start
from sweeps.state import code, credentials, results
from sweeps.state.credentials import hide
from sweeps.state.results import Results
from sweeps.state.store import Store
from sweeps.study import study, yaml_file
from sweeps.study.rungs import say_exempt
from sweeps.study.sample import sampled
from sweeps.study.study import Study
from sweeps.tracking.live_report import LiveReport
from sweeps.tracking.mlflow import Tracking, artifact_location, describe, local_uri
from sweeps.tracking.notify import tell
from sweeps.tracking.run_log import SHOWN, in_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to run a study, besides what its file says.

    Args:
        results: Folder of all results; the study's are in a folder of its name there.
        storage: Folder or fsspec URL of trained models, shared by studies.
        tracking_uri: MLflow; None is ``mlflow.db`` in the study's results.
        optuna_storage: Optuna's database; None is a journal in the study's results.
        address: Running Ray cluster to join, or `auto`; None starts Ray on this machine.
        methods_path: Folder with methods of one's own.
        code_path: Folder with modules of one's own models.
        overrides: Parts of the study to replace, as ``key.subkey=value``.
        accept_code_change: Whether trials are kept whose method's code has changed since.
        sample: Share of the training images on which the study runs in small; None runs it as it is.
        oracle: Whether models are retrained; without, the study is a menu of knobs (see ``sweeps.choosing``).
    """

    results: Path = Path("results")
    storage: str = "storage"
    tracking_uri: str | None = None
    optuna_storage: str | None = None
    address: str | None = None
    methods_path: Path | None = None
    code_path: Path | None = None
    overrides: Sequence[str] = ()
    accept_code_change: bool = False
    sample: float | None = None
    oracle: bool = True


@dataclass(frozen=True)
class Finished:
    """A study whose run has ended.

    Args:
        folder: Its results folder.
        report: Page of its report; None where no model was retrained, so that there is nothing to report.
        failed: Number of trials that failed.
    """

    folder: Path
    report: Path | None
    failed: int


def make_plan(asked: str | Study, options: Options) -> Plan:
    """Read a study, by file or by the name of a shipped one, unless it is read; load its data, and check that all fits.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed. Or this machine
            cannot hold its trials, or no cluster answers at the address.
    """
    wanted, where = (asked, asked.name) if isinstance(asked, Study) else read_study(asked, options)
    _check_place(wanted, options.address)
    return _plan(wanted, where)


def dry_run(name: str, options: Options, console: Console) -> None:
    """Print what a study would run, maybe on another machine, and for how long where this one can tell.

    Raises:
        StudyError: As ``make_plan``; but the study need not fit this machine, nor its data be there.
    """
    from sweeps import estimate

    wanted, where = read_study(name, options)
    try:
        plan = _plan(wanted, where)
    except DataMissingError as error:
        estimate.print_outline(Outline(wanted), console)
        say(
            console,
            f"Without its data nothing is checked against it, and nothing estimated: {error}",
        )
    else:
        estimate.print_plan(plan, console)


def _plan(wanted: Study, where: str) -> Plan:
    first = first_knobs(wanted, where)
    return Plan(wanted, preflight.load_data(wanted, where), first)


def read_study(name: str, options: Options) -> tuple[Study, str]:
    """Return a study, by file or by the name of a shipped one, and its file for messages. Raises StudyError."""
    path = yaml_file.find_study(name)
    import_from(options.code_path)
    folders, own = yaml_file.method_folders(options.methods_path), options.code_path is not None
    change = choosing.without_oracle if not options.oracle else study.unchanged
    wanted = study.read(path, options.overrides, folders, own, change)
    if options.sample is not None:
        small = sampled(wanted.definition, options.sample, str(path))
        wanted = study.parse(small, f"{path} --sample {options.sample:g}", folders)
    credentials.remember(wanted.notify)
    return wanted, str(path)


def run(plan: Plan, options: Options, console: Console, again: str) -> Finished:
    """Run a plan, or what is left of it, and write its report.

    Args:
        again: The command that continues it, for messages.

    Raises:
        StudyError: It cannot be run as asked; nothing has started.
        SweepError: It could not be run to its end; what has ended is kept.
        KeyboardInterrupt: It was stopped; what has ended is kept.
    """
    locations = Locations(
        options.results.expanduser() / plan.study.name,
        options.storage,
        options.tracking_uri,
        options.optuna_storage,
    )
    open_store = cache(partial(_open_store, options.storage))
    if plan.rankings:
        _rank(plan, options, open_store, console)
    study_results, said = open_results(plan, locations.folder, options.accept_code_change)
    with in_folder(locations.folder), contextlib.ExitStack() as ending:
        ending.callback(study_results.close)
        libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
        logger.info("%s: musweep %s, %s", again, code.running(), libraries)
        try:
            if plan.study.keep.models != "none":
                said += run_unkept_again(plan, study_results, open_store())
            for text in said:
                say(console, f"{plan.study.name}: {text}")
            splits.write(plan, locations.folder / "splits")
            sweep = Sweep(plan, study_results, locations, console)
            if sweep.done:
                count = len(study_results.records)
                say(console, f"{plan.study.name}: nothing to do, all {count} trials are there")
            else:
                search, methods = plan.study.search, plan.study.methods
                lines = [say_exempt(search, methods), *say_start(search.start, methods)]
                for line in filter(None, lines):
                    say(console, f"{plan.study.name}: {line}")
                _sweep(sweep, options, open_store(), console, ending)
                _notify(plan.study, study_results, "finished")
        except (KeyboardInterrupt, Exception) as error:
            _explain(error, plan.study, study_results, console, again)
            raise
        if not plan.study.oracle:
            records = study_results.records.values()
            choosing.conclude(plan, records, open_store(), locations.folder, console)
            return Finished(locations.folder, None, _failed(study_results))
        return _report(locations, study_results, console, sweep.ledger.tracking)


def _explain(
    error: BaseException, wanted: Study, study_results: Results, console: Console, again: str
) -> None:
    """Say how an unfinished run ended, here and to the study's `notify` address."""
    if interrupted(error):
        _notify(wanted, study_results, "stopped")
        say(
            console,
            f"\n{wanted.name}: stopped; {len(study_results.records)} trials are kept. "
            f"Continue with the same command: {again} ...",
        )
        raise KeyboardInterrupt from error
    expected = isinstance(error, (StudyError, SweepError, OSError))
    logger.error("%s", error, exc_info=None if expected else error, extra=SHOWN)
    _notify(wanted, study_results, "failed", str(error))
    if isinstance(error, OSError):  # such as a full disk
        raise SweepError(f"{error}; what has ended is kept, continue with: {again}") from error


def interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error: what a library does on its way out may raise another in its place."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _notify(wanted: Study, study_results: Results, event: str, reason: str = "") -> None:
    """Tell the study's `notify` address, if it has one, how a run ended: `finished`, `stopped` or `failed`."""
    if wanted.notify is None:
        return
    counts = results.counts(study_results.records)
    trials = len(study_results.records)
    failed = sum(statuses.get("failed", 0) for statuses in counts.values())
    text = f"{wanted.name}: {event}, {trials} trials, {failed} failed"
    content = {
        "text": f"{text}: {hide(reason)}" if reason else text,
        "study": wanted.name,
        "event": event,
        "trials": trials,
        "failed": failed,
        "counts": counts,
        "reason": hide(reason),
    }
    tell(wanted.notify, content)


def _rank(plan: Plan, options: Options, open_store: Callable[[], Store], console: Console) -> None:
    """Find the samples of ranked requests, on a cluster of its own where they are not known yet."""

    def run(ranking: splits.Ranking) -> None:
        from sweeps.workers import cluster, tuning

        say(console, f"{plan.study.name}: ranking samples for {', '.join(plan.rankings)}")
        with cluster.join(options.address, plan.study.resources) as joined:
            workers = tuning.Workers(plan, joined)
            ranking.start(workers.put)
            problems = {(name, p.seed): p for name, p in ranking.missing.items()}
            workers.run(ranking, problems)

    try:
        splits.resolve_ranked_requests(plan, open_store(), run)
    except KeyboardInterrupt:
        say(console, f"\n{plan.study.name}: stopped before any trial")
        raise


def _open_store(address: str) -> Store:
    """Return the store at a folder or URL. Raises StudyError where it cannot be written to."""
    try:
        store = Store(address)
        store.check()
    except Exception as error:  # each protocol has errors of its own
        raise StudyError(f"--storage {address}: cannot be written to: {error}") from error
    return store


def _sweep(
    sweep: Sweep,
    options: Options,
    store: Store,
    console: Console,
    ending: contextlib.ExitStack,
) -> None:
    """Connect to MLflow and Ray, and run what is left of a study.

    Args:
        ending: Closes MLflow when the report is there, which it stores.
    """
    folder = sweep.locations.folder
    uri = options.tracking_uri or local_uri(folder)
    known = options.tracking_uri is not None or (folder / "mlflow.db").exists()
    facts = describe(sweep.results.study)
    named = sweep.ledger.study, sweep.results.study["uuid"]
    artifacts = artifact_location(uri, folder)
    tracking = Tracking(uri, named, facts, sweep.results.path, artifacts)
    ending.callback(_close_tracking, tracking, sweep, console)
    from sweeps.workers import cluster, tuning

    # The process of MLflow starts beside Ray.
    with cluster.join(options.address, sweep.plan.study.resources) as joined:
        if (
            known
        ):  # a database that is made now, beside the results, can hardly fail, and takes seconds
            _connect(tracking, uri)
        sweep.ledger.tracking = tracking
        try:
            with LiveReport(folder):
                sweep.run(tuning.Workers(sweep.plan, joined), store)
        finally:
            sweep.ledger.summarize("ended")
    tracking.summarize()


def _connect(tracking: Tracking, uri: str) -> None:
    """Wait for MLflow. Raises StudyError where it cannot be written to."""
    try:
        tracking.wait()
    except OSError as error:
        raise StudyError(f"--tracking-uri {uri}: MLflow cannot be written to: {error}") from error


def _close_tracking(tracking: Tracking, sweep: Sweep, console: Console) -> None:
    """Wait until MLflow has what it lacks, and say so where it did not take all of it."""
    unsent, folder = tracking.close(), sweep.locations.folder
    if sweep.ledger.tracking is not None and unsent != 0:
        say(
            console,
            f"MLflow did not take {'all' if unsent is None else unsent} records; "
            f"send them with: musweep sync {folder}",
        )


def _report(
    locations: Locations, study_results: Results, console: Console, tracking: Tracking | None
) -> Finished:
    """Write the report, print what the methods come to, and say where everything is."""
    from reports import load, page, terminal

    study = load.read(locations.folder)
    index = page.build(locations.folder, study=study)
    console.print()
    terminal.show(study, console)
    logger.info("methods\n%s", terminal.plain(study), extra=SHOWN)
    say(console, f"Report: {index}")
    if locations.tracking_uri is None:
        say(console, f"MLflow: musweep ui {locations.folder} --open")
    else:
        say(console, f"MLflow: {hide(_runs_page(locations.tracking_uri, tracking))}")
    failed = _failed(study_results)
    if failed:
        say(console, f"{failed} trials failed; the report says which and why")
    limit = study_results.study["definition"]["max_failures"]
    failing = failing_cells(study_results.records.values(), limit)
    if failing:
        say(console, f"Cells {say_failing(failing, limit)}")
    return Finished(locations.folder, index, failed)


def _runs_page(uri: str, tracking: Tracking | None) -> str:
    """Return the address of a study's runs on a server of MLflow; of a database, its URI."""
    page = tracking.pages.get("runs") if tracking is not None and uri.startswith("http") else None
    return f"{uri.rstrip('/')}/{page}" if page else uri


def _failed(study_results: Results) -> int:
    return sum(record.status == "failed" for record in study_results.records.values())


def say(console: Console, text: str) -> None:
    """Print text as it is, long paths in one piece."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    logger.info("%s", text.strip(), extra=SHOWN)


def import_from(folder: Path | None) -> None:
    """Let a model of one's own be imported from a folder; only what the command line names is ever searched."""
    if folder is None:
        return
    if not folder.is_dir():
        raise StudyError(f"--code-path {folder}: is not a folder")
    sys.path.insert(0, str(folder.resolve()))


def _check_place(wanted: Study, address: str | None) -> None:
    """Refuse a cluster that does not answer, and trials that this machine can never hold."""
    if address is None:
        _check_machine(wanted)
    else:
        from sweeps.workers.address import check_cluster

        check_cluster(address)


def _check_machine(wanted: Study) -> None:
    """Refuse trials that this machine can never hold; a cluster may still grow."""
    from sweeps.estimate import machine

    there, resources = machine(), wanted.resources
    for work, slot in (("trial", resources.trial), ("training", resources.references)):
        for name, asked in slot.amounts.items():
            if asked > there.get(name, 0):
                raise StudyError(
                    f"resources: {name}: {asked:g} are asked for each {work}, this machine has "
                    f"{there.get(name, 0)}; set resources.{name}, or --address of a cluster"
                )


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
