"""Audits of an unlearning *algorithm*: attacks and scores that need many models, unlearned and retrained. Numpy.

For every forgotten sample they ask whether models that unlearned it can be told from models that never saw
it. They cost at least twice the number of trainings, so no sweep optimises them. Values that are not finite
make the sample, and what is averaged over it, NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu.metrics.attacks import loss_thresholds
from mu.metrics.basic import NAN, log_softmax, usable

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

MIN_MODELS = 8
"""Models of either kind that U-LiRA needs at least (specification of Hayes et al. 2024's attack)."""


def reference_members(
    losses: ArrayLike, reference: ArrayLike, rates: ArrayLike
) -> NDArray[np.bool_]:
    """Return which samples Ye et al.'s attack R calls members at each false positive rate: bool [A, N].

    The threshold of a sample is the quantile of *its* losses under models trained without it.

    Args:
        losses: Under the attacked model, nats [N].
        reference: Under models trained without the samples, [N, models].
        rates: False positive rates in [0, 1], [A].
    """
    return np.asarray(losses, np.float64) < loss_thresholds(reference, rates)


def rmia(
    probability: ArrayLike,
    reference: ArrayLike,
    trained_on: ArrayLike,
    population: ArrayLike,
    population_reference: ArrayLike,
    *,
    a: float = 0.3,
    gamma: float = 1.0,
    models: int | None = None,
) -> Array:
    """Return membership scores of RMIA (Zarifzadeh et al. 2024, offline), [N] in [0, 1]; larger is more a member.

    A sample's score is the share of the population whose likelihood ratio it exceeds by `gamma`, where
    ratios are p(x | model) / p(x) and p(x) = (1 + a) / 2 * mean over models without x + (1 - a) / 2.

    Args:
        probability: Of the true class under the attacked model, [N].
        reference: The same under reference models, [N, R].
        trained_on: bool [N, R], which reference models saw the sample.
        population: Like `probability`, of population samples, [Z]; no reference model saw them.
        population_reference: Like `reference`, [Z, R].
        a: How much likelier than on average a sample is thought to be for a model that did not see it.
        gamma: Factor by which the ratio must be exceeded.
        models: None takes the mean over all models without the sample. A number takes what Privacy Meter
            takes, the sum of that many largest values (models that saw the sample count 0) divided by it.
    """

    def prior(signals: ArrayLike, seen: ArrayLike) -> Array:
        values, out = np.asarray(signals, np.float64), ~np.asarray(seen, bool)
        if models is None:
            mean = np.divide(
                np.where(out, values, 0.0).sum(axis=1),
                out.sum(axis=1),
                out=np.full(len(values), NAN),
                where=out.any(axis=1),
            )
        else:
            mean = -np.sort(-np.where(out, values, 0.0), axis=1)[:, :models].mean(axis=1)
        return (1 + a) / 2 * mean + (1 - a) / 2

    unseen = np.zeros(np.shape(population_reference), bool)
    ratio = np.asarray(probability, np.float64) / prior(reference, trained_on)
    others = np.asarray(population, np.float64) / prior(population_reference, unseen)
    if not usable(others):
        return np.full(len(ratio), NAN)
    scores = (ratio[:, None] / others > gamma).mean(axis=1)
    return np.where(np.isfinite(ratio), scores, np.nan)


def u_lira(phi: ArrayLike, unlearned: ArrayLike, retrained: ArrayLike) -> Array:
    """Return the log-likelihood ratio, nats [N], that a sample was unlearned rather than never trained on (U-LiRA).

    It fits one Gaussian per sample and kind of model, with the population standard deviation.

    Args:
        phi: ``logit_confidence`` of each sample under the attacked model, [N].
        unlearned: The same under models that unlearned the sample, [N, K].
        retrained: The same under models trained without it, [N, K'].

    Returns:
        NaN with fewer than ``MIN_MODELS`` models of either kind. Its logistic function is the posterior.
    """
    values, sides = np.asarray(phi, np.float64), [np.asarray(x) for x in (unlearned, retrained)]
    if min(side.shape[1] for side in sides) < MIN_MODELS:
        return np.full(len(values), NAN)
    means = [side.mean(axis=1, dtype=np.float64) for side in sides]
    # Equal values under all models would be infinitely likely; a hair of spread keeps the order.
    spreads = [np.maximum(side.std(axis=1, dtype=np.float64), 1e-12) for side in sides]
    logs = [
        -0.5 * ((values - mean) / spread) ** 2 - np.log(spread)
        for mean, spread in zip(means, spreads)
    ]
    return logs[0] - logs[1]


def u_lira_accuracy(unlearned_ratio: ArrayLike, retrained_ratio: ArrayLike) -> float:
    """Return the balanced accuracy of calling a sample unlearned where its log-likelihood ratio is above 0; best 0.5.

    Args:
        unlearned_ratio: `u_lira` of samples under models that unlearned them, [N].
        retrained_ratio: `u_lira` of samples under models that never saw them, [M].
    """
    if not usable(unlearned_ratio, retrained_ratio):
        return NAN
    inside, outside = (np.asarray(x) > 0 for x in (unlearned_ratio, retrained_ratio))
    return float((inside.mean() + (~outside).mean()) / 2)


@dataclass(frozen=True)
class FScore:
    """Forgetting quality of the NeurIPS 2023 challenge, with what it depends on.

    Args:
        value: Mean of 2 / 2**bin over samples, in (0, 1]; 1 is best.
        epsilons: Privacy loss of each sample, [N]; inf where an attack is perfect, -inf where none counts.
        bins: Bin of each sample, 1 (best) to `max_bin`.
        models: Number of unlearned models, and of retrained ones.
        delta: The delta of the privacy loss.
        max_bin: Largest bin.
    """

    value: float
    epsilons: Array
    bins: Array
    models: tuple[int, int]
    delta: float
    max_bin: int


def fscore_neurips(
    unlearned: ArrayLike,
    retrained: ArrayLike,
    *,
    delta: float = 0.01,
    max_bin: int = 13,
    bin_width: float = 0.5,
    intervals: bool = False,
) -> FScore:
    """Measure how well K unlearned models can be told from K retrained ones, sample by sample.

    The attacks are every threshold midway between neighbouring outputs of the pooled models, both ways round,
    and with `intervals` every interval between two of them and its complement. The largest privacy loss counts.
    Few models allow few values: with 8 of each and delta 0, the largest finite loss of a threshold is ln 7.

    Args:
        unlearned: One number per sample and model, such as ``logit_confidence``, [N, K].
        retrained: The same, [N, K'].
        delta: In [0, 1). Neither paper states the one it used.
        max_bin: The challenge's 13.
        bin_width: Width of a bin in epsilon.
        intervals: Whether two-sided rules attack as well.
    """
    ours, theirs = np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)
    models = (ours.shape[1], theirs.shape[1])
    attacks = (sum(models) - 1) ** (2 if intervals else 1)
    rows = max(1, 2_000_000 // max(1, attacks))  # what is held at once stays within some 100 MB
    parts = [
        _sample_epsilons(ours[i : i + rows], theirs[i : i + rows], delta, intervals)
        for i in range(0, max(1, len(ours)), rows)
    ]
    epsilons = np.concatenate(parts)
    bins = epsilon_bins(epsilons, max_bin, bin_width)
    value = float((2 / 2**bins).mean()) if len(bins) else NAN
    return FScore(value, epsilons, bins, models, delta, max_bin)


def privacy_epsilons(fpr: ArrayLike, fnr: ArrayLike, delta: float) -> Array:
    """Return the privacy loss that each attack proves, from its error rates (the challenge's Eq. 2).

    It is max{ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR}; inf for a perfect attack, -inf (ignored)
    where exactly one rate is zero or both terms are undefined.
    """
    a, b = np.asarray(fpr, np.float64), np.asarray(fnr, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.log(1 - delta - a) - np.log(b), np.log(1 - delta - b) - np.log(a)
    best = np.fmax(*terms)
    ignored = np.isnan(best) | ((a == 0) != (b == 0))
    return np.where((a == 0) & (b == 0), np.inf, np.where(ignored, -np.inf, best))


def epsilon_bins(epsilons: ArrayLike, max_bin: int = 13, bin_width: float = 0.5) -> Array:
    """Return the bin of each privacy loss, 1 to `max_bin`: 1 below `bin_width`, also for negative ones; NaN stays."""
    values = np.asarray(epsilons, np.float64)
    with np.errstate(invalid="ignore"):
        return np.clip(np.floor(values / bin_width) + 1, 1, max_bin)


def utility_ratio(retain: tuple[float, float], test: tuple[float, float]) -> float:
    """Return the accuracy kept: (unlearned / retrained) on D_r times the same on held-out images; it can exceed 1.

    The challenge's score is `fscore_neurips` times this.

    Args:
        retain: Mean accuracy on D_r over the unlearned, and over the retrained models.
        test: The same on held-out images.
    """
    return retain[0] / retain[1] * (test[0] / test[1])


def fscore_seed003(unlearned_logits: ArrayLike, retrained_logits: ArrayLike) -> Array:
    """Return Akbari et al.'s H of each sample, [N]; its mean is their F-score. It is for comparison only.

    Reference: sachit3022/unlearning@fd93ba6 evaluate.py. Attacks are thresholds 0.1 to 0.9 and a Gaussian rule on
    the softmax of class 0, whatever the true class; delta is 0.1; bins are replaced by 1 + 12 / (1 + exp(-epsilon)).
    Where every attack is discarded H is 1, the best value, so it *rises* for models that are easier to tell
    apart. It is kept as it is, with the Gaussian rule's upper tail read as "below the upper root".

    Differs: where the two Gaussians have no two crossings, or no width, the rule is left out; theirs fails.

    Args:
        unlearned_logits: [N, K, classes].
        retrained_logits: [N, K', classes].
    """
    unlearned, retrained = (
        np.exp(log_softmax(z.reshape(-1, z.shape[-1]))[:, 0]).reshape(z.shape[:2])
        for z in (np.asarray(unlearned_logits), np.asarray(retrained_logits))
    )
    values = []
    for unlearned_row, retrained_row in zip(unlearned, retrained):
        if not usable(unlearned_row, retrained_row):
            values.append(NAN)
            continue
        rules = [
            (unlearned_row > i / 10, retrained_row > i / 10) for i in range(1, 10)
        ] + _gaussian_rule(unlearned_row, retrained_row)
        # Positive means retrained.
        fpr, fnr = (np.array(x) for x in zip(*((u.mean(), (~r).mean()) for u, r in rules)))
        epsilon = privacy_epsilons(fpr, fnr, 0.1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Their `max` of two terms is the first one wherever the first is undefined.
            epsilon[np.isnan(np.log(0.9 - fpr)) & np.isfinite(epsilon)] = -np.inf
            values.append(2 / 2 ** (1 + 12 / (1 + np.exp(-epsilon.max()))))
    return np.array(values)


def _gaussian_rule(
    unlearned: Array, retrained: Array
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return what the rule of two fitted Gaussians calls retrained, of either kind; empty where it does not exist."""
    (m0, s0), (m1, s1) = ((x.mean(), x.std()) for x in (unlearned, retrained))
    if s0 == 0 or s1 == 0:
        return []
    roots = np.roots(
        [
            1 / (2 * s0**2) - 1 / (2 * s1**2),
            m1 / s1**2 - m0 / s0**2,
            m0**2 / (2 * s0**2) - m1**2 / (2 * s1**2) - np.log(s1 / s0),
        ]
    )
    if len(roots) < 2 or np.iscomplexobj(roots):
        return []
    low, high = np.sort(roots)
    at = low + 0.01
    if np.exp(-0.5 * ((at - m0) / s0) ** 2) / s0 > np.exp(-0.5 * ((at - m1) / s1) ** 2) / s1:
        return [(unlearned <= high, retrained <= high)]
    return [((unlearned >= low) & (unlearned <= high), (retrained >= low) & (retrained <= high))]


def _sample_epsilons(unlearned: Array, retrained: Array, delta: float, intervals: bool) -> Array:
    """Return the largest privacy loss of each sample over all attacks, [N]."""
    ours, theirs = unlearned.shape[1], retrained.shape[1]
    pooled = np.concatenate([unlearned, retrained], axis=1)
    order = np.argsort(pooled, axis=1, kind="stable")
    values = np.take_along_axis(pooled, order, axis=1)
    # Below the midpoint after each position: how many unlearned models, how many retrained ones.
    below = (order < ours).cumsum(axis=1)[:, :-1]
    below_theirs = np.arange(1, ours + theirs) - below
    between = values[:, 1:] > values[:, :-1]  # equal outputs have no midpoint

    def largest(inside: Counts, inside_theirs: Counts, valid: NDArray[np.bool_]) -> Array:
        """Return the largest privacy loss over the rules "unlearned if inside" and "unlearned if outside"."""
        inward = privacy_epsilons(inside_theirs / theirs, (ours - inside) / ours, delta)
        outward = privacy_epsilons((theirs - inside_theirs) / theirs, inside / ours, delta)
        best = np.where(valid, np.maximum(inward, outward), -np.inf)
        return best.max(axis=1, initial=-np.inf)

    epsilons = largest(below, below_theirs, between)
    if intervals:
        low, high = np.triu_indices(below.shape[1], 1)
        within, within_theirs = (x[:, high] - x[:, low] for x in (below, below_theirs))
        valid = between[:, low] & between[:, high]
        epsilons = np.maximum(epsilons, largest(within, within_theirs, valid))
    return np.where(np.isfinite(pooled).all(axis=1), epsilons, np.nan)
