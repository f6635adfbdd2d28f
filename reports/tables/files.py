"""Tables as CSV, Markdown and LaTeX; ``results.csv`` and ``cells.csv``, all results in full precision."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from reports import frames
from reports.load import RecordedStudy
from reports.tables import points
from reports.tables.cells import NONE, Table, TableCell
from reports.tables.latex import to_latex
from reports.tables.uncertainty import cells_frame

PARTS = (
    *("value", "std", "low", "high", "gap", "gap_low", "gap_high", "verdict"),
    *("best", "note"),
)
"""What a CSV file says of a cell, each in a column of its own."""


def write(folder: Path, study: RecordedStudy, tables: Iterable[Table]) -> None:
    """Write every table, and ``results.csv``, ``cells.csv`` and, of a grid, ``points.csv``."""
    write_tables(folder, tables)
    to_csv(folder / "results.csv", frames.runs(study))
    to_csv(folder / "cells.csv", cells_frame(study))
    if points.is_grid(study):
        to_csv(folder / "points.csv", points.values(study))


def write_tables(folder: Path, tables: Iterable[Table]) -> None:
    """Write every table as ``<name>.csv``, ``.md`` and ``.tex``."""
    for table in tables:
        to_csv(folder / f"{table.name}.csv", table_frame(table))
        for suffix, text in (("md", to_markdown(table)), ("tex", to_latex(table))):
            (folder / f"{table.name}.{suffix}").write_text(text, encoding="utf-8")


def to_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame, an empty field for what is missing."""
    columns = [["" if v is None or v != v else v for v in frame[name].tolist()] for name in frame]
    with path.open("w", encoding="utf-8", newline="") as out:  # ten times as fast as pandas
        csv.writer(out, lineterminator="\n").writerows([frame.columns, *zip(*columns)])


def table_frame(table: Table) -> pd.DataFrame:
    """Return the numbers of a table in full, fractions in [0, 1].

    Of a table that sets methods beside each other, each cell is a row: the group, the row's label, the method, and ``PARTS``.
    Of another, each row is a row, and a column of numbers is followed by columns of its parts, such as `Tuned low`.
    """
    rows = [(group.name, row) for group in table.groups for row in group.rows]
    if table.compared:
        heads = [table.of, table.columns[0], "Method"]
        long = [
            {**dict(zip(heads, (group, row[0].text, column))), **_parts(cell)}
            for group, row in rows
            for column, cell in zip(table.columns[1:], row[1:])
        ]
        return pd.DataFrame(long, columns=[*heads, *PARTS], dtype=object)
    columns: dict[str, list[Any]] = {table.of: [group for group, _ in rows]}
    for at, head in enumerate(table.columns):
        each = [row[at] for _, row in rows]
        if all(cell.number is None for cell in each):
            columns[head] = ["" if cell.text == NONE else cell.text for cell in each]
            continue
        parts = pd.DataFrame(map(_parts, each), columns=list(PARTS), dtype=object)
        columns[head] = parts.pop("value").tolist()
        used = parts.columns[parts.notna().any()]
        columns |= {f"{head} {part}": parts[part].tolist() for part in used}
    return pd.DataFrame(columns, dtype=object)


def to_markdown(table: Table) -> str:
    """Return a pipe table under its caption; the group's name once, the best of a row in bold."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    def cell(content: TableCell) -> str:
        text = _escaped(content.text)
        return f"**{text}**" if content.best else text

    lines = [f"**{_escaped(table.title)}.** {_escaped(table.caption)}", ""]
    lines += [line(map(_escaped, (table.of, *table.columns)))]
    lines += [line(["---"] * (len(table.columns) + 1))]
    for group in table.groups:
        for position, row in enumerate(group.rows):
            name = _escaped(group.name) if position == 0 else ""
            lines.append(line((name, *map(cell, row))))
    notes = _escaped("; ".join(table.notes))
    return "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"


def _parts(cell: TableCell) -> dict[str, Any]:
    """Return ``PARTS`` of a cell, None for what it lacks."""
    low, high = cell.ends or (None, None)
    gap_low, gap_high = cell.gap_ends or (None, None)
    note = cell.note if cell.number is not None or cell.words else cell.text
    numbers = (cell.number, cell.std, low, high, cell.distance, gap_low, gap_high)
    return dict(zip(PARTS, (*numbers, cell.verdict or None, cell.best or None, note or None)))


def _escaped(text: str) -> str:
    """Return text on one line, without what Markdown would read as marks or as HTML."""
    return re.sub(r"([\\|*_<$])", r"\\\1", " ".join(text.split()))
