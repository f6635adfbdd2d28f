"""A network of two layers written out in numpy, float64: what golden tests of methods compare a torch network with.

Logits are W2 tanh(W1 x + b1) + b2. Nothing here uses torch's gradients, nor any code of a method.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mu.data import Examples

Array = NDArray[np.float64]
Weights = dict[str, Array]
NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


def draw(rng: np.random.Generator, inputs: int = 6, hidden: int = 5, classes: int = 4) -> Weights:
    """Return weights W1, b1, W2, b2 by name, in the order of the torch network's parameters."""
    shapes = ((hidden, inputs), (hidden,), (classes, hidden), (classes,))
    return {name: rng.normal(0, 0.7, shape) for name, shape in zip(NAMES, shapes)}


def examples(rng: np.random.Generator, labels: list[int], inputs: int = 6) -> Examples:
    """Return samples with drawn inputs, float64 [N, inputs]."""
    drawn = torch.from_numpy(rng.normal(size=(len(labels), inputs)))
    return Examples(drawn, torch.tensor(labels))


def as_torch(weights: Weights) -> nn.Sequential:
    """Return the same network in torch, float64."""
    classes, hidden = weights["fc2.weight"].shape
    first = nn.Linear(weights["fc1.weight"].shape[1], hidden)
    layers = [("fc1", first), ("tanh", nn.Tanh()), ("fc2", nn.Linear(hidden, classes))]
    model = nn.Sequential(OrderedDict(layers)).double()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def of_torch(model: nn.Module) -> Weights:
    """Return a torch network's weights."""
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def forward(weights: Weights, inputs: Array) -> tuple[Array, Array]:
    """Return logits [B, K] and hidden activations [B, H] for inputs [B, D]."""
    hidden = np.tanh(inputs @ weights["fc1.weight"].T + weights["fc1.bias"])
    return hidden @ weights["fc2.weight"].T + weights["fc2.bias"], hidden


def backward(weights: Weights, inputs: Array, by_logits: Array) -> Weights:
    """Return the gradients of a loss whose gradient by the logits is given, [B, K]."""
    _, hidden = forward(weights, inputs)
    by_sum = by_logits @ weights["fc2.weight"] * (1 - hidden**2)
    grads = (by_sum.T @ inputs, by_sum.sum(0), by_logits.T @ hidden, by_logits.sum(0))
    return dict(zip(NAMES, grads))


def softmax(logits: Array) -> Array:
    """Return the softmax of each row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def one_hot(labels: NDArray[np.int64], classes: int) -> Array:
    """Return rows of the identity."""
    return np.eye(classes)[labels]


def by_cross_entropy(weights: Weights, inputs: Array, targets: Array) -> Weights:
    """Return the gradients of the mean cross-entropy with soft targets [B, K]."""
    probabilities = softmax(forward(weights, inputs)[0])
    return backward(weights, inputs, (probabilities - targets) / len(inputs))


class Sgd:
    """Gradient descent with momentum and L2 decay, as torch has it: the first step's velocity is its gradient."""

    def __init__(self, lr: float, momentum: float = 0.0, decay: float = 0.0):
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.velocity: Weights | None = None

    def step(self, weights: Weights, gradients: Weights) -> Weights:
        """Return the weights after a step."""
        grads = {name: gradients[name] + self.decay * weights[name] for name in NAMES}
        if self.velocity is not None:
            grads = {name: self.momentum * self.velocity[name] + grads[name] for name in NAMES}
        self.velocity = grads
        return {name: weights[name] - self.lr * grads[name] for name in NAMES}


def assert_same(model: nn.Module, expected: Weights, tolerance: float = 1e-10) -> None:
    """Fail unless a torch network has these weights."""
    for name, value in of_torch(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)
