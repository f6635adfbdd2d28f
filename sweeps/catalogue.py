"""What ships with musweep, for people: its methods and its studies, a line each, or one of them in full."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mu import plugins
from sweeps.errors import StudyError, errors_at
from sweeps.study import yaml_file

DOCUMENTED = ("Paper", "Reference", "Differs", "Cost")
"""Fields of a method's docstring."""
RATE = 10_000
"""Training samples a second by which a list of studies tells their hours."""
PATHS = ("root", "weights", "original", "retrain", "file")
"""Keys of a study that name a file or folder."""


def methods_as_data(name: str | None, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a method, or all, as plain data.

    Raises:
        StudyError: There is no such method, or a file breaks the contract.
    """
    from mu import methods

    with errors_at():
        names = methods.names(folders) if name is None else [name]
        loaded = [methods.load(each, folders) for each in names]
    return [
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
        for method in loaded
    ]


def method_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the file of every method by name, sorted: those of a folder, then those that ship, then other packages'."""
    package = find_spec("mu")
    assert package is not None and package.submodule_search_locations is not None
    shipped = Path(package.submodule_search_locations[0]) / "methods"
    files = {
        name: path
        for name, entry in plugins.plugins(plugins.METHODS).items()
        if (path := plugins.source_file(entry)) is not None
    }
    files |= {
        path.stem: path
        for folder in (shipped, *reversed(folders))
        for path in folder.glob("*.py")
        if not path.stem.startswith("_")
    }
    return dict(sorted(files.items()))


def print_methods(folders: Sequence[Path], console: Console) -> None:
    """Print a line for each method. Only their source is read, as torch takes seconds to import."""
    rows = [(name, _headline(path)) for name, path in method_files(folders).items()]
    _print_rows([("method", "what it does"), *rows], console)
    console.print("\nmusweep methods NAME shows one in full")


def _headline(path: Path) -> str:
    """Return the first line of a method's docstring, without its name and the full stop."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (SyntaxError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as Python: {error}") from error
    line = text.partition("\n")[0].rstrip(".")
    return line.partition(": ")[2] or line


def print_method(name: str, folders: Sequence[Path], console: Console) -> None:
    """Print what a method does, its paper, what it needs, and its knobs with their defaults and ranges.

    Raises:
        StudyError: There is no such method, or its file breaks the contract.
    """
    from mu import methods
    from sweeps.study import space

    with errors_at():
        method = methods.load(name, folders)
        searched, _ = space.shipped(method, folders)
    facts = {field: method.field(field) for field in DOCUMENTED}
    facts |= {"Needs": ", ".join(method.needs), "Requests": ", ".join(method.requests)}
    if method.no_batch_norm:
        facts["Batch norm"] = f"refused: {method.no_batch_norm}"
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for head, text in facts.items():
        if text:
            grid.add_row(head, text)
    console.print(f"{method.summary}\n", markup=False)
    console.print(grid)
    meanings = _meanings(method.unlearn.__doc__ or "")
    knobs = Table("knob", "default", "searched", "what it is", box=None, padding=(0, 2, 0, 0))
    for knob in method.knobs.values():
        range_ = _range(searched[knob.name]) if knob.name in searched else ""
        meaning = " ".join(filter(None, (meanings.get(knob.name), f"({knob.accepts})")))
        knobs.add_row(knob.name, _text(knob.default), range_, meaning)
    console.print("", knobs)


def _meanings(doc: str) -> dict[str, str]:
    """Return knob to meaning, of the section `Args` of a docstring."""
    section = re.search(r"Args:\n(.*?)(?=\n\s*\n|\Z)", doc, re.DOTALL)
    entries = re.findall(
        r"^ {8}(\w[\w, ]*): (.+?)(?=^ {8}\w[\w, ]*: |\Z)",
        section[1] if section else "",
        re.MULTILINE | re.DOTALL,
    )
    return {
        name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")
    }


def _range(section: dict[str, Any]) -> str:
    """Return a searched range in a few characters."""
    if "choices" in section:
        return " | ".join(map(_text, section["choices"]))
    scale = " log" if section.get("log") else ""
    return f"{_text(section['low'])} to {_text(section['high'])}{scale}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_studies(console: Console) -> None:
    """Print a line for each study that ships: its trials, hours, what it lacks here, and what it is."""
    from sweeps.plan.outline import Outline
    from sweeps.study import study

    rows = [("study", "trials", "hours", "data", "what it is")]
    for name, path in yaml_file.shipped_studies().items():
        outline = Outline(study.read(path))
        missing = any(_missing(outline.study.definition))
        rows.append(
            (
                name,
                f"{sum(outline.counts.values()):6,}",
                f"{_hours(outline):>5}",
                outline.study.data.name + (" (missing)" if missing else ""),
                yaml_file.first_comment(path),
            )
        )
    _print_rows(rows, console)
    console.print(
        f"\nhours: of one GPU that trains on {RATE:,} samples a second. `musweep run NAME --dry-run` says what is missing and measures "
        "this machine, `--sample 0.05` runs a study small, and `-o data.root=FOLDER` says where its data are.",
        highlight=False,
    )


def _hours(outline: Any) -> str:
    """Return the hours of a study at ``RATE``; a dash where nobody knows how large its data set is."""
    from mu.data import LOADERS

    data = outline.study.data
    whole = LOADERS[data.name].samples
    if whole is None:  # a number of images is known all the same
        total = int(data.subset) if data.subset is not None and data.subset >= 1 else None
    else:
        total = data.kept("subset", whole)
    if total is None:
        return "-"
    hours = sum(outline.epochs.values()) * total / RATE / 3600
    return f"{hours:.1f}" if hours < 10 else f"{hours:,.0f}"


def _missing(content: Any, key: str = "") -> Iterator[str]:
    """Yield the files and folders that a study names and this machine does not have."""
    if isinstance(content, dict):
        for name, inner in content.items():
            yield from _missing(inner, name)
    elif isinstance(content, list):
        for inner in content:
            yield from _missing(inner, key)
    elif key in PATHS and isinstance(content, str) and "{" not in content:
        yield from (name for name in [content] if not Path(name).expanduser().exists())


def _print_rows(rows: Iterable[Sequence[str]], console: Console) -> None:
    """Print aligned cells, a line a row; on a terminal a line ends where the terminal does."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()
        if console.is_terminal and len(line) > console.width:
            line = line[: console.width - 1] + "…"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
