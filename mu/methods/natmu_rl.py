"""NatMU-RL: NatMU without blending: every forgotten image four times, with its four likeliest wrong labels.

Paper: He et al., arXiv:2405.15495, ablation of section 4.3, Eq. A4.
Reference: `ZhengbaoHe/NatMU` f7b977e, whose default `--delta 1.0` is this ablation.
Differs: as ``natmu``. Appendix D.4 calls the mask a vector of zeros; Eq. A4 keeps the forgotten image, which
    only a mask of ones does.
Cost: as natmu.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mu.knobs import Count, CountOrZero, NonNegative, Positive
from mu.methods.natmu import PATCHES, finetune_on_instances
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule

NEEDS = ("retain", "forget", "original")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 4e-4,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "cosine",
    pad: CountOrZero = 2,
    reinit_head: bool | None = None,
) -> Iterator[None]:
    """Fine-tune on retained data and four relabelled copies of every forgotten sample; yield after each epoch.

    Args:
        pad: Pixels of the random crop, where the training recipe crops; never applied to forgotten images.
        reinit_head: Whether the head is redrawn first; None where a whole class or sub-class is forgotten.
    """
    yield from finetune_on_instances(
        model,
        split,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        blend=lambda forget, retain: repeated(forget),
        bare=repeated,
        pad=pad,
        reinit_head=reinit_head,
    )


def repeated(forget: Tensor) -> Tensor:
    """Return each forgotten image once for each of its labels (Eq. A4): float [4 N, C, H, W]."""
    return forget.repeat_interleave(PATCHES, 0)
