"""``musweep portfolio``: from the records of several studies to configurations that are worth trying first.

What is chosen, and how it is measured, is in ``reports.analysis.portfolio``; the key of search spaces that it writes is
described in ``sweeps.study.portfolio``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mu import methods
from mu.methods import Method
from mu.record import PORTFOLIO
from reports import load
from reports.analysis import portfolio
from reports.analysis.landscapes import Landscape, Point, landscapes
from reports.analysis.portfolio import LEFT_OUT, Chosen, Worth
from reports.statistics.intervals import Estimate
from reports.text import knob_value
from sweeps.errors import StudyError, errors_at
from sweeps.state.store import write_atomically
from sweeps.study import space, yaml_file

DIGITS = 4
"""Significant digits of numbers that are written."""


def conclude(
    folders: Sequence[Path], size: int, own: Sequence[Path], out: Path | None, console: Console
) -> None:
    """Print the portfolio of each method and what portfolios are worth; write search spaces that have them.

    Args:
        folders: Results folders of studies.
        size: Most configurations of a portfolio.
        own: Folders with methods of one's own.
        out: Folder of the search spaces; None writes none.

    Raises:
        StudyError: A folder holds no study, no study has anything to choose from, or a method is not known.
    """
    if size < 1:
        raise StudyError(f"--size: must be at least 1, but got {size}")
    cells = read(folders)
    if not cells:
        raise StudyError("portfolio: no menu and no search of these studies can be judged")
    with errors_at():
        known = {cell.method: methods.load(cell.method, own) for cell in cells}
    spans = {name: _ranges(method, own) for name, method in known.items()}

    def allowed(name: str, point: Point) -> bool:
        return all(knob in spans[name] and value in spans[name][knob] for knob, value in point)

    for name, method in known.items():
        listed = [cell for cell in cells if cell.method == name]
        chosen = portfolio.choose(listed, size, partial(allowed, name))
        _print(name, chosen, listed, console)
        outside = {p for cell in listed for p in cell.gaps if not allowed(name, p)}
        if outside:
            console.print(
                f"  {len(outside)} configurations are outside its search space and left out",
                highlight=False,
            )
        if out is not None and adds(chosen, listed):
            start = space.shipped_file(method, own)[0]
            path = write(out / f"{name}.yaml", start, block(method, chosen, listed, spans[name]))
            console.print(f"  written to {path}", highlight=False, soft_wrap=True)
    _print_worth(cells, size, allowed, console)


def adds(chosen: Chosen, cells: Sequence[Landscape]) -> bool:
    """Return whether a portfolio has more than the authors' defaults, which every search tries."""
    return not set(chosen.points) <= {cell.defaults for cell in cells}


def read(folders: Iterable[Path]) -> list[Landscape]:
    """Return what the studies of results folders say of their cells. Raises StudyError where one is no study, or listed twice."""
    cells: list[Landscape] = []
    for folder in folders:
        with errors_at():
            found = landscapes(load.read(folder))
        if found and found[0].uuid and found[0].uuid in [cell.uuid for cell in cells]:
            raise StudyError(f"{folder}: is given twice")
        cells += found
    return cells


def _ranges(method: Method, own: Sequence[Path]) -> dict[str, space.Range]:
    """Return knob to its range in a method's search space."""
    content, where = space.shipped(method, own)
    return {span.knob: span for span in space.parse(content, method, where)}


def _print(name: str, chosen: Chosen, cells: Sequence[Landscape], console: Console) -> None:
    places = f"{len(cells)} request{'s' if len(cells) > 1 else ''}"
    studies = ", ".join(dict.fromkeys(f"{c.study} ({c.data}, {c.model}, {c.phase})" for c in cells))
    console.print(f"\n{name}: {places} of {studies}", markup=False, highlight=False, soft_wrap=True)
    if not adds(chosen, cells):
        console.print(
            "  nothing but the authors' defaults: nothing else in its search space is better and was tried on more than one "
            "request; menus (`choose`) are the same on all",
            highlight=False,
        )
        return
    table = Table("", "mean regret", "tried", "knobs", box=None, padding=(0, 2, 0, 0))
    for place, (point, regret) in enumerate(zip(chosen.points, chosen.regret), start=1):
        knobs = ", ".join(f"{knob} {knob_value(value, 3)}" for knob, value in point)
        tried = sum(point in cell.gaps for cell in cells)
        table.add_row(str(place), f"{regret:.2f}", str(tried), knobs or "none")
    console.print(table)


def _print_worth(
    cells: Sequence[Landscape], size: int, allowed: Callable[[str, Point], bool], console: Console
) -> None:
    """Print what portfolios are worth where they were not chosen, for each kind of group that can be left out."""
    for left_out in LEFT_OUT:
        found = portfolio.worths(cells, left_out, size, allowed)
        what = {"data": "data set", "model": "network"}.get(left_out, left_out)
        if not found:
            console.print(f"\nNo method can be judged with one {what} left out.")
            continue
        console.print(f"\nWith one {what} left out (95 % intervals over them):")
        heads = ("trials", "without", "more", "first", "defaults", "worse", "hurts")
        table = Table("method", "cells", *heads, box=None, padding=(0, 2, 0, 0))
        for name in [*dict.fromkeys(one.method for one in found), "all"]:
            listed = [one for one in found if name in (one.method, "all")]
            table.add_row(name, str(len(listed)), *_measures(listed))
        console.print(table)
    console.print(
        "\nMean regret: of the best of the portfolio so far; 0 is the best of all that was tried on a request, 1 is the median. "
        "Trials, with and without a portfolio: until one is within a noise floor of the best, the authors' defaults first. "
        "First, defaults: points of AvgGap above the best where the first configuration, or the defaults, are taken unseen. "
        "Hurts: share of cells in which the first is worse than the defaults by more than a noise floor.",
        highlight=False,
    )


def _measures(found: Sequence[Worth]) -> list[str]:
    """Return the cells of a row: means, and their intervals where the number is a difference or a share."""

    def mean(value: Callable[[Worth], float]) -> Estimate:
        estimate = portfolio.mean_of(found, value)
        assert estimate is not None
        return estimate

    more = mean(lambda one: one.trials - one.trials_without)
    worse = mean(lambda one: 100 * (one.first - one.defaults))
    hurts = mean(lambda one: one.hurts)
    return [
        f"{mean(lambda one: one.trials).value:.1f}",
        f"{mean(lambda one: one.trials_without).value:.1f}",
        f"{more.value:+.1f} {_interval(more, '+.1f')}",
        f"{100 * mean(lambda one: one.first).value:.2f}",
        f"{100 * mean(lambda one: one.defaults).value:.2f}",
        f"{worse.value:+.2f} {_interval(worse, '+.2f')}",
        f"{hurts.value:.0%} {_interval(hurts, '.0%', (0.0, 1.0))}",
    ]


def _interval(of: Estimate, form: str, within: tuple[float, float] | None = None) -> str:
    """Return an interval in brackets; empty where there is none."""
    ends = of.interval
    if ends is None:
        return ""
    ends = ends if within is None else ends.within(*within)
    return f"\\[{ends.low:{form}}, {ends.high:{form}}]"


def write(path: Path, start: Path | None, lines: str) -> Path:
    """Write a search space with a portfolio, and return its file.

    A file that is there keeps all but its portfolio.

    Args:
        start: The search space with which a new file begins; None where the method has none.
        lines: The portfolio, by ``block``.
    """
    there = path if path.is_file() else start
    text = there.read_text(encoding="utf-8") if there is not None else ""
    block_of = rf"^{PORTFOLIO}:.*\n(?:[ \t-].*\n|\n)*"
    kept = re.sub(block_of, "", f"{text.rstrip()}\n", flags=re.MULTILINE).rstrip()
    write_atomically(path, f"{kept}\n{lines}".lstrip().encode())
    return path


def block(
    method: Method, chosen: Chosen, cells: Sequence[Landscape], spans: Mapping[str, space.Range]
) -> str:
    """Return the lines of a search space that hold a portfolio, and the studies that it is from."""
    lines = [f"{PORTFOLIO}:", "  configurations:"]
    for point in chosen.points:
        knobs = {name: _rounded(value, spans[name]) for name, value in point}
        lines.append(f"    - {yaml_file.one_line(knobs)}")
    lines += [
        f"  regret: {yaml_file.one_line([round(regret, 3) for regret in chosen.regret])}",
        "  sources:",
    ]
    authors = method.check({})
    for study in dict.fromkeys((cell.study, cell.uuid) for cell in cells):
        listed = [cell for cell in cells if (cell.study, cell.uuid) == study]
        first = listed[0]
        fixed = {n: v for n, v in first.fixed.items() if n in authors and v != authors[n]}
        source = {
            "study": first.study,
            "uuid": first.uuid,
            "data": first.data,
            "model": first.model,
            "requests": [cell.request for cell in listed],
            "seeds": list(first.seeds),
            "phase": first.phase,
            "fixed": fixed,
        }
        lines.append(f"    - {yaml_file.one_line(source)}")
    return "\n".join(lines) + "\n"


def _rounded(value: Any, span: space.Range) -> Any:
    """Return a number with few digits, as long as it stays in its range."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return short if short in span else value
