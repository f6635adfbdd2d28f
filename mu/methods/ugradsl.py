"""UGradSL: ascend on forgotten data with negatively smoothed labels, descending on as much retained data.

Paper: UGradSL, ICLR 2026 submission, Eqs. 6 and 8, Algorithm 1.
Reference: none obtainable; the snippet printed in appendix D.4 counts neighbours over the wrong axis.
Differs: as ``ugradsl_plus``. Although the paper presents it as a relative of gradient ascent, every step also
    draws retained data, so that it costs twice as much. Batches of 64,
    which appendix D.4 calls typical, and not UGradSL+'s 256, where a small D_f is one step an epoch: on 2,000 images of
    CIFAR-10 ten epochs then leave forget accuracy 94 at 65 (one class) and 89 at 88 (a tenth), and batches of 64
    at 0 and 80. On 5,000 images, one class, 64 costs more: held-out accuracy on the rest falls from 60 to 54, not 61.
Cost: epochs x 2 |D_f| samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import nn

from mu.knobs import Bounds, Count, Fraction, Momentum, NonNegative, Positive, UnitInterval
from mu.methods.ugradsl_plus import (
    Distance,
    Norm,
    Objective,
    Reduction,
    Sign,
    descend_and_ascend,
)
from mu.split import Split
from mu.training import Hyperparameters

NEEDS = ("retain", "forget")
STEADY = True


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
    batch_size: Count = 64,
    adaptive: bool = False,
    beta: Fraction | None = None,
    distance: Distance = "cosine",
    adaptive_sign: Sign = "negative",
    reduction: Reduction = "mean",
    norm: Norm = "retain",
) -> Iterator[None]:
    """Pass once an epoch over the forgotten data, with as many retained samples; yield after each epoch.

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
        iterate="forget",
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
