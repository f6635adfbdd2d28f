"""NatMU-NRI: NatMU whose instances hold no retained image: the masked forgotten image, wrongly labelled.

Paper: He et al., arXiv:2405.15495, ablation of section 4.3, Eq. A3.
Reference: `ZhengbaoHe/NatMU` f7b977e; the ablation itself is not in the code.
Differs: as ``natmu``. The retained images still give the labels, so that both methods train on the same ones.
Cost: as natmu.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from mu.knobs import Bounds, Count, CountOrZero, NonNegative, Positive
from mu.methods.natmu import finetune_on_instances, masked, weight_masks
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule

NEEDS = ("retain", "forget", "original")


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("masks parts of images")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 4e-4,
    weight_decay: NonNegative = 5e-4,
    delta: Annotated[float, Bounds(-1, 1)] = 0.0,
    batch_size: Count = 128,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "cosine",
    masks: Literal["paper", "code"] = "paper",
    pad: CountOrZero = 2,
    reinit_head: bool | None = None,
) -> Iterator[None]:
    """Fine-tune on retained data and four masked copies of every forgotten sample; yield after each epoch.

    Args:
        delta: Added to every mask before clipping to [0, 1]: 1 keeps the forgotten image whole, -1 blackens it.
        pad: Pixels of the random crop, where the training recipe crops; never applied to masked images.
        reinit_head: Whether the head is redrawn first; None where a whole class or sub-class is forgotten.
    """

    def bare(forget: Tensor) -> Tensor:
        return masked(forget, weight_masks(forget.shape[-2:], delta, masks).to(forget.device))

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
        blend=lambda forget, retain: bare(forget),
        bare=bare,
        pad=pad,
        reinit_head=reinit_head,
    )
