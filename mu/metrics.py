"""Metrics as pure functions of arrays, and ``METRICS``: their one vocabulary.

Rates are fractions in [0, 1], entropies nats, times seconds. Every metric is computed for unlearned and
retrained models by the same code; what is best is almost everywhere the retrained model's value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A recorded number.

    Args:
        label: How tables head it.
        unit: `fraction` (printed times 100), `s`, `count`, `nats` or empty.
        better: `target` (the retrained model's value), `lower` or `higher`.
        source: Where the definition is from.
        names: What the papers call it, as paper to name.
    """

    label: str
    unit: str
    better: str
    source: str
    names: Mapping[str, str]


METRICS: dict[str, Metric] = {
    "acc_test": Metric(
        "Test accuracy",
        "fraction",
        "target",
        "accuracy on the view's held-out images",
        {
            "NatMU (random)": "RA",
            "JiT (random)": "D_r acc",
            "TMU": "ACC_Dtest",
            "Akbari": "TA",
            "UGradSL (random)": "TA",
        },
    ),
    "acc_test_retain": Metric(
        "Test accuracy, retained classes",
        "fraction",
        "target",
        "held-out images without the forgotten class or sub-class",
        {"NatMU (class)": "RA", "JiT (class)": "D_r acc", "UGradSL (class)": "TA"},
    ),
    "acc_test_forget": Metric(
        "Test accuracy, forgotten class",
        "fraction",
        "target",
        "held-out images of the forgotten class or sub-class",
        {"NatMU": "FATest", "JiT (class)": "D_f acc"},
    ),
    "acc_retain": Metric(
        "Retain accuracy",
        "fraction",
        "target",
        "accuracy on the retained training images",
        {"Akbari": "RA", "UGradSL": "RA"},
    ),
    "acc_forget": Metric(
        "Forget accuracy",
        "fraction",
        "target",
        "accuracy on the forgotten training images",
        {
            "NatMU (random)": "FA",
            "NatMU (class)": "FATrain",
            "JiT (random)": "D_f acc",
            "TMU": "ACC_Df",
            "Akbari": "UA",
            "UGradSL": "100 - UA",
        },
    ),
    "err_forget": Metric("Forget error", "fraction", "target", "1 - acc_forget", {"UGradSL": "UA"}),
    "mia_lr_entropy": Metric(
        "MIA (entropy, member rate)",
        "fraction",
        "target",
        "Chundawat et al. 2023; NatMU App. C; JiT",
        {"NatMU": "MIA", "JiT": "MIA"},
    ),
    "activation_distance": Metric(
        "Activation distance",
        "",
        "lower",
        "mean L2 distance of softmax outputs to the retrained model on D_f, in [0, sqrt 2]",
        {"TMU": "AD"},
    ),
    "avg_gap_natmu": Metric(
        "AvgGap", "fraction", "lower", "mean gap over NatMU's list of metrics", {"NatMU": "AvgGap"}
    ),
    "time_unlearn": Metric(
        "Unlearning time",
        "s",
        "lower",
        "the method alone, without evaluation",
        {"JiT": "runtime", "UGradSL": "RTE"},
    ),
    "samples_seen": Metric(
        "Samples seen", "count", "lower", "samples passed forward with gradient", {}
    ),
}

AVG_GAP_NATMU = {
    True: ("acc_test_retain", "acc_forget", "acc_test_forget", "mia_lr_entropy"),
    False: ("acc_test", "acc_forget", "mia_lr_entropy"),
}
"""NatMU's AvgGap list, by whether a whole class or sub-class is forgotten."""


def log_softmax(logits: ArrayLike) -> Array:
    """Log-probabilities [N, K] in float64, so that over-confident outputs do not saturate.

    A row with a logit that is not finite is NaN throughout.
    """
    z = np.asarray(logits, np.float64)
    z = np.where(np.isfinite(z).all(axis=1, keepdims=True), z, np.nan)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples whose largest logit is the label's. NaN for no samples or non-finite logits."""
    z = np.asarray(logits)
    if len(z) == 0 or not np.isfinite(z).all():
        return float("nan")
    return float((z.argmax(axis=1) == np.asarray(labels)).mean())


def entropy(logits: ArrayLike) -> Array:
    """Shannon entropy of the softmax of each row, in nats [0, ln K]; 0 log 0 is 0."""
    logp = log_softmax(logits)
    return -np.where(np.isneginf(logp), 0.0, np.exp(logp) * np.maximum(logp, -1e300)).sum(axis=1)


def activation_distance(logits: ArrayLike, reference_logits: ArrayLike) -> float:
    """Mean L2 distance of two models' softmax outputs on the same samples, in [0, sqrt 2] (TMU's AD)."""
    p, q = np.exp(log_softmax(logits)), np.exp(log_softmax(reference_logits))
    return float(np.linalg.norm(p - q, axis=1).mean())


def gap(value: float, reference: float) -> float:
    """Absolute difference to the retrained model."""
    return abs(value - reference)


def mean_gap(
    values: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str]
) -> float:
    """Mean over `names` of |value - reference|; NaN when any is missing.

    Applied to one run's values this is the per-run gap, to means over seeds the gap of means (NatMU Table 1).
    """
    nan = float("nan")
    return float(np.mean([gap(values.get(name, nan), reference.get(name, nan)) for name in names]))


def kl_naturalness(log_probabilities: ArrayLike, targets: ArrayLike) -> Array:
    """KL(label || retrained model's prediction) of each unlearning instance, in nats (NatMU Fig. 2a).

    Args:
        log_probabilities: [N, K], of the retrained model on the instance's input.
        targets: int [N] for hard labels, or float [N, K] for soft ones.
    """
    logp, q = np.asarray(log_probabilities, np.float64), np.asarray(targets)
    if q.ndim == 1:
        return -logp[np.arange(len(q)), q]
    with np.errstate(divide="ignore"):
        return (np.where(q > 0, q * (np.log(np.where(q > 0, q, 1)) - logp), 0.0)).sum(axis=1)
