"""The searches of all cells of a study, interleaved: whose turn it is, and which jobs are handed out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import optuna

from mu.record import TrialRecord
from sweeps.phases import Cell
from sweeps.plan import Job, Plan
from sweeps.search.cell_search import CellSearch
from sweeps.search.optuna_storage import open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()  # to run.log, and to the console in our own form


class Cells:
    """The searches of all cells of a study. They hand out jobs, and are told the records of those that ended.

    Args:
        plan: What the study runs.
        location: Of Optuna's storage; see ``open_storage``.
        records: Of earlier runs of the study.
        study_id: UUID of the study: others of its name may use the same storage.
    """

    def __init__(
        self, plan: Plan, location: str, records: Iterable[TrialRecord] = (), study_id: str = ""
    ):
        self.plan = plan
        self.study_id = study_id
        storage = open_storage(location)
        done: dict[Cell, list[TrialRecord]] = {}
        for record in records:
            if record.phase == "search":
                done.setdefault((record.forget, record.method), []).append(record)
        self._cells = {
            cell: CellSearch(plan, cell, storage, self.study_name(cell), done.get(cell, ()))
            for cell in plan.cells
        }

    def study_name(self, cell: Cell) -> str:
        """Return the name of a cell's study in Optuna's storage: a cell that has changed starts a new one."""
        forget, method = cell
        key = self.plan.search_key(cell)
        return f"{self.plan.study.name}/{forget}/{method}/{key[:16]}/{self.study_id}"

    def remaining(self, more: bool = True) -> int:
        """Return how many jobs are to be handed out; without `more` only those that were asked for already."""
        return sum(self.left(cell, more) for cell in self._cells)

    @property
    def asked(self) -> int:
        """Configurations that every cell has been asked for, if it has so many; some cells may be one ahead."""
        counts = [each.asked for each in self._cells.values() if each.asked < each.trials]
        return min(counts, default=self.plan.study.search.trials)

    def left(self, cell: Cell, more: bool = True) -> int:
        """Return how many jobs of a cell are to be handed out; without `more` only those asked for already."""
        search = self._cells[cell]
        fresh = max(0, search.trials - search.asked) * len(search.seeds) if more else 0
        return len(search.waiting) + fresh

    def end(self, cell: Cell) -> None:
        """Hand out no more jobs of a cell. What it was asked for and did not run is asked for by the next run."""
        search = self._cells[cell]
        search.waiting.clear()
        search.trials = search.asked

    def next(self, more: bool = True, forgets: Collection[str] | None = None) -> Job | None:
        """Return the next job; None when there is none.

        Args:
            more: Without it, only jobs that were asked for already: then all cells have had the same number, but for one.
            forgets: The requests whose trials may run; None is all.
        """
        searches = [s for s in self._cells.values() if forgets is None or s.cell[0] in forgets]
        for search in searches:
            if search.waiting:
                return search.waiting.popleft()
        left = [search for search in searches if search.asked < search.trials]
        if not more or not left:
            return None
        search = min(left, key=self._turn)
        search.ask()
        return search.waiting.popleft()

    def _turn(self, search: CellSearch) -> tuple[float, ...]:
        """Order cells by whose turn it is: after a first trial of each, the one with most work left is next.

        So no long cell is left over at the end. A cell of slow trials would collect many that run at once, and its sampler
        would know little: then others are next. A budget may end the search at any time, so under one it is the turn of
        the cell that has been asked least.
        """
        if self.plan.study.budget:
            return (search.asked,)
        return (search.crowded, search.asked > 0, -search.seconds_left, search.asked)

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job; see ``CellSearch.ended``."""
        self._cells[record.forget, record.method].ended(record)

    def behind(self, job: Job, curve: Sequence[Mapping[str, float]]) -> bool:
        """Return whether a running job should end; see ``CellSearch.behind``."""
        return self._cells[job.forget, job.method].behind(job, curve)
