"""Gradients of the cross-entropy with respect to all weights as flat vectors: of batches, and of single samples.

A vector holds the weights [P] in the order of ``model.parameters()``. Everything is computed in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from mu.data import Examples, batches
from mu.models import eval_mode

T = TypeVar("T")
Weights = dict[str, Tensor]
Forward = Callable[[Weights], Tensor]

MEMORY = 2**30
"""Bytes that the gradients of single samples may take at once."""
AT_ONCE = 256
"""Largest number of samples in one vectorised pass."""


def flatten(tensors: list[Tensor]) -> Tensor:
    """One vector of several tensors."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """The parts of a vector [P] in the shapes of the model's weights."""
    weights = list(model.parameters())
    parts = vector.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights)]


def weighted_gradient(
    model: nn.Module, inputs: Tensor, labels: Tensor, coefficients: Tensor
) -> Tensor:
    """sum_i coefficients_i * gradient of sample i: [P], by one backward pass."""
    with eval_mode(model):
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
    combined = (coefficients.to(losses) * losses).sum()
    weights = list(model.parameters())
    return flatten(list(torch.autograd.grad(combined, weights, materialize_grads=True)))


def batch_gradients(
    model: nn.Module, examples: Examples, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Size of each batch and the gradient of its mean cross-entropy [P]; shuffled when a generator is given."""
    for index in batches(len(examples), batch_size, generator):
        inputs, labels = examples.batch(index.to(examples.device))
        share = torch.full((len(index),), 1 / len(index), dtype=torch.float64)
        yield len(index), weighted_gradient(model, inputs, labels, share)


def sample_gradients(model: nn.Module, examples: Examples) -> Tensor:
    """Gradient of every sample's cross-entropy: [N, P]. For few samples at a time, see ``chunks``."""

    def gradient(forward: Forward, weights: Weights, label: Tensor) -> Weights:
        return grad(lambda w: F.cross_entropy(forward(w), label))(weights)

    found = per_sample(model, examples, gradient)
    return torch.cat([part.flatten(1) for part in found.values()], dim=1)


def chunks(model: nn.Module, count: int) -> tuple[Tensor, ...]:
    """Index vectors over `count` samples, each of as many as may have their gradients in memory at once."""
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return torch.arange(count).split(max(1, MEMORY // size))


def per_sample(
    model: nn.Module, examples: Examples, compute: Callable[[Forward, Weights, Tensor], T]
) -> T:
    """What `compute` gives for every sample, stacked along a first axis of samples.

    Args:
        compute: From a function of the weights (by name) to the sample's logits [K], the weights and the
            sample's label, to tensors. Runs once, under vmap.
    """
    inputs, labels = examples.batch(slice(None))
    bare = _Bare(model)
    weights = {name: weight.detach() for name, weight in bare.named_parameters()}
    buffers = dict(bare.named_buffers())

    def single(sample: Tensor, label: Tensor) -> T:
        def forward(w: Weights) -> Tensor:
            return functional_call(bare, (w, buffers), (sample[None],))[0]

        return compute(forward, weights, label)

    with eval_mode(model):
        for hook in model._forward_pre_hooks.values():
            hook(model, (inputs,))
        return vmap(single, chunk_size=AT_ONCE)(inputs, labels)


class _Bare(nn.Module):
    """A model without the hooks on it: under vmap they would see, and count, one sample for all."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model.forward(inputs)
