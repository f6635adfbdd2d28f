"""Activation (forget) pruning: silence the activations that respond most to forgotten data, and fine-tune.

Paper: Akbari, Gaudi and Morshed, section 3.3 (Michigan State University report).
Reference: `sachit3022/unlearning` a58b04f, `unl_algorithms/pruning`.
Differs: quantiles fall linearly over the activation layers in order of registration; the code names ResNet18's
    by hand, in the same range. Every second epoch prunes until all have, as in the code; where that needs more
    epochs than there are, they follow one another. In such an epoch one forgotten batch comes before each equal
    share of the retained ones; the code's condition is inverted, so that nearly all forgotten batches come
    first (`interleave="code"`). The cosine reaches zero; the code counts only one step in each of its other
    epochs and ends at two thirds of the rate. Masks are made in eval mode. `quantile_over` offers the text's
    reading, one quantile over the whole activation, and one over the locations of each channel.
Cost: epochs passes over D_r + 2 forward passes over D_f each pruning epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import batches
from mu.knobs import Bounds, Count, NonNegative, Positive
from mu.models import eval_mode
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Schedule, learning_rate_factor, make_optimizer, set_lr

NEEDS = ("retain", "forget")
STEADY = True
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)
Quantile = Annotated[float, Bounds(low=0, high=1)]
Over = Literal["channels", "all", "locations"]
Interleave = Literal["even", "code"]


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError when the model has no activation layer that could be masked."""
    mask_activations(copy.deepcopy(model))


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 4,
    prune_epochs: Count = 2,
    q_shallow: Quantile = 0.99,
    q_deep: Quantile = 0.90,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 1e-3,
    batch_size: Count = 512,
    schedule: Schedule = "cosine",
    quantile_over: Over = "channels",
    interleave: Interleave = "even",
    reset_mask: bool = False,
) -> Iterator[None]:
    """Train on retained data with AdamW, pruning on forgotten data in some epochs; yield after each epoch.

    The model keeps the masks: its activation layers are replaced by ``MaskedActivation``.

    Args:
        epochs: Passes over the retained data.
        prune_epochs: How many of them also pass over the forgotten data.
        q_shallow: Quantile of the first activation layer above which mean activations are pruned; 1 prunes none.
        q_deep: The same of the last layer; linear between.
        quantile_over: Of what the quantile is taken: the channels at each location, all values of an
            activation, or the locations of each channel. Features of vectors and tokens count as channels.
        interleave: Whether forgotten batches are spread over a prune epoch or, as in the code, come first.
        reset_mask: Whether masks are lifted after each epoch that does not prune.

    Raises:
        ValueError: The model has no activation layers.
    """
    layers = mask_activations(model)
    quantiles = torch.linspace(q_shallow, q_deep, len(layers), dtype=torch.float64).tolist()
    pruning = pruning_epochs(epochs, prune_epochs)
    stepper = make_optimizer(model, "adamw", lr, weight_decay=weight_decay)
    per_epoch = sum(1 for _ in batches(len(split.retain), batch_size))
    shuffled = partial(batches, batch_size=batch_size, generator=generator, device=split.device)
    for epoch in resumable(epochs, generator, model, stepper):
        step = epoch * per_epoch
        retain_batches = list(shuffled(len(split.retain)))
        forget_batches = list(shuffled(len(split.forget))) if epoch in pruning else []
        model.train()
        for forget_turn in turns(len(retain_batches), len(forget_batches), interleave):
            if forget_turn:
                inputs, _ = split.forget.batch(forget_batches.pop(0))
                prune(model, layers, inputs, quantiles, quantile_over)
                continue
            inputs, labels = split.retain.batch(retain_batches.pop(0))
            set_lr(stepper, lr * learning_rate_factor(schedule, step, epochs * per_epoch))
            stepper.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), labels).backward()
            stepper.step()
            step += 1
        if reset_mask and epoch not in pruning:
            for layer in layers:
                layer.reset()
        yield


def pruning_epochs(epochs: int, prune_epochs: int) -> set[int]:
    """Return which epochs, from 0, prune: every second one from the first, or closer if there are too few."""
    return {int(index * min(2, epochs / prune_epochs)) for index in range(prune_epochs)}


class MaskedActivation(nn.Module):
    """An activation layer whose output is multiplied by a mask, in train and eval mode alike.

    A layer that a network calls at several places has one mask for all outputs of a shape, as in the code.
    Masks are buffers `mask_<shape>`, bool [1, ...]: they go with copies and state dicts (see ``restore``).
    """

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation
        self.quantile: float | None = None
        self.over: Over = "channels"

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.activation(inputs)
        name = "mask_" + "x".join(map(str, output.shape[1:]))
        mask = self._buffers.get(name)
        if mask is not None and mask.device != output.device:  # loaded from a file
            mask = mask.to(output.device)
            self.register_buffer(name, mask)
        if self.quantile is not None:
            mean = output.mean(
                0, keepdim=True, dtype=torch.promote_types(output.dtype, torch.float)
            )
            kept = keep_mask(mean, self.quantile, self.over)
            mask = kept if mask is None else mask & kept
            self.register_buffer(name, mask)
        return output if mask is None else output * mask

    def reset(self) -> None:
        """Forget all masks."""
        self._buffers.clear()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any
    ) -> None:
        self.reset()
        for name, value in state_dict.items():
            owner, _, leaf = name.rpartition(".")
            if leaf.startswith("mask_") and f"{owner}." == prefix:
                self.register_buffer(leaf, value.clone())
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def keep_mask(mean: Tensor, quantile: float, over: Over = "channels") -> Tensor:
    """Return where a mean activation [1, C, H, W], [1, T, C] or [1, C] does not exceed its quantile: bool, same shape.

    Quantiles are interpolated linearly, in float64: a rounded threshold would decide ties.
    """
    mean = mean.detach().double()
    if over == "all":
        return mean <= mean.flatten().quantile(quantile)
    channels = 1 if mean.ndim == 4 else mean.ndim - 1
    if over == "channels" or mean.ndim == 2:
        return mean <= mean.quantile(quantile, dim=channels, keepdim=True)
    places = mean.movedim(channels, 1).flatten(2).quantile(quantile, dim=2)
    return mean <= (places[:, :, None, None] if mean.ndim == 4 else places[:, None])


def mask_activations(model: nn.Module) -> list[MaskedActivation]:
    """Wrap every activation layer in place, once however often it is registered; in order of registration.

    Raises:
        ValueError: The model has none.
    """
    wrapped: dict[nn.Module, MaskedActivation] = {}

    def visit(module: nn.Module) -> None:
        for name, child in module._modules.items():
            if isinstance(child, ACTIVATIONS):
                wrapped.setdefault(child, MaskedActivation(child))
                module._modules[name] = wrapped[child]
            elif isinstance(child, MaskedActivation):
                wrapped.setdefault(child, child)
            elif child is not None:
                visit(child)

    visit(model)
    if not wrapped:
        kinds = ", ".join(kind.__name__ for kind in ACTIVATIONS)
        raise ValueError(
            f"activation_prune masks activation layers ({kinds}), but {type(model).__name__} has none; "
            "functional calls such as F.relu cannot be masked"
        )
    return list(wrapped.values())


@torch.no_grad()
def prune(
    model: nn.Module,
    layers: list[MaskedActivation],
    inputs: Tensor,
    quantiles: list[float],
    over: Over = "channels",
) -> Tensor:
    """Tighten all masks in one forward pass in eval mode; later layers see what earlier ones have pruned.

    Returns:
        The model's output in that pass.
    """
    for layer, quantile in zip(layers, quantiles):
        layer.quantile, layer.over = quantile, over
    try:
        with eval_mode(model):
            return model(inputs)
    finally:
        for layer in layers:
            layer.quantile = None


def turns(retain_batches: int, forget_batches: int, interleave: Interleave) -> Iterator[bool]:
    """Yield in which order an epoch takes its batches; True is a forgotten one. All batches are taken."""
    period = math.ceil((retain_batches + forget_batches) / max(1, forget_batches))
    for turn in range(retain_batches + forget_batches):
        first = turn % period == 0
        wanted = first if interleave == "even" else not first
        forget_turn = forget_batches > 0 and (wanted or retain_batches == 0)
        if forget_turn:
            forget_batches -= 1
        else:
            retain_batches -= 1
        yield forget_turn


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the state of a pruned model, masks included, into a freshly built one."""
    mask_activations(model)
    model.load_state_dict(state)
