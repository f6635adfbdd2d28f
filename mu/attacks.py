"""Membership inference on per-sample arrays. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """A fitted logistic attack on one score: member where ``slope * score + intercept > 0``."""

    slope: float
    intercept: float

    def members(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scores are called members: bool [N]."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept > 0


def fit_logistic(members: ArrayLike, nonmembers: ArrayLike, c: float = 2.0) -> Threshold:
    """Logistic regression on one score with balanced classes, by Newton's method in float64.

    Minimises ``slope**2 / 2 + c * sum(weight * log_loss)``, the intercept free, each class weighing half of all
    samples: scikit-learn's ``LogisticRegression(C=c, class_weight="balanced")`` solved to the optimum.
    The papers' code asks for the two-class multinomial form with C = 1, which equals ``c = 2`` here.

    Args:
        members: Scores of training samples, [N].
        nonmembers: Scores of samples the model was not trained on, [M].

    Raises:
        ValueError: Either set is empty.
    """
    inside, outside = (np.asarray(scores, np.float64) for scores in (members, nonmembers))
    if len(inside) == 0 or len(outside) == 0:
        raise ValueError(f"the attack needs both sets, but got {len(inside)} and {len(outside)}")
    score = np.concatenate([inside, outside])
    label = np.repeat([1.0, 0.0], [len(inside), len(outside)])
    half = len(score) / 2
    weight = c * np.repeat([half / len(inside), half / len(outside)], [len(inside), len(outside)])
    theta = np.zeros(2)

    def objective(theta: Array) -> float:
        margin = theta[0] * score + theta[1]
        return float(theta[0] ** 2 / 2 + weight @ (np.logaddexp(0, margin) - label * margin))

    value = objective(theta)
    for _ in range(100):
        margin = theta[0] * score + theta[1]
        probability = 0.5 * (1 + np.tanh(margin / 2))
        residual = weight * (probability - label)
        curvature = weight * probability * (1 - probability)
        gradient = np.array([theta[0] + residual @ score, residual.sum()])
        cross = curvature @ score
        hessian = np.array([[1 + curvature @ score**2, cross], [cross, curvature.sum()]])
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        scale = 1.0
        while scale > 1e-8 and objective(theta - scale * step) > value:
            scale /= 2
        theta = theta - scale * step
        value = objective(theta)
        if np.abs(scale * step).max() <= 1e-10 * (1 + np.abs(theta).max()):
            break
    return Threshold(float(theta[0]), float(theta[1]))


def mia_lr_entropy(retain: ArrayLike, held_out: ArrayLike, forget: ArrayLike) -> float:
    """Share of forgotten samples that an attack on output entropy calls members (NatMU App. C, JiT).

    The attack is fitted on all retained (members) and all held-out entropies, the forgotten class included;
    the best value is the retrained model's, not 0. NaN when any entropy is not finite or a set is empty.

    Args:
        retain: Entropies on D_r, nats [N].
        held_out: Entropies on the view's held-out samples, [M].
        forget: Entropies on D_f, [L].
    """
    sets = [np.asarray(scores, np.float64) for scores in (retain, held_out, forget)]
    if any(len(s) == 0 or not np.isfinite(s).all() for s in sets):
        return float("nan")
    return float(fit_logistic(sets[0], sets[1]).members(sets[2]).mean())
