"""GA: ascend on the loss of the forgotten data. Zero-shot.

Paper: Thudi et al., EuroS&P 2022; NegGrad of Golatkar et al., CVPR 2020 (arXiv:1911.04933).
Reference: `OPTML-Group/Unlearn-Sparse` 80ba55d (5 epochs of SGD at 1e-4); NatMU's baseline is SGD at 1e-3 with
    batches of 500.
Differs: nothing in the steps. The objective has no lower bound and soon explodes: nothing is clipped or repaired
    unless `clip_norm` says so, and a run that ends in numbers that are not finite counts as diverged. Batch
    norm has a knob: in train mode, the code's, its statistics drift towards the forgotten data.
Cost: epochs passes over D_f.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer, one_pass

NEEDS = ("forget",)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 1e-4,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 256,
    clip_norm: Positive | None = None,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Ascend in passes over the forgotten data; yield after each epoch.

    Args:
        weight_decay: Pulls weights to zero while the data term ascends.
        clip_norm: Largest norm of a step's whole gradient; None does not clip.
        mode: Of batch norm and dropout while stepping.
    """
    stepper = make_optimizer(model, "sgd", lr, momentum, weight_decay)
    if clip_norm is not None:
        clip_before_steps(stepper, clip_norm)
    for _ in resumable(epochs, generator, model, stepper):
        model.train(mode == "train")
        one_pass(model, stepper, split.forget, generator, batch_size, ascent)
        yield


def ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the mean cross-entropy, so that minimising it ascends."""
    return -F.cross_entropy(logits, labels)


def clip_before_steps(stepper: torch.optim.Optimizer, largest: float) -> None:
    """Scale the whole gradient to a norm of at most `largest` before every step of an optimizer."""

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, largest)

    stepper.register_step_pre_hook(clip)
