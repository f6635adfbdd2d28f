"""Mixed precision as a property of a model: bf16 inside, float32 weights, gradients and logits.

The forward pass runs under autocast wherever the model is called, so that every method gains by it and none has to
know. Kinds of arithmetic that bf16 is too coarse for ask for ``full_precision``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mu.models.network import head

Precision = Literal["float32", "bf16"]
PRECISIONS = get_args(Precision)


class Mixed(nn.Sequential):
    """A network that computes in bf16, on any device; its head, its weights and its logits are float32.

    Names in its state dict are those of the network it was made of.
    """

    enabled: bool = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K], float32."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.enabled):
            logits: Tensor = super().forward(inputs)
        return logits.float()


class ExactLinear(nn.Linear):
    """A linear layer that computes in float32 under autocast.

    As a head it keeps logits from being rounded to eight bits, to which the entropies and margins that attacks
    look at are sensitive. It costs nothing.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def at_precision(model: nn.Sequential, precision: str) -> nn.Sequential:
    """Return the network of `model`, with its own weights, computing in `precision`; `float32` is the model itself.

    Raises:
        ValueError: The precision is not one of ``PRECISIONS``.
    """
    check_precision(precision)
    if precision == "float32":
        return model
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    if linear and linear[-1] is head(model):
        _replace(model, linear[-1], _exact(linear[-1]))
    return Mixed(*model)


def _exact(layer: nn.Linear) -> ExactLinear:
    """Return a layer with the same weights."""
    biased = layer.bias is not None
    exact = ExactLinear(layer.in_features, layer.out_features, biased, device="meta")
    exact.weight, exact.bias = layer.weight, layer.bias
    return exact


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)


def check_precision(precision: str) -> None:
    """Raise ValueError unless `precision` is known."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}")


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Compute in float32 meanwhile: for differences of outputs and for gradients that are squared."""
    mixed = [module for module in model.modules() if isinstance(module, Mixed)]
    before = [module.enabled for module in mixed]
    for module in mixed:
        module.enabled = False
    try:
        yield
    finally:
        for module, enabled in zip(mixed, before):
            module.enabled = enabled
