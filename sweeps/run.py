"""The flow of a study: references, search, then confirm, sufficient and transfer. Continues where it stopped."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mu.evaluate import mean_of, population_of
from mu.keys import content_key
from mu.metrics.audits import utility_ratio
from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import best_objective, candidates
from sweeps.audit import Answers, audit
from sweeps.errors import StudyError
from sweeps.plan import Job, Plan, versions
from sweeps.references import references
from sweeps.search.cells import Cells
from sweeps.state import results
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.costs import Meter, by_method, used
from sweeps.state.results import Results
from sweeps.state.store import Store
from sweeps.study.resources import RunSettings
from sweeps.tracking.progress import Progress
from sweeps.workers.trial import CurvePoint, Reference

if TYPE_CHECKING:
    from sweeps.tracking.mlflow import Tracking
    from sweeps.workers.cluster import Slots
    from sweeps.workers.tuner import Workers


SUMMARY_SECONDS = 10.0
"""How often ``summary.json`` is written while a study runs."""


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
        found: The results of the study so far.
        places: Where state lives.
        console: Where progress is shown.
    """

    def __init__(self, plan: Plan, found: Results, places: Locations, console: Console):
        self.plan = plan
        self.study = plan.study.name
        self.results = found
        self.places = places
        search = plan.study.search
        self.progress = Progress(self.study, search.objective[0], plan.study.search_view, console)
        self.tracking: Tracking | None = None
        self.store: Store | None = None
        self.drafts: CheckpointStore | None = None
        self.slots: Slots | None = None
        self.seconds: dict[str, float] = {}
        self.compute: dict[str, float] = defaultdict(float)
        self.began = self._summarized = time.monotonic()
        share = plan.study.resources.trial.amounts
        budget = plan.study.settings.budget
        self.meter = Meter(budget, plan.planned, share, found.records.values())
        for record in found.records.values():
            self.progress.note(record)
        journal = places.folder.resolve() / "optuna.journal"
        if places.optuna is None:
            results.drop_partial_line(journal)
        location = places.optuna or str(journal)
        self.cells = Cells(plan, location, found.records.values())

    def best(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The chosen knobs of every cell that has a finished configuration."""
        study = self.plan.study
        chosen: dict[tuple[str, str], Mapping[str, Any]] = {}
        for forget, method in self.plan.cells:
            found = best_objective(
                candidates(
                    self.results.records.values(),
                    forget,
                    method,
                    study.search.objective[0],
                    study.search_seeds,
                    study.search_view,
                )
            )
            if found is not None:
                chosen[forget, method] = found.knobs
        return chosen

    @property
    def search_ended(self) -> bool:
        """Whether the budget has ended the search."""
        return bool(self.results.study.get("search_ended"))

    def may_ask(self) -> bool:
        """Whether the budget leaves room for another trial of the search; every cell has at least one."""
        if self.search_ended or not self.meter.budget or not self.cells.asked:
            return not self.search_ended
        slots = self.slots.now if self.slots is not None else 1
        by = self.meter.exceeded(self.progress.asked, slots)
        if by:
            limit = getattr(self.meter.budget, by)
            ended = {"by": by, "limit": limit, "trials": self.cells.asked}
            self.results.begin({**self.results.study, "search_ended": ended})
            self.progress.say(
                f"the budget of {limit:g} {by} ends the search after {self.cells.asked} trials a cell"
            )
        return not by

    def final_jobs(self) -> list[Job]:
        """Jobs after the search that have no record yet."""
        jobs = self.plan.final_jobs(self.best())
        return [job for job in jobs if job.key not in self.results.records]

    def reference_key(self, forget: str, seed: int, method: str, role: str) -> str:
        """Record key of a reference on a problem; `role` is that of its seed, `search` or `report`."""
        return content_key(self.plan.problem(forget, seed).key, "reference", method, role)

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        known = self.results.records
        return (
            all(
                self.reference_key(forget, seed, method, role) in known
                for role, seeds in self.plan.seeds.items()
                for forget in self.plan.study.forget
                for seed in seeds
                for method in REFERENCE_ROLES
            )
            and self.cells.remaining(not self.search_ended) == 0
            and not self.final_jobs()
        )

    def run(self, workers: Workers, store: Store) -> None:
        """All phases, one after the other."""
        self.slots = self.progress.slots = workers.cluster.slots
        self.began = time.monotonic()
        self.store, self.drafts = store, CheckpointStore(store.location)
        resources = self.plan.study.resources
        with self.progress, closing(self.drafts) as drafts:
            self.slots.use(resources.reference)
            trainers = workers.trainers
            found = self._timed("reference", lambda: references(self, trainers, store, drafts))
            self.slots.use(resources.trial)
            count = self.cells.remaining(not self.search_ended)
            self._phase(workers, "search", _Search(self), count, found["search"])
            jobs = self.final_jobs()
            self._phase(workers, "final", _Fixed(self, jobs), len(jobs), found["report"])
            self._audit(store)

    def _timed(self, name: str, action: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return action()
        finally:
            self.seconds[name] = time.monotonic() - began

    def _phase(
        self,
        workers: Workers,
        name: str,
        source: _Source,
        count: int,
        compared: Mapping[tuple[str, int], Reference],
    ) -> None:
        self.progress.start_phase(name, count)
        self.summarize("running")
        if count == 0:
            return
        early_stop = self.plan.study.search.early_stop
        self._timed(name, lambda: workers.run(source, compared, early_stop))

    def take(self, record: TrialRecord) -> None:
        """A trial ended: first the results file, then everything that follows it."""
        if self.results.append(record):
            self.compute[record.phase] += record.time_total
            self.meter.add(record)
            if self.tracking is not None:
                self.tracking.put(record)
            self.progress.ended(record)
            self._summarize_now_and_then()

    def _audit(self, store: Store) -> None:
        """Attack the confirmed models of every cell with those of its other seeds; one record a seed."""
        best = self.best()
        for forget, method in self.plan.cells if self.plan.study.audit.models else ():
            confirmed = {
                record.seed: record
                for record in self.results.records.values()
                if (record.phase, record.forget, record.method) == ("confirm", forget, method)
                and record.finished
                and record.knobs == best.get((forget, method))
            }
            keys = {seed: content_key(record.key, "audit") for seed, record in confirmed.items()}
            if set(keys.values()) <= set(self.results.records):
                continue
            found = {
                seed: (
                    store.get(record.key),
                    store.get(self.reference_key(forget, seed, "retrain", "report")),
                )
                for seed, record in confirmed.items()
            }
            kept = {
                seed: (Answers(**ours), Answers(**theirs))
                for seed, (ours, theirs) in found.items()
                if ours is not None and theirs is not None
            }
            if len(kept) < self.plan.study.audit.models:
                self.progress.say(
                    f"audit of {forget} {method}: outputs of {len(kept)} models were kept, "
                    f"{self.plan.study.audit.models} are needed"
                )
                continue
            problem = self.plan.problem(forget, next(iter(kept)))
            labels = problem.data.parts["train"].labels[problem.forget_index]
            test = problem.data.parts["test"].labels
            audited = audit(
                {seed: ours for seed, (ours, _) in kept.items()},
                {seed: theirs for seed, (_, theirs) in kept.items()},
                labels,
                test,
                population_of(test),
                self._utility(forget, [confirmed[seed] for seed in kept]),
            )
            for seed, values in audited.items():
                now = time.time()
                self.record_other(
                    replace(
                        confirmed[seed],
                        key=keys[seed],
                        phase="audit",
                        metrics={"test": values},
                        unavailable={},
                        confusions={},
                        curve=[],
                        time_total=0.0,
                        started=now,
                        ended=now,
                    )
                )

    def _utility(self, forget: str, confirmed: Sequence[TrialRecord]) -> float:
        """Accuracy kept on D_r and on test samples, relative to the retrained models of the same seeds."""
        retrained = [
            self.results.records[self.reference_key(forget, record.seed, "retrain", "report")]
            for record in confirmed
        ]
        ours, theirs = (
            mean_of([record.metrics["test"] for record in side]) for side in (confirmed, retrained)
        )
        retain, test = ((ours[name], theirs[name]) for name in ("acc_retain", "acc_test"))
        return utility_ratio(retain, test)

    def record_other(self, record: TrialRecord) -> None:
        """Record what was not a job of a Tune run: a reference, or an audit."""
        if self.results.append(record):
            self.meter.add(record)
            if self.tracking is not None:
                self.tracking.put(record)

    def _summarize_now_and_then(self) -> None:
        if time.monotonic() - self._summarized > SUMMARY_SECONDS:
            self.summarize("running")

    def summarize(self, state: str) -> None:
        """Write ``summary.json``; `state` is `running` or `ended`."""
        if self.slots is not None:
            summary = self.summary(time.monotonic() - self.began)
            now = {"state": state, "phase": self.progress.phase.name, "written": time.time()}
            running = {"running": self.progress.running} if state == "running" else {}
            results.write_summary(self.places.folder, {**summary, **now, **running})
        self._summarized = time.monotonic()

    def summary(self, wall_seconds: float) -> dict[str, Any]:
        """Counts and costs of all runs of the study; times and efficiency of this one.

        `efficiency` is the time trials and trainings kept their slots, divided by slots x wall time while the
        cluster grew and shrank; `slots` is the most there were.
        """
        compute = sum(self.compute.values())
        assert self.slots is not None
        return {
            "study": self.study,
            **{key: v for key, v in self.results.study.items() if key == "search_ended"},
            "counts": results.counts(self.results.records),
            "wall_seconds": wall_seconds,
            "seconds_by_phase": self.seconds,
            "slots": self.slots.most,
            "slot_seconds": self.slots.seconds,
            "compute_seconds": compute,
            "compute_seconds_by_phase": dict(self.compute),
            "cost_seconds": dict(used(self.results.records.values())),
            "cost_seconds_by_method": by_method(self.results.records.values()),
            "efficiency": compute / max(compute, self.slots.seconds),
        }


class _Source:
    """Jobs of one phase; see ``tuner.JobSource``."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.study = sweep.study

    def next(self) -> Job | None:
        raise NotImplementedError

    def ended(self, record: TrialRecord) -> None:
        self.sweep.take(record)
        assert self.sweep.drafts is not None
        self.sweep.drafts.drop(record.key)

    def draft(self, job: Job) -> dict[str, Any] | None:
        assert self.sweep.drafts is not None
        return self.sweep.drafts.get(job.key)

    def keep_draft(self, job: Job, arrays: dict[str, Any]) -> None:
        assert self.sweep.drafts is not None
        self.sweep.drafts.put(job.key, arrays)

    def keep(self, job: Job, arrays: dict[str, Any]) -> None:
        assert self.sweep.store is not None
        self.sweep.store.put(job.key, arrays)

    def behind(self, job: Job, point: CurvePoint) -> bool:
        return False


class _Search(_Source):
    def next(self) -> Job | None:
        job = self.sweep.cells.next(self.sweep.may_ask())
        if job is not None:
            self.sweep.progress.started()
        return job

    def ended(self, record: TrialRecord) -> None:
        super().ended(record)
        self.sweep.cells.ended(record)

    def behind(self, job: Job, point: CurvePoint) -> bool:
        search = self.sweep.plan.study.search
        if search.early_stop != "asha":
            return False
        return self.sweep.cells.behind(job, int(point["epoch"]), point["avg_gap_natmu"])


class _Fixed(_Source):
    def __init__(self, sweep: Sweep, jobs: Sequence[Job]):
        super().__init__(sweep)
        self.waiting = list(reversed(jobs))

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        self.sweep.progress.started()
        return self.waiting.pop()


def open_results(plan: Plan, places: Locations) -> Results:
    """Open the results of a study and note what is asked for now.

    Raises:
        StudyError: The folder holds trials that may not be mixed with this study's, or is held by another driver.
    """
    line = plan.study_line(versions(), time.time())
    found = Results(places.folder)
    changes = results.incompatible(found.study, line) if found.study else []
    if changes:
        found.close()
        raise StudyError(
            f"{places.folder} holds trials of a different study; {'; '.join(changes[:3])}. "
            "Use another study name or --results"
        )
    if not found.study or found.study["definition"] != line["definition"]:
        found.begin(line)
    found.set_aside(lambda record: repeats(record, plan.study.settings))
    return found


def repeats(record: TrialRecord, operation: RunSettings) -> bool:
    """Whether a failed trial is run again: its worker was lost, or the limit that ended it has been changed."""
    share = {name: amount for name, amount in operation.resources.trial.amounts.items() if amount}
    limit = operation.trial_timeout
    return (
        record.lost
        or (record.cause == "memory" and record.resources != share)
        or (record.cause == "timeout" and (limit is None or limit > record.time_total))
    )
