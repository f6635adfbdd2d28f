"""Requests that a model decides: which samples it learns last, and which give away most that it saw them.

A training run scores every training sample; the largest scores are selected. The run depends on data, model, recipe
and the request's `draw`, never on a study's seeds, so that every seed forgets the same samples.
"""

from __future__ import annotations

from itertools import islice
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mu.device import place
from mu.evaluate import predict
from mu.keys import content_key
from mu.metrics import entropy, log_softmax, usable
from mu.metrics.logistic import fit_logistic
from mu.problem import Problem, Weights

RANKING_VERSION = 1
"""Raise when a change here changes the scores of the same model."""


def early_epochs(problem: Problem) -> int:
    """Return how many epochs decide which samples are hard: the request's, or a fifth of the recipe's, rounded up.

    Raises:
        ValueError: The recipe has fewer.
    """
    trained = problem.recipe.epochs
    asked = problem.request.epochs
    if asked is not None and asked > trained:
        raise ValueError(f"`epochs` must be at most {trained}, those of training, but got {asked}")
    return asked or ceil(trained / 5)


def ranking_key(problem: Problem) -> str:
    """Return the content key of a ranked problem's scores."""
    kind = problem.request.kind
    epochs = early_epochs(problem) if kind == "hardest" else None
    return content_key("ranking", RANKING_VERSION, problem.reference_key("original"), kind, epochs)


def rank(
    problem: Problem, original: Weights | None = None, device: str = "cpu"
) -> NDArray[np.float64]:
    """Score every training sample of a problem with a ranked request: float64 [N].

    Args:
        original: Weights of its original model; `worst_case` needs them, `hardest` trains by itself.

    Raises:
        ValueError: The model diverged.
    """
    if problem.request.kind == "hardest":
        scores = -_mean_probability(problem, device)
    else:
        assert original is not None
        scores = _membership(problem, original, device)
    if not np.isfinite(scores).all():
        raise ValueError("the model that is to rank the samples diverged; lower training.lr")
    return scores


def _mean_probability(problem: Problem, device: str) -> NDArray[np.float64]:
    """Return the mean over the early epochs of the probability of each sample's own class, taken after each of them."""
    part = problem.data.parts["train"]
    examples = part.examples(device)
    model = place(problem.build(), device)
    epochs = early_epochs(problem)
    total = np.zeros(len(part))
    for _ in islice(problem.train("original", model, device), epochs):
        logp = log_softmax(predict(model, examples))
        total += np.exp(logp[np.arange(len(part)), part.labels])
    return total / epochs


def _membership(problem: Problem, original: Weights, device: str) -> NDArray[np.float64]:
    """Return the probability of having been trained on, by the entropy attack on the original model (JiT Table 6).

    Differs: JiT fits its attack on test samples; here it is `val`, because which samples are forgotten may not
    depend on what only the report looks at.
    """
    model = place(problem.load(original), device)
    inside, outside = (
        entropy(predict(model, problem.data.parts[part].examples(device)))
        for part in ("train", "val")
    )
    if not usable(inside, outside):
        return np.full(len(inside), np.nan)
    from scipy.special import expit  # half a second that only this request pays for

    attack = fit_logistic(inside, outside)
    return expit(attack.slope * inside + attack.intercept)
