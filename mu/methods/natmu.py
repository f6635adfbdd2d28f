"""NatMU: blend each forgotten image into retained images of its likeliest wrong classes, and train on them.

Paper: He et al., arXiv:2405.15495, Eqs. 1, 2 and A1; ablations NatMU-NRI (Eq. A3) and NatMU-RL (Eq. A4).
Reference: `ZhengbaoHe/NatMU` f7b977e.
Differs: masks are the paper's (`masks="code"` gives the released ones, whose peak is short of 1 and whose
    order differs); crops pad by the paper's 2 pixels, the code's 4 are reachable by `pad`. When a class runs
    out of unused images the selection walks down the ranking instead of drawing for ever. Ranks are of logits
    with the own class at minus infinity: float32 probabilities can tie at zero. The code's default `delta`
    of 1 makes masks of ones, which is NatMU-RL; ours is the middle of the paper's usual [-0.1, 0.1]. The head is
    redrawn as in appendix A.2, where a class or sub-class goes as a whole; `reinit_head` says otherwise.
Cost: 1 forward pass over D_f + epochs passes over D_r and 4 |D_f| hybrids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from mu.data import Examples, as_float, concat
from mu.evaluate import predict
from mu.knobs import Bounds, Count, CountOrZero, NonNegative, Positive
from mu.models import reinitialize_head
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

NEEDS = ("retain", "forget", "original")
PATCHES = 4


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("blends images by masks")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 4e-4,
    weight_decay: NonNegative = 5e-4,
    delta: Annotated[float, Bounds(-1, 1)] = 0.0,
    batch_size: Count = 128,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "cosine",
    masks: Literal["paper", "code"] = "paper",
    pad: CountOrZero = 2,
    reinit_head: bool | None = None,
) -> Iterator[None]:
    """Fine-tune on retained data and four hybrids of every forgotten sample; yield after each epoch.

    Args:
        delta: Added to every mask before clipping to [0, 1]: 1 keeps the forgotten image whole, -1 drops it.
        pad: Pixels of the random crop, where the training recipe crops; never applied to hybrids.
        reinit_head: Whether the head is redrawn first. None is the paper's choice: where a whole class or sub-class
            is forgotten.
    """

    def shares(images: Tensor) -> Tensor:
        return weight_masks(images.shape[-2:], delta, masks).to(images.device)

    yield from finetune_on_instances(
        model,
        split,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        blend=lambda forget, retain: hybrids(forget, retain, shares(forget)),
        bare=lambda forget: masked(forget, shares(forget)),
        pad=pad,
        reinit_head=reinit_head,
    )


def finetune_on_instances(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    hyperparameters: Hyperparameters,
    *,
    blend: Callable[[Tensor, Tensor], Tensor],
    bare: Callable[[Tensor], Tensor],
    pad: int,
    reinit_head: bool | None,
) -> Iterator[None]:
    """Train as NatMU on D_r and the unlearning instances that `blend` makes; yield after each epoch.

    Args:
        blend: From forgotten images [N, C, H, W] and retained images [4 N, C, H, W], both in [0, 1], to
            instances [4 N, C, H, W]; row 4 i + j belongs to forgotten image i and its j-th class.
        bare: From forgotten images to the part of them that each instance holds, likewise.
        pad: Pixels of the random crop of retained images, where the training recipe crops.
        reinit_head: Whether the head is redrawn first; None where a whole class or sub-class is forgotten.
    """
    chosen = split.cached("natmu selection", lambda draws: _select(model, split, draws))
    retain = split.retain.take(chosen)

    def labelled(images: Tensor) -> Examples:
        if split.retain.dtype == torch.uint8:
            images = images.mul(255).round().to(torch.uint8)
        return Examples(images, retain.labels)

    forget = as_float(split.forget.inputs)
    instances = labelled(blend(forget, as_float(retain.inputs)))
    split.diagnostics.instances = instances
    split.diagnostics.partial = lambda: labelled(bare(as_float(split.forget.inputs)))
    examples = concat(split.retain, instances)
    if reinit_head is None:
        reinit_head = split.forget_class is not None
    if reinit_head:
        reinitialize_head(model, generator)
    yield from fit(
        model,
        examples,
        generator,
        hyperparameters,
        augment=replace(split.augment, pad=pad) if split.augment else None,
        augmentable=torch.arange(len(examples)) < len(split.retain),
    )


def _select(model: nn.Module, split: Split, draws: torch.Generator) -> Tensor:
    ranking = rank_classes(
        torch.from_numpy(predict(model, split.forget)), split.forget.labels.cpu()
    )
    order = torch.randperm(len(split.retain), generator=draws)
    picked = select_retain(ranking, split.retain.labels.cpu()[order])
    return order[picked].to(split.device)


def rank_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the classes of each sample by falling logit, its own label last: int64 [N, K]."""
    logits = logits.clone()
    logits[torch.arange(len(labels)), labels] = -torch.inf
    return logits.argsort(dim=1, descending=True, stable=True)


def select_retain(ranking: Tensor, retain_labels: Tensor) -> Tensor:
    """Give every forgotten sample one unused retained image of each of its four likeliest classes.

    The first unused image of a class is taken; a class without one is passed over for the next of the
    ranking. Only when no unused image is left at all are images used again.

    Args:
        ranking: int64 [N, K], classes of each sample in order of preference.
        retain_labels: int64 [M], in the order in which images are to be used up.

    Returns:
        Positions into `retain_labels`, int64 [4 N]; row 4 i + j is the j-th choice of sample i.
    """
    pools: dict[int, list[int]] = {}

    def refill() -> None:
        for position in reversed(range(len(retain_labels))):
            pools.setdefault(labels[position], []).append(position)

    labels = retain_labels.tolist()
    refill()
    picked: list[int] = []
    for preference in ranking.tolist():
        wanted = len(picked) + PATCHES
        while len(picked) < wanted:
            available = [label for label in preference if pools.get(label)]
            if not available:
                refill()
            for label in available[: wanted - len(picked)]:
                picked.append(pools[label].pop())
    return torch.tensor(picked)


def weight_masks(shape: torch.Size, delta: float, variant: str = "paper") -> Tensor:
    """Return the share of the forgotten image at each pixel, for the four patches: float64 [4, H, W] in [0, 1].

    `paper` (Eqs. 1, A1): a tent over the columns, its complement, and both turned by 90 degrees, plus `delta`,
    clipped. `code`: the same times (b - 1) / b with b = W / 2, in the order rows, columns, complements.
    """
    height, width = shape
    columns = _tent(width).expand(height, width)
    rows = _tent(height)[:, None].expand(height, width)
    if variant == "code":
        short = (width // 2 - 1) / (width // 2)
        stack = short * torch.stack([rows, columns, 1 - rows, 1 - columns])
    else:
        stack = torch.stack([columns, 1 - columns, rows, 1 - rows])
    return (stack + delta).clamp(0, 1)


def _tent(size: int) -> Tensor:
    """Return a tent: 0 at both edges, rising by equal steps to 1 in the middle; float64 [size]."""
    position = torch.arange(size, dtype=torch.float64)
    return (2 * torch.minimum(position, size - 1 - position) / max(1, size - 2)).clamp(max=1)


def hybrids(forget: Tensor, retain: Tensor, masks: Tensor) -> Tensor:
    """Return x_f * m_j + x_r * (1 - m_j) for each forgotten image and patch (Eq. 2): float [4 N, C, H, W]."""
    share = masks.to(forget.dtype).repeat(len(forget), 1, 1)[:, None]
    return forget.repeat_interleave(PATCHES, 0) * share + retain * (1 - share)


def masked(forget: Tensor, masks: Tensor) -> Tensor:
    """Return x_f * m_j for each forgotten image and mask (Eq. A3): float [4 N, C, H, W]."""
    nothing = torch.zeros((), dtype=forget.dtype, device=forget.device)
    return hybrids(forget, nothing, masks)
