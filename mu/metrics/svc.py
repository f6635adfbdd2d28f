"""Which samples a C-SVC with rbf kernel calls members: what libsvm says, for large sets in a fraction of its time.

The attacks look at one to a hundred numbers of a sample, all within a short range, on which the kernel matrix of any
number of samples has a low rank. An interior point method then solves the machine's dual problem to libsvm's own rule
for stopping. Both stop near the optimum and not at it, so that a query very close to the boundary could be
called otherwise: where there is one, libsvm is asked.

Sources: S. Fine, K. Scheinberg, "Efficient SVM training using low-rank kernel representations", JMLR 2 (2001);
R.-E. Fan, P.-H. Chen, C.-J. Lin, "Working set selection using second order information for training support vector
machines", JMLR 6 (2005), for the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COST = 3.0
LARGE = 1500
"""Distinct samples from which on the interior point method is tried; libsvm fits fewer in less than 30 ms."""
STOP = 1e-3
"""libsvm's tolerance: the most by which two samples may disagree on the bias."""
CERTAIN = 20 * STOP
"""Distance from the boundary, in units of the margin, from which on a query's side is certain."""
RESIDUAL = 1e-7
"""Of the kernel's diagonal, what its low-rank form leaves out at most."""
MAX_STEPS = 60


def members(inside: Array, outside: Array, queries: Array) -> Array:
    """Which queries an SVC (C = 3, rbf, gamma = 1 / features) calls members: 1 or 0, [L].

    All arguments are [n, features]. Samples that are equal are fitted as one with their summed weight, which has the
    same optimum and makes inputs with few values, such as correctness, instant.
    """
    sides = [np.unique(side, axis=0, return_counts=True) for side in (inside, outside)]
    values, counts = (np.concatenate(parts) for parts in zip(*sides))
    labels = np.repeat([1.0, -1.0], [len(distinct) for distinct, _ in sides])
    if len(values) >= LARGE:
        called = members_by_rank(values, labels, COST * counts, queries)
        if called is not None:
            return called
    total = len(inside) + len(outside)
    if len(values) > total / 2:  # few are equal: the call of the papers' code, in its order
        values, counts = np.concatenate([inside, outside]), np.ones(total)
        labels = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    from sklearn.svm import SVC

    machine = SVC(C=COST, gamma="auto", kernel="rbf")
    found = machine.fit(values, labels, sample_weight=counts).predict(queries)
    return (found + 1) / 2


def members_by_rank(values: Array, labels: Array, most: Array, queries: Array) -> Array | None:
    """As ``members``; None where the kernel's rank is high, nothing was found, or a query is too close to call."""
    gamma = 1 / values.shape[1]
    features = low_rank(values, gamma)
    if features is None:
        return None
    machine = solve(features, labels, most)
    if machine is None:
        return None
    scores = kernel_sum(queries, values, machine.weights * labels, gamma)
    low, high = scores + machine.bias[0], scores + machine.bias[1]
    if not ((low > CERTAIN) | (high < -CERTAIN)).all():
        return None
    return (low > 0).astype(np.float64)


def low_rank(values: Array, gamma: float) -> Array | None:
    """Features [N, R] whose inner products are the rbf kernel of `values`, up to ``RESIDUAL`` on its diagonal.

    A Cholesky decomposition that takes the sample next which is represented worst; None where R^2 would be more than
    4 N, with which libsvm is as fast.
    """
    count = len(values)
    highest = math.isqrt(4 * count)
    left, features = np.ones(count), np.empty((highest, count))
    for rank in range(highest):
        pivot = int(left.argmax())
        if left[pivot] <= RESIDUAL:
            return np.ascontiguousarray(features[:rank].T)
        row = _kernel(values, values[pivot : pivot + 1], gamma)[:, 0]
        known = features[:rank, pivot] @ features[:rank]
        features[rank] = (row - known) / np.sqrt(left[pivot])
        left = np.maximum(left - features[rank] ** 2, 0)
        left[pivot] = 0
    return None


def kernel_sum(queries: Array, values: Array, weights: Array, gamma: float) -> Array:
    """sum_i weights_i k(query, values_i) of every query, [L]."""
    used = weights != 0
    values, weights = values[used], weights[used]
    parts = np.array_split(queries, max(1, len(queries) * len(values) // 2**22))
    return np.concatenate([_kernel(part, values, gamma) @ weights for part in parts])


def _kernel(one: Array, other: Array, gamma: float) -> Array:
    """exp(-gamma |x - y|^2), [N, M]."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.exp(-gamma * np.maximum(squares, 0))


@dataclass(frozen=True)
class Machine:
    """The solution of the dual problem.

    Args:
        weights: alpha, in [0, most], [N].
        bias: Smallest and largest bias that is optimal, to within ``STOP``.
    """

    weights: Array
    bias: tuple[float, float]


def solve(features: Array, labels: Array, most: Array) -> Machine | None:
    """min 1/2 |sum_i a_i y_i x_i|^2 - sum_i a_i, where 0 <= a <= most and sum_i a_i y_i = 0.

    Mehrotra's predictor and corrector steps; None where they do not come to meet libsvm's rule for stopping.

    Args:
        features: x, [N, R].
        labels: y, 1 or -1, [N]; both must occur.
        most: The cost of each sample, [N].
    """
    signed = features * labels[:, None]
    now = _Point(most / 2, most / 2, np.ones(len(most)), np.ones(len(most)), 0.0)
    for _ in range(MAX_STEPS):
        gradient = signed @ (now.weights @ signed) - 1
        machine = _stopped(gradient, labels, most, now.weights)
        if machine is not None:
            return machine
        try:
            system = _System(now, gradient, signed, labels)
        except np.linalg.LinAlgError:
            return None
        low, high = now.low * now.weights, now.high * now.slack
        ahead = system.direction(-low, -high)
        there = now.moved(ahead, now.longest(ahead))
        target = now.mean() * (there.mean() / now.mean()) ** 3
        bend = ahead.weights * ahead.low, ahead.slack * ahead.high
        step = system.direction(target - low - bend[0], target - high - bend[1])
        now = now.moved(step, 0.99 * now.longest(step))
        if not math.isfinite(now.bias):
            return None
    return None


@dataclass(frozen=True)
class _Point:
    """A point inside all bounds, or a change of one.

    Args:
        weights: a.
        slack: most - a.
        low: Multipliers of 0 <= a.
        high: Multipliers of a <= most.
        bias: The multiplier of the sum that is zero.
    """

    weights: Array
    slack: Array
    low: Array
    high: Array
    bias: float

    @property
    def positive(self) -> tuple[Array, ...]:
        return self.weights, self.slack, self.low, self.high

    def mean(self) -> float:
        """Of the products of bounds and multipliers, which are all zero at the solution."""
        return float(self.low @ self.weights + self.high @ self.slack) / (2 * len(self.low))

    def longest(self, step: _Point) -> float:
        """How much of a step can be taken, in [0, 1], so that all stay positive."""
        rates = [float((-d / x).max()) for x, d in zip(self.positive, step.positive)]
        return 1 / max(1.0, *rates)

    def moved(self, step: _Point, share: float) -> _Point:
        weights, slack, low, high = (x + share * d for x, d in zip(self.positive, step.positive))
        return _Point(weights, slack, low, high, self.bias + share * step.bias)


class _System:
    """The equations of Newton's method at a point, solved through a matrix as large as the rank."""

    def __init__(self, at: _Point, gradient: Array, signed: Array, labels: Array):
        self.at, self.signed, self.labels = at, signed, labels
        self.dual = gradient + at.bias * labels - at.low + at.high
        self.diagonal = at.low / at.weights + at.high / at.slack
        inner = signed.T @ (signed / self.diagonal[:, None])
        self.root = np.linalg.cholesky(np.eye(len(inner)) + inner)
        self.across = self._solved(labels)

    def _solved(self, right: Array) -> Array:
        right = right / self.diagonal
        part = np.linalg.solve(self.root.T, np.linalg.solve(self.root, right @ self.signed))
        return right - (self.signed @ part) / self.diagonal

    def direction(self, for_low: Array, for_high: Array) -> _Point:
        """The step that changes the products of bounds and multipliers by these, to first order."""
        at = self.at
        there = self._solved(for_low / at.weights - for_high / at.slack - self.dual)
        summed = self.labels @ there + self.labels @ at.weights
        bias = float(summed / (self.labels @ self.across))
        weights = there - self.across * bias
        low = (for_low - at.low * weights) / at.weights
        return _Point(weights, -weights, low, (for_high + at.high * weights) / at.slack, bias)


def _stopped(gradient: Array, labels: Array, most: Array, a: Array) -> Machine | None:
    """The machine, if `a`, of which what is within a millionth of a bound is set to it, may be called a solution."""
    share = a / most
    at_low, at_high = share < 1e-6, share > 1 - 1e-6
    biases = -labels * gradient
    up = np.where(labels > 0, ~at_high, ~at_low)
    down = np.where(labels > 0, ~at_low, ~at_high)
    if not up.any() or not down.any():
        return None
    least, largest = float(biases[up].max()), float(biases[down].min())
    if least - largest > STOP:
        return None
    snapped = np.where(at_low, 0.0, np.where(at_high, most, a))
    return Machine(snapped, (min(least, largest), max(least, largest)))
