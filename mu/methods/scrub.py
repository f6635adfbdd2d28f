"""SCRUB: push away from the original model on forgotten data, stay close to it on retained data.

Paper: Kurmanji et al., NeurIPS 2023 (arXiv:2302.09880).
Reference: `meghdadk/SCRUB` 98ffb11, `thirdparty/repdistiller/helper/loops.py`, and its notebook for CIFAR-10.
Differs: the code's smoothing, `beta`, weight averaging and clipping are arguments without effect and are left out;
    `clip_norm` is JiT's full-class copy's. The teacher answers once, in eval mode, without augmentation. Batch
    norm in the max steps has a knob: in train mode, the code's, its statistics drift towards the forgotten
    data. SCRUB+R is not offered: its rewinding needs held-out labelled data of the forgotten distribution.
Cost: epochs passes over D_r + max_epochs passes over D_f + teacher forwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.knobs import Count, CountOrZero, Fraction, Momentum, NonNegative, Positive
from mu.methods.badteacher import divergence, original_logits
from mu.methods.ga import clip_before_steps
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer, one_pass, set_lr

NEEDS = ("retain", "forget", "original")
MILESTONES = (3, 5, 9)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 3,
    max_epochs: CountOrZero = 2,
    lr: Positive = 5e-4,
    alpha: NonNegative = 0.001,
    gamma: NonNegative = 0.99,
    temperature: Positive = 4.0,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    forget_batch_size: Count = 32,
    optimizer: Optimizer = "sgd",
    decay: Fraction = 0.1,
    clip_norm: Positive | None = None,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Take max steps over the forgotten data, then min steps over the retained; yield after each such epoch.

    Args:
        max_epochs: Epochs that begin with max steps; the rest repair only.
        alpha: Weight of staying close to the teacher in the min steps.
        gamma: Weight of the cross-entropy there.
        forget_batch_size: Sets the number of max steps: the smaller, the more of them.
        decay: Multiplies the learning rate after epochs 3, 5 and 9; 1 keeps it.
        clip_norm: Largest norm of a step's whole gradient; None does not clip.
        mode: Of batch norm and dropout in the max steps.
    """
    retain_teacher = original_logits(model, split, "retain")
    forget = split.forget.relabelled(original_logits(model, split, "forget"))
    # The min steps need labels and teacher both: their examples are labelled with positions.
    labels = split.retain.labels
    retain = split.retain.relabelled(torch.arange(len(labels), device=split.device))

    def max_loss(logits: Tensor, teacher: Tensor) -> Tensor:
        return -distillation(logits, teacher, temperature)

    def min_loss(logits: Tensor, position: Tensor) -> Tensor:
        imitation = distillation(logits, retain_teacher[position], temperature)
        return gamma * F.cross_entropy(logits, labels[position]) + alpha * imitation

    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    if clip_norm is not None:
        clip_before_steps(stepper, clip_norm)
    for epoch in resumable(epochs, generator, model, stepper):
        set_lr(stepper, lr * decay ** sum(epoch >= milestone for milestone in MILESTONES))
        if epoch < max_epochs:
            model.train(mode == "train")
            one_pass(model, stepper, forget, generator, forget_batch_size, max_loss)
        model.train()
        one_pass(model, stepper, retain, generator, batch_size, min_loss)
        yield


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student), the mean over samples, from logits [B, K]; a scalar."""
    return temperature**2 * divergence(student, teacher, temperature)
