"""SFRon: ascend on forgotten data in the weights that matter to it, and let steps on retained data lead back. 

Paper: Huang et al., NeurIPS 2024 (arXiv:2409.19732).
Reference: `K1nght/Unified-Unlearning-w-Remain-Geometry` 1837bf6 (`Classification/unlearn/sfron.py`).
Differs: TODO
Cost: 1 pass over D for the saliency + epochs passes over D_r + epochs / (retain_steps |D_f| / |D_r|) of D_f.
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


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 0.01,
    forget_weight: NonNegative = 25.0,
    adaptive: NonNegative = 0.5,
    threshold: NonNegative = 1.0,
    retain_steps: Count = 5,
    slow: Fraction = 1.0,
    clip_norm: Positive = 7.0,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    forget_batch_size: Count = 128,
    optimizer: Optimizer = "sgd",
) -> Iterator[None]:
    """Take a masked step up on forgotten data before every few steps down on retained data; yield after each epoch."""
    masks = unflatten(
        split.cached(
            ("fisher ratio", batch_size), lambda draws: fisher_ratio(model, split, batch_size)
        ) >= threshold,
        model,
    )
    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    forgotten = Cycle(len(split.forget), forget_batch_size, generator, split.device)
    per_epoch = sum(1 for _ in batches(len(split.retain), batch_size))
    anchor = [weight.detach().clone() for weight in model.parameters()]
    for epoch in resumable(epochs, generator, model, stepper, forgotten):
        model.train()
        step = epoch * per_epoch
        for index in batches(len(split.retain), batch_size, generator, split.device):
            factor = (1 + math.cos(math.pi * step / (epochs * per_epoch))) / 2
            set_lr(stepper, lr * factor)
            if step % retain_steps == 0:
                inputs, labels = split.forget.batch(next(forgotten))
                ascent = adaptive_loss(model(inputs), labels, adaptive)
                stepper.zero_grad(set_to_none=True)
                (-forget_weight * factor * ascent).backward()
                for weight, mask in zip(model.parameters(), masks):
                    if weight.grad is not None:
                        weight.grad.mul_(mask)
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
                stepper.step()
            inputs, labels = split.retain.batch(index)
            stepper.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), labels).backward()
            stepper.step()
            step += 1
        yield


def adaptive_loss(logits, labels, power):
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = 1 / (losses.detach() ** power + TINY)
    return (weights / weights.sum() * losses).sum()


def fisher_ratio(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    (forgotten, count), (retained, total) = (squares(model, part, batch_size) for part in (split.forget, split.retain))
    return (forgotten / count + TINY) / (retained / total + TINY)
