"""Comparisons of an unlearned model's outputs with another's, or of those on D_f with those elsewhere. Pure numpy.

There are distances between per-sample outputs (entropies, probabilities), the Streisand check (does D_f stand out?),
and label privacy. Values that are not finite, or sets without samples, make a measure NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu.metrics.basic import NAN, entropy, log_softmax, logit_confidence, usable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wilcoxon:
    """A two-sided signed-rank test of paired values.

    Args:
        p: Two-sided p-value. A large one is no evidence of equality, and it depends on `n`.
        statistic: Smaller of the rank sums of positive and of negative differences.
        n: Pairs that differ.
        median_difference: Median of value - reference over all pairs, in their unit.
    """

    p: float
    statistic: float
    n: int
    median_difference: float


def wilcoxon(values: ArrayLike, reference: ArrayLike, exact: bool | None = None) -> Wilcoxon:
    """Run the two-sided signed-rank test: zero differences are dropped, and there is no continuity correction.

    p is 1 where no pair differs.

    Args:
        values: One number per sample, [N].
        reference: The same samples', [N].
        exact: Whether p is exact, which needs differences without ties, or by the normal approximation with
            its correction for ties. None is exact for at most 50 differences without ties.
    """
    if not usable(values, reference):
        return Wilcoxon(NAN, NAN, 0, NAN)
    pairs = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    median, pairs = float(np.median(pairs)), pairs[pairs != 0]
    sizes, place, counts = np.unique(np.abs(pairs), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place.reshape(-1)]  # of equals their mean
    n, positive = len(pairs), float(ranks[pairs > 0].sum())
    total = n * (n + 1) / 2
    statistic = min(positive, total - positive)
    if exact is None:
        exact = n <= 50 and len(sizes) == n
    if n == 0:
        p = 1.0
    elif exact:
        p = min(1.0, 2 * _rank_sum_probability(n, round(statistic)))
    else:
        variance = n * (n + 1) * (2 * n + 1) / 24 - float((counts**3.0 - counts).sum()) / 48
        p = math.erfc(abs(positive - total / 2) / math.sqrt(2 * variance))
    return Wilcoxon(p, statistic, n, median)


def entropy_wilcoxon(logits: ArrayLike, reference_logits: ArrayLike) -> Wilcoxon:
    """Test whether output entropies (nats) on D_f differ from the retrained model's (JiT Fig. 4, at p = 0.10)."""
    return wilcoxon(entropy(logits), entropy(reference_logits))


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> Array:
    """Return the Jensen-Shannon divergence of distributions along the last axis, in nats [0, ln 2]."""
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (a + b) / 2

    def divergence(x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(x == 0, 0.0, x * np.log(x / middle)).sum(axis=-1)

    return np.maximum((divergence(a) + divergence(b)) / 2, 0.0)


def zrf(logits: ArrayLike, untrained_logits: ArrayLike) -> float:
    """Return zero-retrain forgetting: 1 - mean Jensen-Shannon divergence to an untrained model on D_f.

    It lies in [1 - ln 2, 1], in nats; 1 is the untrained model itself. Source: Chundawat et al. 2023; JiT's repository.

    Differs: their code averages over classes too (K times less) and swaps the arguments of the divergence.
    """
    if not usable(logits, untrained_logits):
        return NAN
    p, q = np.exp(log_softmax(logits)), np.exp(log_softmax(untrained_logits))
    return float(1 - jensen_shannon(p, q).mean())


def row_rates(counts: ArrayLike, added: float = 0.0) -> Array:
    """Return the confusion matrix with each row divided by its sum + `added`; rows without samples are NaN.

    `added` is 1 in Akbari et al.'s helper, whose rows therefore sum to less than 1.
    """
    cells = np.asarray(counts, np.float64)
    sums = cells.sum(axis=1, keepdims=True)
    return np.where(sums > 0, cells / np.where(sums > 0, sums + added, 1.0), np.nan)


def streisand(forget: ArrayLike, held_out: ArrayLike) -> dict[str, float]:
    """Measure how much predictions on D_f stand out from those on held-out images (UGradSL E.6).

    Only classes that both sets have are compared, so that forgetting a class compares that class alone; then
    the histogram of predictions is to be compared with the retrained model's instead. Targets are the
    retrained model's values.

    Args:
        forget: Confusion matrix of D_f, counts [K, K], rows the true classes.
        held_out: The same of held-out images.

    Returns:
        `streisand_tv` (mean over classes of half the L1 distance of the rows), `streisand_max` (largest
        difference of two cells), `streisand_hist_tv` and `streisand_hist_js` (predicted classes; js in nats)
        and `wrong_class_rate` (largest share of D_f in one and the same wrong class).
    """
    names = (
        "streisand_tv",
        "streisand_max",
        "streisand_hist_tv",
        "streisand_hist_js",
        "wrong_class_rate",
    )
    cells = [np.asarray(counts, np.float64) for counts in (forget, held_out)]
    if not usable(*cells) or min(counts.sum() for counts in cells) == 0:
        return dict.fromkeys(names, NAN)
    rows = np.abs(row_rates(cells[0]) - row_rates(cells[1]))
    rows = rows[~np.isnan(rows).any(axis=1)]
    first, second = (counts.sum(axis=0) / counts.sum() for counts in cells)
    wrong = cells[0] - np.diag(cells[0].diagonal())
    values = (
        rows.sum(axis=1).mean() / 2 if len(rows) else NAN,
        rows.max() if len(rows) else NAN,
        np.abs(first - second).sum() / 2,
        jensen_shannon(first, second),
        wrong.sum(axis=0).max() / cells[0].sum(),
    )
    return {name: float(value) for name, value in zip(names, values)}


def loss_ks(losses: ArrayLike, others: ArrayLike) -> float:
    """Return the two-sample Kolmogorov-Smirnov distance, in [0, 1]: the largest gap of two distribution functions.

    Of losses on D_f and on held-out images (UGradSL Fig. 8) it is near 0 where D_f looks like new data.
    """
    if not usable(losses, others):
        return NAN
    sides = [np.sort(np.ravel(np.asarray(x))) for x in (losses, others)]
    at = np.concatenate(sides)
    shares = [np.searchsorted(side, at, "right") / len(side) for side in sides]
    return float(np.abs(shares[0] - shares[1]).max())


def class_means(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Return the mean prediction on the samples of each class, [K, K]; NaN in the row of a class without samples."""
    probabilities, y = np.exp(log_softmax(logits)), np.asarray(labels, np.int64)
    classes = probabilities.shape[1]
    sums = np.zeros((classes, classes))
    np.add.at(sums, y, probabilities)
    counts = np.bincount(y, minlength=classes)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), NAN)


def rf_jsd(logits: ArrayLike, labels: ArrayLike, unseen: ArrayLike) -> float:
    """Return the retrain-free Jensen-Shannon divergence of LoTUS (arXiv:2503.18314), nats, in [0, ln 2].

    It compares, class by class, the mean prediction of the unlearned model on D_f with that of the original on samples that it
    has not seen, and is the mean over the classes that both have. NaN where there is no such class.

    Args:
        logits: The unlearned model's on D_f, [N, K].
        labels: Of D_f, int [N].
        unseen: ``class_means`` of the original model on unseen samples, [K, K].
    """
    if not usable(logits):
        return NAN
    own, other = class_means(logits, labels), np.asarray(unseen)
    both = np.isfinite(own).all(1) & np.isfinite(other).all(1)
    return float(jensen_shannon(own[both], other[both]).mean()) if both.any() else NAN


def label_ldp_eps(
    gamma1: ArrayLike, gamma2: ArrayLike, alpha: ArrayLike, classes: ArrayLike
) -> Array:
    """Return Label-LDP epsilon of UGradSL's Theorem 3, |ln((K / alpha)(1 - gamma1 / gamma2) + 1 - K)|, nats [0, inf).

    It is 0 at alpha = 1 - gamma1 / gamma2, where D_f's own label is as likely as the others, and grows on both sides.
    It is NaN where the theorem says nothing: gamma1 - gamma2 * (1 + (1 - K) / K * alpha) <= 0 or alpha >= 0. Arguments
    are taken elementwise.

    Args:
        gamma1: Weight of the risk on all training data, first phase.
        gamma2: Weight of the smoothed risk on D_f that is ascended.
        alpha: Smoothing rate, negative.
        classes: Number of classes K.
    """
    own, other = label_ldp_prediction(gamma1, gamma2, alpha, classes)
    with np.errstate(divide="ignore"):
        return np.abs(np.log(own / other))


def label_ldp_prediction(
    gamma1: ArrayLike, gamma2: ArrayLike, alpha: ArrayLike, classes: ArrayLike
) -> tuple[Array, Array]:
    """Return the theorem's optimal prediction on D_f: the probability of the own label and of each other; NaN as above."""
    g1, g2, a, k = (np.asarray(x, np.float64) for x in (gamma1, gamma2, alpha, classes))
    own, other = g1 - g2 * (1 + (1 - k) / k * a), -a * g2 / k
    valid = (own > 0) & (other > 0)
    total = np.where(valid, own + (k - 1) * other, np.nan)
    return own / total, other / total


def label_ldp_empirical(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over D_f of |ln(p_y / mean of the other probabilities)|, nats [0, inf): how labels show (ours)."""
    if not usable(logits):
        return NAN
    others = np.log(np.asarray(logits).shape[1] - 1)
    return float(np.abs(logit_confidence(logits, labels) + others).mean())


def _rank_sum_probability(n: int, statistic: int) -> float:
    """Return the chance that the rank sum of a random subset of 1..n is at most `statistic`."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    return float(ways[: statistic + 1].sum() / 2.0**n)
