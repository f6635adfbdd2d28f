"""Finetune: train on, with the retained data only, and let the model forget by itself.

Paper: Warnecke et al., NDSS 2023, as the baseline of NatMU (arXiv:2405.15495) and SSD (AAAI 2024).
Reference: SSD `if-loops/selective-synaptic-dampening` cdfdc0e (5 epochs of SGD at 0.02, momentum 0.9).
Differs: the head can be redrawn first (`reinit_head`), which NatMU does for class requests; without it a
    forgotten class often stays. NatMU does not state its own learning rate.
Cost: epochs passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.models import reinitialize_head
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

NEEDS = ("retain",)
STEADY = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 0.02,
    weight_decay: NonNegative = 5e-4,
    momentum: Momentum = 0.9,
    batch_size: Count = 128,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "constant",
    augment: bool = False,
    reinit_head: bool = False,
) -> Iterator[None]:
    """Train on the retained data, by default as SSD's baseline; yield after each epoch."""
    if reinit_head:
        reinitialize_head(model, generator)
    yield from fit(
        model,
        split.retain,
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
        augment=split.augment if augment else None,
    )
