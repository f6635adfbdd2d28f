"""The curve of a trial: a few metrics after each epoch, and the rule that stops a model that has collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mu import metrics
from mu.evaluate import few_scores, outputs
from mu.problem import Problem
from mu.split import Split
from sweeps.workers.scores import ReferenceScores

CURVE_RETAIN = 1000
"""Most retained samples used for the per-epoch curve; final metrics always use all of them."""
COLLAPSED = 1.5
"""A model has collapsed when its accuracy on held-out data it should keep is below this multiple of chance..."""
PATIENCE = 2
"""...at this many evaluations in a row, unless the method impairs first and repairs later."""

CurvePoint = dict[str, float]


class CurveEvaluator:
    """An evaluation on the `val` view between epochs. Its time is never billed to the method."""

    def __init__(self, problem: Problem, split: Split, reference: ReferenceScores, device: str):
        count = len(split.retain)
        sample = torch.linspace(0, count - 1, min(count, CURVE_RETAIN), device=split.device).long()
        self.retain = split.retain.take(sample)
        self.forget = split.forget
        self.held_out = problem.held_out("val", device)
        self.names = metrics.AVG_GAP_NATMU[problem.request.whole_class]
        self.reference = reference

    def start(self) -> CurvePoint:
        """Return the point before the first epoch: the original model, whose scores are known."""
        return self._point(0, 0.0, self.reference.original["val"])

    def point(self, model: torch.nn.Module, epoch: int, seconds: float) -> CurvePoint:
        """Evaluate a model after an epoch.

        Args:
            epoch: Number of the epoch, from 1.
            seconds: Time that the method has taken so far.
        """
        retain, forget = outputs(model, self.retain), outputs(model, self.forget)
        scores = few_scores(retain, forget, outputs(model, *self.held_out))
        return self._point(epoch, seconds, scores)

    def _point(self, epoch: int, seconds: float, scores: Mapping[str, float]) -> CurvePoint:
        shown = ("acc_retain", "acc_forget", "acc_test", "acc_test_retain")
        return {
            "epoch": epoch,
            "seconds": seconds,
            **{name: scores[name] for name in shown if name in scores},
            "avg_gap_natmu": metrics.mean_gap(scores, self.reference.retrain["val"], self.names),
        }


def kept_accuracy(point: CurvePoint) -> float:
    """Return the accuracy on held-out data that the model should keep."""
    return point.get("acc_test_retain", point["acc_test"])


def collapsed(curve: Sequence[CurvePoint], num_classes: int) -> bool:
    """Return whether the last evaluations were all near chance; the one before the first epoch does not count."""
    last = curve[1:][-PATIENCE:]
    near_chance = COLLAPSED / num_classes
    return len(last) == PATIENCE and all(kept_accuracy(point) < near_chance for point in last)
