"""The command line: parse, call, print. ``musweep`` and ``python -m sweeps`` are the same program."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from sweeps.commands import catalogue, models, report, run, watch
from sweeps.commands.common import DONE, SOME_FAILED, WRONG
from sweeps.errors import StudyError, SweepError, page_for
from sweeps.state import credentials
from sweeps.state.credentials import hide
from sweeps.tracking import run_log


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
    parser.set_defaults(command=lambda _: _show_commands(parser))
    commands = parser.add_subparsers(metavar="COMMAND")
    run.add(commands)
    models.add(commands)
    report.add(commands)
    catalogue.add(commands)
    watch.add(commands)
    return parser


def _show_commands(parser: argparse.ArgumentParser) -> int:
    """Show what there is to somebody who asks for nothing."""
    parser.print_help(sys.stderr)
    return WRONG


if __name__ == "__main__":
    sys.exit(main())
