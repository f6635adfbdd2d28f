"""Scores of a trial or a reference: metrics that need the retrained model, and what else a record keeps of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mu.evaluate import Outputs, compare
from mu.metrics import closeness
from mu.problem import Evaluation


@dataclass(frozen=True)
class ReferenceScores:
    """Scores and outputs that a trial is compared with.

    Args:
        retrain: View to the retrained models' mean metrics, which curves are compared with; empty where there is no
            retrained model.
        original: View to the original model's metrics on this problem.
        retrain_logits: The retrained model's outputs on D_f, float32 [N, K]; None where there is no retrained model.
        untrained_logits: Those of the network with initial weights.
        class_means: View to the original's mean prediction on held-out samples of each class, [K, K].
    """

    retrain: Mapping[str, Mapping[str, float]]
    original: Mapping[str, Mapping[str, float]]
    retrain_logits: NDArray[np.float32] | None
    untrained_logits: NDArray[np.float32]
    class_means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def complete(
    scores: Mapping[str, Mapping[str, float]],
    forget: Outputs,
    reference: ReferenceScores,
) -> dict[str, dict[str, float]]:
    """Return each view's metrics together with those that need the outputs of other models.

    Args:
        scores: View to the metrics that need none.
        forget: Outputs on D_f.
    """
    compared = compare(forget, reference.retrain_logits, reference.untrained_logits)
    views = {view: {**values, **compared} for view, values in scores.items()}
    for view, unseen in reference.class_means.items():
        divergence = closeness.rf_jsd(forget.logits, forget.labels, unseen)
        if view in views and math.isfinite(divergence):
            views[view]["rf_jsd"] = divergence
    return views


def add_diagnostics(
    views: Mapping[str, dict[str, float]],
    unavailable: dict[str, str],
    diagnostics: Mapping[str, float],
) -> None:
    """Add scores that are the same for every view; one that is not finite is noted in `unavailable`."""
    for view, values in views.items():
        for name, value in diagnostics.items():
            if math.isfinite(value):
                values[name] = value
            else:
                unavailable[f"{view}/{name}"] = (
                    "the theorem does not hold for these weights and this smoothing rate"
                    if name == "label_ldp_eps"
                    else "outputs on what the method trained on are not finite"
                )


def sparse(confusions: Mapping[str, NDArray[np.float64]]) -> dict[str, list[list[int]]]:
    """Return the cells of each confusion matrix that are not zero: [true class, predicted class, samples]."""
    return {
        name: [[int(y), int(p), int(counts[y, p])] for y, p in np.argwhere(counts > 0)]
        for name, counts in confusions.items()
    }


def answers(evaluation: Evaluation) -> dict[str, NDArray[np.float32]]:
    """Return the outputs that the audit attacks."""
    return {"forget": evaluation.forget.logits, "held_out": evaluation.held_out["test"].logits}
