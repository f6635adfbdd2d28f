"""The records of references, and what trials are compared with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mu import metrics
from mu.problem import Role
from mu.problem_names import kind_of
from mu.record import TrialRecord
from mu.relative import mean_of
from mu.stand_ins import Twin, samples_trained_on
from sweeps.flow.ledger import Ledger
from sweeps.plan import Plan
from sweeps.workers.scored import Scored
from sweeps.workers.scores import ReferenceScores, complete

ProblemName = tuple[str, int]
"""Forget request and seed."""
ROLES: tuple[Role, Role] = ("original", "retrain")


def mean_of_scored(models: Iterable[Scored]) -> dict[str, dict[str, float]]:
    """Return view to the mean of each metric over some models."""
    values = [one.facts.metrics for one in models]
    return {
        view: mean_of([each[view] for each in values]) for view in (values[0] if values else ())
    }


class ReferenceRecorder:
    """Records the references of a request, and what trials on its problems are compared with.

    Args:
        plan: The plan.
        ledger: Where records go.

    Attributes:
        seconds: Key of a reference's weights to the seconds that its training took, whenever it was.
        samples: The same for the samples that it saw, where these do not follow from the recipe.
        billed: The same for the time on a slot that this run spent on it and no record has yet.
        billed_scoring: The same for the scoring of both references of a problem.
    """

    def __init__(self, plan: Plan, ledger: Ledger):
        self.plan, self.study = plan, plan.study
        self.ledger = ledger
        self.seconds: dict[str, float] = {}
        self.samples: dict[str, int] = {}
        self.billed: dict[str, float] = {}
        self.billed_scoring: dict[ProblemName, float] = {}

    def compare(
        self, role: str, forget: str, group: Mapping[int, Mapping[Role, Scored]]
    ) -> dict[int, ReferenceScores]:
        """Record one request's references on the seeds of a role.

        Returns:
            Seed to what the trials on it are compared with.
        """
        references: dict[int, ReferenceScores] = {}
        mean = mean_of_scored(one["retrain"] for one in group.values() if "retrain" in one)
        for seed, both in group.items():
            original, retrain = both.get("original"), both.get("retrain")
            some = original or retrain
            assert some is not None
            reference = ReferenceScores(
                mean,
                original.facts.metrics if original else {},
                retrain.forget.logits if retrain else None,
                some.untrained,
                original.class_means if original else {},
            )
            references[seed] = reference
            for method in both:
                key = self.plan.reference_key(forget, seed, method, role)
                if key not in self.ledger.results.records:
                    record = self._record(role, (forget, seed), method, both[method], reference)
                    if method == "retrain":
                        others = {n: o["retrain"] for n, o in group.items() if n != seed}
                        record = self._beside_others(record, both[method], others)
                    self.ledger.record_other(record)
        return references

    def record_further(self, forget: str, models: Mapping[int, Scored], original: Scored) -> None:
        """Record the retrained models of a request beyond those of the report seeds.

        Args:
            models: Seed to retrained model, those of the report seeds first.
            original: That of the first report seed, for metrics that compare with an original: these have none.
        """
        mean = mean_of_scored(models.values())
        for seed in self.study.further_retrains:
            key, one = self.plan.reference_key(forget, seed, "retrain", "report"), models[seed]
            if key not in self.ledger.results.records:
                logits, means = one.forget.logits, original.class_means
                reference = ReferenceScores(mean, {}, logits, one.untrained, means)
                record = self._record("report", (forget, seed), "retrain", one, reference)
                others = {n: other for n, other in models.items() if n != seed}
                self.ledger.record_other(self._beside_others(record, one, others))

    def _record(
        self,
        role: str,
        name: ProblemName,
        method: Role,
        one: Scored,
        reference: ReferenceScores,
    ) -> TrialRecord:
        """The record of one reference. Its training and scoring are billed once, to the first of its records."""
        (forget, seed), problem = name, self.plan.problem(*name)
        supplied = {} if kind_of(forget) else self.study.checkpoints(forget, seed)
        weights = problem.reference_key(method)
        environment, cost = one.facts.environment, dict[str, Any]()
        if method in supplied:
            environment = {**environment, "checkpoint": str(supplied[method])}
        elif method == ("original" if kind_of(forget) == "twin" else "retrain"):
            seen = self.samples.get(weights) or samples_trained_on(problem)
            cost = {"time_unlearn": self.seconds[weights], "samples_seen": seen}
        took, ended = self.billed.pop(weights, 0.0), time.time()
        if method == self.plan.roles(*name)[-1]:
            took += self.billed_scoring.pop(name, 0.0)
        return TrialRecord(
            key=self.plan.reference_key(forget, seed, method, role),
            study=self.study.name,
            phase="reference",
            forget=forget,
            method=method,
            seed=seed,
            status="finished",
            role=role,
            origin=problem.made if isinstance(problem, Twin) and method == "original" else "",
            problem=problem.key,
            cell=self.plan.reference_cell(role, seed),
            metrics=complete(one.facts.metrics, one.forget, reference),
            unavailable=one.facts.unavailable,
            confusions=one.facts.confusions if role == "report" else {},
            environment=environment,
            resources=self.study.resources.references.occupied,
            time_total=took,
            started=ended - took,
            ended=ended,
            **cost,
        )

    def _beside_others(
        self, record: TrialRecord, one: Scored, others: Mapping[int, Scored]
    ) -> TrialRecord:
        """Compare a retrained model with those of its request's other seeds, in place of itself."""
        with_itself = {"activation_distance", "entropy_wilcoxon_p", "entropy_median_diff"}
        return replace(
            record,
            metrics={
                view: {name: value for name, value in values.items() if name not in with_itself}
                for view, values in record.metrics.items()
            },
            distances={
                self.plan.problem(record.forget, seed).key: metrics.activation_distance(
                    one.forget.logits, other.forget.logits
                )
                for seed, other in others.items()
            },
        )
