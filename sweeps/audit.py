"""Attacks that need many models: every report seed's model against those of the other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu import metrics
from mu.metrics import attacks, audits

FPRS = {"fpr1": 0.01, "fpr0.1": 0.001}


@dataclass(frozen=True)
class Answers:
    """What one model says about the samples that are attacked.

    Args:
        forget: Logits on D_f, [N, K].
        held_out: Logits on the test samples, [M, K].
    """

    forget: NDArray[np.float32]
    held_out: NDArray[np.float32]


def audit(
    unlearned: Mapping[int, Answers],
    retrained: Mapping[int, Answers],
    forget_labels: NDArray[np.int64],
    held_out_labels: NDArray[np.int64],
    population: NDArray[np.bool_],
    utility: float,
) -> dict[int, dict[str, float]]:
    """Multi-model attacks on each seed's unlearned model, with the models of the other seeds as shadows.

    U-LiRA asks of D_f whether a model unlearned it or never saw it; RMIA whether it belongs to D_f or to test samples,
    with retrained models as references. The F-scores compare all models at once and are given to the first seed
    alone; the challenge's has its default delta and bins.

    Args:
        unlearned, retrained: Answers by seed; the same seeds.
        population: bool [M], the test samples that serve as RMIA's population; the others are non-members.
        utility: ``audits.utility_ratio`` of these models, the factor of the challenge's score.

    Returns:
        Seed to metric to value; metrics that need more models or samples are absent.
    """
    seeds = sorted(set(unlearned) & set(retrained))
    phi = {
        name: {seed: metrics.logit_confidence(models[seed].forget, forget_labels) for seed in seeds}
        for name, models in (("unlearned", unlearned), ("retrained", retrained))
    }
    found: dict[int, dict[str, float]] = {}
    for seed in seeds:
        shadows = [
            np.stack([phi[name][other] for other in seeds if other != seed], axis=1)
            for name in ("unlearned", "retrained")
            if len(seeds) > 1
        ]
        if not shadows:
            found[seed] = {}
            continue
        ratios = [audits.u_lira(phi[name][seed], *shadows) for name in ("unlearned", "retrained")]
        values = {"u_lira_acc": audits.u_lira_accuracy(*ratios), **_rates("u_lira", *ratios)}
        others = [retrained[other] for other in seeds if other != seed]
        target = unlearned[seed]
        outside = [_probability(m.held_out, held_out_labels) for m in (target, *others)]
        inside = [_probability(m.forget, forget_labels) for m in (target, *others)]
        scores = [
            audits.rmia(
                signals[0],
                np.stack(signals[1:], axis=1),
                np.zeros((len(signals[0]), len(others)), bool),
                outside[0][population],
                np.stack(outside[1:], axis=1)[population],
            )
            for signals in (inside, [signal[~population] for signal in outside])
        ]
        found[seed] = values | _rates("rmia", *scores)
    if len(seeds) > 1:
        sides = [
            np.stack([phi[name][seed] for seed in seeds], axis=1)
            for name in ("unlearned", "retrained")
        ]
        value = audits.fscore_neurips(*sides).value
        logits = [
            np.stack([models[seed].forget for seed in seeds], axis=1)
            for models in (unlearned, retrained)
        ]
        found[seeds[0]] |= {
            "fscore_neurips": value,
            "score_neurips": value * utility,
            "fscore_seed003": float(audits.fscore_seed003(*logits).mean()),
        }
    return {
        seed: {name: value for name, value in values.items() if np.isfinite(value)}
        for seed, values in found.items()
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
