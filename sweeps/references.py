"""The reference phase: train what the store lacks, score it on every problem, and record it.

The noise floor comes from here: every retrained model is compared with the mean of its request.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mu import metrics
from mu.evaluate import Outputs, mean_of
from mu.problem import Problem, Role, Weights
from mu.record import TrialRecord
from sweeps.errors import StudyError
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.store import Store
from sweeps.study.supplied import PLACES, SuppliedModel, SuppliedModels
from sweeps.workers.scores import ReferenceScores, answers, complete, sparse
from sweeps.workers.tasks import Scored
from sweeps.workers.trainers import Trainers

ProblemName = tuple[str, int]
"""Forget request and seed."""
Question = tuple[Problem, tuple[str, ...], tuple[str, ...]]
"""A problem, the views its references are scored on, and the costly attacks that are run on them."""
Group = Mapping[int, Mapping[Role, Scored]]
"""The scored references of one request, by seed."""


def run_references(
    plan: Plan,
    ledger: Ledger,
    trainers: Trainers,
    store: Store,
    checkpoints: CheckpointStore,
) -> dict[str, dict[ProblemName, ReferenceScores]]:
    """Train, score and record all references.

    Returns:
        Role of the seed (`search` or `report`) to problem to what trials on it are compared with.

    Raises:
        StudyError: A model that the study supplies is no better than guessing.
        SweepError: A model cannot be trained.
    """
    wanted = _wanted(plan)
    with ledger.phase("reference", len(wanted)):
        seconds: dict[str, float] = {}
        for key, (problem, role) in wanted.items():
            arrays = load_reference(problem, role, plan.study.supplied, store)
            if arrays is not None:
                seconds[key] = _publish(ledger, trainers, key, arrays)
        questions = _questions(plan)
        _refuse_guessing(plan, trainers, questions)
        missing = {key: wanted[key] for key in wanted if key not in seconds}
        spent: dict[str, float] = {}
        for key, arrays in trainers.train(missing, checkpoints):
            store.put(key, arrays)
            seconds[key] = spent[key] = _publish(ledger, trainers, key, arrays)
            ledger.compute["reference"] += spent[key]
        scored = trainers.score(questions)
        recorder = _Recorder(plan, ledger, store, seconds, spent)
        return {
            role: {
                name: reference
                for forget in plan.study.forget
                for name, reference in recorder.compare(
                    role, forget, {seed: scored[forget, seed] for seed in seeds}
                ).items()
            }
            for role, seeds in plan.seeds.items()
        }


def _publish(ledger: Ledger, trainers: Trainers, key: str, arrays: Weights) -> float:
    """Let workers read a reference's weights; return the seconds that its training took."""
    trainers.publish(key, arrays)
    ledger.progress.ended()
    return float(arrays["seconds"])


def _wanted(plan: Plan) -> dict[str, tuple[Problem, Role]]:
    """Every reference of a plan by the key of its weights; an original serves all requests of its seed."""
    wanted: dict[str, tuple[Problem, Role]] = {}
    roles: tuple[Role, Role] = ("retrain", "original")
    for role in roles:
        for seeds in plan.seeds.values():
            for seed in seeds:
                for forget in plan.study.forget:
                    problem = plan.problem(forget, seed)
                    wanted[problem.reference_key(role)] = (problem, role)
    return wanted


def _questions(plan: Plan) -> dict[ProblemName, Question]:
    """What is asked of the references of every problem."""
    views = {
        "search": tuple(dict.fromkeys((plan.study.search_view, "val"))),
        "report": ("val", "test"),
    }
    questions: dict[ProblemName, Question] = {}
    for role, seeds in plan.seeds.items():
        for name in itertools.product(plan.study.forget, seeds):
            earlier = questions[name][2] if name in questions else ()  # a seed may have both roles
            attacks = plan.reference_attacks(role) or earlier
            questions[name] = plan.problem(*name), views[role], attacks
    return questions


def _refuse_guessing(
    plan: Plan, trainers: Trainers, questions: Mapping[ProblemName, Question]
) -> None:
    """Score supplied models before anything is trained. Raises StudyError when one is near chance."""
    for role in PLACES:
        supplied = {
            (problem.supplied[role], problem.seed): (name, (problem, views, ()))
            for name, (problem, views, _) in questions.items()
            if role in problem.supplied
        }
        for (forget, seed), scored in trainers.score(dict(supplied.values()), (role,)).items():
            checkpoint = plan.study.supplied[role, forget, seed]
            held_out = scored[role].evaluation.held_out
            refuse_guessing(checkpoint, role, seed, held_out.get("test", held_out["val"]))


class _Recorder:
    """Compares the references of a request with the mean of its retrained models, and records them.

    Args:
        seconds: Key of each reference's weights to the seconds that its training took, whenever it was.
        spent: The same for those that this run trained and has not billed to a record yet.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        store: Store,
        seconds: Mapping[str, float],
        spent: dict[str, float],
    ):
        self.plan, self.study = plan, plan.study
        self.ledger = ledger
        self.store = store
        self.seconds = seconds
        self.spent = spent

    def compare(self, role: str, forget: str, group: Group) -> dict[ProblemName, ReferenceScores]:
        """Record one request's references on the seeds of a role; return what trials are compared with."""
        views = next(iter(group.values()))["retrain"].evaluation.scores
        mean = {
            view: mean_of([scored["retrain"].evaluation.scores[view] for scored in group.values()])
            for view in views
        }
        references = {}
        for seed, scored in group.items():
            original, retrained = scored["original"], scored["retrain"]
            reference = ReferenceScores(
                mean,
                original.evaluation.scores,
                retrained.evaluation.forget.logits,
                original.untrained,
            )
            references[forget, seed] = reference
            for method in scored:
                key = self.plan.reference_key(forget, seed, method, role)
                if key not in self.ledger.results.records:
                    values = self._values(role, forget, seed, method, group, reference)
                    record = self._record(role, forget, seed, method, scored[method], values)
                    self.ledger.record_other(record)
        return references

    def _values(
        self,
        role: str,
        forget: str,
        seed: int,
        method: Role,
        group: Group,
        reference: ReferenceScores,
    ) -> dict[str, dict[str, float]]:
        """The metrics of one reference by view; keeps a retrained model's outputs where an audit needs them."""
        evaluation = group[seed][method].evaluation
        whole_class = self.study.forget[forget].whole_class
        values = complete(evaluation, reference, whole_class, self.study.search.mean_gap)
        if method == "retrain":
            others = [s["retrain"].evaluation.forget.logits for n, s in group.items() if n != seed]
            for view in values.values():
                _compare_with_others(view, evaluation.forget, others)
            if role == "report" and self.study.audit.models:
                key = self.plan.reference_key(forget, seed, method, role)
                self.store.put(key, answers(evaluation))
        return values

    def _record(
        self,
        role: str,
        forget: str,
        seed: int,
        method: Role,
        scored: Scored,
        values: dict[str, dict[str, float]],
    ) -> TrialRecord:
        """The record of one reference. Its training is billed once, to the first of its records."""
        problem = self.plan.problem(forget, seed)
        supplied = self.study.checkpoints(forget, seed)
        weights = problem.reference_key(method)
        environment, cost = scored.environment, dict[str, Any]()
        if method in supplied:
            environment = {**environment, "checkpoint": str(supplied[method])}
        elif method == "retrain":
            cost = {
                "time_unlearn": self.seconds[weights],
                "samples_seen": self.study.training.epochs * len(problem.retain_index),
            }
        took, ended = self.spent.pop(weights, 0.0), time.time()
        slot = self.study.resources.references.amounts
        return TrialRecord(
            key=self.plan.reference_key(forget, seed, method, role),
            study=self.study.name,
            phase="reference",
            forget=forget,
            method=method,
            seed=seed,
            status="finished",
            role=role,
            metrics=values,
            unavailable=scored.evaluation.unavailable,
            confusions=sparse(scored.evaluation.confusions) if role == "report" else {},
            environment=environment,
            resources={name: amount for name, amount in slot.items() if amount},
            time_total=took,
            started=ended - took,
            ended=ended,
            **cost,
        )


def _compare_with_others(
    values: dict[str, float], forget: Outputs, others: Sequence[np.ndarray]
) -> None:
    """Compare a retrained model's outputs on D_f with those of the others of its request; leave it out without any."""
    del values["activation_distance"], values["entropy_wilcoxon_p"], values["entropy_median_diff"]
    if others:
        values["activation_distance"] = float(
            np.mean([metrics.activation_distance(forget.logits, other) for other in others])
        )


def load_reference(
    problem: Problem, role: Role, supplied: SuppliedModels, store: Store
) -> Weights | None:
    """Return a reference that need not be trained, from its checkpoint or the store, with its `seconds` of training."""
    if role not in problem.supplied:
        return store.get(problem.reference_key(role))
    digest = problem.supplied[role]
    path = next(model.path for model in supplied.values() if model.digest == digest)
    return {**problem.read(path), "seconds": np.array(0.0)}


def refuse_guessing(checkpoint: SuppliedModel, role: Role, seed: int, held_out: Outputs) -> None:
    """Raise StudyError when a model is no better than guessing on held-out data of the study.

    What counts is the mean accuracy over the classes that are not forgotten, which is 1 / K for any model that does
    not look at its input. Near is half of that, or a tenth of what is left to 1 where this is less.
    """
    outside = held_out.without_forgotten()
    right = outside.logits.argmax(1) == outside.labels
    accuracy = float(
        np.mean([right[outside.labels == label].mean() for label in set(outside.labels)])
    )
    chance = 1 / outside.logits.shape[1]
    if accuracy < chance + min(0.5 * chance, 0.1 * (1 - chance)):
        raise StudyError(
            f"{checkpoint.path}: the {role} model of seed {seed} has an accuracy of {accuracy:.3f} on held-out "
            f"data (mean over classes), where guessing has {chance:.3f}: it was trained on other data or other "
            "classes, or on inputs prepared in another way (give the mean and std it was trained with in "
            "model.normalize)"
        )
