"""IU, influence unlearning: one Newton-like step that undoes what the forgotten data did to the weights.

Paper: Izzo et al., AISTATS 2021, and Koh & Liang, ICML 2017, with the inverse of WoodFisher (Singh & Alistarh,
    NeurIPS 2020), as in Jia et al., NeurIPS 2023 (arXiv:2304.04934).
Reference: `OPTML-Group/Unlearn-Sparse` 80ba55d (`Wfisher`).
Differs: the code's recursion never applies the inverse to the gradients it adds, so that what comes out is the
    plain gradient v plus a multiple of the first sample's: in effect a first-order step, and what all published
    alphas refer to. The default solves (damping + mean of g g^T) x = v exactly, with a matrix of samples x samples
    instead of samples x weights in memory; `first_order_official` reproduces the code.
Cost: 1 pass over D + the single gradients of its samples, twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mu.data import Examples
from mu.gradients import batch_gradients, chunks, sample_gradients, unflatten, weighted_gradient
from mu.knobs import Count, Positive
from mu.methods.fisher import subset
from mu.split import Split

NEEDS = ("retain", "forget")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    alpha: Positive = 1.0,
    damping: Positive = 1.0,
    samples: Count = 1000,
    first_order_official: bool = False,
) -> Iterator[None]:
    """Move the weights once, by alpha * F^-1 v; yield once.

    Args:
        alpha: Size of the step; 1 is what the influence function says.
        damping: Added to the diagonal of F; 1 in the official code. Not used by `first_order_official`.
        samples: Retained samples, drawn once, that make up F; for `first_order_official` also its constant N.
    """
    statistics = split.cached(
        ("influence", samples), lambda draws: measure(model, split, samples, draws)
    )
    if first_order_official:
        damping, coefficients = 1.0, official_coefficients(statistics, samples)
    else:
        coefficients = exact_coefficients(statistics, damping)
    correction = combined_gradient(model, statistics.examples, coefficients)
    step = (statistics.direction - correction) * (alpha / damping)
    with torch.no_grad():
        for weight, change in zip(model.parameters(), unflatten(step, model)):
            weight.add_(change)
    yield


@dataclass(frozen=True)
class GradientStatistics:
    """What the step needs of the gradients of n retained samples, G [n, P].

    Args:
        examples: The samples.
        direction: v = (1 / N) sum over D_f of gradients - |D_f| / (N |D_r|) sum over D_r, N = |D|: [P].
        products: G G^T, float64 [n, n].
        projections: G v, float64 [n].
    """

    examples: Examples
    direction: Tensor
    products: Tensor
    projections: Tensor


def measure(
    model: nn.Module, split: Split, samples: int, draws: torch.Generator
) -> GradientStatistics:
    """Pass once over D, and take the gradients of single samples, recomputed for each pair of chunks."""
    n_retain, n_forget = len(split.retain), len(split.forget)
    forget, retain = (total_gradient(model, part) for part in (split.forget, split.retain))
    direction = (forget - retain * (n_forget / n_retain)) / (n_forget + n_retain)
    examples = subset(split.retain, samples, draws)
    parts = chunks(model, len(examples))
    products = torch.zeros((len(examples), len(examples)), dtype=torch.float64)
    projections = torch.zeros(len(examples), dtype=torch.float64)
    for i, rows in enumerate(parts):
        left = sample_gradients(model, examples.take(rows.to(examples.device)))
        projections[rows] = (left @ direction).double().cpu()
        for j in range(i, len(parts)):
            columns = parts[j]
            right = left
            if j > i:
                right = sample_gradients(model, examples.take(columns.to(examples.device)))
            block = (left @ right.T).double().cpu()
            products[rows[:, None], columns] = block
            products[columns[:, None], rows] = block.T
    return GradientStatistics(examples, direction, products, projections)


def total_gradient(model: nn.Module, examples: Examples, batch_size: int = 256) -> Tensor:
    """Return the sum over a set of its samples' gradients, in eval mode: [P]."""
    total = torch.zeros((), device=examples.device)
    for count, gradient in batch_gradients(model, examples, batch_size):
        total = total + count * gradient
    return total


def combined_gradient(
    model: nn.Module, examples: Examples, coefficients: Tensor, batch_size: int = 256
) -> Tensor:
    """Return sum_i coefficients_i * gradient of sample i: [P]."""
    total = torch.zeros((), device=examples.device)
    for index in torch.arange(len(examples)).split(batch_size):
        inputs, labels = examples.batch(index.to(examples.device))
        total = total + weighted_gradient(model, inputs, labels, coefficients[index])
    return total


def exact_coefficients(statistics: GradientStatistics, damping: float) -> Tensor:
    """Return c with (damping + G^T G / n)^-1 v = (v - G^T c) / damping: float64 [n]."""
    count = len(statistics.projections)
    system = statistics.products + damping * count * torch.eye(count, dtype=torch.float64)
    return torch.linalg.solve(system, statistics.projections)


def official_coefficients(statistics: GradientStatistics, constant: int) -> Tensor:
    """Return c with the official function's result = v - G^T c; all but the first are zero: float64 [n].

    It keeps a multiple o of the first sample's gradient and, for every further sample g, takes
    (x . g) / (N + o . g) * o from the result x and (o . g) / (N + o . g) * o from o.
    """
    taken, scale = 0.0, 1.0
    for along_first, projection in zip(
        statistics.products[0, 1:].tolist(), statistics.projections[1:].tolist()
    ):
        overlap = scale * along_first
        taken += scale * (projection - taken * along_first) / (constant + overlap)
        scale -= scale * overlap / (constant + overlap)
    coefficients = torch.zeros_like(statistics.projections)
    coefficients[0] = taken
    return coefficients
