"""What a report holds: every table and every figure that a study has something to show in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from reports.analysis.summaries import compares
from reports.charts import maps, results, search
from reports.charts.choice import choice as choice_figure
from reports.charts.figure import Figure
from reports.load import RecordedStudy
from reports.tables import choice, points, uncertainty
from reports.tables import knobs as knob_tables
from reports.tables import published as paper_numbers
from reports.tables import results as result_tables
from reports.tables import robustness as robustness_tables
from reports.tables.cells import Table
from reports.tables.classes import per_class
from reports.text import ORACLE

TABLES: tuple[Callable[[RecordedStudy], Table | None], ...] = (
    result_tables.main,
    paper_numbers.published,
    result_tables.sufficient,
    robustness_tables.overforgetting,
    result_tables.transfer,
    robustness_tables.robustness,
    choice.choice,
    choice.choice_by_cell,
    knob_tables.rules,
    uncertainty.noise_floor,
    uncertainty.comparison,
    knob_tables.knobs,
    result_tables.cost,
    robustness_tables.transfer_matrix,
    result_tables.metrics,
    per_class,
    knob_tables.chosen_by_rule,
    points.points,
    knob_tables.importances,
)
UNTUNED = ("noise_floor", "choice", "choice_cells", "rules", "selection", "grid", "importance")
"""Tables that show no runs with chosen knobs."""
COMPARED = (
    "Oracle: knobs were chosen by comparison with a retrained model, which a user does not have."
)
FIGURES: tuple[Callable[[RecordedStudy], Figure | None], ...] = (
    results.tradeoff,
    results.recoveries,
    results.over_forgetting,
    maps.transfer_matrix,
    choice_figure,
    maps.taken_for,
    search.progress,
    search.expected_best,
)


def all_tables(study: RecordedStudy) -> list[Table]:
    """Every table that the study has."""
    made = [table for make in TABLES if (table := make(study)) is not None]
    return [
        dataclasses.replace(table, caption=f"{how} {table.caption}")
        if (how := _oracle(study, table.name))
        else table
        for table in made
    ]


def _oracle(study: RecordedStudy, table: str) -> str:
    """What the caption of a table begins with, where its knobs were chosen with a retrained model."""
    if study.oracle:
        return ORACLE
    return COMPARED if table not in UNTUNED and compared(study) else ""


def compared(study: RecordedStudy) -> bool:
    """Return whether knobs were chosen by comparison with a retrained model."""
    return compares(study.objective)


def all_figures(study: RecordedStudy) -> list[Figure]:
    """Return every figure that has something to show."""
    drawn = [*(draw(study) for draw in FIGURES), *search.knobs(study), *maps.grids(study)]
    return [figure for figure in drawn if figure is not None]
