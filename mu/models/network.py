"""Networks by name. Every model takes pixels in [0, 1] and normalises them itself, so that perturbation
budgets and blending mean the same for every method and data set."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mu.checks import not_finite
from mu.device import pays_on_cpu
from mu.models import checkpoints, own_models, public
from mu.models.architectures import IMAGENET_FORMS, MODELS, TOKEN_MODELS, Factory
from mu.models.checkpoints import Arrays

BatchNorm = nn.modules.batchnorm._BatchNorm
"""What layers of batch norm have in common, of one, two and three dimensions."""

Stem = Literal["small", "imagenet"]
STEMS = get_args(Stem)


class Normalize(nn.Module):
    """Shift and scale each channel: (x - mean) / std, for x float [B, C, H, W] in [0, 1].

    `channels_last` are the kinds of device on which the network after it is laid out so (see ``mu.device.place``).
    """

    mean: Tensor
    std: Tensor
    channels_last: tuple[str, ...] = ("cuda",)

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


@dataclass(frozen=True)
class Normalization:
    """The mean that a network subtracts from each channel and the deviation it divides by, in [0, 1] pixel units."""

    mean: tuple[float, ...]
    """Of each channel."""
    std: tuple[float, ...]
    """Of each channel, > 0."""

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must hold a number for each channel, but have {len(self.mean)} "
                f"and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be > 0, but got {min(self.std)}")
        for name in not_finite(self):
            raise ValueError(f"{name} must be finite, but got {list(getattr(self, name))}")


@dataclass(frozen=True)
class ModelSpec:
    """A network, as a study asks for it."""

    # Names are the keys of ``MODELS``, networks of timm (``mu.models.public``), or import paths of a user's own
    # functions (``mu.models.own_models``).

    name: str
    """The network, `timm:` and a network of timm, or `module:function`."""
    stem: Stem | None = None
    """Form of networks that have both; else `small`."""
    weights: str | None = None
    """Pretrained weights to begin with: a file, one of torchvision's names such as `IMAGENET1K_V1`, or `hub` for those that
    timm publishes."""
    normalize: Normalization | None = None
    """Mean and standard deviation of each channel, in [0, 1], as part of the network; by default of the training
    images. Not for tokens."""

    def __post_init__(self) -> None:
        if self.name not in MODELS and ":" not in self.name:
            raise ValueError(
                f"model must be one of {', '.join(MODELS)}, or module:function, but got {self.name!r}"
            )
        if self.stem not in (None, *STEMS):
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, but got {self.stem!r}")
        if self.stem is not None and self.name not in IMAGENET_FORMS:
            raise ValueError(
                f"stem can be chosen for {', '.join(IMAGENET_FORMS)}, but {self.name} has one form"
            )
        if self.normalize is not None and self.name in TOKEN_MODELS:
            raise ValueError(f"normalize is for images, but {self.name} takes tokens")


@dataclass(frozen=True)
class Model:
    """A network that can be built: a ``ModelSpec`` with what its files hold.

    Args:
        key: All that affects its initial weights and its function, beside data and seed, as plain values: its
            name alone where nothing else was chosen.
        factory: Builds it, with weights drawn from torch's global generator.
        normalize: Inside the network; None is that of the data.
        takes: `images` or `tokens`; None where nobody says.
        pretrained: Weights to begin with.
        weights: Where they are from.
        modules: Names of the user's modules it is made of, which other machines do not have.
    """

    key: str | Mapping[str, Any]
    factory: Factory
    normalize: Normalization | None = None
    takes: str | None = None
    pretrained: Arrays | None = field(default=None, repr=False)
    weights: str = ""
    modules: tuple[str, ...] = ()


def resolve(spec: ModelSpec | str) -> Model:
    """Return the network that a study, or a name of ``MODELS`` alone, asks for.

    Raises:
        ValueError: There is no such network, its module cannot be imported, or its weights cannot be read.
    """
    if isinstance(spec, str):
        spec = ModelSpec(spec)
    factory, pretrained = MODELS.get(spec.name), None
    modules: tuple[str, ...] = ()
    chosen: dict[str, Any] = {}
    if factory is None:
        if spec.name.startswith(public.TIMM):
            factory = public.timm_factory(spec.name)
        else:
            own = own_models.load(spec.name)
            factory, modules, chosen["source"] = own.factory, own.modules, own.fingerprint
    if spec.stem == "imagenet":
        factory, chosen["stem"] = IMAGENET_FORMS[spec.name], spec.stem
    normalize = spec.normalize
    if spec.weights is not None and public.names_weights(spec.weights):
        state, mean, std = public.published(spec.name, spec.stem, spec.weights)
        pretrained = checkpoints.to_arrays(state)
        chosen["weights"] = public.digest(pretrained)
        if normalize is None and mean:
            normalize = Normalization(tuple(mean), tuple(std))
    elif spec.weights is not None:
        path = Path(spec.weights).expanduser()
        pretrained = checkpoints.to_arrays(checkpoints.read(path))
        chosen["weights"] = checkpoints.digest(path)
    if normalize is not None:
        chosen["normalize"] = dataclasses.asdict(normalize)
    known = spec.name in MODELS or spec.name.startswith(public.TIMM)
    takes = "tokens" if spec.name in TOKEN_MODELS else "images" if known else None
    key = {"name": spec.name, **chosen} if chosen else spec.name
    return Model(key, factory, normalize, takes, pretrained, spec.weights or "", modules)


def build(
    model: Model | str,
    input_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> nn.Sequential:
    """Build a network with fresh weights that depend on `seed` alone, or with its pretrained ones.

    Args:
        model: A network, or a key of ``MODELS``.
        input_shape: [C, H, W] of images, [L, V] of tokens.
        mean: Per-channel mean of the training images in [0, 1], folded into the model.
        std: Per-channel standard deviation, likewise.

    Returns:
        ``Normalize``, for images, and the network.

    Raises:
        ValueError: The name is unknown, the network cannot take such inputs, or its pretrained weights do not fit.
    """
    model = resolve(model) if isinstance(model, str) else model
    tokens = len(input_shape) == 2
    holds = "tokens" if tokens else "images"
    if model.takes not in (None, holds):
        fitting = [name for name in MODELS if (name in TOKEN_MODELS) == tokens]
        raise ValueError(
            f"{model.key} takes {model.takes}, but the data holds {holds}; for them there are "
            f"{', '.join(fitting)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model.factory(input_shape, num_classes)
    if model.pretrained is not None:
        state = checkpoints.from_arrays(model.pretrained)
        checkpoints.adopt(network, state, head(network), model.weights)
    if tokens:
        return nn.Sequential(network)
    normalize = Normalize(mean, std)
    if model.takes is None and not _takes_channels_last(network, input_shape):
        normalize.channels_last = ()
    elif pays_on_cpu(input_shape):
        normalize.channels_last = ("cpu", "cuda")
    return nn.Sequential(normalize, network)


def _takes_channels_last(network: nn.Module, input_shape: Sequence[int]) -> bool:
    """Return whether a network works in that layout; one that calls `view` on the output of a convolution does not."""
    with torch.random.fork_rng(devices=[]), eval_mode(network), torch.no_grad():
        try:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network(torch.zeros(2, *input_shape))
        except Exception:  # a user's code may raise anything; its use shows other faults
            return False
        finally:
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return True


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """Return the layers of batch norm, by name."""
    return {n: layer for n, layer in model.named_modules() if isinstance(layer, BatchNorm)}


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode whose weights need no gradient: a teacher that is never the student."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def head(model: nn.Module) -> nn.Linear:
    """Return the classification head: the last linear layer in registration order.

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
    """Run one forward pass; return logits [B, K] and penultimate activations [B, D] (the input of the head)."""
    features: list[Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda _, args: features.append(args[0]))
    try:
        logits = model(inputs)
    finally:
        hook.remove()
    return logits, features[-1].to(logits.dtype)


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
