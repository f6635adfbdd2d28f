"""A table in LaTeX (booktabs and graphicx) that fits the width and the height of an article's page."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from reports.tables.cells import BESIDE, Group, Table, TableCell

WIDTH, ROWS = 126, 26
"""Characters and rows that a part of a table may have: more do not fit a page in letters of 5 points."""
WRAPPED, NARROW, LONGEST = 30, 13, 4
"""Characters in a line of a column of words and of one of numbers, and lines of a cell, beyond which words are cut."""
LETTERS = 30
"""Letters of a word, beyond which it is cut."""
FEW = 9
"""Metrics up to which methods are rows."""
FLOAT = r"""\begin{table*}[tp]
\centering\scriptsize\setlength{\tabcolsep}{3pt}
\caption{%s}
\label{tab:%s}
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%%
%s
}
\end{table*}
"""
LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    **{sign: rf"${sign}$" for sign in "|<>"},
    **dict(zip("±≠×→−√τ", (rf"${name}$" for name in (r"\pm", r"\neq", r"\times", r"\to", "-", r"\surd", r"\tau")))),
    **{"‡": r"$^\ddagger$", "*": "$^*$", "§": r"\S{}", "¶": r"\P{}", "–": "--"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    "[": "{[}",  # which at the start of a line would be an argument of the line before
}  # fmt: skip


def to_latex(table: Table) -> str:
    """Return floating tables, one for each group, of as many parts as its width and height take.

    Where the columns are methods and the metrics few, methods become rows, so that any number of them fits. A part that is
    still wider than the text is scaled down to it.
    """
    parts = [part for group in table.groups for part in _parts(table, group)]
    text = r"% needs \usepackage{booktabs,graphicx}" + "\n"
    for number, (title, tabular) in enumerate(parts):
        caption = table.title + (f": {title}" if len(parts) > 1 else "")
        about = [table.caption, *(f"{note}." for note in table.notes)] if number == 0 else []
        label = table.name + (f"-{number + 1}" if number else "")
        text += FLOAT % (latex(" ".join([caption + ".", *about])), label, tabular)
    return text


def latex(text: str) -> str:
    """Return text with what LaTeX would read as commands, and our signs, written out; words that no line holds are cut."""
    words = (word if len(word) <= LETTERS else word[:LETTERS] + "..." for word in text.split())
    return "".join(LATEX.get(character, character) for character in " ".join(words))


def _parts(table: Table, group: Group) -> Iterator[tuple[str, str]]:
    """Yield the title of a group, and tabulars that fit a page, each with the columns of words at its left."""
    grid = [[TableCell(head) for head in table.columns], *map(list, group.rows)]
    texts = table.texts
    if table.compared and len(group.rows) <= FEW:
        grid, texts = [list(column) for column in zip(*grid)], 1
        grid[0][0] = TableCell("Method")
    for first in range(1, len(grid), ROWS):
        rows = [grid[0], *grid[first : first + ROWS]]
        widths = [
            1 + max(len(line) for cell in column for line in _lines(cell, at < texts))
            for at, column in enumerate(zip(*rows))
        ]
        start = texts
        for at in range(texts, len(widths) + 1):
            wide = sum(widths[:texts]) + sum(widths[start : at + 1]) > WIDTH
            if at == len(widths) or (wide and at > start):
                part = [row[:texts] + row[start:at] for row in rows]
                yield group.title, _tabular(part, texts)
                start = at


def _tabular(rows: list[list[TableCell]], texts: int) -> str:
    columns = "l" * texts + "r" * (len(rows[0]) - texts)
    lines = [
        " & ".join(_cell(cell, at < texts) for at, cell in enumerate(row)) + r" \\" for row in rows
    ]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}%"])


def _cell(cell: TableCell, words: bool) -> str:
    lines = [latex(line) for line in _lines(cell, words)]
    text = r"\\".join(lines)
    if len(lines) > 1:
        text = rf"\shortstack[{'l' if words else 'r'}]{{{text}}}"
    return rf"\textbf{{{text}}}" if cell.best else text


def _lines(cell: TableCell, words: bool) -> list[str]:
    """Return the lines of a cell in LaTeX's letters: words are wrapped, and what is known of a number stands below it."""
    if cell.number is None:
        return textwrap.wrap(cell.text, WRAPPED if words else NARROW)[:LONGEST] or [""]
    number = cell.value + (f"±{cell.spread}" if cell.spread else "")
    beside = cell.range if cell.place == BESIDE else ""
    rest = [f"({cell.gap})" if cell.gap else "", beside, f"[{cell.runs}]" if cell.runs else ""]
    below, signs = " ".join(filter(None, rest)), cell.marks + cell.sign
    return [number, below + signs] if below else [number + signs]
