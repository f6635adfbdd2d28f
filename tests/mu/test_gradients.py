"""Gradients as flat vectors: of batches, of single samples, and how both are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu import gradients
from mu.data import Examples
from mu.models import build
from mu.split import Split
from mu.training import count_samples


def gradient_of(model: nn.Module, examples: Examples) -> Tensor:
    """Return the gradient of the mean cross-entropy in eval mode, by the usual backward pass."""
    inputs, labels = examples.batch(slice(None))
    model.eval()
    loss = F.cross_entropy(model(inputs), labels)
    return gradients.flatten(list(torch.autograd.grad(loss, list(model.parameters()))))


def test_unflatten_undoes_flatten(model: nn.Module) -> None:
    weights = [weight.detach() for weight in model.parameters()]
    parts = gradients.unflatten(gradients.flatten(weights), model)
    assert all(torch.equal(part, weight) for part, weight in zip(parts, weights))


each_way = pytest.mark.parametrize("way", [gradients.one_by_one, gradients.at_once])


@each_way
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_gradients_of_single_samples(name: str, way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they are computed one by one, on a GPU at once."""
    monkeypatch.setattr(gradients, "one_by_one", way)
    model = build(name, (3, 8, 8), 4, (0.5,) * 3, (0.2,) * 3, seed=0)
    draws = torch.Generator().manual_seed(0)
    examples = Examples(torch.rand(3, 3, 8, 8, generator=draws), torch.tensor([0, 3, 1]))
    computed = gradients.sample_gradients(model.train(), examples)
    assert model.training
    for i, row in enumerate(computed):
        expected = gradient_of(model, examples.take(torch.tensor([i])))
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_batches_are_in_order_and_their_gradients_are_of_the_mean(
    model: nn.Module, split: Split
) -> None:
    sized_gradients = list(gradients.batch_gradients(model.train(), split.forget, 20))
    assert [count for count, _ in sized_gradients] == [20, len(split.forget) - 20]
    start = 0
    for count, gradient in sized_gradients:
        part = split.forget.take(torch.arange(start, start + count))
        torch.testing.assert_close(gradient, gradient_of(model, part), rtol=1e-4, atol=1e-6)
        start += count


def test_weighted_gradient_is_a_combination_of_single_ones(model: nn.Module, split: Split) -> None:
    examples = split.forget.take(torch.arange(5))
    coefficients = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    combined = gradients.weighted_gradient(model, *examples.batch(slice(None)), coefficients)
    single = gradients.sample_gradients(model, examples)
    torch.testing.assert_close(combined, coefficients @ single, rtol=1e-4, atol=1e-5)


@each_way
def test_samples_are_counted_once_each(
    model: nn.Module, split: Split, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "one_by_one", way)
    counter = count_samples(model)
    rows = gradients.sample_gradients(model, split.forget)
    assert counter[0] == len(rows) == len(split.forget)


def test_chunks_cover_all_samples_within_memory(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4 * sum(weight.numel() for weight in model.parameters())
    for memory, sizes in ((4 * size, [4, 4, 2]), (size // 2, [1] * 10), (99 * size, [10])):
        monkeypatch.setattr(gradients, "MEMORY", memory)
        parts = gradients.chunks(model, 10)
        assert [len(part) for part in parts] == sizes
        assert torch.cat(parts).tolist() == list(range(10))
