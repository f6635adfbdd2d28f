"""MU-Mis: lower how strongly the forgotten class' logit follows the input, and raise that of another class. Zero-shot.

Paper: Cheng et al., ICLR 2026 (arXiv:2402.15109).
Reference: no code of the authors' (`poppopbean0903/MU-Mis`) was at hand; loss and stopping rule are the paper's as
    notes on it and another implementation of the loss describe them.
Differs: the loss is divided by the original's mean sensitivity of the target class, so that `lr` means the same for
    any data (`relative`). Forgetting ends once the sensitivity of other classes to the last 128 samples is above
    its minimum and `recovery` times its initial value; the paper has a ratio for each experiment. Where samples of
    several classes are forgotten it never gets there: what is lowered for one is the other class of another, and
    the network falls to chance. There forgetting also ends where that sensitivity is below `collapse` times its
    initial value (0 is the paper's rule alone). Epochs after the end change nothing. Batch norm in train mode
    answers lower sensitivities by its statistics, and hardly forgets: eval mode is the default. A small transformer
    takes ten times the default rate. Fused attention, which has no second derivative, is switched off.
Cost: epochs passes over D_f, each about four times a training pass', + 1 such pass without steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mu.data import batches
from mu.knobs import Count, Momentum, NonNegative, Positive, UnitInterval
from mu.models import eval_mode
from mu.models.precision import full_precision
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer

logger = logging.getLogger(__name__)
NEEDS = ("forget",)
WINDOW = 128
"""Fewest samples whose mean sensitivity is judged: with another class drawn for each, single batches are noisy."""


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("differentiates outputs by pixels")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 15,
    lr: Positive = 0.01,
    irrelevant_weight: NonNegative = 1.0,
    recovery: Positive = 1.15,
    collapse: UnitInterval = 0.75,
    batch_size: Count = 256,
    optimizer: Optimizer = "sgd",
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 0.0,
    relative: bool = True,
    mode: Literal["eval", "train"] = "eval",
) -> Iterator[None]:
    """Minimise the difference of two sensitivities on the forgotten data; yield after each epoch.

    Args:
        lr: Of the loss in units of its first term at the start, where `relative`.
        irrelevant_weight: Of the sensitivity of a random other class, which rises; 1 in the paper, 0 leaves it out.
        recovery: Multiple of the initial sensitivity of other classes at which forgetting is complete, and ends.
        collapse: Share of it below which forgetting ends as well, where D_f holds several classes.
        relative: Whether the loss is divided by the original's mean sensitivity of the target class.
        mode: Of batch norm and dropout while training.
    """
    initial = split.cached(
        ("sensitivities", batch_size),
        lambda draws: initial_squares(model, split, batch_size, draws),
    )
    unit = float(initial[0]) if relative else 1.0
    several = len(split.forget.labels.unique()) > 1
    watch = Watch(float(initial[1].sqrt()), recovery, collapse if several else 0.0)
    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    for epoch in resumable(epochs, generator, model, stepper, watch):
        model.train(mode == "train")
        for index in batches(len(split.forget), batch_size, generator, split.device):
            if watch.stopped:
                break
            inputs, labels = split.forget.batch(index)
            others = irrelevant(labels, split.num_classes, generator)
            stepper.zero_grad(set_to_none=True)
            with full_precision(model):
                target, other = squared_sensitivities(model, inputs, labels, others)
                ((target - irrelevant_weight * other).mean() / unit).backward()
            if watch.ends(float(other.detach().sum()), len(index)):
                logger.info("MU-Mis stopped in epoch %d", epoch + 1)
            else:
                stepper.step()
        yield


def irrelevant(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return for each label [N] another class, uniformly drawn: int64 [N]."""
    offset = torch.randint(1, num_classes, labels.shape, generator=generator)
    return (labels + offset.to(labels.device)) % num_classes


def squared_sensitivities(
    model: nn.Module, inputs: Tensor, labels: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ||d f_c / dx||^2 and ||d f_c' / dx||^2 of each sample, [B], of labels c and other classes c' [B]."""
    inputs = inputs.detach().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        logits = model(inputs)
    squares = []
    for classes in (labels, others):
        chosen = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, inputs, create_graph=True)
        squares.append(gradient.flatten(1).square().sum(1))
    return squares[0], squares[1]


def initial_squares(
    model: nn.Module, split: Split, batch_size: int, draws: torch.Generator
) -> Tensor:
    """Return the mean squared sensitivities of target and other classes on D_f, in eval mode: [2]."""
    total = torch.zeros(2, device=split.device)
    with eval_mode(model), full_precision(model):
        for index in batches(len(split.forget), batch_size, device=split.device):
            inputs, labels = split.forget.batch(index)
            others = irrelevant(labels, split.num_classes, draws)
            squares = squared_sensitivities(model, inputs, labels, others)
            total = total + torch.stack([square.detach().sum() for square in squares])
    return total / len(split.forget)


class Watch:
    """The rule that ends forgetting, from the sensitivity of other classes to the last ``WINDOW`` samples.

    Args:
        initial: That sensitivity before the first step, as a root mean square.
        recovery: Multiple of it at which forgetting is complete.
        collapse: Share of it below which it ends as well.
    """

    def __init__(self, initial: float, recovery: float, collapse: float):
        self.initial, self.recovery, self.collapse = initial, recovery, collapse
        self.lowest = initial
        self.stopped = False
        self.recent: list[tuple[float, int]] = []

    def ends(self, total: float, count: int) -> bool:
        """Take a batch of `count` samples into account, whose squares add up to `total`; return whether it is over."""
        self.recent.append((total, count))
        seen = sum(size for _, size in self.recent)
        while seen - self.recent[0][1] >= WINDOW:
            seen -= self.recent.pop(0)[1]
        if seen >= WINDOW:
            now = (sum(part for part, _ in self.recent) / seen) ** 0.5
            recovered = now > self.lowest and now > self.recovery * self.initial
            self.stopped = recovered or now < self.collapse * self.initial
            self.lowest = min(self.lowest, now)
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """Return what changes."""
        return {"lowest": self.lowest, "stopped": self.stopped, "recent": list(self.recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as it was."""
        self.lowest, self.stopped = state_dict["lowest"], state_dict["stopped"]
        self.recent = [tuple(batch) for batch in state_dict["recent"]]
