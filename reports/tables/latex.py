"""A table in LaTeX (booktabs and graphicx) that fits the width and the height of an article's page."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.tables.cells import Table, TableCell

WIDTH, ROWS = 112, 28
"""Characters and rows that a part of a table may have: more do not fit a page in letters of 5 points."""
WRAPPED, LONGEST = 26, 40
"""Characters beyond which a column of words is wrapped, and beyond which a name is cut."""
FEW = 9
"""Metrics up to which methods are rows."""
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


def to_latex(table: Table) -> str:
    """Return floating tables, one for each group, of as many parts as its width and height take.

    Where the columns are methods and the metrics few, methods become rows, so that any number of them fits. A part that is
    still wider than the text is scaled down to it.
    """
    parts = [part for group in table.groups for part in _parts(table, group.title, group.rows)]
    lines = [r"% needs \usepackage{booktabs,graphicx}"]
    for number, (title, part) in enumerate(parts):
        caption = table.title + (f" ({title})" if len(parts) > 1 else "")
        about = [table.caption, *(f"{note}." for note in table.notes)] if number == 0 else []
        label = table.name + (f"-{number + 1}" if number else "")
        lines += [
            r"\begin{table*}[tp]",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{latex(' '.join([caption + '.', *about]))}}}",
            rf"\label{{tab:{table.name if not number else label}}}",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
            *_tabular(part),
            "}",
            r"\end{table*}",
        ]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """Return text with what LaTeX would read as commands, and our signs, written out."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


Grid = list[list[TableCell]]
"""Rows of cells, the first of them the heads."""


def _parts(
    table: Table, title: str, rows: Sequence[Sequence[TableCell]]
) -> Iterator[tuple[str, Grid]]:
    """Yield a group as grids that fit a page, each with its columns of words at the left."""
    grid = [[TableCell(head) for head in table.columns], *map(list, rows)]
    texts = table.texts
    if table.compared and len(rows) <= FEW:
        grid, texts = [list(column) for column in zip(*grid)], 1
    for first in range(1, len(grid), ROWS):
        chosen = [grid[0], *grid[first : first + ROWS]]
        widths = [max(map(_width, column)) + 1 for column in zip(*chosen)]
        left = sum(widths[:texts])
        start, used = texts, left
        for at in range(texts, len(widths) + 1):
            if at == len(widths) or (used + widths[at] > WIDTH and at > start):
                yield title, [row[:texts] + row[start:at] for row in chosen]
                start, used = at, left
            used += widths[at] if at < len(widths) else 0


def _tabular(grid: Grid) -> list[str]:
    columns = "".join(_column(column) for column in zip(*grid))
    head, *rows = (" & ".join(map(_cell, row)) + r" \\" for row in grid)
    body = [r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return [rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}%"]


def _column(cells: Sequence[TableCell]) -> str:
    """Return how a column is aligned: numbers right, words left, long words in lines."""
    if any(cell.number is not None for cell in cells):
        return "r"
    longest = max(len(cell.text) for cell in cells)
    return "l" if longest <= WRAPPED else rf"p{{{WRAPPED // 2}em}}"


def _width(cell: TableCell) -> int:
    """Return about how many characters wide a cell is."""
    longest = max(map(len, _lines(cell)))
    return longest if cell.number is not None else min(longest, WRAPPED)


def _lines(cell: TableCell) -> list[str]:
    """Return the lines of a cell: what is known of a number stands below it."""
    text = cell.text
    if cell.number is None:
        return [text if len(text) <= LONGEST or " " in text[:LONGEST] else text[:LONGEST] + "..."]
    number = cell.value + (f"±{cell.spread}" if cell.spread else "")
    shown = cell.range if cell.place else ""
    rest = [f"({cell.gap})" if cell.gap else "", shown, f"[{cell.runs}]" if cell.runs else ""]
    signs = cell.marks + cell.sign
    below = " ".join(filter(None, rest))
    return [number, below + signs] if below else [number + signs]


def _cell(cell: TableCell) -> str:
    lines = [latex(line) for line in _lines(cell)]
    text = lines[0] if len(lines) == 1 else rf"\shortstack[r]{{{lines[0]}\\{lines[1]}}}"
    return rf"\textbf{{{text}}}" if cell.best else text
