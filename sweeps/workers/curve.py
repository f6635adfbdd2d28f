"""The curve of a trial: a few metrics after each epoch, and the rule that stops a model that has collapsed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mu import metrics
from mu.evaluate import Outputs, few_scores, outputs, score
from mu.metrics import closeness
from mu.problem import Problem
from mu.selection import kept_accuracy
from mu.split import Split
from sweeps.study.search import Search
from sweeps.workers.scores import ReferenceScores

CURVE_RETAIN = 1000
"""Most retained samples used for the per-epoch curve; final metrics always use all of them."""
COLLAPSED = 1.5
"""A model has collapsed when its accuracy on held-out data it should keep is below this multiple of chance..."""
PATIENCE = 2
"""...at this many evaluations in a row, unless the method impairs first and repairs later. A trial that ends after fewer is
judged by those that it has: of a method of one step, by its only one."""

CurvePoint = dict[str, float]


@dataclass(frozen=True)
class CurveObjective:
    """The objective of a study, as curves show it. Retained samples beyond ``CURVE_RETAIN`` are left out of it.

    Args:
        name: One of ``sweeps.study.search.CURVE_OBJECTIVES``.
        mean_gap: The metrics of the objective `mean_gap`.
    """

    name: str
    mean_gap: tuple[str, ...] = ()


def objective_of(search: Search) -> CurveObjective | None:
    """Return what curves have to show for ``asha``; None without it."""
    if search.early_stop != "asha":
        return None
    return CurveObjective(search.objective[0], tuple(search.mean_gap))


class CurveEvaluator:
    """An evaluation on the `val` view between epochs. Its time is never billed to the method.

    Args:
        problem, split: What is forgotten.
        reference: Scores to compare with.
        device: Where the model is.
        objective: A metric that every point has as well.
    """

    def __init__(
        self,
        problem: Problem,
        split: Split,
        reference: ReferenceScores,
        device: str,
        objective: CurveObjective | None = None,
    ):
        self.retain, count = split.retain, len(split.retain)
        self.shows_whole_retain = count <= CURVE_RETAIN
        if not self.shows_whole_retain:
            sample = torch.linspace(0, count - 1, CURVE_RETAIN, device=split.device).long()
            self.retain = split.retain.take(sample)
        self.forget = split.forget
        self.held_out = problem.held_out("val", device)
        self.reference = reference
        self.gaps = {"avg_gap_natmu": metrics.AVG_GAP_NATMU[problem.request.splits_held_out]}
        self.objective = objective
        self._weights: list[torch.Tensor] = []
        self._outputs: dict[str, Outputs] = {}
        if objective is not None and objective.name == "delta_acc_forget":
            self.gaps[objective.name] = ("acc_forget",)
        elif objective is not None and objective.name == "mean_gap":
            self.gaps[objective.name] = objective.mean_gap

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
        held_out = outputs(model, *self.held_out)
        self._weights = [value.clone() for value in model.state_dict().values()]
        self._outputs = {"retain": retain, "forget": forget, "val": held_out}
        scores = few_scores(retain, forget, held_out)
        if self.objective is not None:
            scores |= self._more_scores(retain, forget, held_out, scores.keys())
        return self._point(epoch, seconds, scores)

    def known(self, model: torch.nn.Module) -> dict[str, Outputs]:
        """Return outputs of the last point that are this model's as well, by set: most methods end with their last epoch.

        Equal weights are not enough, as a method may have taken a hook off: D_f passes through the model again, and has to give
        the same, bit for bit.
        """
        weights = list(model.state_dict().values())
        same = len(self._weights) == len(weights) and all(map(torch.equal, self._weights, weights))
        if not same:
            return {}
        forget = outputs(model, self.forget)
        if not np.array_equal(forget.logits, self._outputs["forget"].logits):
            return {"forget": forget}
        left_out = () if self.shows_whole_retain else ("retain",)
        return {name: of for name, of in self._outputs.items() if name not in left_out}

    def _more_scores(
        self, retain: Outputs, forget: Outputs, held_out: Outputs, known: Collection[str]
    ) -> dict[str, float]:
        """Return what the objective needs beyond the scores of every curve."""
        assert self.objective is not None
        if self.objective.name == "activation_distance":
            assert self.reference.retrain_logits is not None
            distance = metrics.activation_distance(forget.logits, self.reference.retrain_logits)
            return {"activation_distance": distance}
        if self.objective.name == "rf_jsd":
            unseen = self.reference.class_means["val"]
            return {"rf_jsd": closeness.rf_jsd(forget.logits, forget.labels, unseen)}
        needed = set(self.objective.mean_gap) - set(known)
        scores = {}
        if "zrf" in needed:
            scores["zrf"] = closeness.zrf(forget.logits, self.reference.untrained_logits)
        if needed - {"zrf"}:
            scores |= score(retain, forget, held_out)
        return scores

    def _point(self, epoch: int, seconds: float, scores: Mapping[str, float]) -> CurvePoint:
        shown = ["acc_retain", "acc_forget", "acc_test", "acc_test_retain"]
        if self.objective is not None and self.objective.name not in self.gaps:
            shown.append(self.objective.name)
        retrain = self.reference.retrain.get("val")
        gaps = {} if retrain is None else self.gaps
        return {
            "epoch": epoch,
            "seconds": seconds,
            **{name: scores[name] for name in shown if name in scores},
            **{name: metrics.mean_gap(scores, retrain or {}, of) for name, of in gaps.items()},
        }


def collapsed(curve: Sequence[CurvePoint], num_classes: int, ended: bool = False) -> bool:
    """Return whether the last evaluations were all near chance; the one before the first epoch does not count.

    Args:
        ended: Whether there will be no further evaluation, so that fewer than ``PATIENCE`` are enough.
    """
    last = curve[1:][-PATIENCE:]
    enough = len(last) == PATIENCE or (ended and bool(last))
    near_chance = COLLAPSED / num_classes
    return enough and all(kept_accuracy(point) < near_chance for point in last)
