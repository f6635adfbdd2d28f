"""Gradient Surgery: ascend on forgotten data across the retained gradient, then descend with an elastic net.

Paper: Akbari, Gaudi and Morshed, section 3.2 and Eq. 3 (Michigan State University report).
Reference: `sachit3022/unlearning` a58b04f, `unl_algorithms/surgery.py`.
Differs: Eq. 3 is what the section's introduction contradicts: the update is orthogonal to the *retained*
    gradient, and added, so that it raises the forgotten loss. Without a retained gradient to speak of there is
    no projection. Retained samples are drawn from the trial's generator; the code draws from NumPy's global
    one, whatever its seed. The l1 term is the code's sum over tensors of the mean |w|, which hardly touches
    convolutions; `l1_reduction="sum"` is the text's norm, at far smaller `l1`. The l2 part is AdamW's decay, as
    in the code; `l2` puts it into the loss. `ascent_mode` chooses what batch norm does while ascending.
Cost: ascent passes over D_f with as many of D_r + epochs passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import batches
from mu.device import upload
from mu.knobs import Bounds, Count, CountOrZero, Momentum, NonNegative, Positive
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer, one_pass, set_lr

NEEDS = ("retain", "forget")
Reduction = Literal["tensor_mean", "sum"]
NEGLIGIBLE = 1e-14
"""Squared length of a retained gradient, relative to the forgotten one's, that is mere rounding."""


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 4,
    lr: Positive = 2e-3,
    lr_gamma: Annotated[float, Bounds(low=0, high=1, low_open=True)] = 0.5,
    ascent_passes: CountOrZero = 3,
    ascent_lr: Positive = 0.09,
    ascent_momentum: Momentum = 0.95,
    forget_batch: Count = 2048,
    batch_size: Count = 1024,
    l1: NonNegative = 1e-3,
    l1_reduction: Reduction = "tensor_mean",
    l2: NonNegative = 0.0,
    weight_decay: NonNegative = 5e-4,
    ascent_mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Ascend with SGD, then descend with AdamW on the retained data; yield after each epoch of descent.

    Args:
        epochs: Passes over the retained data.
        lr_gamma: Factor on `lr` after each epoch.
        ascent_passes: Passes over the forgotten data, each batch beside a retained one of its size.
        ascent_lr: Of SGD; with `ascent_momentum` near 1 a step's whole effect is ascent_lr / (1 - momentum).
        l1: Weight of the l1 penalty on all weights.
        l1_reduction: `tensor_mean` sums the mean |w| of each tensor, `sum` is the l1 norm.
        l2: Weight of half the squared norm of all weights, in the loss.
        weight_decay: Decoupled, of AdamW.
        ascent_mode: Of batch norm and dropout while ascending.
    """
    stepper = make_optimizer(model, "sgd", ascent_lr, ascent_momentum)
    for _ in range(ascent_passes):
        model.train(ascent_mode == "train")
        for index in batches(len(split.forget), forget_batch, generator, split.device):
            drawn = torch.randint(len(split.retain), (len(index),), generator=generator)
            ascend(
                model,
                stepper,
                split.forget.batch(index),
                split.retain.batch(upload(drawn, split.device)),
            )
    stepper = make_optimizer(model, "adamw", lr, weight_decay=weight_decay)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for epoch in resumable(epochs, generator, model, stepper):
        model.train()
        set_lr(stepper, lr * lr_gamma**epoch)
        one_pass(
            model,
            stepper,
            split.retain,
            generator,
            batch_size,
            loss=lambda logits, labels: (
                F.cross_entropy(logits, labels) + elastic_net(weights, l1, l2, l1_reduction)
            ),
        )
        yield


def ascend(
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    forget: tuple[Tensor, Tensor],
    retain: tuple[Tensor, Tensor],
) -> None:
    """Step up the forgotten batch's loss, along its gradient's part orthogonal to the retained batch's.

    Args:
        forget: Inputs and labels.
        retain: Inputs and labels.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [
        torch.autograd.grad(F.cross_entropy(model(inputs), labels), weights, materialize_grads=True)
        for inputs, labels in (forget, retain)
    ]
    forgotten, retained = (torch.cat([part.flatten() for part in g]) for g in gradients)
    update = orthogonal_part(forgotten, retained)
    sizes = [weight.numel() for weight in weights]
    for weight, part in zip(weights, update.split(sizes)):
        weight.grad = torch.empty_like(weight).copy_(-part.view_as(weight))  # in its layout
    stepper.step()


def orthogonal_part(forgotten: Tensor, retained: Tensor) -> Tensor:
    """Return what is left of one gradient [P] without its component along another [P] (Eq. 3)."""
    length = retained @ retained
    along = (forgotten @ retained) / length
    negligible = length <= NEGLIGIBLE * (forgotten @ forgotten)
    return forgotten - torch.where(negligible, 0, along) * torch.where(negligible, 0, retained)


def elastic_net(
    weights: Iterable[Tensor], l1: float, l2: float = 0.0, l1_reduction: Reduction = "tensor_mean"
) -> Tensor:
    """Return the penalty l1 * |w| + l2 / 2 * |w|^2, where |w| is the l1 norm or the sum of each tensor's mean |w|."""
    weights = list(weights)
    sizes = [w.abs().mean() if l1_reduction == "tensor_mean" else w.abs().sum() for w in weights]
    penalty = l1 * torch.stack(sizes).sum()
    if l2 > 0:
        penalty = penalty + l2 / 2 * torch.stack([w.square().sum() for w in weights]).sum()
    return penalty
