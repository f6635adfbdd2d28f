"""Several studies on one page: what each method recovers in each, and whether the studies rank methods alike."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports import load
from reports.analysis.robustness import PARTS, robustness
from reports.analysis.summaries import scale
from reports.load import RecordedStudy
from reports.statistics.intervals import Estimate, mean_estimate
from reports.statistics.rankings import kendall
from reports.tables import cells, files
from reports.tables.cells import BESIDE, Table, TableCell, Values
from reports.text import label, share

KINDS = {
    "tuned": "Tuned knobs",
    "untuned": "Knobs that were not tuned on the request",
    **dict(zip(PARTS, ("Transferred knobs", "Default knobs", "More epochs"))),
}
"""Kind of recovery to its title; `untuned` is the mean of the three that follow."""
Studies = Mapping[str, RecordedStudy]
Recoveries = dict[str, dict[str, dict[str, Estimate]]]
"""Kind to method to study to recovery."""


def build(folders: Sequence[Path], out: Path) -> Path:
    """Write one page over several results folders, and its tables as files beside it; return the path of the page.

    Raises:
        ValueError: A folder is no study's, or the studies cannot be compared; or `out` holds files that are not a report's.
    """
    from reports.page import report  # which draws, and is not needed for the tables

    studies = read(folders)
    tables = all_tables(studies)
    out = out.resolve()
    with report.draft_of(out) as draft:
        (draft / "tables").mkdir(parents=True)
        files.write_tables(draft / "tables", tables)
        files.to_csv(draft / "tables" / "recoveries.csv", recoveries(studies))
        page = report.comparison_html(list(studies), tables)
        (draft / "index.html").write_text(page, encoding="utf-8")
    return out / "index.html"


def read(folders: Sequence[Path]) -> Studies:
    """Return the studies of some folders by name, after a check that they can be compared. Raises ValueError."""
    if len(folders) < 2:
        raise ValueError("compare needs two results folders at least")
    studies: dict[str, RecordedStudy] = {}
    seen: dict[Any, Path] = {}
    for folder in folders:
        study = load.read(folder)
        mark = study.line.get("uuid") or folder.resolve()
        if mark in seen or folder.resolve() in seen:
            raise ValueError(f"{folder}: is the same study as {seen.get(mark) or folder}")
        seen[mark] = seen[folder.resolve()] = folder
        name = study.name if study.name not in studies else f"{study.name} ({folder})"
        studies[name] = study
    (first, one), *others = studies.items()
    for name, other in others:
        if (ours := _lists(one)) != (theirs := _lists(other)):
            raise ValueError(
                f"{first} and {name}: AvgGap is over other metrics, {ours} and {theirs}; compare studies whose "
                "requests forget whole classes, or studies whose requests do not, or studies with both"
            )
    common = set.intersection(*({m.name for m in s.methods} for s in studies.values()))
    if not common:
        raise ValueError(f"{', '.join(studies)}: have no method in common")
    return studies


def recoveries(studies: Studies) -> pd.DataFrame:
    """Return `study`, `data`, `model`, `method`, `kind` of ``KINDS``, `recovery`, `low`, `high`: means over the requests of a study."""
    rows = [
        (name, _data(studies[name]), _model(studies[name]), method, kind, each.value, *(each.interval or (None, None)))
        for kind, of in _recoveries(studies).items()
        for method, by_study in of.items()
        for name, each in by_study.items()
    ]  # fmt: skip
    heads = ("study", "data", "model", "method", "kind", "recovery", "low", "high")
    return pd.DataFrame(rows, columns=list(heads))


def all_tables(studies: Studies) -> list[Table]:
    """Return the tables: what is compared, recoveries of methods x studies, and how alike the rankings are."""
    known = _recoveries(studies)
    what = "Recovery is formed within each study, from its own retrained and original models."
    how = (
        "Recovery in percent, the mean over the requests of a study on which there is something to measure, with "
        "95 % intervals from resampling the report seeds. Mean and least are over the studies that a method is in, and "
        "say how robust it is across data sets and models; a method that is not in all of them has had other tasks."
    )
    alike = (
        "Kendall's τ-b of the recoveries of the methods that both studies have: 1 is the same order, 0 an unrelated "
        "one, −1 the reverse. With few methods it says little."
    )
    shares, ranks = (
        [(kind, title, rows(studies, known[kind])) for kind, title in KINDS.items()]
        for rows in (_recovery_rows, _rank_rows)
    )
    listed = [("all", "All studies", _study_rows(studies))]
    names = ("rank_correlations", "Whether studies rank methods alike")
    tables = (
        cells.table_of(("studies", "What is compared", what, "Studies"), listed, texts=3),
        cells.table_of(("recovery", "Recovery in each study", how, "Knobs"), shares),
        cells.table_of((*names, alike, "Knobs"), ranks, texts=2),
    )
    return [table for table in tables if table]


def _recoveries(studies: Studies) -> Recoveries:
    known: Recoveries = {kind: {} for kind in KINDS}
    for number, (name, study) in enumerate(studies.items()):
        for method in study.methods:
            robust = robustness(study, method)
            total = robust.total if robust.whole else None
            of = {"tuned": robust.tuned, "untuned": total, **robust.parts}
            for kind, each in of.items():
                if each is not None:
                    # The seeds of two studies are no pairs, even where they have the same numbers.
                    apart = Estimate(each.value, np.roll(each.replicas, 97 * number), each.n)
                    known[kind].setdefault(method.name, {})[name] = apart
    return known


def _study_rows(studies: Studies) -> Iterator[Values]:
    for name, study in studies.items():
        measured = [r for r in study.requests if scale(study, r).measurable]
        yield {
            "Study": name,
            "Data": _data(study),
            "Model": _model(study),
            "Requests": cells.counted(len(study.requests)),
            "With something to measure": cells.counted(len(measured)),
            "Methods": cells.counted(len(study.methods)),
            "Report seeds": cells.counted(len(study.report_seeds)),
            "Chosen by": label(study.objective) + (", oracle" if study.oracle else ""),
        }


def _recovery_rows(studies: Studies, of: Mapping[str, Mapping[str, Estimate]]) -> Iterator[Values]:
    for method, by_study in of.items():
        mean, least = mean_estimate(list(by_study.values())), min(by_study.values(), key=lambda e: e.value)  # fmt: skip
        missing = f"{len(by_study)} of {len(studies)}" if len(by_study) < len(studies) else ""
        yield {
            "Method": method,
            **{name: cells.recovery_cell(by_study.get(name), BESIDE) for name in studies},
            "Mean over studies": cells.recovery_cell(mean, BESIDE, runs=missing),
            "Least": TableCell(number=least.value, form=share),
        }


def _rank_rows(studies: Studies, of: Mapping[str, Mapping[str, Estimate]]) -> Iterator[Values]:
    for first, second in itertools.combinations(studies, 2):
        both = [(e[first].value, e[second].value) for e in of.values() if {first, second} <= set(e)]
        if both:
            tau = kendall(*zip(*both)) if len(both) > 1 else None
            yield {
                **{"First": first, "Second": second, "Kendall's τ": cells.correlation(tau)},
                "Methods": cells.counted(len(both)),
            }


def _lists(study: RecordedStudy) -> str:
    """Return the metrics of AvgGap of a study's requests, in words."""
    return " and ".join(sorted({", ".join(map(label, r.metrics)) for r in study.requests}))


def _data(study: RecordedStudy) -> str:
    return str(load.mapping(study.line.get("data")).get("name", ""))


def _model(study: RecordedStudy) -> str:
    return str(load.mapping(study.definition.get("model")).get("name", ""))
