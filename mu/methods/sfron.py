"""SFRon: ascend on forgotten data in the weights that matter to them, and come back by steps on retained data.

Paper: Huang et al., Unified Gradient-Based Machine Unlearning with Remain Geometry Enhancement, NeurIPS 2024
    (arXiv:2409.19732).
Reference: `K1nght/Unified-Unlearning-w-Remain-Geometry` 1837bf6 (`Classification/unlearn/sfron.py`).
Differs: an epoch is a pass over D_r, where the code counts 1,500 steps (four epochs of CIFAR-10). The Hessian of the
    retained loss is never formed, in the code as here: the steps on retained data that follow each ascent stand
    for its inverse. Slow weights move by the share `slow` of a step, all of it by default as in the code, which
    makes them the fast ones. Frozen weights keep their momentum and decay in an ascent, as in the code, which has
    `lr` 0.01 and `retain_steps` 5 for 300 ascents; a small set has some ten. The defaults are twice that rate and 2
    for 10 epochs: 0.1 forgets random samples of digits with batch norm, and wrecks a network without. At the
    default the steps on retained data bring random samples back wherever the network generalises.
Cost: 1 pass over D + epochs passes over D_r, and a batch of D_f every `retain_steps` batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import batches
from mu.data.passes import Cycle
from mu.gradients import unflatten
from mu.knobs import Count, Fraction, Momentum, NonNegative, Positive
from mu.methods.ssd import squares
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer, set_lr

NEEDS = ("retain", "forget")
TINY = 1e-15
"""Keeps ratios and powers finite where a gradient or a loss is zero, as in the code."""


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 0.02,
    forget_weight: NonNegative = 25.0,
    adaptivity: NonNegative = 0.5,
    threshold: NonNegative = 1.0,
    retain_steps: Count = 2,
    slow: Fraction = 1.0,
    clip_norm: Positive = 7.0,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    forget_batch_size: Count = 128,
    optimizer: Optimizer = "sgd",
) -> Iterator[None]:
    """Pass over the retained data, with an ascent before every few steps; yield after each epoch.

    Args:
        lr: At the start; it falls to zero along a cosine, and `forget_weight` with it.
        forget_weight: Of the forgotten data's loss, before clipping; alpha in the code.
        adaptivity: A forgotten sample weighs 1 / loss^adaptivity in its batch: 0 weighs all alike. lambda in the paper.
        threshold: Weights ascend whose Fisher information for D_f is at least this multiple of that for D_r; gamma.
        retain_steps: Steps on retained data from one ascent to the next.
        slow: Share of the way of each step, with its ascent, that the weights keep.
        clip_norm: Largest norm of the gradient of an ascent.
    """
    ratio = split.cached(
        ("fisher ratio", batch_size), lambda draws: fisher_ratio(model, split, batch_size)
    )
    masks = unflatten(ratio >= threshold, model)
    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    forgotten = Cycle(len(split.forget), forget_batch_size, generator, split.device)
    per_epoch = sum(1 for _ in batches(len(split.retain), batch_size))
    for epoch in resumable(epochs, generator, model, stepper, forgotten):
        step = epoch * per_epoch
        model.train()
        for index in batches(len(split.retain), batch_size, generator, split.device):
            before = [weight.detach().clone() for weight in model.parameters()] if slow < 1 else []
            factor = (1 + math.cos(math.pi * step / (epochs * per_epoch))) / 2
            set_lr(stepper, lr * factor)
            if step % retain_steps == 0:
                inputs, labels = split.forget.batch(next(forgotten))
                stepper.zero_grad(set_to_none=True)
                loss = adaptive_loss(model(inputs), labels, adaptivity)
                (-forget_weight * factor * loss).backward()
                masked_clipped_step(model, stepper, masks, clip_norm)
            inputs, labels = split.retain.batch(index)
            stepper.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), labels).backward()
            stepper.step()
            with torch.no_grad():
                for weight, old in zip(model.parameters(), before):
                    weight.copy_(old + slow * (weight - old))
            step += 1
        yield


def adaptive_loss(logits: Tensor, labels: Tensor, adaptivity: float) -> Tensor:
    """Return the mean cross-entropy weighted by 1 / loss^adaptivity, whose weights add up to 1; a scalar.

    Args:
        logits: [B, K].
        labels: int64 [B].
        adaptivity: At least 0. Weights pass no gradient on.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = 1 / (losses.detach() ** adaptivity + TINY)
    return (weights / weights.sum() * losses).sum()


def fisher_ratio(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    """Return the diagonal Fisher information for D_f as a multiple of that for D_r, from batch gradients: [P]."""
    forgotten, count = squares(model, split.forget, batch_size)
    retained, total = squares(model, split.retain, batch_size)
    return (forgotten / count + TINY) / (retained / total + TINY)


def masked_clipped_step(
    model: nn.Module, stepper: torch.optim.Optimizer, masks: list[Tensor], clip_norm: float
) -> None:
    """Step with the gradients of unmasked weights dropped and the norm of the others limited."""
    for weight, mask in zip(model.parameters(), masks):
        if weight.grad is not None:
            weight.grad.mul_(mask)
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    stepper.step()
