"""JiT: flatten the model around forgotten samples by one pass of Lipschitz minimisation. Zero-shot.

Paper: Foster et al., arXiv:2402.01401v4, Eq. 1 and Algorithm 1.
Reference: `jwf40/Information-Theoretic-Unlearning` c967614.
Differs: `form` chooses between the paper and its code. `released`, the default, is what the code does and what the
    published `lr` are for: the perturbed output is a constant, the perturbed batch is clamped to the range of the
    clean one, and each step takes the sum of the gradients of all batches so far, so that B batches of like
    gradients move the model B^2 / 2 times as far as one: ten times as many samples want a hundredth of `lr`. `equation` is Eq. 1, which at
    the published `lr` leaves a class of CIFAR-10 as well known as it was. The code leaves the model in train mode, where batch norm drifts and dropout perturbs, too: `mode="train"`. Losses are summed over
    a batch as in the code. `sigma` is in units of the inputs' standard deviation, as there. A step grows as
    lr / sigma, so that the rate is searched as `lr_per_sigma`. The paper advises against batch norm: a warning says so.
Cost: 1 pass over D_f, each sample forward perturbations + 1 times, and backward once (`equation`: as often).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu import optimizers
from mu.data import batches
from mu.device import upload
from mu.knobs import Count, Positive
from mu.models import batch_norms
from mu.models.precision import full_precision
from mu.split import Split

NEEDS = ("forget",)
Form = Literal["released", "equation"]
BATCH_NORM = (
    "jit is not made for batch norm, which the model has: the paper advises against it, and in mode train what "
    "looks like forgetting is drift of its statistics"
)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images; warn of batch norm."""
    split.need_images("adds noise to pixels")
    if batch_norms(model):
        split.warn(BATCH_NORM)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    form: Form = "released",
    lr: Positive | None = None,
    lr_per_sigma: Positive = 6e-4,
    sigma: Positive = 0.5,
    perturbations: Count = 25,
    batch_size: Count = 128,
    clip_norm: Positive | None = None,
    mode: Literal["eval", "train"] = "eval",
) -> Iterator[None]:
    """Pass once over the forgotten data, unshuffled; yield once.

    Args:
        form: `released` is the authors' code, `equation` the paper's Eq. 1.
        lr: eta, per batch of summed losses; None is `lr_per_sigma` times `sigma`.
        lr_per_sigma: eta for each unit of `sigma`; the default is the published 3e-4 at a `sigma` of 0.5.
        sigma: Standard deviation of the perturbation, in standard deviations of the inputs.
        perturbations: Noise draws per sample, N.
        clip_norm: Largest norm of a step's whole gradient; None does not clip.
        mode: Of batch norm and dropout while stepping.
    """
    check(model, split)
    model.train(mode == "train")
    mean, std = (
        torch.tensor(values, device=split.device).view(1, -1, 1, 1)
        for values in (split.input_mean, split.input_std)
    )
    optimizer = optimizers.SGD(model.parameters(), lr=lr or lr_per_sigma * sigma)
    optimizer.zero_grad()
    for index in batches(len(split.forget), batch_size, device=split.device):
        inputs = split.forget.batch(index)[0]
        shape = (perturbations, *inputs.shape)
        noise = sigma * upload(torch.randn(shape, generator=generator), split.device).to(inputs)
        with full_precision(model):  # small differences of outputs
            ratios = lipschitz_ratios(model, inputs, noise, mean, std, form)
        ratios.sum().backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if form == "equation":  # the code never resets them
            optimizer.zero_grad()
    yield


def lipschitz_ratios(
    model: nn.Module,
    inputs: Tensor,
    noise: Tensor,
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
    form: Form = "equation",
) -> Tensor:
    """Return the mean over perturbations of |f(x) - f(x + xi)| / |xi| for each sample (Eq. 1): [B].

    Args:
        inputs: [B, ...], in the units the model takes.
        noise: xi [N, B, ...], in normalised units: the model sees ``x + xi * std``.
        form: `released` treats f(x + xi) as a constant, limits the perturbed batch, normalised, to the range of the
            clean one, and divides by the distance that is left.
    """
    clean = model(inputs)
    normalized = (inputs - mean) / std
    ratios = []
    for xi in noise:
        perturbed = normalized + xi
        if form == "released":
            perturbed = perturbed.clamp(normalized.min(), normalized.max())
            xi = perturbed - normalized
        with torch.set_grad_enabled(form == "equation"):
            moved = model(perturbed * std + mean)
        change = torch.linalg.vector_norm(clean - moved, dim=1)
        ratios.append(change / torch.linalg.vector_norm(xi.flatten(1), dim=1))
    return torch.stack(ratios).mean(0)
