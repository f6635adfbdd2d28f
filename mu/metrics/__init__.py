"""Metrics as pure functions of numpy arrays: no module here imports torch.

``vocabulary`` is the one list of everything that is recorded (``METRICS``) and ``basic`` computes the plain ones. ``attacks``
holds membership inference attacks (with ``logistic``, which fits the classifier of one of them), ``closeness`` compares outputs
with a retrained model's, and ``audits`` attacks many models at once.
"""

from mu.metrics.basic import (
    NAN,
    acc_gl,
    accuracy,
    activation_distance,
    confusion,
    cross_entropy,
    delta_acc_forget,
    entropy,
    gap,
    gap_of_means,
    kl_naturalness,
    log_softmax,
    logit_confidence,
    max_gap,
    mean_distance,
    mean_gap,
    mean_of_gaps,
    partial_forget_accuracy,
    per_class_accuracy,
    speedup,
    usable,
)
from mu.metrics.vocabulary import (
    AVG_GAP_NATMU,
    AVG_GAP_UGRADSL,
    AVG_GAP_UGRADSL5,
    MEAN_GAPS,
    METRICS,
    SVC_CHUNKED_GAP4,
    SVC_GAP4,
    Metric,
)

__all__ = [
    "AVG_GAP_NATMU",
    "AVG_GAP_UGRADSL",
    "AVG_GAP_UGRADSL5",
    "MEAN_GAPS",
    "METRICS",
    "NAN",
    "SVC_CHUNKED_GAP4",
    "SVC_GAP4",
    "Metric",
    "acc_gl",
    "accuracy",
    "activation_distance",
    "confusion",
    "cross_entropy",
    "delta_acc_forget",
    "entropy",
    "gap",
    "gap_of_means",
    "kl_naturalness",
    "log_softmax",
    "logit_confidence",
    "max_gap",
    "mean_distance",
    "mean_gap",
    "mean_of_gaps",
    "partial_forget_accuracy",
    "per_class_accuracy",
    "speedup",
    "usable",
]
