"""UNSIR: train on noise that maximises the forgotten class's error, then repair on retained data.

Paper: Tarun et al., Fast Yet Effective Machine Unlearning, TNNLS 2023 (arXiv:2111.08947).
Reference: `vikram2000b/Fast-Machine-Unlearning` 252bc92; `jwf40/Information-Theoretic-Unlearning` c967614.
Differs: the released loaders take the number of channels for the number of noise images, so that three of 256
    are ever trained on; here all are, `noise_samples` of them in an epoch (20 of each by default). Noise is
    made with the model in eval mode; the code leaves it in the mode it happens to be in. Learning rates are
    the original notebook's; JiT's copy uses 1e-4 for both, with batches of 32. In a `sub_class` request the
    noise carries the superclass's label, as in JiT, at the expense of the sibling sub-classes.
Cost: noise_steps on one noise batch + 1 pass to impair + epochs passes to repair, over the retain sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu import optimizers
from mu.data import Examples, batches
from mu.device import upload
from mu.knobs import Count, CountOrZero, NonNegative, Positive
from mu.models import eval_mode
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer, one_pass

NEEDS = ("retain",)
REQUESTS = ("full_class", "sub_class")
IMPAIRS_FIRST = True


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("learns images of noise")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 1,
    impair_epochs: Count = 1,
    impair_lr: Positive = 0.02,
    repair_lr: Positive = 0.01,
    noise_steps: CountOrZero = 40,
    noise_lr: Positive = 0.1,
    noise_penalty: NonNegative = 0.1,
    noise_images: Count = 256,
    noise_samples: Count = 5120,
    retain_per_class: Count = 1000,
    batch_size: Count = 256,
) -> Iterator[None]:
    """Impair with noise and retained samples, then repair with the same samples; yield after each repair epoch.

    Args:
        epochs: Repair passes over the sample of retained data.
        impair_epochs: Passes over that sample and the noise together, before the first repair.
        noise_steps: Adam steps, at rate `noise_lr`, that make the noise.
        noise_penalty: Weight of the mean squared norm of a noise image, in normalised units.
        noise_images: Different noise images.
        noise_samples: Noise images, with repetition, in an impair epoch.
        retain_per_class: Retained samples of each class, or all of them where there are fewer.
    """
    assert split.forget_class is not None
    chosen = sample_per_class(split.retain.labels.cpu(), retain_per_class, generator)
    sample = split.retain.take(chosen.to(split.device))
    start = torch.randn((noise_images, *split.input_shape), generator=generator).to(split.device)
    labels = torch.full((noise_images,), split.forget_class, device=split.device)
    noise = error_noise(
        model,
        split,
        start,
        labels,
        NoiseSettings(
            maximize=True,
            penalty=noise_penalty,
            steps=noise_steps,
            lr=noise_lr,
            images_per_class=noise_images,
        ),
    )
    noisy = Examples(to_pixels(noise, split), labels)
    stepper = make_optimizer(model, "adam", impair_lr)
    model.train()
    for _ in range(impair_epochs):
        for index in batches(len(sample) + noise_samples, batch_size, generator):
            inputs, labels = mixed_batch(sample, noisy, index)
            stepper.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), labels).backward()
            stepper.step()
    stepper = make_optimizer(model, "adam", repair_lr)
    for _ in resumable(epochs, generator, model, stepper):
        model.train()
        one_pass(model, stepper, sample, generator, batch_size)
        yield


def sample_per_class(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the positions of `count` random samples of each class, or of all where there are fewer."""
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == label][:count] for label in labels.unique()])


def mixed_batch(sample: Examples, noisy: Examples, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and labels at `index`: first come the samples, then the noise images over and over again."""
    drawn = (index[index >= len(sample)] - len(sample)) % len(noisy)
    parts = [
        examples.batch(upload(chosen, examples.device))
        for examples, chosen in ((sample, index[index < len(sample)]), (noisy, drawn))
    ]
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


def to_pixels(normalized: Tensor, split: Split) -> Tensor:
    """Return normalised inputs [B, C, H, W] in the units a model takes: mean + std * x, not clipped to [0, 1]."""
    mean, std = (
        upload(torch.tensor(values), normalized.device).to(normalized).view(-1, 1, 1)
        for values in (split.input_mean, split.input_std)
    )
    return mean + std * normalized


def noise_objective(
    logits: Tensor, labels: Tensor, noise: Tensor, *, maximize: bool, penalty: float
) -> Tensor:
    """Return what each image minimises, [B]: its cross-entropy, negative to `maximize`, plus penalty * |noise|^2."""
    error = F.cross_entropy(logits, labels, reduction="none")
    return (-error if maximize else error) + penalty * noise.square().flatten(1).sum(1)


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """The settings of ``error_noise``.

    Args:
        maximize: Whether it maximises the error; else it minimises it.
        penalty: Weight of the squared norm of an image.
        steps: Adam steps.
        lr: Of Adam.
        images_per_class: Images that the objective is a mean over.
    """

    maximize: bool
    penalty: float
    steps: int
    lr: float
    images_per_class: int


def error_noise(
    model: nn.Module, split: Split, start: Tensor, labels: Tensor, settings: NoiseSettings
) -> Tensor:
    """Return noise, in normalised units [B, C, H, W], that maximises or minimises the error on `labels`.

    Adam moves the noise alone; the model is in eval mode and keeps its weights. The objective is a mean over
    the images of a class and a sum over classes, so that several classes share a batch without effect on one
    another.

    Args:
        start: Noise before the first step, [B, C, H, W].
        labels: int64 [B].
    """
    noise = start.clone().requires_grad_()
    optimizer = optimizers.Adam([noise], lr=settings.lr)
    with eval_mode(model):
        for _ in range(settings.steps):
            logits = model(to_pixels(noise, split))
            value = noise_objective(
                logits, labels, noise, maximize=settings.maximize, penalty=settings.penalty
            )
            noise.grad = torch.autograd.grad(value.sum() / settings.images_per_class, noise)[0]
            optimizer.step()
    return noise.detach()
