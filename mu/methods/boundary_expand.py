"""Boundary Expand: train forgotten samples into an extra class, then remove that class. Zero-shot.

Paper: Chen et al., Boundary Unlearning, CVPR 2023 (arXiv:2303.11570).
Reference: `TY-LEE-KR/Boundary-Unlearning-Code` 19f9f23; the copy in `OPTML-Group/Unlearn-Saliency` a6e89fd.
Differs: the extra output is a layer beside the head, not a wider head. The mathematics is the same, and the
    model has its K outputs whenever it may be evaluated. SalUn's copy never removes the extra output and
    scores K + 1 logits. `mode` chooses what batch norm does on forgotten data alone; train mode, as in the
    code, pulls its statistics towards them.
Cost: epochs passes over D_f.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.models import head, logits_and_features
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer, one_pass

NEEDS = ("forget",)


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 1e-5,
    batch_size: Count = 64,
    optimizer: Optimizer = "sgd",
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 0.0,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Train forgotten samples towards the extra class, with all weights; yield after each epoch.

    Args:
        mode: Of batch norm and dropout while training.
    """
    widened = Widened(model, generator)
    extra = torch.full_like(split.forget.labels, split.num_classes)
    relabelled = split.forget.relabelled(extra)
    stepper = make_optimizer(widened, optimizer, lr, momentum, weight_decay)
    for _ in resumable(epochs, generator, widened, stepper):
        widened.train(mode == "train")
        one_pass(widened, stepper, relabelled, generator, batch_size)
        yield


class Widened(nn.Module):
    """A model with one output more, drawn as a row of a Xavier-normal head with bias 0; shares its weights."""

    def __init__(self, model: nn.Module, generator: torch.Generator):
        super().__init__()
        self.model = model
        classes, features = head(model).weight.shape
        std = math.sqrt(2 / (classes + 1 + features))
        row = torch.empty(1, features).normal_(0, std, generator=generator)
        self.row = nn.Parameter(row.to(head(model).weight))
        self.bias = nn.Parameter(torch.zeros_like(self.row[:, 0]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K + 1]."""
        logits, features = logits_and_features(self.model, inputs)
        return torch.cat([logits, nn.functional.linear(features, self.row, self.bias)], dim=1)
