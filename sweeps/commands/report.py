"""What is made of finished studies: report, compare, portfolio."""

from __future__ import annotations

import argparse
from typing import Any

from sweeps.commands.common import DONE, path, wide_console
from sweeps.errors import errors_at
from sweeps.study import yaml_file


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

    portfolio = commands.add_parser(
        "portfolio",
        help="choose a few configurations of each method that were good in several studies",
    )
    portfolio.add_argument("folders", type=path, metavar="STUDY_DIR", nargs="+")
    portfolio.add_argument("--size", type=int, default=5, help="most configurations (5)")
    portfolio.add_argument(
        "--out", type=path, metavar="FOLDER",
        help="write them into the search spaces in this folder, which are made where they are missing",
    )  # fmt: skip
    portfolio.add_argument("--methods-path", type=path, help="folder with methods of your own")
    portfolio.set_defaults(command=_portfolio)


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
    portfolio.conclude(options.folders, options.size, methods, options.out, wide_console())
    return DONE
