"""Amnesiac: give forgotten samples random other labels, once, and train on them with the retained data.

Paper: Graves et al., AAAI 2021, the label-based variant; NatMU (arXiv:2405.15495) section 3.
Reference: NatMU `ZhengbaoHe/NatMU` f7b977e; SSD `if-loops/selective-synaptic-dampening` cdfdc0e (Adam 1e-4).
Differs: labels are uniform over the other classes, as the papers say; NatMU's class-wise code draws them in
    proportion to the retained labels, which `labels="retain"` reproduces. The paper's weight decay of 0 is
    the default; its scripts use 8e-5 to 8e-4.
Cost: epochs passes over D.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu.data import concat
from mu.knobs import Count, NonNegative, Positive
from mu.models import reinitialize_head
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

NEEDS = ("retain", "forget")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 1e-4,
    weight_decay: NonNegative = 0.0,
    batch_size: Count = 128,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "cosine",
    labels: Literal["uniform", "retain"] = "uniform",
    augment: bool = False,
    reinit_head: bool = False,
) -> Iterator[None]:
    """Train on retained and relabelled forgotten data, shuffled together; yield after each epoch."""
    counts = torch.ones(split.num_classes)
    if labels == "retain":
        counts = torch.bincount(split.retain.labels.cpu(), minlength=split.num_classes).float()
    relabelled = split.forget.relabelled(other_labels(split.forget.labels, counts, generator))
    split.diagnostics.instances = relabelled
    if reinit_head:
        reinitialize_head(model, generator)
    yield from fit(
        model,
        concat(split.retain, relabelled),
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        augment=split.augment if augment else None,
    )


def other_labels(labels: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw for each label another one, never itself, in proportion to `weights`.

    Args:
        labels: int64 [N].
        weights: float [K], not negative; equal weights are uniform over the K - 1 other classes.
    """
    odds = weights.repeat(len(labels), 1)
    odds[torch.arange(len(labels)), labels.cpu()] = 0
    return torch.multinomial(odds, 1, generator=generator)[:, 0].to(labels.device)
