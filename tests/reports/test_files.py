"""Files of tables: safe for any name, and in LaTeX no wider than the text of an article."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from studies import ROOT

from mu.record import read
from reports import contents, load
from reports.tables import files, results
from reports.tables.latex import to_latex

DATA = ROOT / "tests" / "data"
NAMES = (
    '<script>alert("x")</script>',
    "cost $5 of 10%",
    "a_b^c~d{e}\\f#g&h",
    "[first] | *second*",
    "n" * 200,
    "long names of words " * 10,
    "line\nbreak",
)


def study(methods: int, names: tuple[str, ...] = ()) -> load.RecordedStudy:
    """The study of ``tests/data``, its method `alpha` so many times, under these names."""
    line, records = read(DATA / "trials.jsonl")
    called = [*names, *(f"method{n:02d}" for n in range(methods))][:methods]
    listed = [m for m in line["definition"]["methods"] if m["name"] == "alpha"]
    definition = {
        **line["definition"],
        "methods": [{**listed[0], "as": name} for name in called],
    }
    facts = dict.fromkeys(called, line["methods"]["alpha"])
    copies = [
        dataclasses.replace(r, method=name, key=f"{r.key}{name}")
        for r in records
        for name in (called if r.method == "alpha" else [r.method])
        if r.phase == "reference" or r.method == "alpha"
    ]
    return load.assemble({**line, "definition": definition, "methods": facts}, copies, {})


def test_names_are_safe_in_every_file(tmp_path: Path) -> None:
    made = study(len(NAMES), NAMES)
    tables = contents.all_tables(made)
    files.write(tmp_path, made, tables)
    main = pd.read_csv(tmp_path / "main.csv")
    assert set(NAMES) <= set(main["Method"])
    assert len(main) == sum(len(g.rows) for g in results.main(made).groups) * (3 + len(NAMES))
    for path in tmp_path.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "<script>" not in re.sub(r"\\<", "", text)
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, path.name
    for path in tmp_path.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"(?<!\\)[#&%]a", text) is None
        assert r"10\%" in text or "cost" not in text


def test_numbers_of_files_are_those_of_the_page_in_full(tmp_path: Path) -> None:
    made = study(3)
    table = results.main(made)
    frame = files.table_frame(table)
    shown = [cell for group in table.groups for row in group.rows for cell in row[1:]]
    numbers = [f"{100 * value:.2f}" for value in frame["value"].dropna()]
    assert len(frame) == len(shown)
    assert sum(cell.number is not None for cell in shown) == len(numbers)
    printed = json.dumps([cell.value for cell in shown])
    assert sum(number in printed for number in numbers) > 0.7 * len(numbers)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_every_table_of_twelve_methods_fits_the_text_of_an_article(tmp_path: Path) -> None:
    made = study(12, NAMES)
    names = []
    for table in contents.all_tables(made):
        (tmp_path / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
        names.append(table.name)
    body = "\n".join(rf"\input{{{name}}}\clearpage" for name in names)
    text = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(text, encoding="utf-8")
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", ran.stdout)
    assert [size for size in wide if float(size) > 1] == []
    assert "Float too large" not in ran.stdout
