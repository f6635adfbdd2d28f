"""EU-k: redraw the last k layers and train them anew on the retained data; the rest stays frozen.

Paper: Goel et al., arXiv:2201.06640.
Reference: `shash42/Evaluating-Inexact-Unlearning` a45fe02 (`src/methods.py`); settings of `meghdadk/SCRUB` 98ffb11,
    whose own EU-k leaves the head of a ResNet as trained, and that of an All-CNN random.
Differs: layers are redrawn from Kaiming's normal distribution; the code can also return to the weights that the
    original training began with, which a method does not have. Goel trains with warm restarts between 0.1 and
    0.005 for 62 epochs, as the original there.
Cost: epochs passes over D_r, backward through the last k layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.models import BatchNorm
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

NEEDS = ("retain",)
IMPAIRS_FIRST = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 30,
    k: Count = 3,
    lr: Positive = 0.01,
    momentum: Momentum = 0.0,
    weight_decay: NonNegative = 0.0,
    batch_size: Count = 64,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "constant",
    augment: bool = True,
    reset_batchnorm: bool = False,
    frozen_statistics: bool = False,
) -> Iterator[None]:
    """Redraw the last k layers and train them on the retained data; yield after each epoch.

    Args:
        epochs: As many as the original was trained for.
        k: Convolutions and linear layers to retrain, the head being the first; all where there are fewer.
        reset_batchnorm: Whether batch norm between retrained layers starts anew, too.
        frozen_statistics: Whether batch norm of frozen layers keeps its running statistics, and uses them.
    """
    layers = last_layers(model, k)
    redraw(layers, generator, reset_batchnorm)
    yield from train_only(
        model,
        layers,
        split,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        augment=augment,
        frozen_statistics=frozen_statistics,
    )


def last_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """Return the layers with weights of their own, from the last in registration order to the k-th convolution or linear.

    Only these count towards k; batch norm met on the way comes along.
    """
    layers: list[nn.Module] = []
    for module in reversed(list(model.modules())):
        if any(True for _ in module.parameters(recurse=False)):
            layers.append(module)
            k -= is_counted(module)
        if k == 0:
            break
    return layers


def is_counted(module: nn.Module) -> bool:
    """Return whether a module is one of the layers that k counts."""
    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))


@torch.no_grad()
def redraw(
    layers: Sequence[nn.Module], generator: torch.Generator, reset_batchnorm: bool = False
) -> None:
    """Redraw convolutions and linear layers, Kaiming normal weights and zero biases; reset batch norm if asked."""
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            std = math.sqrt(2 / layer.weight[0].numel())
            fresh = torch.empty(layer.weight.shape, dtype=layer.weight.dtype)
            layer.weight.copy_(fresh.normal_(0, std, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, BatchNorm) and reset_batchnorm:
            layer.reset_parameters()


def train_only(
    model: nn.Module,
    layers: Sequence[nn.Module],
    split: Split,
    generator: torch.Generator,
    hyperparameters: Hyperparameters,
    *,
    augment: bool,
    frozen_statistics: bool,
) -> Iterator[None]:
    """Train `layers` on the retained data and freeze all other weights meanwhile; yield after each epoch."""
    trained = {id(weight) for layer in layers for weight in layer.parameters(recurse=False)}
    frozen = [weight for weight in model.parameters() if id(weight) not in trained]
    still = [m for m in model.modules() if isinstance(m, BatchNorm) and m not in layers]
    for weight in frozen:
        weight.requires_grad_(False)
    try:
        with kept_in_eval_mode(still if frozen_statistics else []):
            yield from fit(
                model,
                split.retain,
                generator,
                hyperparameters,
                augment=split.augment if augment else None,
            )
    finally:
        for weight in frozen:
            weight.requires_grad_(True)


@contextmanager
def kept_in_eval_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Run modules in eval mode whatever mode the model around them is put in."""

    def to_eval(module: nn.Module, args: Any) -> None:
        module.eval()

    hooks = [module.register_forward_pre_hook(to_eval) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
