"""Which runs count: a search that goes on may choose other knobs, and leave runs with the old ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mu.choice import Decision
from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import Candidate
from reports.load.study import EPOCHS, Runs

Cell = tuple[str, str, str, str]
"""Phase, request, method, and the source of transferred knobs, which is empty in other phases."""


def cell_of(r: TrialRecord) -> Cell:
    """Return the cell of a record."""
    return r.phase, r.forget, r.method, r.source or ""


def counting_runs(
    records: Iterable[TrialRecord],
    seeds: tuple[Sequence[int], Sequence[int]],
    decisions: Mapping[tuple[str, str], Decision],
    epochs: int | None,
    phases: Iterable[str],
) -> dict[Cell, Runs]:
    """Return the runs that count, sorted as the study lists phases, requests and methods, whichever ended first.

    Args:
        seeds: The report seeds, and the seeds of further retrained models.
        decisions: Of every cell of the study, in its order; runs of other cells are left out.
        epochs: Epochs of sufficient training.
        phases: The phases in their order.
    """
    requests = {forget for forget, _ in decisions}
    cells: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for r in records:
        if r.phase == "reference":
            known = r.forget in requests and r.role == "report"
        else:
            known = (r.forget, r.method) in decisions and r.phase != "search"
        if known and (r.seed in seeds[0] or (r.method == "retrain" and r.seed in seeds[1])):
            cells[cell_of(r)].append(r)
    runs = {}
    for cell in _in_order(cells, phases, decisions):
        phase, forget, method, source = cell
        own = phase in ("reference", "default")
        decision = decisions.get((source or forget, method), Decision())
        changed = {EPOCHS: epochs} if phase == "sufficient" else {}
        runs[cell] = _latest(cells[cell], None if own else decision.chosen, changed)
    return runs


def without_superseded(
    records: Iterable[TrialRecord], runs: Mapping[Cell, Runs]
) -> tuple[TrialRecord, ...]:
    """Leave out the runs with knobs of an earlier choice, in place of which others count."""
    keys = {r.key for each in runs.values() for r in each.records}
    return tuple(
        r for r in records if r.key in keys or r.phase == "reference" or cell_of(r) not in runs
    )


def _in_order(
    cells: Iterable[Cell], phases: Iterable[str], listed: Iterable[tuple[str, str]]
) -> list[Cell]:
    pairs = list(listed)
    names = (
        list(phases),
        ["", *(forget for forget, _ in pairs)],
        [*REFERENCE_ROLES, *(method for _, method in pairs)],
    )
    places = [{name: at for at, name in enumerate(dict.fromkeys(each))} for each in names]

    def place(cell: Cell) -> tuple[int, ...]:
        phase, forget, method, source = cell
        return places[0][phase], places[1][forget], places[2][method], places[1].get(source, 0)

    return sorted(cells, key=place)


def _latest(
    ended: Sequence[TrialRecord], chosen: Candidate | None, changed: Mapping[str, Any]
) -> Runs:
    """Return the runs of a cell with the chosen knobs, or while there are none those with the latest knobs."""
    knobs = max(ended, key=lambda r: r.ended).knobs
    wanted = {**chosen.knobs, **changed} if chosen else knobs
    outdated = not any(r.knobs == wanted for r in ended)
    by_seed: dict[int, TrialRecord] = {}
    for r in sorted(ended, key=lambda r: (r.finished, r.ended)):
        if r.knobs == (knobs if outdated else wanted):
            by_seed[r.seed] = r
    return Runs(tuple(by_seed[seed] for seed in sorted(by_seed)), outdated)
