"""JiT: flatten the model around forgotten samples by one pass of Lipschitz minimisation. Zero-shot.

Paper: Foster et al., arXiv:2402.01401v4, Eq. 1 and Algorithm 1.
Reference: `jwf40/Information-Theoretic-Unlearning` c967614.
Differs: the default is the paper's objective in eval mode with gradients reset at each batch. The released
    code stops the gradient through the perturbed output, clamps the perturbed batch to its own range,
    never resets gradients between batches, and leaves the model in train mode: `stop_gradient`, `clamp`,
    `accumulate` and `mode="train"` reproduce it. Losses are summed over a batch as in the code, so that the
    published `lr` keep their meaning. `sigma` is in units of the inputs' standard deviation, as there.
Cost: 1 pass over D_f, each sample forward and backward perturbations + 1 times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu.data import batches
from mu.device import upload
from mu.knobs import Count, Positive
from mu.models.precision import full_precision
from mu.split import Split

NEEDS = ("forget",)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("adds noise to pixels")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    lr: Positive = 3e-4,
    sigma: Positive = 0.5,
    perturbations: Count = 25,
    batch_size: Count = 128,
    clip_norm: Positive | None = None,
    stop_gradient: bool = False,
    clamp: bool = False,
    accumulate: bool = False,
    mode: Literal["eval", "train"] = "eval",
) -> Iterator[None]:
    """Pass once over the forgotten data, unshuffled; yield once.

    Args:
        lr: eta, per batch of summed losses.
        sigma: Standard deviation of the perturbation, in standard deviations of the inputs.
        perturbations: Noise draws per sample, N.
        clip_norm: Largest norm of a step's whole gradient; None does not clip.
        mode: Of batch norm and dropout while stepping.
    """
    model.train(mode == "train")
    mean, std = (
        torch.tensor(values, device=split.device).view(1, -1, 1, 1)
        for values in (split.input_mean, split.input_std)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for index in batches(len(split.forget), batch_size, device=split.device):
        inputs = split.forget.batch(index)[0]
        shape = (perturbations, *inputs.shape)
        noise = sigma * upload(torch.randn(shape, generator=generator), split.device).to(inputs)
        if not accumulate:
            optimizer.zero_grad()
        with full_precision(model):  # small differences of outputs
            ratios = lipschitz_ratios(
                model, inputs, noise, mean, std, clamp=clamp, stop_gradient=stop_gradient
            )
        ratios.sum().backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
    yield


def lipschitz_ratios(
    model: nn.Module,
    inputs: Tensor,
    noise: Tensor,
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
    *,
    clamp: bool = False,
    stop_gradient: bool = False,
) -> Tensor:
    """Return the mean over perturbations of |f(x) - f(x + xi)| / |xi| for each sample (Eq. 1): [B].

    Args:
        inputs: [B, ...], in the units the model takes.
        noise: xi [N, B, ...], in normalised units: the model sees ``x + xi * std``.
        clamp: Limit the perturbed batch, normalised, to the range of the clean one, and divide by the
            distance that is left.
        stop_gradient: Treat f(x + xi) as a constant.
    """
    clean = model(inputs)
    normalized = (inputs - mean) / std
    ratios = []
    for xi in noise:
        perturbed = normalized + xi
        if clamp:
            perturbed = perturbed.clamp(normalized.min(), normalized.max())
            xi = perturbed - normalized
        with torch.set_grad_enabled(not stop_gradient):
            moved = model(perturbed * std + mean)
        change = torch.linalg.vector_norm(clean - moved, dim=1)
        ratios.append(change / torch.linalg.vector_norm(xi.flatten(1), dim=1))
    return torch.stack(ratios).mean(0)
