"""The one supervised loop. References, finetuning and every relabelling method call ``fit``.

Inputs already sit on the device; a step gathers a batch, augments it there and updates. Nothing in an
epoch waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu import optimizers
from mu.checks import not_finite
from mu.data import Examples, as_float, batches
from mu.data.augment import Augment, Policy
from mu.data.augment import policy as augment_policy
from mu.keys import LATER
from mu.launch import gradients
from mu.models.precision import Precision, check_precision
from mu.snapshot import resumable

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "onecycle", "step"]
OPTIMIZERS = get_args(Optimizer)
SCHEDULES = get_args(Schedule)
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of ``fit``.

    Args:
        epochs: Passes over the examples.
        batch_size: Examples a step.
        lr: Peak learning rate.
        optimizer: `sgd`, `adam` or `adamw`.
        momentum: Of SGD; ignored by Adam.
        weight_decay: L2 for `sgd` and `adam`, decoupled for `adamw`.
        schedule: One of ``SCHEDULES``; see ``learning_rate_factor``.
        warmup_epochs: Linear warm-up before `cosine` and `step`.
        milestones: Shares of the steps after which `step` falls.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    milestones: Sequence[float] = (0.8, 0.9)


@dataclass(frozen=True)
class Recipe:
    """The training of original and retrained models."""

    epochs: int = 30
    """Passes over the training set."""
    optimizer: Optimizer = "sgd"
    """`sgd`, `adam` or `adamw`."""
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Of SGD; ignored by Adam."""
    weight_decay: float = 5e-4
    """L2 for `sgd` and `adam`, decoupled for `adamw`."""
    batch_size: int = 128
    """Examples a step."""
    schedule: Schedule = "onecycle"
    """`constant`; `cosine` to zero; `onecycle` (30% linear warm-up, then cosine to zero); `step` (a tenth after each
    of `milestones`). All are per step."""
    warmup_epochs: float = 0.0
    """Linear warm-up before `cosine` and `step`."""
    augment: Policy = "none"
    """`none`, `crop` (after zero padding of `pad` pixels), `crop_flip` or `crop_flip_cutout` (a black square of half
    the image's side)."""
    precision: Precision = field(default="float32", metadata=LATER)
    """`bf16` runs the forward passes of training, unlearning and evaluation in bf16, with float32 weights and logits;
    every trial and reference of a study alike. It is the default where trials have GPUs."""
    pad: int = field(default=4, metadata=LATER)
    """Pixels of zero padding before a crop."""
    milestones: tuple[float, ...] = field(default=(0.8, 0.9), metadata=LATER)
    """Shares of the steps after which `step` falls, increasing, in (0, 1)."""

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )
        augment_policy(self.augment, self.pad)
        check_precision(self.precision)
        for name, low in (("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, but got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be > 0, but got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), but got {self.momentum}")
        if self.weight_decay < 0 or self.warmup_epochs < 0:
            raise ValueError("weight_decay and warmup_epochs must not be negative")
        if self.pad < 1:
            raise ValueError(f"pad must be at least 1, but got {self.pad}")
        rising = sorted(set(self.milestones)) == list(self.milestones)
        if not rising or not all(0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"milestones must be increasing shares in (0, 1), but got {list(self.milestones)}"
            )
        for name in not_finite(self):
            raise ValueError(f"{name} must be finite, but got {getattr(self, name)!r}")

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The part of the recipe that ``fit`` takes."""
        shared = [field.name for field in fields(Hyperparameters)]
        return Hyperparameters(**{name: getattr(self, name) for name in shared})


def learning_rate_factor(
    schedule: str,
    step: int,
    total: int,
    warmup: int = 0,
    milestones: Sequence[float] = (0.8, 0.9),
) -> float:
    """Return the multiple of the peak learning rate at a 0-based step of `total`, in [0, 1].

    The schedules are NatMU's, per batch: `cosine` reaches exactly 0 on the last step, `step` falls on the step that
    follows a milestone.

    Args:
        schedule: `constant`, `cosine`, `onecycle` or `step`.
        step: The step, from 0.
        total: Steps of the whole training.
        warmup: Steps of linear warm-up before `cosine` and `step`.
        milestones: Shares of `total` after which `step` falls to a tenth.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        if step < warmup:
            return step / warmup
        return 0.1 ** sum(step > int(share * total) for share in milestones)
    if schedule == "onecycle":
        warmup = max(1, int(0.3 * total))
    done = step + 1
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, total - warmup)))


def make_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return `sgd` (L2 decay), `adam` (L2 decay) or `adamw` (decoupled decay) over the weights that need gradients."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": True}
    if name == "sgd":
        return optimizers.SGD(weights, momentum=momentum, **options)
    return {"adam": optimizers.Adam, "adamw": optimizers.AdamW}[name](weights, **options)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def fit(
    model: nn.Module,
    examples: Examples,
    generator: torch.Generator,
    hyperparameters: Hyperparameters,
    *,
    augment: Augment | None = None,
    augmentable: Tensor | None = None,
    loss: Loss = F.cross_entropy,
    begin: Callable[[int], object] | None = None,
) -> Iterator[None]:
    """Train in place on shuffled batches, in train mode; yield after each epoch.

    Args:
        model: The network; weights that need no gradient stay as they are.
        examples: The N training examples.
        generator: Draws the order of examples and the augmentation.
        hyperparameters: How long and how fast to train.
        augment: Applied to every batch anew; None leaves the inputs as they are.
        augmentable: bool [N], which examples `augment` may change; None is all.
        loss: From logits [B, K] and labels [B] to a scalar.
        begin: Called before each epoch with its number, from 0.
    """
    given = hyperparameters
    stepper = make_optimizer(model, given.optimizer, given.lr, given.momentum, given.weight_decay)
    differentiate = gradients(model, loss)
    if augmentable is not None:
        augmentable = augmentable.to(examples.device)
    per_epoch = sum(1 for _ in batches(len(examples), given.batch_size))
    total, warmup = given.epochs * per_epoch, round(given.warmup_epochs * per_epoch)
    for epoch in resumable(given.epochs, generator, model, stepper):
        step = epoch * per_epoch
        if begin:
            begin(epoch)
        model.train()
        for index in batches(len(examples), given.batch_size, generator, examples.device):
            chosen = examples.take(index)
            inputs = chosen.inputs
            if augment:
                inputs = augment(inputs, generator)
                if augmentable is not None:
                    changed = augmentable[index][:, None, None, None]
                    inputs = torch.where(changed, inputs, chosen.inputs)
            factor = learning_rate_factor(given.schedule, step, total, warmup, given.milestones)
            set_lr(stepper, given.lr * factor)
            differentiate(as_float(inputs), chosen.labels)
            stepper.step()
            step += 1
        yield


def one_pass(
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    examples: Examples,
    generator: torch.Generator,
    batch_size: int,
    loss: Loss = F.cross_entropy,
) -> None:
    """Make one shuffled pass with an optimizer of the caller's, in the mode the model is in.

    It is for methods that choose that mode, or keep one optimizer over several phases; ``fit`` does both itself.
    """
    for index in batches(len(examples), batch_size, generator, examples.device):
        inputs, labels = examples.batch(index)
        stepper.zero_grad(set_to_none=True)
        loss(model(inputs), labels).backward()
        stepper.step()


def train(
    model: nn.Module, examples: Examples, recipe: Recipe, generator: torch.Generator
) -> Iterator[None]:
    """Train from the weights the model has, by a recipe; yield after each epoch."""
    return fit(
        model,
        examples,
        generator,
        recipe.hyperparameters,
        augment=augment_policy(recipe.augment, recipe.pad),
    )


def count_samples(model: nn.Module) -> list[int]:
    """Count the samples that pass forward with gradient through `model` or any copy made of it.

    Returns:
        A one-element list that holds the running count; copies of the model share it.
    """
    counter = [0]

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and any(w.requires_grad for w in module.parameters()):
            counter[0] += len(args[0])

    model.register_forward_pre_hook(count)
    return counter
