"""LoTUS: imitate the original on forgotten data as uncertainly as unseen data deserve, and as it is on retained data.

Paper: Spartalis et al., CVPR 2025 (arXiv:2503.18314).
Reference: `cspartalis/LoTUS` 35ae25e (`src/unlearning_methods/lotus_class.py`), 0de4ab2 (`src/bash_scripts`).
Differs: unseen data is the `twin` set; the code takes its validation set, which a method is not handed here. A
    sub-class whose class stays is treated like random samples. The published rate, 1e-4 in batches of 128, is for
    1,300 steps: the default is 1e-3 in batches of 64. `alpha` is 32, the scripts' value for a class; they have 2
    and, on CIFAR-10, 8 for random samples, which a small network follows too slowly. Once forgotten samples are
    known a point worse than unseen ones the code ends; here the later epochs change nothing.
Cost: epochs passes over D_f and the share of D_r + 1 forward pass of the original + epochs over D_f.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples, batches, concat
from mu.device import upload
from mu.evaluate import predict
from mu.knobs import Count, Fraction, NonNegative, Positive
from mu.methods.badteacher import original_logits
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer

NEEDS = ("retain", "forget", "twin", "original")
MINIMUM_TWIN = 20
"""Fewest held-out samples whose accuracy is worth aiming at."""
MARGIN = 0.01
"""How far the accuracy on D_f may fall below that on unseen data before it ends, as in the code."""


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError when the held-out set is too small, unless a whole class goes."""
    if not class_is_gone(split) and len(split.twin) < MINIMUM_TWIN:
        raise ValueError(
            f"lotus needs at least {MINIMUM_TWIN} held-out `twin` samples, "
            f"but there are {len(split.twin)}; raise data.twin"
        )


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 1e-3,
    alpha: NonNegative = 32.0,
    retain_fraction: Fraction = 0.3,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 64,
    optimizer: Optimizer = "adamw",
    noise: Literal["gumbel", "none"] = "gumbel",
) -> Iterator[None]:
    """Train on the original's tempered answers to D_f and its drawn labels of D_r; yield after each epoch.

    Args:
        alpha: The temperature is exp(alpha * (accuracy on D_f - accuracy on unseen data)), anew in each epoch.
        retain_fraction: Share of the retained data, drawn once, that is used.
        noise: `gumbel` draws from the original's answers anew in each step, `none` takes them as they are.
    """
    unseen = unseen_accuracy(model, split)
    answers = [original_logits(model, split, part) for part in ("forget", "retain")]
    count = max(1, int(retain_fraction * len(split.retain)))
    chosen = torch.randperm(len(split.retain), generator=generator)[:count].to(split.device)
    teacher = torch.cat([answers[0], answers[1][chosen]])
    examples = concat(split.forget, split.retain.rows(chosen))
    stepper = make_optimizer(model, optimizer, lr, 0.0, weight_decay)
    for _ in resumable(epochs, generator, model, stepper):
        excess = accuracy(model, split.forget) - unseen
        if excess > -MARGIN:
            model.train()
            for index in batches(len(examples), batch_size, generator, split.device):
                logits = teacher[index]
                if noise == "gumbel":
                    logits = logits + gumbel(logits, generator)
                aim = targets(logits, index < len(split.forget), math.exp(alpha * excess))
                stepper.zero_grad(set_to_none=True)
                F.cross_entropy(model(examples.batch(index)[0]), aim).backward()
                stepper.step()
        yield


def targets(logits: Tensor, forgotten: Tensor, temperature: float) -> Tensor:
    """Return what the student imitates: softened answers to forgotten samples, the largest alone of others; [B, K].

    Args:
        logits: Of the original, with noise or without, [B, K].
        forgotten: bool [B].
        temperature: Divides the logits of forgotten samples.
    """
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits)
    return torch.where(forgotten[:, None], (logits / temperature).softmax(1), hard)


def gumbel(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return a draw of Gumbel's distribution for each entry; the largest sum with logits is a draw of their softmax."""
    exponential = torch.empty(logits.shape).exponential_(generator=generator)
    return upload(-exponential.log(), logits.device).to(logits)


def unseen_accuracy(model: nn.Module, split: Split) -> float:
    """Return the model's accuracy on held-out data, in [0, 1]; 0 where a whole class goes."""
    held_out = split.twin
    return 0.0 if class_is_gone(split) else accuracy(model, held_out)


def class_is_gone(split: Split) -> bool:
    """Return whether no sample of the forgotten class is retained."""
    return split.forget_class is not None and not bool(
        (split.retain.labels == split.forget_class).any()
    )


def accuracy(model: nn.Module, examples: Examples) -> float:
    """Return the share of samples that a model gets right in eval mode, in [0, 1]."""
    predicted = torch.from_numpy(predict(model, examples)).argmax(1)
    return float((predicted == examples.labels.cpu()).double().mean())
