"""``musweep run`` and ``musweep choose``: run a study, or continue it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from typing import Any

from rich.console import Console

from sweeps.commands.common import DONE, INTERRUPTED, SOME_FAILED, add_storage, path
from sweeps.study import yaml_file


def add(commands: Any) -> None:
    """Add the commands that run a study."""
    run = commands.add_parser("run", help="run a study, or continue it")
    _add_options(run)
    run.set_defaults(command=_run, oracle=True, again="run")
    choose = commands.add_parser(
        "choose", help="choose methods and knobs for your own model without a retrained one"
    )
    _add_options(choose)
    choose.add_argument(
        "--no-oracle", dest="oracle", action="store_false", required=True,
        help="retrain nothing: rules that need no retrained model choose from a menu of knobs",
    )  # fmt: skip
    choose.set_defaults(command=_run, again="choose --no-oracle")


def _add_options(run: Any) -> None:
    given = os.environ.get
    study = run.add_argument("study", help="study file, or the name of one that ships with musweep")
    study.completer = complete_studies
    run.add_argument(
        "--results", default=given("MUSWEEP_RESULTS", "results"), type=path,
        help="folder of all results ($MUSWEEP_RESULTS, or results)",
    )  # fmt: skip
    add_storage(run)
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
    run.add_argument("--methods-path", type=path, help="folder with methods of your own")
    run.add_argument("--code-path", type=path, help="folder with modules of your own models")
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


def complete_studies(prefix: str, **_: Any) -> list[str]:
    """Return study files, folders and shipped studies that begin so, for a shell's completion."""
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter(("yaml", "yml"))(prefix)
    return [*files, *(name for name in yaml_file.shipped_studies() if name.startswith(prefix))]


def _cluster_of_this_job() -> str | None:
    """The cluster that Ray names to the jobs submitted to it; not the address of its dashboard."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if not address or address.startswith("http") else address


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
    if options.sample is not None and not ended.failed:
        print(f"It works. Figures of so few samples and epochs mean nothing; next: {again}")
    return SOME_FAILED if ended.failed else DONE
