"""Tables as CSV, Markdown and LaTeX (booktabs); ``results.csv`` and ``cells.csv``, all results in full precision."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

from reports import frames
from reports.load import RecordedStudy
from reports.tables import points
from reports.tables.cells import Table, TableCell
from reports.tables.uncertainty import cells

ENDS = ("low", "high")
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "‡": r"$^\ddagger$",
    "*": r"$^*$",
    "≠": r"$\neq$",
    "×": r"$\times$",
    "→": r"$\to$",
    "−": r"$-$",
    "√": r"$\surd$",
    "τ": r"$\tau$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "–": "--",
    "|": r"$|$",
    "<": r"$<$",
    ">": r"$>$",
}


def write(folder: Path, study: RecordedStudy, tables: Iterable[Table]) -> None:
    """Write every table as ``<name>.csv``, ``.md`` and ``.tex``, and ``results.csv``, ``cells.csv`` and, of a grid, ``points.csv``."""
    for table in tables:
        for suffix, text in (
            ("csv", to_csv(table)),
            ("md", to_markdown(table)),
            ("tex", to_latex(table)),
        ):
            (folder / f"{table.name}.{suffix}").write_text(text, encoding="utf-8")
    (folder / "results.csv").write_text(results_csv(study), encoding="utf-8")
    cells(study).to_csv(folder / "cells.csv", index=False, lineterminator="\n")
    if points.is_grid(study):
        rows = _csv([points.POINTS, *points.values(study)])
        (folder / "points.csv").write_text(rows, encoding="utf-8")


def to_csv(table: Table) -> str:
    """One line per row, the group's name first; cells as printed.

    A column whose cells have 95 % intervals is followed by their ends, `low` and `high`, and one whose cells
    have intervals of gaps by `gap low` and `gap high`.
    """
    rows = [(group.name, row) for group in table.groups for row in group.rows]
    ends = {
        column: [
            (words, get)
            for words, get in (("", _interval), ("gap ", _gap_interval))
            if any(get(row[column]) for _, row in rows)
        ]
        for column in range(len(table.columns))
    }
    head = [table.of]
    for column, name in enumerate(table.columns):
        head += [name, *(f"{name} {words}{end}" for words, _ in ends[column] for end in ENDS)]
    lines = [head]
    for group, row in rows:
        line = [group]
        for column, cell in enumerate(row):
            line.append(cell.text)
            for _, get in ends[column]:
                line += get(cell) or ("", "")
        lines.append(line)
    return _csv(lines)


def to_markdown(table: Table) -> str:
    """A pipe table under its caption; the group's name once, the best of a row in bold."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(_plain(text).replace("|", "\\|") for text in texts) + " |"

    def cell(content: TableCell) -> str:
        text = content.text.replace("*", "\\*")
        return f"**{text}**" if content.best else text

    lines = [f"**{_plain(table.title)}.** {_plain(table.caption)}", ""]
    lines += [line((table.of, *table.columns)), line(["---"] * (len(table.columns) + 1))]
    for group in table.groups:
        for position, row in enumerate(group.rows):
            name = group.name if position == 0 else ""
            lines.append(line((name, *(cell(content) for content in row))))
    notes = "; ".join(table.notes).replace("*", "\\*")
    return "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"


def to_latex(table: Table) -> str:
    """A floating table; needs the package booktabs."""
    width = len(table.columns)

    def cell(content: TableCell) -> str:
        text = latex(content.text)
        return rf"\textbf{{{text}}}" if content.best else text

    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering\small",
        rf"\caption{{{latex(table.title)}. {latex(' '.join([table.caption, *_sentences(table.notes)]))}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{'l' * table.texts}{'r' * (width - table.texts)}}}",
        r"\toprule",
        " & ".join(latex(column) for column in table.columns) + r" \\",
    ]
    for group in table.groups:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{latex(group.title)}}}}} \\"]
        lines += [" & ".join(cell(c) for c in row) + r" \\" for row in group.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}"]) + "\n"


def latex(text: str) -> str:
    """Text with what LaTeX would read as commands, and our signs, written out."""
    return "".join(LATEX.get(character, character) for character in _plain(text))


def results_csv(study: RecordedStudy) -> str:
    """Return ``results.csv``, the rows of ``frames.runs``."""
    return frames.runs(study).to_csv(index=False, lineterminator="\n")


def _interval(cell: TableCell) -> tuple[str, str] | None:
    return cell.interval


def _gap_interval(cell: TableCell) -> tuple[str, str] | None:
    return cell.gap_interval


def _csv(rows: Iterable[Iterable[str]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _plain(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def _sentences(notes: Iterable[str]) -> list[str]:
    return [f"{note}." for note in notes]
