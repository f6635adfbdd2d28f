"""The toy problem: 128 tiny images of eight sub-classes in four classes, and a narrow network.

Small enough for hundreds of runs in a test session, and complete: it has superclasses, all four parts, three
channels with different statistics, batch norm, and a recipe that augments, so that every knob can matter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mu.data import Dataset, Part
from mu.forget import ForgetRequest
from mu.models.architectures import MODELS, Shape
from mu.problem import Problem, Weights, weights_of
from mu.training import Recipe

CLASSES = ("red", "green", "blue", "grey")
FINE_CLASSES = tuple(f"{colour}-{way}" for colour in CLASSES for way in ("rows", "columns"))
COLOURS = np.array([[0.8, 0.3, 0.2], [0.35, 0.7, 0.2], [0.3, 0.3, 0.6], [0.55, 0.5, 0.35]])
PER_FINE_CLASS = {"train": 16, "val": 5, "twin": 4, "test": 5}
RECIPE = Recipe(epochs=40, lr=0.1, batch_size=32, augment="crop_flip")
REQUESTS = {
    "full_class": ForgetRequest("full_class", target="green"),
    "sub_class": ForgetRequest("sub_class", target="blue-rows"),
    "random": ForgetRequest("random", fraction=0.2),
    "class_subset": ForgetRequest("class_subset", target="red", count=12),
    "uneven": ForgetRequest("random", fraction=0.5, stratified=False),
}


def _toy_cnn(shape: Shape, num_classes: int) -> nn.Module:
    """Build the shape of `small_cnn` at an eighth of its width: 1,700 weights."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_classes),
    )


MODELS["toy_cnn"] = _toy_cnn


def images(fine: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw noisy stripes in the colour of the class, along rows or columns by sub-class: uint8 [N, 3, 8, 8].

    They are hard enough that models get about one in eight wrong: methods that tell hard samples from easy need both.
    """
    stripes = 0.7 + 0.3 * (np.arange(8) // 2 % 2)
    ways = np.stack([np.tile(stripes[:, None], (1, 8)), np.tile(stripes, (8, 1))])
    pure = COLOURS[fine // 2][:, :, None, None] * ways[fine % 2][:, None]
    noisy = pure + rng.normal(0, 0.12, (len(fine), 3, 1, 1)) + rng.normal(0, 0.15, pure.shape)
    return (noisy.clip(0, 1) * 255).astype(np.uint8)


@cache
def toy_data(seed: int = 0) -> Dataset:
    """Return the toy data of a seed."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, count in PER_FINE_CLASS.items():
        fine = rng.permutation(np.repeat(np.arange(len(FINE_CLASSES)), count))
        parts[name] = Part(images(fine, rng), fine // 2, fine)
    return Dataset("toy", parts, CLASSES, FINE_CLASSES)


@cache
def toy_problem(kind: str = "full_class", seed: int = 0) -> Problem:
    """Return the toy problem with a forget request of one kind."""
    return Problem(toy_data(), "toy_cnn", RECIPE, REQUESTS[kind], seed)


@cache
def toy_reference(role: str, kind: str = "full_class", seed: int = 0) -> Weights:
    """Return the weights of a reference, which is trained once."""
    problem = toy_problem(kind, seed)
    model = problem.build()
    for _ in problem.train(role, model):
        pass
    return weights_of(model)
