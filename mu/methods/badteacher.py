"""BadTeacher: imitate a random network on forgotten data and the original model on retained data.

Paper: Chundawat et al., AAAI 2023 (arXiv:2205.08096).
Reference: `vikram2000b/bad-teaching-unlearning` f1aa988; SSD `if-loops/selective-synaptic-dampening` cdfdc0e;
    NatMU `ZhengbaoHe/NatMU` f7b977e.
Differs: the divergence is averaged over samples, as in NatMU's copy; the original code also divides by the
    number of classes (`reduction="mean"`), which matters to SGD and hardly to Adam. There is no factor T^2, as
    in all of them. Teachers answer once, without augmentation. NatMU's class-wise script redraws the head
    first, which its paper grants to other methods only (`reinit_head`).
Cost: epochs passes over D_f and the share of D_r + 2 forward passes of the teachers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import concat
from mu.evaluate import predict
from mu.knobs import Count, Fraction, NonNegative, Positive
from mu.models import frozen_copy, reinitialize, reinitialize_head
from mu.split import Split
from mu.training import Hyperparameters, Optimizer, Schedule, fit

logger = logging.getLogger(__name__)
NEEDS = ("retain", "forget", "original")
Reduction = Literal["batchmean", "mean"]


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 1,
    lr: Positive = 1e-4,
    temperature: Positive = 1.0,
    retain_fraction: Fraction = 0.3,
    weight_decay: NonNegative = 0.0,
    batch_size: Count = 256,
    optimizer: Optimizer = "adam",
    schedule: Schedule = "constant",
    reduction: Reduction = "batchmean",
    reinit_head: bool = False,
) -> Iterator[None]:
    """Distil both teachers on their own data, shuffled together; yield after each epoch.

    Args:
        temperature: Divides the logits of teachers and student: the larger, the softer both.
        retain_fraction: Share of the retained data, drawn once, that is used.
        reduction: `batchmean` divides a batch's divergence by its samples, `mean` by classes, too.
    """
    competent = original_logits(model, split, "retain")
    incompetent = split.cached(
        "random network's logits", lambda draws: random_logits(model, split, draws)
    )
    split.diagnostics.instances = split.forget.relabelled(incompetent.softmax(1))
    count = max(1, int(retain_fraction * len(split.retain)))
    chosen = torch.randperm(len(split.retain), generator=generator)[:count].to(split.device)
    examples = concat(
        split.retain.rows(chosen).relabelled(competent[chosen]),
        split.forget.relabelled(incompetent),
    )
    if reinit_head:
        reinitialize_head(model, generator)
    yield from fit(
        model,
        examples,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        loss=lambda student, teacher: divergence(student, teacher, temperature, reduction),
    )


def original_logits(model: nn.Module, split: Split, part: Literal["retain", "forget"]) -> Tensor:
    """Return the logits [N, K] of the original model on a part, once per problem; ask before editing the model."""

    def compute(draws: torch.Generator) -> Tensor:
        return torch.from_numpy(predict(model, getattr(split, part))).to(split.device)

    return split.cached(f"original logits: {part}", compute)


def random_logits(model: nn.Module, split: Split, draws: torch.Generator) -> Tensor:
    """Return the logits [N, K] on the forgotten data of the same network with fresh weights, in eval mode.

    Its batch norm normalises nothing, so that it need not answer uniformly; how it answers is logged.
    """
    teacher = frozen_copy(model)
    reinitialize(teacher, draws)
    logits = torch.from_numpy(predict(teacher, split.forget)).to(split.device)
    probabilities = logits.softmax(1)
    entropy = -(probabilities * logits.log_softmax(1)).sum(1).mean()
    logger.info(
        "bad teacher: mean entropy %.3f nats, of a uniform answer %.3f",
        float(entropy),
        float(torch.tensor(float(logits.shape[1])).log()),
    )
    return logits


def divergence(
    student: Tensor, teacher: Tensor, temperature: float, reduction: Reduction = "batchmean"
) -> Tensor:
    """Return KL(teacher || student) of softened answers, from logits [B, K]; a scalar.

    Args:
        reduction: `batchmean` is the mean over samples; `mean` is that divided by K.
    """
    per_sample = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )
    return per_sample if reduction == "batchmean" else per_sample / student.shape[1]
