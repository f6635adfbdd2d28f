"""The figures of all benchmarks: ``results.csv``, and the table of it that ``README.md`` begins with.

A benchmark that runs with ``--save`` replaces its own figures and leaves the others, with their date and machine.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS, README = FOLDER / "results.csv", FOLDER / "README.md"
BEGIN, END = "<!-- figures: made from results.csv -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark.

    Args:
        benchmark: The script, without its ending.
        name: What was measured; with the benchmark it names the figure.
        value: Its value with its unit.
        ratio: How many times better or worse than `against` it is; empty where nothing is compared.
        against: What `ratio` says: `faster`, or `the data`, whose multiple it is.
        target: `at least X` or `at most X`, maybe with a unit, of the ratio where there is one, else of the value; empty without one.
        date, machine: When and where it was measured.
    """

    benchmark: str
    name: str
    value: str
    ratio: str = ""
    against: str = ""
    target: str = ""
    date: str = ""
    machine: str = ""

    @property
    def met(self) -> str:
        """`yes` or `no`; empty without a target, or before it is measured."""
        if not self.target or not self.date:
            return ""
        measured, limit = (
            float(text.replace(",", ""))
            for text in ((self.ratio or self.value).split()[0], self.target.split()[2])
        )
        reached = measured >= limit if self.target.startswith("at least") else measured <= limit
        return "yes" if reached else "no"


def read(path: Path = RESULTS) -> list[Figure]:
    """Read all figures."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Figure(**row) for row in csv.DictReader(file)]


def merged(old: Iterable[Figure], new: Sequence[Figure]) -> list[Figure]:
    """Return figures with those of the same benchmark and name replaced, and others after the last of their benchmark."""
    figures = {(each.benchmark, each.name): each for each in old}
    figures |= {(each.benchmark, each.name): each for each in new}
    order = list(dict.fromkeys(benchmark for benchmark, _ in figures))
    return sorted(figures.values(), key=lambda each: order.index(each.benchmark))


def write(figures: Sequence[Figure], path: Path = RESULTS) -> None:
    """Write all figures."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, [each.name for each in fields(Figure)], lineterminator="\n")
        lines.writeheader()
        lines.writerows(asdict(each) for each in figures)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| benchmark | figure | value | ratio | target | met | date | machine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in figures:
        ratio = f"{each.ratio} x {each.against}" if each.ratio else ""
        script = f"`{each.benchmark}.py`"
        cells = (script, each.name, each.value, ratio, each.target, each.met)
        lines.append(f"| {' | '.join((*cells, each.date, each.machine))} |")
    return "\n".join(lines)


def with_table(text: str, figures: Sequence[Figure]) -> str:
    """Return a page with the table between its markers replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(figures)}\n{END}{after}"


def save(new: Sequence[Figure], machine: str) -> None:
    """Replace figures by those measured today on this machine, in the file and in the table."""
    from dataclasses import replace

    today = time.strftime("%Y-%m-%d")
    figures = merged(read(), [replace(each, date=today, machine=machine) for each in new])
    write(figures)
    README.write_text(with_table(README.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    print(table(read()))
