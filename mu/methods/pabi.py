"""PABI: clip the weights, train with clipped gradients and noise for a few steps, then fine-tune.

Paper: Koloskova et al., Certified Unlearning for Neural Networks, ICML 2025, privacy
    amplification by iteration ("gradient clipping"); most likely the PABI of UGradSL's tables.
Reference: `stair-lab/certified-unlearning-neural-networks-icml-2025` 6fa9fb2 (JAX), configurations for CIFAR-10.
Differs: without weight decay the code's noise variance is half of the limit of its own formula for decay; the
    limit is the default (`undecayed="code"`). Weight decay is given as the share of a weight that a noisy step
    removes, so that it does not change with `noisy_lr`. No guarantee is claimed: the code turns its Renyi
    budget into (epsilon, delta) as if it were the same at every order. The noise outweighs what the network
    knew: take it for a noisy restart.
Cost: noisy steps until the norm is spent + epochs passes over D_r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data.passes import Cycle
from mu.device import upload
from mu.gradients import flatten, unflatten
from mu.knobs import Count, Momentum, NonNegative, Positive, UnitInterval
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

NEEDS = ("retain",)
IMPAIRS_FIRST = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 50,
    model_clip: Positive = 1.0,
    gradient_clip: Positive = 100.0,
    noisy_lr: Positive = 1e-3,
    shrink: UnitInterval = 0.5,
    renyi_budget: Positive = 10.0,
    noisy_steps: Count | None = None,
    undecayed: Literal["limit", "code"] = "limit",
    lr: Positive = 0.1,
    momentum: Momentum = 0.0,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "onecycle",
    augment: bool = True,
) -> Iterator[None]:
    """Take noisy steps on the retained data, then train ordinary epochs; yield after each of these.

    Args:
        epochs: Of the fine-tuning; the authors count the noisy steps among them.
        model_clip: C0, largest norm of all weights at the start.
        gradient_clip: C1, largest norm of a noisy step's gradient.
        noisy_lr: eta, of the noisy steps.
        shrink: eta * lambda, share of every weight that a noisy step removes; 0 is no decay.
        renyi_budget: The smaller, the more noise.
        noisy_steps: How many; None takes what clipping and shrinking need to forget where they started.
        undecayed: Variance of the noise if `shrink` is 0.
    """
    decay = shrink / noisy_lr
    count = noisy_steps or steps_needed(model_clip, gradient_clip, noisy_lr, decay)
    sigma = noise_level(model_clip, gradient_clip, noisy_lr, decay, renyi_budget, count, undecayed)
    write(model, clipped(read(model), model_clip))
    model.train()
    order = Cycle(len(split.retain), batch_size, generator, split.device)
    for _ in range(count):
        inputs, labels = split.retain.batch(next(order))
        inputs = split.augment(inputs, generator) if augment else inputs
        gradient = loss_gradient(model, inputs, labels)
        sizes = noisy_lr, decay, gradient_clip, sigma
        write(model, noisy_step(read(model), gradient, normal_like(gradient, generator), *sizes))
    yield from fit(
        model,
        split.retain,
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
        augment=split.augment if augment else None,
    )


def steps_needed(model_clip: float, gradient_clip: float, lr: float, decay: float) -> int:
    """Return T: after as many steps, clipped gradients or decay could have led anywhere from the clipped weights."""
    steps = math.ceil(model_clip / (gradient_clip * lr))
    if decay > 0:
        by_decay = math.ceil(math.log(2 * decay * model_clip / gradient_clip) / (lr * decay))
        if 0 < by_decay < steps:
            return by_decay
    return max(1, steps)


def noise_level(
    model_clip: float,
    gradient_clip: float,
    lr: float,
    decay: float,
    renyi_budget: float,
    steps: int,
    undecayed: Literal["limit", "code"] = "limit",
) -> float:
    """Return sigma, the standard deviation of the noise on every weight in every step."""
    if decay == 0:
        spread = 2 * model_clip + 2 * gradient_clip * lr * steps
        parts = {"limit": 2, "code": 4}[undecayed]
        return spread / math.sqrt(parts * renyi_budget * steps)
    kept, per_step = (1 - lr * decay) ** steps, lr * decay * (2 - lr * decay)
    spread = 2 * model_clip * kept + 2 * gradient_clip / decay * (1 - kept)
    return spread * math.sqrt(per_step / (2 * renyi_budget * (1 - kept**2)))


def noisy_step(
    weights: Tensor,
    gradient: Tensor,
    noise: Tensor,
    lr: float,
    decay: float,
    gradient_clip: float,
    sigma: float,
) -> Tensor:
    """Return w - lr * (clipped gradient + decay * w) + sigma * noise; all are vectors [P]."""
    return weights - lr * (clipped(gradient, gradient_clip) + decay * weights) + sigma * noise


def loss_gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy over all weights, as one vector [P]."""
    loss = F.cross_entropy(model(inputs), labels)
    return flatten(list(torch.autograd.grad(loss, list(model.parameters()))))


def normal_like(vector: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise of a vector's size, type and device."""
    drawn = torch.randn(vector.shape, generator=generator, dtype=vector.dtype)
    return upload(drawn, vector.device)


def clipped(vector: Tensor, largest: float) -> Tensor:
    """Return the vector, scaled down to a norm of `largest` where it is longer."""
    return vector * (largest / torch.linalg.vector_norm(vector).clamp(min=largest))


def read(model: nn.Module) -> Tensor:
    """Return all weights as one vector [P], detached."""
    return flatten([weight.detach() for weight in model.parameters()])


def write(model: nn.Module, vector: Tensor) -> None:
    """Set all weights from one vector [P]."""
    with torch.no_grad():
        for weight, value in zip(model.parameters(), unflatten(vector, model)):
            weight.copy_(value)
