"""CF-k: fine-tune the last k layers on the retained data and let them forget by themselves.

Paper: Goel et al., arXiv:2201.06640.
Reference: `shash42/Evaluating-Inexact-Unlearning` a45fe02 (`src/methods.py`); settings of `meghdadk/SCRUB` 98ffb11
    (10 epochs of SGD at 0.01, batches of 64).
Differs: Goel fine-tunes for 30 epochs with warm restarts. With all layers this is ``finetune``.
Cost: epochs passes over D_r, backward through the last k layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.methods.eu_k import last_layers, train_only
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule

NEEDS = ("retain",)
STEADY = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    k: Count = 3,
    lr: Positive = 0.01,
    momentum: Momentum = 0.0,
    weight_decay: NonNegative = 0.0,
    batch_size: Count = 64,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "constant",
    augment: bool = True,
    frozen_statistics: bool = False,
) -> Iterator[None]:
    """Train the last k layers on the retained data; yield after each epoch.

    Args:
        k: Convolutions and linear layers to fine-tune, the head being the first; all where there are fewer.
        frozen_statistics: Whether batch norm of frozen layers keeps its running statistics, and uses them.
    """
    yield from train_only(
        model,
        last_layers(model, k),
        split,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        augment=augment,
        frozen_statistics=frozen_statistics,
    )
