"""Attacks on the models of one cell, each seed's with those of the other seeds as shadows. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu import metrics
from mu.metrics import attacks, audits

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
