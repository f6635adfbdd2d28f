"""l1-sparse: fine-tune on the retained data under an l1 penalty that fades out.

Paper: Jia et al., NeurIPS 2023 (arXiv:2304.04934), the sparsity-aware variant.
Reference: `OPTML-Group/Unlearn-Sparse` 80ba55d (`FT_prune`, which prunes nothing).
Differs: nothing. The README's `--alpha 0.2`, which its commands for all methods share, would wipe out the
    network; the default is from the middle of the range that the paper searches.
Cost: epochs passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.knobs import Count, CountOrZero, Momentum, NonNegative, Positive
from mu.split import Split
from mu.training import Hyperparameters, fit

NEEDS = ("retain",)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    gamma: NonNegative = 5e-5,
    free_epochs: CountOrZero = 0,
    lr: Positive = 0.01,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 256,
    augment: bool = True,
) -> Iterator[None]:
    """Train on the retained data under the penalty; yield after each epoch.

    Args:
        gamma: Weight of the sum of all absolute weights, biases and batch-norm scales in the first epoch. Each
            step shrinks every weight by lr * gamma (times 1 / (1 - momentum) in the long run).
        free_epochs: Last epochs without a penalty.
    """
    weight = torch.zeros((), device=split.device)  # what recorded steps read anew each time
    yield from fit(
        model,
        split.retain,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        augment=split.augment if augment else None,
        loss=lambda logits, labels: F.cross_entropy(logits, labels) + weight * l1_norm(model),
        begin=lambda epoch: weight.fill_(penalty(gamma, epoch, epochs, free_epochs)),
    )


def penalty(gamma: float, epoch: int, epochs: int, free_epochs: int) -> float:
    """Return the penalty's weight in a 0-based epoch: it falls linearly from `gamma`, and is 0 in the free epochs."""
    penalized = epochs - free_epochs
    return gamma * (1 - epoch / penalized) if epoch < penalized else 0.0


def l1_norm(model: nn.Module) -> Tensor:
    """Return the sum of the absolute values of all weights, biases and batch-norm parameters; a scalar."""
    return torch.stack([weight.abs().sum() for weight in model.parameters()]).sum()
