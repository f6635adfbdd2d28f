"""``musweep report`` and ``musweep compare``: write pages from records."""

from __future__ import annotations

import argparse
from typing import Any

from sweeps.commands.common import DONE, path
from sweeps.errors import errors_at


def add(commands: Any) -> None:
    """Add the commands that write pages."""
    report = commands.add_parser("report", help="write the report of a study again")
    report.add_argument("folder", type=path, metavar="STUDY_DIR")
    report.add_argument("--out", type=path, help="where to write it (STUDY_DIR/report)")
    which = ("main", "all", "none")
    report.add_argument("--figures", choices=which, default="main", help="which to write as files")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="compare the results of several studies")
    compare.add_argument("folders", type=path, metavar="STUDY_DIR", nargs="+")
    compare.add_argument(
        "--out", type=path, default="comparison", help="where to write it (comparison)"
    )
    compare.set_defaults(command=_compare)


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
