"""The flow of a study: references, search, then all that follows the search. It continues where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mu.record import REFERENCE_ROLES
from mu.selection import best_objective, candidates
from sweeps.audit import audit_cells
from sweeps.job_sources import FinalSource, SearchSource, TrialSource
from sweeps.ledger import Ledger
from sweeps.phases import Cell, Knobs
from sweeps.plan import Job, Plan
from sweeps.references import run_references
from sweeps.search.cells import Cells
from sweeps.state import results
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.results import Results
from sweeps.state.store import Store

if TYPE_CHECKING:
    from sweeps.workers.scores import ReferenceScores
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
        self.cells = Cells(plan, location, study_results.records.values())

    def best(self) -> dict[Cell, Knobs]:
        """Return the chosen knobs of every cell that has a finished configuration."""
        study = self.plan.study
        chosen: dict[Cell, Knobs] = {}
        for forget, method in self.plan.cells:
            tried = candidates(
                self.results.records.values(),
                forget,
                method,
                study.search.objective[0],
                study.seeds.search,
                study.search_view,
            )
            best = best_objective(tried)
            if best is not None:
                chosen[forget, method] = best.knobs
        return chosen

    def final_jobs(self) -> list[Job]:
        """Return the jobs after the search that have no record yet."""
        jobs = self.plan.final_jobs(self.best())
        return [job for job in jobs if job.key not in self.results.records]

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        recorded = self.results.records
        return (
            all(
                self.plan.reference_key(forget, seed, method, role) in recorded
                for role, seeds in self.plan.seeds.items()
                for forget in self.plan.study.forget
                for seed in seeds
                for method in REFERENCE_ROLES
            )
            and self.cells.remaining(not self.ledger.search_ended) == 0
            and not self.final_jobs()
        )

    def run(self, workers: Workers, store: Store) -> None:
        """Run all phases, one after the other."""
        slots, resources = workers.cluster.slots, self.plan.study.resources
        self.ledger.open(slots)
        with self.ledger.progress, closing(CheckpointStore(store.location)) as checkpoints:
            slots.use(resources.references)
            references = run_references(
                self.plan, self.ledger, workers.trainers, store, checkpoints
            )
            slots.use(resources.trial)
            kept = self.ledger, store, checkpoints
            search = SearchSource(*kept, self.cells, self.plan.study.search.early_stop)
            count = self.cells.remaining(not self.ledger.search_ended)
            with self.ledger.phase("search", count):
                self._run_trials(workers, search, count, references["search"])
            jobs = self.final_jobs()
            with self.ledger.phase("final", len(jobs)):
                final = FinalSource(*kept, jobs)
                self._run_trials(workers, final, len(jobs), references["report"])
            audit_cells(self.plan, self.ledger, store, self.best())

    def _run_trials(
        self,
        workers: Workers,
        source: TrialSource,
        count: int,
        references: Mapping[tuple[str, int], ReferenceScores],
    ) -> None:
        if count:
            workers.run(source, references, self.plan.study.search.early_stop)
