"""The flow of a study: references, search, then confirm, sufficient and transfer. Continues where it stopped."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from mu import metrics
from mu.audits import utility_ratio
from mu.evaluate import Outputs, mean_of, population_of
from mu.keys import content_key
from mu.problem import Problem, Role
from mu.record import REFERENCES, TrialRecord
from mu.selection import best_objective, candidates
from sweeps import results
from sweeps.audit import Answers, audit
from sweeps.cells import Cells
from sweeps.checkpoints import PLACES, known, refuse_guessing
from sweeps.files import StudyError
from sweeps.plan import Job, Plan, versions
from sweeps.progress import Progress
from sweeps.results import Results
from sweeps.store import Store
from sweeps.trial import Curve, Reference, answers, complete, sparse

if TYPE_CHECKING:
    from sweeps.tracker import Tracker
    from sweeps.tuner import Scored, Workers


@dataclass(frozen=True)
class Places:
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

    def __init__(self, plan: Plan, found: Results, places: Places, console: Console):
        self.plan = plan
        self.study = plan.study.name
        self.results = found
        self.places = places
        search = plan.study.search
        self.progress = Progress(self.study, search.objective[0], plan.study.search_view, console)
        self.tracker: Tracker | None = None
        self.store: Store | None = None
        self.seconds: dict[str, float] = {}
        self.slots = 0
        self.compute: dict[str, float] = defaultdict(float)
        for record in found.records.values():
            self.progress.note(record)
        location = places.optuna or str(places.folder / "optuna.journal")
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
                for method in REFERENCES
            )
            and self.cells.remaining() == 0
            and not self.final_jobs()
        )

    def run(self, workers: Workers, store: Store) -> None:
        """All phases, one after the other."""
        self.slots = workers.cluster.slots
        self.store = store
        with self.progress:
            references = self._timed("reference", lambda: self._references(workers, store))
            count = self.cells.remaining()
            self._phase(workers, "search", _Search(self), count, references["search"])
            jobs = self.final_jobs()
            self._phase(workers, "final", _Fixed(self, jobs), len(jobs), references["report"])
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
        references: Mapping[tuple[str, int], Reference],
    ) -> None:
        self.progress.start_phase(name, count)
        if count == 0:
            return
        early_stop = self.plan.study.search.early_stop
        self._timed(name, lambda: workers.run(source, count, references, early_stop))

    def take(self, record: TrialRecord) -> None:
        """A trial ended: first the results file, then everything that follows it."""
        if self.results.append(record):
            self.compute[record.phase] += record.time_total
            if self.tracker is not None:
                self.tracker.put(record)
            self.progress.ended(record)

    def _references(
        self, workers: Workers, store: Store
    ) -> dict[str, dict[tuple[str, int], Reference]]:
        """Train what the store lacks, score it on every problem, and record it."""
        plan = self.plan
        wanted: dict[str, tuple[Any, Role]] = {}
        roles: tuple[Role, Role] = ("retrain", "original")
        for role in roles:
            for seeds in plan.seeds.values():
                for seed in seeds:
                    for forget in plan.study.forget:
                        problem = plan.problem(forget, seed)
                        wanted[problem.reference_key(role)] = (problem, role)
        self.progress.start_phase("reference", len(wanted))
        trained = {}
        for key, (problem, role) in wanted.items():
            arrays = known(problem, role, plan.study.brought, store)
            if arrays is not None:
                trained[key] = float(arrays["seconds"])
                workers.share(key, arrays)
                self.progress.ended()
        views = {
            "search": tuple(dict.fromkeys((plan.study.search_view, "val"))),
            "report": ("val", "test"),
        }
        asked: dict[tuple[str, int], tuple[Problem, tuple[str, ...], tuple[str, ...]]] = {}
        for purpose, seeds in plan.seeds.items():
            for name in itertools.product(plan.study.forget, seeds):
                earlier = asked[name][2] if name in asked else ()  # a seed may have both roles
                attacks = plan.reference_attacks(purpose) or earlier
                asked[name] = plan.problem(*name), views[purpose], attacks
        self._refuse_guessing(workers, asked)
        missing = {key: wanted[key] for key in wanted if key not in trained}
        for key, arrays in workers.train(missing):
            store.put(key, arrays)
            trained[key] = float(arrays["seconds"])
            self.compute["reference"] += trained[key]
            workers.share(key, arrays)
            self.progress.ended()
        scored = workers.score(asked)
        references: dict[str, dict[tuple[str, int], Reference]] = {}
        for purpose, seeds in plan.seeds.items():
            references[purpose] = {}
            for forget in plan.study.forget:
                group = {seed: scored[forget, seed] for seed in seeds}
                references[purpose] |= self._compare(purpose, forget, group, trained)
        return references

    def _refuse_guessing(self, workers: Workers, problems: Mapping[tuple[str, int], Any]) -> None:
        """Score what was brought before anything is trained. Raises StudyError when it is near chance."""
        for role in PLACES:
            brought = {
                (problem.brought[role], problem.seed): (name, (problem, views, ()))
                for name, (problem, views, _) in problems.items()
                if role in problem.brought
            }
            for (forget, seed), found in workers.score(dict(brought.values()), (role,)).items():
                checkpoint = self.plan.study.brought[role, forget, seed]
                held_out = found[role].found.held_out
                refuse_guessing(checkpoint, role, seed, held_out.get("test", held_out["val"]))

    def _compare(
        self,
        role: str,
        forget: str,
        group: Mapping[int, Mapping[Role, Scored]],
        trained: Mapping[str, float],
    ) -> dict[tuple[str, int], Reference]:
        """Record the references of one request and role, compared with the mean of its retrained models."""
        views = next(iter(group.values()))["retrain"].found.scores
        mean = {
            view: mean_of([scored["retrain"].found.scores[view] for scored in group.values()])
            for view in views
        }
        whole_class = self.plan.study.forget[forget].whole_class
        own_list = self.plan.study.search.mean_gap
        recipe = self.plan.study.training
        references = {}
        for seed, scored in group.items():
            problem = self.plan.problem(forget, seed)
            logits = {s: g["retrain"].found.forget.logits for s, g in group.items()}
            original = scored["original"]
            reference = Reference(mean, original.found.scores, logits[seed], original.untrained)
            references[forget, seed] = reference
            brought = self.plan.study.checkpoints(forget, seed)
            for method, own in scored.items():
                key = self.reference_key(forget, seed, method, role)
                if key in self.results.records:
                    continue
                values = complete(own.found, reference, whole_class, own_list)
                audited = method == "retrain" and role == "report" and self.plan.study.audit.models
                if audited and self.store is not None:
                    self.store.put(key, answers(own.found))
                environment, cost = own.environment, {}
                if method in brought:
                    environment = {**environment, "checkpoint": str(brought[method])}
                if method == "retrain":
                    others = [found for s, found in logits.items() if s != seed]
                    for view in values.values():
                        _compare_with_others(view, own.found.forget, others)
                if method == "retrain" and method not in brought:
                    cost = {
                        "time_unlearn": trained[problem.reference_key("retrain")],
                        "samples_seen": recipe.epochs * len(problem.retain_index),
                    }
                self.take_aside(
                    TrialRecord(
                        key=key,
                        study=self.study,
                        phase="reference",
                        forget=forget,
                        method=method,
                        seed=seed,
                        status="finished",
                        role=role,
                        metrics=values,
                        unavailable=own.found.unavailable,
                        confusions=sparse(own.found.confusions) if role == "report" else {},
                        environment=environment,
                        time_total=cost.get("time_unlearn", 0.0),
                        started=time.time(),
                        ended=time.time(),
                        **cost,  # type: ignore[arg-type]
                    )
                )
        return references

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
                self.take_aside(
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

    def take_aside(self, record: TrialRecord) -> None:
        """Record what was not a job of a Tune run: a reference, or an audit."""
        if self.results.append(record) and self.tracker is not None:
            self.tracker.put(record)

    def summary(self, wall_seconds: float) -> dict[str, Any]:
        """Counts of all runs of the study; times and efficiency of this one.

        `efficiency` is the time trials and trainings kept their slots, divided by wall time x slots.
        """
        compute = sum(self.compute.values())
        return {
            "study": self.study,
            "counts": results.counts(self.results.records),
            "wall_seconds": wall_seconds,
            "seconds_by_phase": self.seconds,
            "slots": self.slots,
            "compute_seconds": compute,
            "compute_seconds_by_phase": dict(self.compute),
            "efficiency": compute / (wall_seconds * self.slots),
        }


def _compare_with_others(
    values: dict[str, float], forget: Outputs, others: Sequence[np.ndarray]
) -> None:
    """What compares outputs on D_f is, for a retrained model, with the others of its request; absent without any."""
    del values["activation_distance"], values["entropy_wilcoxon_p"], values["entropy_median_diff"]
    if others:
        values["activation_distance"] = float(
            np.mean([metrics.activation_distance(forget.logits, other) for other in others])
        )


class _Source:
    """Jobs of one phase; see ``tuner.JobSource``."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.study = sweep.study

    def next(self) -> Job | None:
        raise NotImplementedError

    def ended(self, record: TrialRecord) -> None:
        self.sweep.take(record)

    def keep(self, job: Job, arrays: dict[str, Any]) -> None:
        assert self.sweep.store is not None
        self.sweep.store.put(job.key, arrays)

    def behind(self, job: Job, point: Curve) -> bool:
        return False


class _Search(_Source):
    def next(self) -> Job | None:
        job = self.sweep.cells.next()
        if job is not None:
            self.sweep.progress.started()
        return job

    def ended(self, record: TrialRecord) -> None:
        self.sweep.take(record)
        self.sweep.cells.ended(record)

    def behind(self, job: Job, point: Curve) -> bool:
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


def open_results(plan: Plan, places: Places) -> Results:
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
    return found
