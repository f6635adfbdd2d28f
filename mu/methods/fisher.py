"""FF, Fisher forgetting: add noise to the weights, the more the less the retained data depend on them.

Paper: Golatkar et al., CVPR 2020 (arXiv:1911.04933).
Reference: `AdityaGolatkar/SelectiveForgetting` 4c02825; SSD `if-loops/selective-synaptic-dampening` cdfdc0e, whose
    class and random variants differ: here the first is used where a whole class goes, else the second.
Differs: the head is the last linear layer, not every tensor whose first dimension is the number of classes. The
    Fisher diagonal is of single samples and expected labels; Unlearn-Sparse squares gradients of whole batches,
    and Unlearn-Saliency takes the true label. It costs a backward pass for each class of each sample:
    `samples` limits it to a random subset of the retained data.
Cost: K backward passes for each sample of D_r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mu.data import Examples
from mu.device import upload
from mu.gradients import Pull, chunks, per_sample, unflatten
from mu.knobs import Count, Positive
from mu.models import head
from mu.split import Split

NEEDS = ("retain",)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    alpha: Positive = 1e-6,
    samples: Count | None = None,
    limit: Positive = 1e3,
    head_limit: Positive = 1e2,
    boost: Positive = 10.0,
    class_variance: Positive = 1e-4,
) -> Iterator[None]:
    """Replace every weight by a draw from a normal distribution around it; yield once.

    Args:
        alpha: Variance of the noise on a weight with Fisher information 1.
        samples: Retained samples that the information is measured on, drawn once; None is all.
        limit: Largest inverse information of a weight.
        head_limit: The same in the head.
        boost: Multiplies the variance of biases and batch norm and, where a class goes, of the head.
        class_variance: Variance in the forgotten class's row of the head, before the boost; its mean is 0.
    """
    information = split.cached(
        ("fisher", samples),
        lambda draws: fisher_diagonal(model, subset(split.retain, samples, draws)),
    )
    means, deviations = noise(
        model,
        unflatten(information, model),
        alpha,
        forgotten_class(split),
        limit=limit,
        head_limit=head_limit,
        boost=boost,
        class_variance=class_variance,
    )
    with torch.no_grad():
        for weight, mean, deviation in zip(model.parameters(), means, deviations):
            drawn = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(mean + deviation * upload(drawn, weight.device))
    yield


def subset(examples: Examples, count: int | None, draws: torch.Generator) -> Examples:
    """Return `count` random examples, or all in their order where there are no more."""
    if count is None or count >= len(examples):
        return examples
    return examples.take(torch.randperm(len(examples), generator=draws)[:count].to(examples.device))


def forgotten_class(split: Split) -> int | None:
    """Return the class of which nothing is retained; None for a sub-class, whose label others share."""
    label = split.forget_class
    return None if label is None or bool((split.retain.labels == label).any()) else label


def fisher_diagonal(model: nn.Module, examples: Examples) -> Tensor:
    """Return the mean over samples x of sum_y p(y | x) * (d CE(x, y) / d weight)^2, in eval mode: [P]."""

    def squares(logits: Tensor, label: Tensor, pull: Pull) -> Tensor:
        likely = logits.softmax(0)
        total = torch.zeros((), dtype=likely.dtype, device=likely.device)
        for onehot, share in zip(torch.eye(len(logits)).to(likely), likely):
            gradient = pull(likely - onehot)
            total = torch.addcmul(total, share * gradient, gradient)
        return total

    total = torch.zeros((), device=examples.device)
    for index in chunks(model, len(examples)):
        total = total + per_sample(model, examples.take(index.to(examples.device)), squares).sum(0)
    return total / len(examples)


def noise(
    model: nn.Module,
    information: list[Tensor],
    alpha: float,
    forgotten: int | None,
    *,
    limit: float = 1e3,
    head_limit: float = 1e2,
    boost: float = 10.0,
    class_variance: float = 1e-4,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the mean and standard deviation of the new weights, in their shapes.

    Args:
        information: Fisher diagonal, in the shapes of the weights.
        forgotten: Class whose row of the head starts from zero; None leaves the head like other layers.
    """
    last = head(model)
    in_head = {id(weight) for weight in last.parameters()}
    means, deviations = [], []
    for weight, fisher in zip(model.parameters(), information):
        is_head = id(weight) in in_head
        mean = weight.detach().clone()
        largest = head_limit if is_head else limit
        variance = alpha * (1 / (fisher + 1e-8)).clamp(max=largest)
        if weight.ndim > 1:
            variance = variance.mean(1, keepdim=True).expand_as(weight).clone()
        if is_head and forgotten is not None:
            mean[forgotten], variance[forgotten] = 0.0, class_variance
        if weight.ndim == 1 or (is_head and forgotten is not None):
            variance = boost * variance
        means.append(mean)
        deviations.append(variance.sqrt())
    return means, deviations
