"""What a report holds: every table and every figure that a study has something to show in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import matplotlib

from reports import (
    classes,
    figures,
    grid,
    knob_figures,
    knob_tables,
    paper_numbers,
    result_tables,
    robustness_figures,
    robustness_tables,
    uncertainty,
)
from reports.canvas import STYLE, Drawing
from reports.load import RecordedStudy
from reports.table_cells import ORACLE, Table

TABLES: tuple[Callable[[RecordedStudy], Table | None], ...] = (
    result_tables.main,
    paper_numbers.published,
    result_tables.sufficient,
    robustness_tables.overforgetting,
    result_tables.transfer,
    robustness_tables.robustness,
    knob_tables.rules,
    uncertainty.noise_floor,
    uncertainty.comparison,
    knob_tables.knobs,
    result_tables.cost,
    robustness_tables.transfer_matrix,
    result_tables.metrics,
    classes.per_class,
    knob_tables.chosen_by_rule,
    grid.points,
    knob_tables.importances,
)
FIGURES: tuple[Callable[[RecordedStudy], Drawing | None], ...] = (
    figures.over_forgetting,
    figures.gaps,
    figures.transfer,
    figures.cost,
    robustness_figures.ranks,
    robustness_figures.transfer_matrix,
    classes.taken_for,
    knob_figures.expected_best,
    knob_figures.progress,
)


def all_tables(study: RecordedStudy) -> list[Table]:
    """Every table that the study has."""
    made = [table for make in TABLES if (table := make(study)) is not None]
    if study.oracle:
        made = [dataclasses.replace(t, caption=f"{ORACLE} {t.caption}") for t in made]
    return made


def all_figures(study: RecordedStudy) -> dict[str, Drawing]:
    """Every figure that has something to show, by name."""
    with matplotlib.rc_context(STYLE):
        drawn = [
            *(draw(study) for draw in FIGURES),
            *knob_figures.responses(study),
            *grid.maps(study),
        ]
    return {drawing.name: drawing for drawing in drawn if drawing is not None}
