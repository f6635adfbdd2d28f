"""Commands that write a first study, or show what ships: init, studies, schema, methods."""

from __future__ import annotations

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.commands.common import DONE, path, wide_console
from sweeps.errors import StudyError
from sweeps.study import yaml_file


def add(commands: Any) -> None:
    """Add the commands that write a first study, or show what ships."""
    init = commands.add_parser("init", help="write a study for your data")
    init.add_argument(
        "place", nargs="?", default=".", metavar="DATA",
        help="folder or .zip of images or of a data set, or a data set by name (this folder)",
    )  # fmt: skip
    init.add_argument("--out", type=path, default=Path("study.yaml"), help="file (study.yaml)")
    init.set_defaults(command=_init)

    shipped = commands.add_parser("studies", help="list the studies that ship with musweep")
    shipped.set_defaults(command=_studies)

    schema = commands.add_parser("schema", help="print the JSON schema of a study file")
    schema.set_defaults(command=_schema)

    listing = commands.add_parser("methods", help="list the unlearning methods, or show one")
    one = listing.add_argument("name", nargs="?", help="a method to show in full")
    one.completer = _complete_methods
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.add_argument("--methods-path", type=path, help="folder with methods of your own")
    listing.set_defaults(command=_methods)


def _complete_methods(prefix: str, **_: Any) -> list[str]:
    """Return the methods that begin so, for a shell's completion."""
    from sweeps import catalogue

    return [name for name in catalogue.method_files(()) if name.startswith(prefix)]


def _init(options: argparse.Namespace) -> int:
    out: Path = options.out
    if out.exists():
        raise StudyError(f"{out}: is there already; say another --out")
    if not out.parent.is_dir():
        raise StudyError(f"{out}: cannot be written: there is no folder {out.parent}")
    from sweeps import first_study, launch

    draft = first_study.draft(options.place, str(out))
    unchecked = out.with_name(f".{out.name}.draft.yaml")
    try:
        unchecked.write_text(draft.text, encoding="utf-8")
        launch.dry_run(str(unchecked), launch.Options(), Console())
        unchecked.rename(out)
    except OSError as error:
        raise StudyError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        unchecked.unlink(missing_ok=True)
    print(f"{out} is written; next: {draft.command}")
    return DONE


def _studies(options: argparse.Namespace) -> int:
    from sweeps import catalogue

    catalogue.print_studies(wide_console())
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
        catalogue.print_method(options.name, folders, wide_console())
    else:
        catalogue.print_methods(folders, wide_console())
    return DONE
