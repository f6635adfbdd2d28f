"""Augmentation of a whole batch on its device: one random crop and flip per image, no per-image Python."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

POLICIES = ("none", "crop", "crop_flip")


@dataclass(frozen=True)
class Augment:
    """Random crop after zero padding, then a random horizontal flip.

    Args:
        pad: Pixels of zero padding on each side before cropping back to the image's size; 0 is no crop.
        flip: Whether each image is mirrored with probability one half.
    """

    pad: int = 0
    flip: bool = False

    def __bool__(self) -> bool:
        return self.pad > 0 or self.flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment float images [B, C, H, W]; draws come from the CPU `generator`."""
        count, channels, height, width = images.shape
        if self.pad > 0:
            shift = torch.randint(0, 2 * self.pad + 1, (2, count), generator=generator)
            shift = shift.to(images.device)
            padded = F.pad(images, (self.pad,) * 4)
            rows = shift[0][:, None] + torch.arange(height, device=images.device)
            columns = shift[1][:, None] + torch.arange(width, device=images.device)
            sample = torch.arange(count, device=images.device)
            channel = torch.arange(channels, device=images.device)
            images = padded[
                sample[:, None, None, None],
                channel[None, :, None, None],
                rows[:, None, :, None],
                columns[:, None, None, :],
            ]
        if self.flip:
            mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images


def policy(name: str, pad: int = 4) -> Augment:
    """The augmentation of a training recipe: `none`, `crop`, or `crop_flip` with `pad` pixels.

    Raises:
        ValueError: The name is not one of `POLICIES`.
    """
    if name not in POLICIES:
        raise ValueError(f"augment must be one of {', '.join(POLICIES)}, but got {name!r}")
    return Augment() if name == "none" else Augment(pad=pad, flip=name == "crop_flip")
