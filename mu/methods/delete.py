"""DELETE: distil the original's answers on forgotten data, with the forgotten class struck out of them. Zero-shot.

Paper: Zhou et al., CVPR 2025 (arXiv:2503.23751).
Reference: `shaaaaron/DELETE` 1dfe8cc (`method/delete.py`, `scripts.sh`).
Differs: the code sets a sample's own logit to -1e10, this one to minus infinity: the target is the original's softmax
    over the other classes. The teacher answers once. Batch norm has a knob: the code trains
    in train mode on forgotten data alone (and has a switch, off, against it), which drags its statistics along.
    The published rate, 1e-3 for 20 epochs, is for 800 steps on CIFAR-10 (`lr`).
Cost: epochs passes over D_f + 1 forward pass of the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.methods.badteacher import divergence, original_logits
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer, one_pass

NEEDS = ("forget", "original")
REQUESTS = ("full_class", "sub_class")
"""It takes the label away from every forgotten sample, which a retrained model still gives to most samples of other requests."""


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 20,
    lr: Positive = 1e-3,
    temperature: Positive = 1.0,
    batch_size: Count = 128,
    optimizer: Optimizer = "sgd",
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 0.0,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Distil the masked answers on the forgotten data; yield after each epoch.

    Args:
        temperature: Divides the logits of original and student; the code has none, which is 1.
        mode: Of batch norm and dropout while training.
    """
    targets = masked(original_logits(model, split, "forget"), split.forget.labels)
    taught = split.forget.relabelled(targets)
    split.diagnostics.instances = split.forget.relabelled(targets.softmax(1))

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return divergence(student, teacher, temperature)

    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    for _ in resumable(epochs, generator, model, stepper):
        model.train(mode == "train")
        one_pass(model, stepper, taught, generator, batch_size, loss)
        yield


def masked(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits [N, K] with minus infinity in place of those of the labels [N]."""
    return logits.scatter(1, labels[:, None], -torch.inf)
