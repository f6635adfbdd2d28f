"""The plain metrics as pure functions of arrays; ``vocabulary.METRICS`` lists all that are recorded.

Rates are fractions in [0, 1], entropies nats, times seconds. Every metric is computed for unlearned and
retrained models by the same code; what is best is almost everywhere the retrained model's value. Anything
computed from a logit that is not finite is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NAN = float("nan")


def usable(*sets: ArrayLike) -> bool:
    """Return whether every set has samples and only finite values."""
    return all(np.size(values) > 0 and bool(np.isfinite(values).all()) for values in sets)


def log_softmax(logits: ArrayLike) -> Array:
    """Return the log-probabilities [N, K] in float64, so that over-confident outputs do not saturate.

    A row with a logit that is not finite is NaN throughout.
    """
    z = _finite_rows(logits)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def logit_confidence(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Return ln p_y - ln(1 - p_y) of each sample's true class, [N]; neither end saturates before 700 nats.

    It is the label's logit minus the log-sum-exp of the others: +inf only where those underflow.
    """
    z, rows = _finite_rows(logits), np.arange(len(np.asarray(labels)))
    y = np.asarray(labels, np.int64)
    z = z - z.max(axis=1, keepdims=True)
    own = z[rows, y]
    np.exp(z, out=z)
    z[rows, y] = 0
    with np.errstate(divide="ignore"):
        return own - np.log(z.sum(axis=1))


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Return the loss -ln p_y of each sample, nats [N]; distinct even where p_y rounds to 1."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, -logit_confidence(logits, labels))


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of samples whose largest logit is the label's. NaN for no samples or non-finite logits."""
    z = np.asarray(logits)
    if len(z) == 0 or not np.isfinite(z).all():
        return NAN
    return float((z.argmax(axis=1) == np.asarray(labels)).mean())


def confusion(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Count samples by true (row) and predicted class: [K, K]; NaN throughout for non-finite logits."""
    z, y = np.asarray(logits), np.asarray(labels, np.int64)
    classes = z.shape[1]
    if not np.isfinite(z).all():
        return np.full((classes, classes), NAN)
    cells = y * classes + z.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.float64)


def per_class_accuracy(counts: ArrayLike) -> Array:
    """Return the accuracy on each class, [K], from a confusion matrix; NaN for classes without samples."""
    cells = np.asarray(counts, np.float64)
    with np.errstate(invalid="ignore"):
        return cells.diagonal() / cells.sum(axis=1)


def entropy(logits: ArrayLike) -> Array:
    """Return the Shannon entropy of the softmax of each row, in nats [0, ln K]; 0 log 0 is 0."""
    logp = log_softmax(logits)
    return -(np.exp(logp) * np.maximum(logp, -1e300)).sum(axis=1)  # 0 times -inf would be NaN


def mean_distance(values: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean L2 distance between the rows of two arrays [N, D]: raw logits or features of two models."""
    if not usable(values, reference):
        return NAN
    difference = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    return float(np.linalg.norm(difference, axis=1).mean())


def activation_distance(logits: ArrayLike, reference_logits: ArrayLike) -> float:
    """Return the mean L2 distance of two models' softmax outputs on the same samples, in [0, sqrt 2] (TMU's AD)."""
    return mean_distance(np.exp(log_softmax(logits)), np.exp(log_softmax(reference_logits)))


def gap(value: float, reference: float) -> float:
    """Return the absolute difference to the retrained model."""
    return abs(value - reference)


def mean_gap(
    values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]
) -> float:
    """Return the mean over `names` of |value - reference|; NaN when any is missing.

    Applied to one run's values this is the per-run gap, to means over seeds the gap of means (NatMU Table 1).
    With ``SVC_CHUNKED_GAP4`` it is what Akbari et al. call "best attack MIA".
    """
    gaps = _gaps(values, reference, names)
    return math.fsum(gaps) / len(gaps)  # NumPy's mean takes five times as long for so few


def max_gap(
    values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]
) -> float:
    """Return the largest |value - reference| over `names`; NaN when any is missing."""
    gaps = _gaps(values, reference, names)
    return NAN if any(map(math.isnan, gaps)) else max(gaps)


def _gaps(
    values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]
) -> list[float]:
    return [abs(values.get(name, NAN) - reference.get(name, NAN)) for name in names]


def gap_of_means(
    runs: Sequence[Mapping[str, float]], reference: Mapping[str, float], names: Sequence[str]
) -> float:
    """Return the average gap of the runs' means (NatMU's and UGradSL's main tables); errors of runs cancel."""
    means = {name: float(np.mean([run.get(name, NAN) for run in runs])) for name in names}
    return mean_gap(means, reference, names)


def mean_of_gaps(
    runs: Sequence[Mapping[str, float]], reference: Mapping[str, float], names: Sequence[str]
) -> float:
    """Return the mean over runs of their average gaps (UGradSL's ablations); never below the gap of means."""
    return float(np.mean([mean_gap(run, reference, names) for run in runs]))


def delta_acc_forget(accuracies: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean over forget classes of |acc_forget - the retrained model's|, in [0, 1] (TMU's Delta).

    Args:
        accuracies: One accuracy on D_f per forget class, or a single one.
        reference: The retrained models' of the same requests.
    """
    difference = np.asarray(accuracies, np.float64) - np.asarray(reference, np.float64)
    return float(np.abs(difference).mean())


def kl_naturalness(log_probabilities: ArrayLike, targets: ArrayLike) -> Array:
    """Return KL(label || retrained model's prediction) of each unlearning instance, in nats (NatMU Fig. 2a).

    Args:
        log_probabilities: [N, K], of the retrained model on the instance's input.
        targets: int [N] for hard labels, or float [N, K] for soft ones.
    """
    logp, q = np.asarray(log_probabilities, np.float64), np.asarray(targets)
    if q.ndim == 1:
        return -logp[np.arange(len(q)), q]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 log 0 is 0
        return np.where(q > 0, q * (np.log(q) - logp), 0.0).sum(axis=1)


def partial_forget_accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of bare masked forget images classified as the label their hybrid was given (NatMU's PFA).

    Args:
        logits: [..., K], of every forget image under every mask.
        labels: int [...], reassigned labels.
    """
    z = np.asarray(logits)
    return accuracy(z.reshape(-1, z.shape[-1]), np.asarray(labels).reshape(-1))


def acc_gl(predicted_hard: ArrayLike, gold_logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of D_f whose predicted easy/hard label is right, in [0, 1] (TMU Table 3).

    Args:
        predicted_hard: bool [N].
        gold_logits: [N, K], of the retrained model: a sample is hard where it is wrong.
        labels: int [N].
    """
    z = np.asarray(gold_logits)
    if not usable(z):
        return NAN
    hard = z.argmax(axis=1) != np.asarray(labels)
    return float((hard == np.asarray(predicted_hard, bool)).mean())


def speedup(unlearn: ArrayLike, retrain: ArrayLike) -> float:
    """Return the mean retraining time over mean unlearning time, both in the same unit and on the same machine."""
    return float(np.mean(np.asarray(retrain)) / np.mean(np.asarray(unlearn)))


def _finite_rows(logits: ArrayLike) -> Array:
    z = np.asarray(logits, np.float64)
    return np.where(np.isfinite(z).all(axis=1, keepdims=True), z, np.nan)
