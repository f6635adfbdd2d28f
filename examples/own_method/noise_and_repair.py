"""Noise and repair: add noise to all weights, then train on the retained data.

Paper: none; an example.
Reference: none.
Differs: nothing to differ from.
Cost: epochs passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mu.knobs import Count, NonNegative, Positive
from mu.split import Split
from mu.training import Hyperparameters, fit

NEEDS = ("retain",)
IMPAIRS_FIRST = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    noise: NonNegative = 0.3,
    epochs: Count = 5,
    lr: Positive = 0.02,
    batch_size: Count = 64,
) -> Iterator[None]:
    """Disturb the weights, then descend on the retained data; yields after each epoch.

    Args:
        noise: Standard deviation of the noise, as a share of that of each weight tensor; 0 only trains on.
    """
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # biases and normalisation follow in the repair
                draws = torch.randn(
                    weight.shape, generator=generator
                )  # on the CPU, as the generator is
                weight += noise * weight.std() * draws.to(weight.device)
    repair = Hyperparameters(epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=5e-4)
    yield from fit(model, split.retain, generator, repair)
