"""UGradSL+: descend on retained data while ascending on forgotten data with negatively smoothed labels.

Paper: UGradSL, ICLR 2026 submission, Eqs. 6 and 8, Algorithm 1.
Reference: none obtainable; the snippet printed in appendix D.4 counts neighbours over the wrong axis.
Differs: Eq. 8 sums over batches, while the stated learning rate of 0.01 is for mean losses: the mean is the
    default (`reduction="sum"` for the letter). Adaptive smoothing is negative, which is what the paper's
    tables 7 and 16 show (`adaptive_sign`: `literal` as in the text, `complement` as in its intuition). The
    loop runs all epochs; Algorithm 1 stops one short. Each set is normalised by its own batch, but only retained
    batches move the running statistics of batch norm; the paper does not say. With both (`norm="both"`) half of
    what they hold is forgotten data, which a model in use does not meet: 5,000 images of CIFAR-10, one class, three
    epochs in batches of 64 leave retain accuracy 80 at 56, without them at 65, and one joint pass at 45. Epochs are
    those of Table 19, batches of 256 those of Table 8: on CIFAR-10 1,760 steps, where batches of 64, which
    appendix D.4 calls typical, make 7,030.
Cost: epochs x 2 |D_r| samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import batches
from mu.data.passes import Stream
from mu.knobs import Bounds, Count, Fraction, Momentum, NonNegative, Positive, UnitInterval
from mu.models import batch_norms, logits_and_features
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Hyperparameters, make_optimizer

NEEDS = ("retain", "forget")
Distance = Literal["cosine", "euclidean"]
Sign = Literal["negative", "literal", "complement"]
Reduction = Literal["mean", "sum"]
Norm = Literal["retain", "both"]


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    p: UnitInterval = 0.9,
    alpha: Annotated[float, Bounds(high=1)] = -0.4,
    lr: Positive = 0.01,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 256,
    adaptive: bool = False,
    beta: Fraction | None = None,
    distance: Distance = "cosine",
    adaptive_sign: Sign = "negative",
    reduction: Reduction = "mean",
    norm: Norm = "retain",
) -> Iterator[None]:
    """Pass once an epoch over the retained data and cycle the forgotten; yield after each epoch.

    Args:
        p: Weight of descent on retained data; 1 - p weighs ascent on forgotten data.
        alpha: Smoothing rate; the more negative, the further labels are pushed past one-hot. Unused if
            `adaptive`.
        batch_size: Samples of each set in a step.
        adaptive: Choose alpha for each forgotten sample from its density among retained features.
        beta: Distance below which a retained sample is a neighbour; None is the median of the batch.
        norm: Which batches move the running statistics of batch norm: the retained, or both.
    """
    yield from descend_and_ascend(
        model,
        split,
        generator,
        iterate="retain",
        hyperparameters=Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        objective=Objective(
            p=p,
            alpha=alpha,
            adaptive=adaptive,
            beta=beta,
            distance=distance,
            adaptive_sign=adaptive_sign,
            reduction=reduction,
            norm=norm,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The knobs of ``unlearn`` that define what a step minimises."""

    p: float
    alpha: float
    adaptive: bool
    beta: float | None
    distance: Distance
    adaptive_sign: Sign
    reduction: Reduction
    norm: Norm


def descend_and_ascend(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    iterate: Literal["retain", "forget"],
    hyperparameters: Hyperparameters,
    objective: Objective,
) -> Iterator[None]:
    """Run Algorithm 1 with SGD; yield after each epoch.

    Args:
        iterate: The set that an epoch passes over once; the other is cycled.
        hyperparameters: How long and how fast to train; its `batch_size` is of each set.
        objective: What a step minimises.
    """
    p, alpha, beta = objective.p, objective.alpha, objective.beta
    if not objective.adaptive:
        split.diagnostics.label_weights = (p, 1 - p, alpha)
    optimizer = make_optimizer(
        model,
        hyperparameters.optimizer,
        hyperparameters.lr,
        hyperparameters.momentum,
        hyperparameters.weight_decay,
    )
    epochs, batch_size = hyperparameters.epochs, hyperparameters.batch_size
    sets = {"retain": split.retain, "forget": split.forget}
    cycled = len(sets["forget" if iterate == "retain" else "retain"])
    followed = Stream(cycled, generator, split.device)
    for _ in resumable(epochs, generator, model, optimizer, followed):
        model.train()
        for led in batches(len(sets[iterate]), batch_size, generator, split.device):
            index = {name: led if name == iterate else followed.take(len(led)) for name in sets}
            (retain, retain_labels), (forget, forget_labels) = (
                part.batch(index[name]) for name, part in sets.items()
            )
            size = len(led)
            optimizer.zero_grad()
            retain_logits, retain_features = logits_and_features(model, retain)
            with nullcontext() if objective.norm == "both" else statistics_kept(model):
                forget_logits, forget_features = logits_and_features(model, forget)
            rate = torch.full((size,), alpha, device=split.device)
            if objective.adaptive:
                how = objective.distance, objective.adaptive_sign
                rate = adaptive_alpha(forget_features, retain_features, beta, *how)
            outputs = retain_logits, retain_labels, forget_logits, forget_labels
            ugradsl_loss(*outputs, p, rate, objective.reduction).backward()
            optimizer.step()
        yield


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Have batch norm in train mode leave its running statistics as they are; batches are normalised as always."""
    layers = [layer for layer in batch_norms(model).values() if layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def smoothed_labels(labels: Tensor, num_classes: int, alpha: Tensor) -> Tensor:
    """Smooth labels (Eq. 6): return (1 - alpha) e_y + alpha / K, with alpha [B] <= 1: [B, K].

    Negative alpha puts more than one on the label and less than zero on the others; rows sum to one.
    """
    onehot = F.one_hot(labels, num_classes).to(alpha.dtype)
    return (1 - alpha)[:, None] * onehot + alpha[:, None] / num_classes


def ugradsl_loss(
    retain_logits: Tensor,
    retain_labels: Tensor,
    forget_logits: Tensor,
    forget_labels: Tensor,
    p: float,
    alpha: Tensor,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return Eq. 8, to be minimised: p * CE(retain) - (1 - p) * CE(forget, smoothed by alpha [B]); a scalar."""
    labels = smoothed_labels(forget_labels, forget_logits.shape[1], alpha.to(forget_logits.dtype))
    ascent = -(labels * F.log_softmax(forget_logits, dim=1)).sum(1)
    descent = F.cross_entropy(retain_logits, retain_labels, reduction="none")
    if reduction == "sum":
        return p * descent.sum() - (1 - p) * ascent.sum()
    return p * descent.mean() - (1 - p) * ascent.mean()


@torch.no_grad()
def adaptive_alpha(
    forget_features: Tensor,
    retain_features: Tensor,
    beta: float | None = None,
    distance: Distance = "cosine",
    sign: Sign = "negative",
) -> Tensor:
    """Return the smoothing rate of each forgotten sample from its share of retained neighbours (Algorithm 1): [B_f].

    Args:
        forget_features: Penultimate activations [B_f, D].
        retain_features: [B_r, D].
        beta: Distance, in [0, 1], below which a retained sample is a neighbour; None takes the median of
            all pairs (the mean of the two middle ones).
        distance: `cosine` is (1 - cos) / 2; `euclidean` is half the distance of normalised features.
        sign: `negative` is -share, `literal` is +share, `complement` is -(1 - share).
    """
    cosine = F.normalize(forget_features, dim=1) @ F.normalize(retain_features, dim=1).T
    apart = ((1 - cosine) / 2).clamp(min=0)
    if distance == "euclidean":
        apart = apart.sqrt()
    threshold = apart.flatten().quantile(0.5) if beta is None else beta
    share = (apart < threshold).to(apart.dtype).mean(1)
    return {"negative": -share, "literal": share, "complement": share - 1}[sign]
