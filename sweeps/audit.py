"""Attacks that need many models: every report seed's model against those of the other seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mu import metrics
from mu.evaluate import mean_of, population_of
from mu.keys import content_key
from mu.metrics import attacks, audits
from mu.record import TrialRecord
from sweeps.ledger import Ledger
from sweeps.phases import Cell, Knobs
from sweeps.plan import Plan
from sweeps.state.store import Store

FPRS = {"fpr1": 0.01, "fpr0.1": 0.001}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What one model says about the samples that are attacked.

    Args:
        forget: Logits on D_f, [N, K].
        held_out: Logits on the test samples, [M, K].
    """

    forget: NDArray[np.float32]
    held_out: NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """The samples that are attacked.

    Args:
        forget_labels: Labels of D_f, [N].
        held_out_labels: Labels of the test samples, [M].
        population: bool [M], the test samples that serve as RMIA's population; the others are non-members.
    """

    forget_labels: NDArray[np.int64]
    held_out_labels: NDArray[np.int64]
    population: NDArray[np.bool_]


def audit_cells(plan: Plan, ledger: Ledger, store: Store, best: Mapping[Cell, Knobs]) -> None:
    """Attack the confirmed models of every cell with those of its other seeds, and record one audit a seed."""
    if not plan.study.audit.models:
        return
    for cell in plan.cells:
        confirmed = {
            record.seed: record
            for record in ledger.results.records.values()
            if (record.phase, record.forget, record.method) == ("confirm", *cell)
            and record.finished
            and record.knobs == best.get(cell)
        }
        keys = {seed: _audit_key(record) for seed, record in confirmed.items()}
        if not set(keys.values()) <= set(ledger.results.records):
            _audit_cell(plan, ledger, store, confirmed)


def _audit_key(confirmed: TrialRecord) -> str:
    return content_key(confirmed.key, "audit")


def _audit_cell(
    plan: Plan, ledger: Ledger, store: Store, confirmed: Mapping[int, TrialRecord]
) -> None:
    """Audit one cell, if the outputs of enough of its models were kept."""
    one = next(iter(confirmed.values()))
    unlearned: dict[int, Answers] = {}
    retrained: dict[int, Answers] = {}
    for seed, record in confirmed.items():
        ours = store.get(record.key)
        theirs = store.get(plan.reference_key(one.forget, seed, "retrain", "report"))
        if ours is not None and theirs is not None:
            unlearned[seed], retrained[seed] = Answers(**ours), Answers(**theirs)
    if len(unlearned) < plan.study.audit.models:
        ledger.progress.say(
            f"audit of {one.forget} {one.method}: outputs of {len(unlearned)} models were kept, "
            f"{plan.study.audit.models} are needed"
        )
        return
    problem = plan.problem(one.forget, next(iter(unlearned)))
    test_labels = problem.data.parts["test"].labels
    targets = Targets(
        problem.data.parts["train"].labels[problem.forget_index],
        test_labels,
        population_of(test_labels),
    )
    utility = _utility(plan, ledger, [confirmed[seed] for seed in unlearned])
    for seed, values in audit(unlearned, retrained, targets, utility).items():
        now = time.time()
        ledger.record_other(
            replace(
                confirmed[seed],
                key=_audit_key(confirmed[seed]),
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


def _utility(plan: Plan, ledger: Ledger, confirmed: Sequence[TrialRecord]) -> float:
    """Accuracy kept on D_r and on test samples, relative to the retrained models of the same seeds."""
    retrained = [
        ledger.results.records[plan.reference_key(record.forget, record.seed, "retrain", "report")]
        for record in confirmed
    ]
    ours, theirs = (
        mean_of([record.metrics["test"] for record in side]) for side in (confirmed, retrained)
    )
    retain, test = ((ours[name], theirs[name]) for name in ("acc_retain", "acc_test"))
    return audits.utility_ratio(retain, test)


def audit(
    unlearned: Mapping[int, Answers],
    retrained: Mapping[int, Answers],
    targets: Targets,
    utility: float,
) -> dict[int, dict[str, float]]:
    """Attack each seed's unlearned model, with the models of the other seeds as shadows.

    U-LiRA asks of D_f whether a model unlearned it or never saw it; RMIA whether it belongs to D_f or to test samples,
    with retrained models as references. The F-scores compare all models at once and are given to the first seed
    alone; the challenge's has its default delta and bins.

    Args:
        unlearned, retrained: Answers by seed; the same seeds.
        utility: ``audits.utility_ratio`` of these models, the factor of the challenge's score.

    Returns:
        Seed to metric to value; metrics that need more models or samples are absent.
    """
    seeds = sorted(set(unlearned) & set(retrained))
    if len(seeds) < 2:
        return {seed: {} for seed in seeds}
    confidence = [
        {s: metrics.logit_confidence(models[s].forget, targets.forget_labels) for s in seeds}
        for models in (unlearned, retrained)
    ]
    values: dict[int, dict[str, float]] = {}
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        rivals = [retrained[other] for other in others]
        values[seed] = _u_lira(confidence, seed, others) | _rmia(unlearned[seed], rivals, targets)
    values[seeds[0]] |= _f_scores(confidence, unlearned, retrained, utility)
    return {
        seed: {name: value for name, value in scores.items() if np.isfinite(value)}
        for seed, scores in values.items()
    }


def _u_lira(
    confidence: Sequence[Mapping[int, Array]], seed: int, others: Sequence[int]
) -> dict[str, float]:
    """U-LiRA on one seed; `confidence` holds that of unlearned and of retrained models, by seed."""
    shadows = [np.stack([side[other] for other in others], axis=1) for side in confidence]
    ratios = [audits.u_lira(side[seed], *shadows) for side in confidence]
    return {"u_lira_acc": audits.u_lira_accuracy(*ratios), **_rates("u_lira", *ratios)}


def _rmia(target: Answers, rivals: Sequence[Answers], targets: Targets) -> dict[str, float]:
    """RMIA on one model, with retrained models as references."""
    models, population = (target, *rivals), targets.population
    inside = [_probability(model.forget, targets.forget_labels) for model in models]
    outside = [_probability(model.held_out, targets.held_out_labels) for model in models]
    scores = [
        audits.rmia(
            signals[0],
            np.stack(signals[1:], axis=1),
            np.zeros((len(signals[0]), len(rivals)), bool),
            outside[0][population],
            np.stack(outside[1:], axis=1)[population],
        )
        for signals in (inside, [signal[~population] for signal in outside])
    ]
    return _rates("rmia", *scores)


def _f_scores(
    confidence: Sequence[Mapping[int, Array]],
    unlearned: Mapping[int, Answers],
    retrained: Mapping[int, Answers],
    utility: float,
) -> dict[str, float]:
    """The scores of the challenge, over all models at once."""
    seeds = list(confidence[0])
    value = audits.fscore_neurips(*(np.stack(list(s.values()), axis=1) for s in confidence)).value
    logits = [
        np.stack([models[seed].forget for seed in seeds], axis=1)
        for models in (unlearned, retrained)
    ]
    return {
        "fscore_neurips": value,
        "score_neurips": value * utility,
        "fscore_seed003": float(audits.fscore_seed003(*logits).mean()),
    }


def _probability(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of the true class, [N]."""
    return np.exp(-metrics.cross_entropy(logits, labels))


def _rates(
    name: str, members: NDArray[np.float64], others: NDArray[np.float64]
) -> dict[str, float]:
    return {
        f"{name}_auc": attacks.auc(members, others),
        **{f"{name}_tpr_{key}": attacks.tpr_at_fpr(members, others, f) for key, f in FPRS.items()},
    }
