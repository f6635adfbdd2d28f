"""The flow of a study: references, search, and all that follows the search. It continues where it stopped."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mu.failing import Cell, failing_cells
from sweeps.flow.audit import audit_cells, audits_left
from sweeps.flow.job_sources import StudySource, decide
from sweeps.flow.ledger import Ledger
from sweeps.flow.references import References
from sweeps.plan import Plan
from sweeps.search.cells import Cells
from sweeps.state import results
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.results import Results
from sweeps.state.store import Store

if TYPE_CHECKING:
    from sweeps.workers.tuning import Workers


@dataclass(frozen=True)
class Locations:
    """Where a study keeps its state.

    Args:
        folder: Its results folder, ``results/<study>``.
        storage: Folder or fsspec URL of trained models, shared by studies.
        tracking_uri: MLflow; None is ``mlflow.db`` in the results folder.
        optuna: Optuna storage; None is ``optuna.journal`` in the results folder.
    """

    folder: Path
    storage: str
    tracking_uri: str | None = None
    optuna: str | None = None


class Sweep:
    """One run of a study over its results.

    Args:
        plan: What to run.
        study_results: The results of the study so far.
        locations: Where state is kept.
        console: Where progress is shown.
    """

    def __init__(self, plan: Plan, study_results: Results, locations: Locations, console: Console):
        self.plan = plan
        self.locations = locations
        self.results = study_results
        self.ledger = Ledger(plan, study_results, console)
        journal = locations.folder.resolve() / "optuna.journal"
        if locations.optuna is None:
            results.drop_partial_line(journal)
        location = locations.optuna or str(journal)
        known = study_results.study.get("uuid", "")
        self.cells = Cells(plan, location, study_results.records.values(), known)
        for cell in self._failing:
            if cell in plan.cells:  # not that of a twin
                self.cells.end(cell)

    @property
    def _failing(self) -> Collection[Cell]:
        return failing_cells(self.results.records.values(), self.plan.study.max_failures)

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        plan, recorded = self.plan, self.results.records
        references = (plan.reference_key(*named) for named in plan.reference_records)
        if not all(key in recorded for key in references):
            return False
        if self.cells.remaining(not self.ledger.search_ended):
            return False
        failing = self._failing
        whole = [cell for cell in plan.cells if cell not in failing]
        decisions = decide(plan, recorded.values(), whole)
        chosen = {cell: one.chosen.knobs for cell, one in decisions.items() if one.chosen}
        jobs = [*plan.menu_jobs, *plan.finalist_jobs(decisions), *plan.final_jobs(chosen)]
        if not all(job.key in recorded for job in jobs if (job.forget, job.method) not in failing):
            return False
        return not audits_left(plan, recorded, chosen)

    def run(self, workers: Workers, store: Store) -> None:
        """Run all that is left: every job as soon as it can start, and at the end the audits."""
        self.ledger.open(workers.cluster.slots)
        with self.ledger.progress, closing(CheckpointStore(store.location)) as checkpoints:
            references = References(self.plan, self.ledger, store, workers.put)
            source = StudySource(self.plan, self.ledger, store, checkpoints, self.cells, references)
            searched = self.cells.remaining(not self.ledger.search_ended)
            self.ledger.expect(reference=references.count, search=searched)
            workers.run(source, self.plan.problems)
            audit_cells(self.plan, references, self.ledger, store, source.chosen)
