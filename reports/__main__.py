"""``python -m reports STUDY_DIR [--out DIR] [--figures main]``: write the report of a study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.page import build
from reports.page.report import FIGURES


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, build, print where the page is. Returns 2 when the folder is not a study's."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("study_dir", type=Path, help="folder of a study, with trials.jsonl")
    parser.add_argument("--out", type=Path, help="folder to write (default: STUDY_DIR/report)")
    parser.add_argument(
        "--figures", choices=FIGURES, default="main", help="which to write as files"
    )
    given = parser.parse_args(arguments)
    try:
        path = build(given.study_dir, given.out, given.figures)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
