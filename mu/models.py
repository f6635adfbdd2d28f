"""Networks by name. Every model takes pixels in [0, 1] and normalises them itself, so that perturbation
budgets and blending mean the same for every method and data set."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mu.vision import models as torchvision_models


class Normalize(nn.Module):
    """Shift and scale each channel: (x - mean) / std, for x float [B, C, H, W] in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _small_cnn(channels: int, num_classes: int) -> nn.Module:
    """Three 3x3 convolutions with batch norm, global average pooling, one linear layer: 0.1 M weights.

    The second convolution has stride 2, which on a CPU costs a third of pooling after it; images of 16
    pixels and more are halved before it, too.
    """

    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(channels, 32),
        HalveLarge(16),
        *block(32, 64, stride=2),
        *block(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


class HalveLarge(nn.Module):
    """Max-pool by two where images have at least `least` pixels on each side; else do nothing."""

    def __init__(self, least: int):
        super().__init__()
        self.least = least

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.least:
            return images
        return nn.functional.max_pool2d(images, 2)


def _resnet18(channels: int, num_classes: int) -> nn.Module:
    """torchvision's ResNet18 with the stem for small images: 3x3 convolution, stride 1, no pooling."""
    network = torchvision_models().resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "small_cnn": _small_cnn,
    "resnet18": _resnet18,
}


def build(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> nn.Module:
    """Build a network with fresh weights that depend on `seed` alone.

    Args:
        name: A key of ``MODELS``.
        input_shape: [C, H, W].
        mean: Per-channel mean of the training images in [0, 1], folded into the model.
        std: Per-channel standard deviation, likewise.

    Raises:
        ValueError: The name is unknown.
    """
    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(Normalize(mean, std), MODELS[name](input_shape[0], num_classes))


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is a known model."""
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, but got {name!r}")


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose weights need no gradient: a teacher that is never the student."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def head(model: nn.Module) -> nn.Linear:
    """The classification head: the last linear layer in registration order.

    Raises:
        ValueError: The model has no linear layer.
    """
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Linear):
            return module
    raise ValueError("the model has no linear layer to serve as its head")


def reinitialize_head(model: nn.Module, generator: torch.Generator) -> None:
    """Redraw the head's weight (Xavier normal, gain sqrt 2) and keep its bias, as NatMU's code does."""
    weight = head(model).weight
    std = math.sqrt(2) * math.sqrt(2 / (weight.shape[0] + weight.shape[1]))
    fresh = torch.empty(weight.shape, dtype=weight.dtype).normal_(0, std, generator=generator)
    with torch.no_grad():
        weight.copy_(fresh)


def reinitialize(model: nn.Module, generator: torch.Generator) -> None:
    """Redraw all weights in place and reset batch-norm statistics, each layer as it draws its own.

    Weights outside such layers (class tokens, position embeddings) are drawn from N(0, 0.02^2).
    """
    fresh = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
            if reset is not None:
                reset()
            else:
                for weight in module.parameters(recurse=False):
                    nn.init.normal_(weight, std=0.02)
    model.load_state_dict(fresh.state_dict())


def logits_and_features(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass: logits [B, K] and penultimate activations [B, D] (the input of the head)."""
    seen: list[Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        logits = model(inputs)
    finally:
        hook.remove()
    return logits, seen[-1]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and each back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
