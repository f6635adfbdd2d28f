"""The reference phase: train what the store lacks, score it on every problem, and record it.

The noise floor comes from here: every retrained model is compared with the mean of its request.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mu import metrics
from mu.evaluate import Outputs, mean_of
from mu.problem import Problem, Role, Weights
from mu.record import TrialRecord
from sweeps.errors import StudyError
from sweeps.study.supplied import PLACES, SuppliedModel, SuppliedModels
from sweeps.workers.scores import ReferenceScores, answers, complete, sparse

if TYPE_CHECKING:
    from sweeps.plan import Plan
    from sweeps.run import Sweep
    from sweeps.state.checkpoint_store import CheckpointStore
    from sweeps.state.store import Store
    from sweeps.workers.tasks import Scored
    from sweeps.workers.trainers import Trainers

Names = tuple[str, int]
"""Of a problem: forget request and seed."""
Question = tuple[Problem, tuple[str, ...], tuple[str, ...]]
"""A problem, the views its references are scored on, and the costly attacks that are run on them."""


def references(
    sweep: Sweep, trainers: Trainers, store: Store, drafts: CheckpointStore
) -> dict[str, dict[Names, ReferenceScores]]:
    """What trials are compared with, by the purpose of the seed (`search` or `report`) and the problem.

    Raises:
        StudyError: One that was brought guesses.
        SweepError: One cannot be trained.
    """
    plan = sweep.plan
    wanted = _wanted(plan)
    sweep.progress.start_phase("reference", len(wanted))
    seconds, spent = {}, {}
    for key, (problem, role) in wanted.items():
        arrays = load_reference(problem, role, plan.study.supplied, store)
        if arrays is not None:
            seconds[key] = float(arrays["seconds"])
            trainers.publish(key, arrays)
            sweep.progress.ended()
    asked = _questions(plan)
    _refuse_guessing(plan, trainers, asked)
    missing = {key: wanted[key] for key in wanted if key not in seconds}
    for key, arrays in trainers.train(missing, drafts):
        store.put(key, arrays)
        seconds[key] = spent[key] = float(arrays["seconds"])
        sweep.compute["reference"] += spent[key]
        trainers.publish(key, arrays)
        sweep.progress.ended()
    scored = trainers.score(asked)
    found: dict[str, dict[Names, ReferenceScores]] = {}
    for purpose, seeds in plan.seeds.items():
        found[purpose] = {}
        for forget in plan.study.forget:
            group = {seed: scored[forget, seed] for seed in seeds}
            found[purpose] |= _compare(sweep, store, purpose, forget, group, seconds, spent)
    return found


def _wanted(plan: Plan) -> dict[str, tuple[Problem, Role]]:
    """Every reference of a plan, by key; an original serves all requests of its seed."""
    wanted: dict[str, tuple[Problem, Role]] = {}
    roles: tuple[Role, Role] = ("retrain", "original")
    for role in roles:
        for seeds in plan.seeds.values():
            for seed in seeds:
                for forget in plan.study.forget:
                    problem = plan.problem(forget, seed)
                    wanted[problem.reference_key(role)] = (problem, role)
    return wanted


def _questions(plan: Plan) -> dict[Names, Question]:
    """What is asked of the references of every problem."""
    views = {
        "search": tuple(dict.fromkeys((plan.study.search_view, "val"))),
        "report": ("val", "test"),
    }
    asked: dict[Names, Question] = {}
    for purpose, seeds in plan.seeds.items():
        for name in itertools.product(plan.study.forget, seeds):
            earlier = asked[name][2] if name in asked else ()  # a seed may have both roles
            attacks = plan.reference_attacks(purpose) or earlier
            asked[name] = plan.problem(*name), views[purpose], attacks
    return asked


def _refuse_guessing(plan: Plan, trainers: Trainers, asked: Mapping[Names, Question]) -> None:
    """Score what was brought before anything is trained. Raises StudyError when it is near chance."""
    for role in PLACES:
        supplied = {
            (problem.supplied[role], problem.seed): (name, (problem, views, ()))
            for name, (problem, views, _) in asked.items()
            if role in problem.supplied
        }
        for (forget, seed), found in trainers.score(dict(supplied.values()), (role,)).items():
            checkpoint = plan.study.supplied[role, forget, seed]
            held_out = found[role].found.held_out
            refuse_guessing(checkpoint, role, seed, held_out.get("test", held_out["val"]))


def _compare(
    sweep: Sweep,
    store: Store,
    role: str,
    forget: str,
    group: Mapping[int, Mapping[Role, Scored]],
    seconds: Mapping[str, float],
    spent: dict[str, float],
) -> dict[Names, ReferenceScores]:
    """Record the references of one request and role, compared with the mean of its retrained models."""
    study = sweep.plan.study
    views = next(iter(group.values()))["retrain"].found.scores
    mean = {
        view: mean_of([scored["retrain"].found.scores[view] for scored in group.values()])
        for view in views
    }
    whole_class = study.forget[forget].whole_class
    share = study.resources.reference.amounts
    references = {}
    for seed, scored in group.items():
        supplied = study.checkpoints(forget, seed)
        problem = sweep.plan.problem(forget, seed)
        logits = {s: g["retrain"].found.forget.logits for s, g in group.items()}
        original = scored["original"]
        reference = ReferenceScores(mean, original.found.scores, logits[seed], original.untrained)
        references[forget, seed] = reference
        for method, own in scored.items():
            key = sweep.reference_key(forget, seed, method, role)
            if key in sweep.results.records:
                continue
            values = complete(own.found, reference, whole_class, study.search.mean_gap)
            if method == "retrain" and role == "report" and study.audit.models:
                store.put(key, answers(own.found))
            weights = problem.reference_key(method)
            environment, cost = own.environment, {}
            if method in supplied:
                environment = {**environment, "checkpoint": str(supplied[method])}
            if method == "retrain":
                others = [found for s, found in logits.items() if s != seed]
                for view in values.values():
                    _compare_with_others(view, own.found.forget, others)
            if method == "retrain" and method not in supplied:
                cost = {
                    "time_unlearn": seconds[weights],
                    "samples_seen": study.training.epochs * len(problem.retain_index),
                }
            took, ended = spent.pop(weights, 0.0), time.time()
            sweep.record_other(
                TrialRecord(
                    key=key,
                    study=study.name,
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
                    resources={name: amount for name, amount in share.items() if amount},
                    time_total=took,
                    started=ended - took,
                    ended=ended,
                    **cost,  # type: ignore[arg-type]
                )
            )
    return references


def _compare_with_others(
    values: dict[str, float], forget: Outputs, others: Sequence[np.ndarray]
) -> None:
    """What compares outputs on D_f is, for a retrained model, with the others of its request; absent without any."""
    del values["activation_distance"], values["entropy_wilcoxon_p"], values["entropy_median_diff"]
    if others:
        values["activation_distance"] = float(
            np.mean([metrics.activation_distance(forget.logits, other) for other in others])
        )


def load_reference(
    problem: Problem, role: Role, supplied: SuppliedModels, store: Store
) -> Weights | None:
    """A reference that need not be trained, from its checkpoint or the store, with its `seconds` of training."""
    if role not in problem.supplied:
        return store.get(problem.reference_key(role))
    digest = problem.supplied[role]
    path = next(found.path for found in supplied.values() if found.digest == digest)
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
