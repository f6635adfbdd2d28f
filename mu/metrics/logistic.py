"""Logistic regression on one score, the attacker of the entropy attack: exact, and cheap enough for every epoch.

Pure numpy. ``benchmarks/attacks.py`` compares it with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

BLOCK = 10_000
"""Scores that the logistic fit handles at a time."""

SAMPLE = 2000
"""Scores of either kind that a large logistic fit starts from."""


@dataclass(frozen=True)
class Threshold:
    """A fitted logistic attack on one score: member where ``slope * score + intercept > 0``."""

    slope: float
    intercept: float

    def members(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Return which scores are called members: bool [N]."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept > 0


def fit_logistic(members: ArrayLike, nonmembers: ArrayLike, c: float = 2.0) -> Threshold:
    """Fit a logistic regression on one score with balanced classes, by Newton's method in float64.

    It minimises ``slope**2 / 2 + c * sum(weight * log_loss)``, the intercept free, each class weighing half of all
    samples: scikit-learn's ``LogisticRegression(C=c, class_weight="balanced")`` solved to the optimum.
    The papers' code asks for the two-class multinomial form with C = 1, which equals ``c = 2`` here.

    Args:
        members: Scores of training samples, [N].
        nonmembers: Scores of samples the model was not trained on, [M].

    Raises:
        ValueError: Either set is empty.
    """
    sides = [np.asarray(scores, np.float64) for scores in (members, nonmembers)]
    inside, outside = sides
    if len(inside) == 0 or len(outside) == 0:
        raise ValueError(f"the attack needs both sets, but got {len(inside)} and {len(outside)}")
    mass = c * (len(inside) + len(outside)) / 2
    sample = [side[:: max(1, len(side) // SAMPLE)] for side in sides]
    center = float(sample[0].mean() + sample[1].mean()) / 2
    scale = max(float(np.abs(side - center).mean()) for side in sample)
    if not 1e-100 < scale < np.inf:
        scale = 1.0
    fitted = (0.0, 0.0)
    if len(inside) + len(outside) > 4 * SAMPLE:  # few steps look at all scores, and one in float64
        fitted = _newton(sample, mass, center, scale, fitted, 0.1)
        fitted = _newton(sides, mass, center, scale, fitted, 3e-2, np.float32)
    slope, intercept = _newton(sides, mass, center, scale, fitted, 1e-5)
    return Threshold(slope / scale, intercept - slope / scale * center)


def _newton(
    sides: Sequence[Array],
    mass: float,
    center: float,
    scale: float,
    start: tuple[float, float],
    tolerance: float,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[float, float]:
    """Minimise ``(slope / scale)**2 / 2 + mass * (mean log loss of members + that of non-members)``.

    Slope and intercept are those of (score - center) / scale. Steps are halved until the slope of the objective
    along them has not turned up by more than a quarter. Convergence is quadratic: a relative step below
    `tolerance` is the last, and leaves about its square. In float32 an exponential costs a fraction; then few steps
    are taken, and none along a direction that rounding could have made.
    """
    flat, steps = (1e-4, 4) if dtype is np.float32 else (1e-12, 1000)
    scratch = np.empty((3, min(BLOCK, max(map(len, sides)))), dtype)
    derivatives = partial(_derivatives, sides, mass, center, scale, scratch)
    slope, intercept = start
    with np.errstate(over="ignore"):
        g0, g1, h00, h01, h11 = derivatives(slope, intercept)
        for _ in range(steps):
            determinant = h00 * h11 - h01 * h01
            if determinant > flat * h00 * h11:
                d0, d1 = (h01 * g1 - h11 * g0) / determinant, (h01 * g0 - h00 * g1) / determinant
            else:  # twice the diagonal bounds the Hessian
                d0, d1 = -g0 / (2 * h00), -g1 / (2 * h11)
            size = max(abs(d0) / (1e-3 + abs(slope)), abs(d1) / (1 + abs(intercept)))
            if not size > tolerance:
                return slope + d0, intercept + d1
            downhill, length = g0 * d0 + g1 * d1, 1.0
            while True:
                at = (slope + length * d0, intercept + length * d1)
                g0, g1, h00, h01, h11 = derivatives(*at)
                if g0 * d0 + g1 * d1 <= -downhill / 4 or length < 1e-10:
                    break
                length /= 2
            slope, intercept = at
    return slope, intercept


def _derivatives(
    sides: Sequence[Array],
    mass: float,
    center: float,
    scale: float,
    scratch: NDArray[np.floating[Any]],
    slope: float,
    intercept: float,
) -> tuple[float, float, float, float, float]:
    """Return the gradient (slope, intercept) and the three entries of the Hessian of ``_newton``'s objective.

    Scores are read in blocks that stay in the cache, and are too short for BLAS to wake other threads and wait for them.

    Args:
        scratch: Room for three blocks, whose type is that of the arithmetic.
    """
    penalty = 1 / scale**2
    g0, g1, h00, h01, h11 = penalty * slope, 0.0, penalty, 0.0, 1e-300
    for side, sign in zip(sides, (1.0, -1.0)):
        each = mass / len(side)
        for first in range(0, len(side), BLOCK):
            block = side[first : first + BLOCK]
            score, wrong, product = scratch[:, : len(block)]
            np.subtract(block, center, score)
            np.multiply(score, 1 / scale, score)
            # Probability of the other class, 1 / (1 + exp(margin)): exact however small it is.
            np.multiply(score, sign * slope, wrong)
            np.add(wrong, sign * intercept, wrong)
            np.exp(wrong, wrong)
            np.add(wrong, 1.0, wrong)
            np.reciprocal(wrong, wrong)
            np.multiply(score, wrong, product)
            count, linear = float(np.add.reduce(wrong)), float(score @ wrong)
            g1 -= sign * each * count
            g0 -= sign * each * linear
            h11 += each * (count - float(wrong @ wrong))
            h01 += each * (linear - float(wrong @ product))
            h00 += each * (float(score @ product) - float(product @ product))
    return g0, g1, h00, h01, h11
