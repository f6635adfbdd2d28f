"""Networks and weights that others publish: timm's networks by name, and the weights of torchvision and timm.

``timm:resnet18.a1_in1k`` is a network of timm, which the extra `musweep[timm]` installs. Published weights are
downloaded once to the cache of their library (``TORCH_HOME``, ``HF_HOME``), or are there already.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from mu.models.architectures import Factory
from mu.models.checkpoints import Arrays
from mu.vision import models as torchvision_models

TIMM = "timm:"
HUB = "hub"
"""What `weights` says for those that timm publishes under the network's name."""
STEM = "imagenet"
"""Form of networks that torchvision publishes weights of."""


class Published(NamedTuple):
    """Weights that a library publishes.

    Args:
        mean, std: What images are normalised by, of each channel in [0, 1] pixel units; empty when nobody says.
    """

    state: dict[str, Tensor]
    mean: Sequence[float]
    std: Sequence[float]


def names_weights(weights: str) -> bool:
    """Return whether `weights` is the name of published ones, such as `IMAGENET1K_V1` or `hub`, and no path."""
    return weights == HUB or re.fullmatch(r"[A-Z][A-Z0-9_]*", weights) is not None


def timm_factory(name: str) -> Factory:
    """Return the factory of a network of timm.

    Args:
        name: With the prefix `timm:`.

    Raises:
        ValueError: timm is not installed, or has no such network.
    """
    timm, plain = _timm(name), name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = ", ".join(timm.list_models(f"*{plain.partition('.')[0]}*")[:8])
        raise ValueError(
            f"timm {timm.__version__} has no network {plain!r}"
            + (f"; near are {near}" if near else "")
        )
    return partial(_create, name)


def published(name: str, stem: str | None, weights: str) -> Published:
    """Return the weights that are published of a network.

    Raises:
        ValueError: There are none of this name, or they can be neither read nor downloaded.
    """
    try:
        if name.startswith(TIMM):
            return _of_timm(name, weights)
        return _of_torchvision(name, stem, weights)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"weights {weights} of {name} cannot be had: {error}") from error


def _of_timm(name: str, weights: str) -> Published:
    if weights != HUB:
        raise ValueError(
            f"weights of {name} must be {HUB}, or a file of a state dict, but got {weights!r}"
        )
    network = _timm(name).create_model(name.removeprefix(TIMM), pretrained=True)
    settings = network.pretrained_cfg
    return Published(network.state_dict(), settings.get("mean", ()), settings.get("std", ()))


def _of_torchvision(name: str, stem: str | None, weights: str) -> Published:
    try:
        known = torchvision_models().get_model_weights(name)
    except ValueError:
        raise ValueError(
            f"there are no published weights of {name}; give a file of a state dict"
        ) from None
    if weights not in known.__members__:
        raise ValueError(
            f"weights of {name} must be one of {', '.join(known.__members__)}, or a file of a state dict, "
            f"but got {weights!r}"
        )
    if stem != STEM and not name.startswith("vit_"):
        raise ValueError(
            f"weights {weights} are of the form for ImageNet; set `stem: {STEM}` of {name}"
        )
    chosen = known[weights]
    transform = chosen.transforms()
    return Published(chosen.get_state_dict(progress=False), transform.mean, transform.std)


def _create(name: str, shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build a network of timm for these images; transformers are built for their size."""
    timm, plain = _timm(name), name.removeprefix(TIMM)
    sizes = {"num_classes": num_classes, "in_chans": shape[0]}
    try:
        network = timm.create_model(plain, img_size=tuple(shape[1:]), **sizes)
    except TypeError:  # convolutional networks take images of any size
        network = timm.create_model(plain, **sizes)
    assert isinstance(network, nn.Module)
    return network


def _timm(name: str) -> Any:
    torchvision_models()  # timm imports torchvision, which must be prepared first
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"{name} needs timm: pip install 'musweep[timm]' ({error})") from error
    return timm


def digest(arrays: Arrays) -> str:
    """Return a digest of weights by content, 64 hex digits."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        sha256.update(name.encode())
        sha256.update(arrays[name].tobytes())
    return sha256.hexdigest()
