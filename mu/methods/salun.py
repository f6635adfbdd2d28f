"""SalUn: train on random labels of the forgotten data, but only the weights that their gradient singles out.

Paper: Fan et al., ICLR 2024 (arXiv:2310.12508).
Reference: `OPTML-Group/Unlearn-Saliency` a6e89fd; NatMU `ZhengbaoHe/NatMU` f7b977e.
Differs: labels are uniform over the other classes and drawn once, as the paper and NatMU have it; the code draws
    them from all classes, anew in each epoch (`labels="any"`, `redraw`). Frozen weights stay what they were, as
    in the paper and the code; NatMU masks gradients only, so that weight decay still shrinks them (`restore`).
    Epochs run over both sets shuffled together, as the code does for CIFAR-100; for CIFAR-10 it takes all
    forgotten samples first (`order`).
Cost: 1 pass over D_f + epochs passes over D.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples, as_float, batches, concat
from mu.gradients import batch_gradients, unflatten
from mu.knobs import Count, Fraction, Momentum, NonNegative, Positive
from mu.methods.amnesiac import other_labels
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, Schedule, learning_rate_factor, make_optimizer, set_lr

NEEDS = ("retain", "forget", "original")
Labels = Literal["other", "any"]
Order = Literal["shuffled", "forget_first"]


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 0.013,
    ratio: Fraction = 0.5,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 256,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "constant",
    labels: Labels = "other",
    redraw: bool = False,
    order: Order = "shuffled",
    restore: bool = True,
    augment: bool = True,
) -> Iterator[None]:
    """Train salient weights on retained and relabelled forgotten data; yield after each epoch.

    Args:
        ratio: Share of all weights that may change: those with the largest gradient. 1 is Amnesiac.
        batch_size: Also of the saliency, where only a smaller last batch makes it matter.
        labels: Whether random labels are of the `other` classes or `any`.
        redraw: Draw them anew in each epoch.
        order: `forget_first` ends every epoch with the retained data.
        restore: Keep frozen weights exactly; otherwise only their gradients are dropped.
    """
    strength = split.cached(
        ("saliency", batch_size), lambda draws: saliency(model, split.forget, batch_size)
    )
    masks = unflatten(largest(strength, ratio), model)
    frozen = [weight.detach().clone() for weight in model.parameters()]
    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    phases = relabelled_phases(split, labels, order, generator)
    per_epoch = sum(len(list(batches(len(phase), batch_size))) for phase in phases)
    for epoch in resumable(epochs, generator, model, stepper):
        if redraw and epoch > 0:
            phases = relabelled_phases(split, labels, order, generator)
        step = epoch * per_epoch
        model.train()
        for examples in phases:
            for index in batches(len(examples), batch_size, generator, split.device):
                chosen = examples.take(index)
                inputs = split.augment(chosen.inputs, generator) if augment else chosen.inputs
                set_lr(stepper, lr * learning_rate_factor(schedule, step, epochs * per_epoch))
                stepper.zero_grad(set_to_none=True)
                F.cross_entropy(model(as_float(inputs)), chosen.labels).backward()
                masked_step(model, stepper, masks, frozen if restore else None)
                step += 1
        yield


def relabelled_phases(
    split: Split, labels: Labels, order: Order, generator: torch.Generator
) -> list[Examples]:
    """Return the sets that an epoch passes over one after the other, with random labels of the forgotten samples.

    The relabelled samples are shown as diagnostics.
    """
    relabelled = split.forget.relabelled(random_labels(split, labels, generator))
    split.diagnostics.instances = relabelled
    if order == "shuffled":
        return [concat(relabelled, split.retain)]
    return [relabelled, split.retain]


def saliency(model: nn.Module, examples: Examples, batch_size: int) -> Tensor:
    """Return |sum over batches of the gradient of their mean cross-entropy|, in eval mode: [P]."""
    total = torch.zeros((), device=examples.device)
    for _, gradient in batch_gradients(model, examples, batch_size):
        total = total + gradient
    return total.abs()


def largest(strength: Tensor, ratio: float) -> Tensor:
    """Return which int(P * ratio) of the P entries are largest, over all weights jointly: bool [P]."""
    mask = torch.zeros_like(strength, dtype=torch.bool)
    mask[strength.argsort(descending=True, stable=True)[: int(len(strength) * ratio)]] = True
    return mask


@torch.no_grad()
def masked_step(
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    masks: list[Tensor],
    frozen: list[Tensor] | None,
) -> None:
    """Step with the gradients of unmasked weights dropped.

    Args:
        masks: bool, in the shapes of the weights; True may change.
        frozen: Values to which all other weights return, as decay and momentum may have moved them; None
            leaves them where they went.
    """
    for weight, mask in zip(model.parameters(), masks):
        if weight.grad is not None:
            weight.grad.mul_(mask)
    stepper.step()
    if frozen is not None:
        for weight, mask, value in zip(model.parameters(), masks, frozen):
            weight.copy_(torch.where(mask, weight, value))


def random_labels(split: Split, labels: Labels, generator: torch.Generator) -> Tensor:
    """Draw a label for each forgotten sample, uniform over the other classes or over all: int64 [N]."""
    if labels == "other":
        return other_labels(split.forget.labels, torch.ones(split.num_classes), generator)
    shape = split.forget.labels.shape
    return torch.randint(split.num_classes, shape, generator=generator).to(split.device)
