"""Augmentation of a whole batch on its device: a random crop, flip and hole per image, no per-image Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from mu.device import upload

Policy = Literal["none", "crop", "crop_flip", "crop_flip_cutout"]
POLICIES = get_args(Policy)


@dataclass(frozen=True)
class Augment:
    """Random crop after zero padding, then a random horizontal flip, then a random black square.

    Args:
        pad: Pixels of zero padding on each side before cropping back to the image's size; 0 is no crop.
        flip: Whether each image is mirrored with probability one half.
        cutout: Side of the square (DeVries & Taylor, arXiv:1708.04552) as a share of the image's shorter side, in
            [0, 1]; its centre may be any pixel, so that part of it can fall outside. 0 is no square.
            Differs: their square is the normalised images' zero, the mean; here it is black, as the padding is.
    """

    pad: int = 0
    flip: bool = False
    cutout: float = 0.0

    def __bool__(self) -> bool:
        """Return whether anything is changed."""
        return self.pad > 0 or self.flip or self.cutout > 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images [B, C, H, W], uint8 or float; draws come from the CPU `generator`."""
        if not self:
            return images  # which may then be no images at all
        count, _, height, width = images.shape
        draws = []
        if self.pad > 0:
            draws += [*torch.randint(0, 2 * self.pad + 1, (2, count), generator=generator)]
        if self.flip:
            draws.append((torch.rand(count, generator=generator) < 0.5).long())
        if self.cutout > 0:
            draws += [
                torch.randint(size, (count,), generator=generator) for size in (height, width)
            ]
        drawn = [*upload(torch.stack(draws), images.device)]
        if self.pad > 0:
            images = crop(images, self.pad, drawn.pop(0), drawn.pop(0))
        if self.flip:
            mirrored = drawn.pop(0).bool()
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.cutout > 0:
            side = round(self.cutout * min(height, width))
            images = cut_out(images, side, drawn.pop(0), drawn.pop(0))
        return images


def crop(images: Tensor, pad: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Crop each image [B, C, H, W] to the window that starts at its row and column (int64 [B]) after zero padding."""
    height, width = images.shape[-2:]
    windows = F.pad(images, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def cut_out(images: Tensor, side: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Black out a square of `side` pixels around a row and column of each image (int64 [B])."""
    near = []
    for centre, size in zip((rows, columns), images.shape[-2:]):
        first = centre[:, None] - side // 2
        place = torch.arange(size, device=images.device)
        near.append((place >= first) & (place < first + side))
    hole = near[0][:, None, :, None] & near[1][:, None, None, :]
    return images.masked_fill(hole, 0)


def policy(name: str, pad: int = 4) -> Augment:
    """Return the augmentation of a training recipe, one of ``POLICIES``, with `pad` pixels and holes of half the image.

    Raises:
        ValueError: The name is not one of `POLICIES`.
    """
    if name not in POLICIES:
        raise ValueError(f"augment must be one of {', '.join(POLICIES)}, but got {name!r}")
    if name == "none":
        return Augment()
    return Augment(pad, "flip" in name, 0.5 if "cutout" in name else 0.0)
