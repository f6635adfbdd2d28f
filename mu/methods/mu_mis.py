"""MU-Mis: lower how strongly the forgotten class' logit follows the input, and raise that of another class. Zero-shot.

Paper: Cheng et al., ICLR 2026 (arXiv:2402.15109).
Reference: none was read: `poppopbean0903/MU-Mis` is the authors'; loss and stopping rule are the paper's.
Differs: the loss is divided by the original's mean sensitivity of the target class, so that `lr` means the same for
    any data (`relative`); the paper divides by nothing. The rule stops a run once the sensitivity of other
    classes has risen above its minimum and `recovery` times its initial value, where the paper has a ratio for
    each experiment. Forgotten samples of all classes never get there: what is lowered for one is another's other
    class, the network falls to chance, and so the run stops as well where that sensitivity falls below `collapse`
    times its initial value (0 is the paper's rule alone). Where it has stopped, later epochs change nothing.
Cost: epochs passes over D_f, each about four times a training pass', + 1 such pass without steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mu.data import batches
from mu.knobs import Count, Momentum, NonNegative, Positive, UnitInterval
from mu.models import eval_mode
from mu.models.precision import full_precision
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer

logger = logging.getLogger(__name__)
NEEDS = ("forget",)


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
        collapse: Share of it below which the model is given up, and forgetting ends as well.
        relative: Whether the loss is divided by the original's mean sensitivity of the target class.
        mode: Of batch norm and dropout while training.
    """
    initial = split.cached(
        ("sensitivities", batch_size),
        lambda draws: initial_squares(model, split, batch_size, draws),
    )
    unit = float(initial[0]) if relative else 1.0
    watch = Watch(float(initial[1].sqrt()), recovery, collapse)
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
            if not watch.ends(float(other.detach().mean().sqrt())):
                stepper.step()
            else:
                logger.info("MU-Mis stopped in epoch %d", epoch + 1)
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
    """The rule that ends forgetting, from the sensitivity of other classes.

    Args:
        initial: That sensitivity before the first step.
        recovery: Multiple of it at which forgetting is complete.
        collapse: Share of it below which the model is given up.
    """

    def __init__(self, initial: float, recovery: float, collapse: float):
        self.initial, self.recovery, self.collapse = initial, recovery, collapse
        self.lowest = initial
        self.stopped = False

    def ends(self, value: float) -> bool:
        """Take the sensitivity of a batch into account; return whether forgetting is over."""
        recovered = value > self.lowest and value > self.recovery * self.initial
        self.stopped = recovered or value < self.collapse * self.initial
        self.lowest = min(self.lowest, value)
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """Return what changes."""
        return {"lowest": self.lowest, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as it was."""
        self.lowest, self.stopped = state_dict["lowest"], state_dict["stopped"]
