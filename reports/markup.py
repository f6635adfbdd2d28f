"""Escaped HTML: every function takes raw text, and escapes it. And the style sheet."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from reports.canvas import Drawing
from reports.tables.cells import BELOW, BESIDE, Table, TableCell

STACKED = 9
"""Tables with more columns set the gap below the mean, to fit the page."""
LONG = 24
"""Tables with more rows may be folded."""
STYLE_SHEET = """
:root { color-scheme: light; --ink: #1b1b1b; --soft: #6b6b6b; --line: #cfcfcf; --link: #1f4e79; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 76rem; background: #fff; color: var(--ink);
  font: 1.02rem/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "STIX Two Text", Georgia,
  "Liberation Serif", "Times New Roman", serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 600; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; font-weight: 600; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; font-weight: 600; }
p, dl { max-width: 52rem; } p { margin: .5rem 0; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.byline { color: var(--soft); margin: 0 0 1.4rem; }
.abstract { border-left: 3px solid var(--line); padding: .1rem 0 .1rem 1.1rem; margin: 1.2rem 0; }
nav { font-size: .92rem; color: var(--soft); margin: 1rem 0 0; }
nav a { margin-right: .9rem; white-space: nowrap; } nav p { margin: .15rem 0; max-width: none; }
nav b { font-weight: 600; color: var(--ink); margin-right: .6rem; }
header details { margin-top: 1rem; } figure details { max-width: none; text-align: left; }
section { scroll-margin-top: 1rem; }
figure { margin: 1.5rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { font-size: .9rem; line-height: 1.45; max-width: 58rem; margin: .5rem auto .6rem; }
figcaption b { font-weight: 600; }
.files { color: var(--soft); font-size: .82rem; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0 auto; font-size: .82rem; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums;
  border-top: 1.6px solid var(--ink); border-bottom: 1.6px solid var(--ink); }
th, td { padding: .22rem .5rem; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; white-space: normal; }
th.text, td.text { text-align: left; }
tbody th { font-weight: 400; text-align: left; }
.scroll tbody th, .scroll thead th:first-child { position: sticky; left: 0; background: #fff; }
tr.group th { padding-top: .5rem; font-style: italic; }
tbody + tbody tr.group th { border-top: .7px solid var(--line); }
td.wrap { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
.std, .n { color: var(--soft); font-size: .9em; } .gap { margin-left: .3em; }
.stacked .gap { display: block; }
.range { color: var(--soft); font-size: .88em; font-weight: 400; } .below { display: block; }
.plain table { margin: 0; }
.words { color: var(--soft); font-style: italic; }
td.best { font-weight: 700; } td.best .std { font-weight: 400; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .25rem 0; } summary { cursor: pointer; }
pre { font: .78rem/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; background: #f6f6f4;
  padding: .7rem .9rem; margin: .4rem 0; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  html { font-size: 9.3pt; } body { max-width: none; padding: 0; }
  nav, .files { display: none; }
  .scroll { overflow: visible; } table { font-size: 6.8pt; } th, td { padding: .12rem .3rem; }
  td .gap { display: block; }
  details::details-content { content-visibility: visible; block-size: auto; }
  figure, tr { break-inside: avoid; } h2, h3, figcaption { break-after: avoid; }
  .scroll tbody th, .scroll thead th:first-child { position: static; }
}
"""


def escape(text: object) -> str:
    """Text that a browser shows as it is, also within quotes."""
    return html.escape(str(text), quote=True)


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as two columns; those without content are left out."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs if text)
    return "<dl>" + "".join(rows) + "</dl>"


def section(anchor: str, title: str, body: str) -> str:
    """A part of the page; `body` is markup already."""
    return f'<section id="{escape(anchor)}">\n<h2>{escape(title)}</h2>\n{body}\n</section>'


def details(summary: str, body: str) -> str:
    """A part that is folded at first; `body` is markup already."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def listing(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    wrap: Sequence[int] = (),
) -> str:
    """A plain table; columns of `numbers` are set right, those of `wrap` may break their lines."""
    kinds = [
        "" if column in numbers else "text wrap" if column in wrap else "text"
        for column in range(len(heads))
    ]

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = (
            f'<{tag} class="{kind}">{escape(text)}</{tag}>' for kind, text in zip(kinds, texts)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    head = line("th", heads)
    return (
        f'<div class="scroll plain"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    )


def table(content: Table, number: int, fold: bool = False) -> str:
    """A numbered table under its caption, in a container of its own that scrolls.

    Args:
        fold: Whether the rows are folded at first when there are many.
    """
    head = "".join(
        f"<th{_text(column < content.texts)}>{escape(text).replace('_', '_<wbr>')}</th>"
        for column, text in enumerate(content.columns)
    )
    bodies = []
    for group in content.groups:
        rows = [
            f'<tr class="group"><th colspan="{len(content.columns)}">{escape(group.title)}</th></tr>'
        ]
        for first, *cells in group.rows:
            rest = (
                _cell(cell, wide=column < content.texts)
                for column, cell in enumerate(cells, start=1)
            )
            rows.append(f"<tr><th>{escape(first.text)}</th>{''.join(rest)}</tr>")
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    notes = "".join(f" {escape(note)}." for note in content.notes)
    wide = ' class="stacked"' if len(content.columns) > STACKED else ""
    files = _files(f"tables/{content.name}.{suffix}" for suffix in ("csv", "md", "tex"))
    grid = f'<div class="scroll"><table{wide}><thead><tr>{head}</tr></thead>{"".join(bodies)}</table></div>'
    count = sum(len(group.rows) for group in content.groups)
    return (
        f'<figure id="table-{escape(content.name)}"><figcaption><b>Table {number}. '
        f"{escape(content.title)}.</b> {escape(content.caption)}{notes} {files}</figcaption>"
        f"{details(f'{count} rows', grid) if fold and count > LONG else grid}</figure>"
    )


def figure(drawing: Drawing, svg: Path, number: int) -> str:
    """A numbered figure above its caption, the picture within the page."""
    data = base64.b64encode(svg.read_bytes()).decode()
    files = _files(f"figures/{drawing.name}.{suffix}" for suffix in ("svg", "png"))
    return (
        f'<figure id="figure-{escape(drawing.name)}">'
        f'<img alt="{escape(drawing.title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption><b>Figure {number}. {escape(drawing.title)}.</b> {escape(drawing.caption)} {files}"
        "</figcaption></figure>"
    )


def page(title: str, body: str) -> str:
    """A whole page that needs nothing beside itself."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _cell(cell: TableCell, wide: bool) -> str:
    if cell.words:
        return f'<td class="words">{escape(cell.value + cell.marks)}</td>'
    text = escape(cell.value)
    text += f'<span class="std"> ± {escape(cell.spread)}</span>' if cell.spread else ""
    if cell.place == BESIDE and cell.interval:
        text += f'<span class="range"> {escape(cell.range)}</span>'
    runs = f'<span class="n"> {escape(cell.runs)}</span>' if cell.runs else ""
    rest = escape(cell.marks) + runs + escape(cell.sign)
    text += f'<span class="gap">({escape(cell.gap)}){rest}</span>' if cell.gap else rest
    if cell.place == BELOW and cell.interval:
        text += f'<span class="range below">{escape(cell.range)}</span>'
    kind = " ".join(name for name, on in (("best", cell.best), ("text wrap", wide)) if on)
    return f"<td{_named('class', kind)}{_named('title', _hint(cell))}>{text}</td>"


def _hint(cell: TableCell) -> str:
    """The intervals, for when one points at the cell."""
    parts = (("", cell.interval), ("gap ", cell.gap_interval))
    texts = [f"{what}{ends[0]} to {ends[1]}" for what, ends in parts if ends]
    words = [f"95 % interval: {', '.join(texts)}"] if texts else []
    return "; ".join([*words, *filter(None, [cell.verdict])])


def _named(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""


def _text(left: bool) -> str:
    return ' class="text"' if left else ""


def _files(paths: Iterable[str]) -> str:
    links = (f'<a href="{escape(path)}">{escape(path.rpartition(".")[2])}</a>' for path in paths)
    return f'<span class="files">[{" · ".join(links)}]</span>'
