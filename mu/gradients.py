"""Gradients of the cross-entropy with respect to all weights as flat vectors: of batches, and of single samples.

A vector holds the weights [P] in the order of ``model.parameters()``. Everything is computed in eval mode and full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from mu.data import Examples, batches
from mu.models import eval_mode
from mu.models.precision import full_precision

Pull = Callable[[Tensor], Tensor]
Combine = Callable[[Tensor, Tensor, Pull], Tensor]

MEMORY = 2**30
"""Bytes that the gradients of single samples may take at once."""


def flatten(tensors: list[Tensor]) -> Tensor:
    """Return several tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """Return the parts of a vector [P] in the shapes of the model's weights."""
    weights = list(model.parameters())
    parts = vector.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights)]


def weighted_gradient(
    model: nn.Module, inputs: Tensor, labels: Tensor, coefficients: Tensor
) -> Tensor:
    """Return sum_i coefficients_i * gradient of sample i, [P], by one backward pass.

    Args:
        inputs: [N, ...], as the model takes them.
        labels: int64 [N].
        coefficients: float [N].
    """
    with eval_mode(model), full_precision(model):
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
    combined = (coefficients.to(losses) * losses).sum()
    weights = list(model.parameters())
    return flatten(list(torch.autograd.grad(combined, weights, materialize_grads=True)))


def batch_gradients(
    model: nn.Module, examples: Examples, batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield the size of each batch, in the order given, and the gradient of its mean cross-entropy [P]."""
    for index in batches(len(examples), batch_size, device=examples.device):
        inputs, labels = examples.batch(index)
        share = torch.full((len(index),), 1 / len(index), dtype=torch.float64, device=labels.device)
        yield len(index), weighted_gradient(model, inputs, labels, share)


def sample_gradients(model: nn.Module, examples: Examples) -> Tensor:
    """Return the gradient of every sample's cross-entropy: [N, P]. It is for few samples at a time, see ``chunks``."""

    def gradient(logits: Tensor, label: Tensor, pull: Pull) -> Tensor:
        return pull(logits.softmax(0) - F.one_hot(label, len(logits)))

    return per_sample(model, examples, gradient)


def chunks(model: nn.Module, count: int) -> tuple[Tensor, ...]:
    """Return index vectors over `count` samples, each of as many as may have their gradients in memory at once."""
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return torch.arange(count).split(max(1, MEMORY // size))


def per_sample(model: nn.Module, examples: Examples, combine: Combine) -> Tensor:
    """Return what `combine` makes of every sample, stacked along a first axis of samples.

    On a GPU all samples are taken at once by vmap; on a CPU, whose grouped convolutions are slow, one by one.

    Args:
        combine: From a sample's logits [K], its label and a function that takes weights [K] of the logits to
            the gradient [P] of their weighted sum, to a tensor.
    """
    inputs, labels = examples.batch(slice(None))
    every = at_once if inputs.is_cuda else one_by_one
    with eval_mode(model), full_precision(model):
        return every(model, inputs, labels, combine)


def one_by_one(model: nn.Module, inputs: Tensor, labels: Tensor, combine: Combine) -> Tensor:
    """Return what ``per_sample`` does, by one forward pass a sample."""
    weights = list(model.parameters())

    def single(sample: Tensor, label: Tensor) -> Tensor:
        logits = model(sample[None])[0]

        def pull(cotangent: Tensor) -> Tensor:
            parts = torch.autograd.grad(
                logits, weights, cotangent, retain_graph=True, materialize_grads=True
            )
            return flatten(list(parts))

        return combine(logits.detach(), label, pull)

    return torch.stack([single(*row) for row in zip(inputs, labels)])


def at_once(model: nn.Module, inputs: Tensor, labels: Tensor, combine: Combine) -> Tensor:
    """Return what ``per_sample`` does, by vmap; call the model's own hooks once for all samples."""
    bare = _Bare(model)
    weights = {name: weight.detach() for name, weight in bare.named_parameters()}
    buffers = dict(bare.named_buffers())

    def single(sample: Tensor, label: Tensor) -> Tensor:
        def forward(w: dict[str, Tensor]) -> Tensor:
            return functional_call(bare, (w, buffers), (sample[None],))[0]

        logits, pull_back, *_ = vjp(forward, weights)
        return combine(
            logits, label, lambda cotangent: flatten([*pull_back(cotangent)[0].values()])
        )

    for hook in model._forward_pre_hooks.values():
        hook(model, (inputs,))
    return vmap(single, chunk_size=256)(inputs, labels)


class _Bare(nn.Module):
    """A model without the hooks on it, which would see, and count, one sample for all under vmap."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model.forward(inputs)
