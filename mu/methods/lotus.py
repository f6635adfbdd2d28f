"""LoTUS

Paper: Spartalis et al., CVPR 2025 (arXiv:2503.18314).
Reference: `cspartalis/LoTUS` 35ae25e.
Differs: TODO
Cost: TODO
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import batches, concat
from mu.device import upload
from mu.evaluate import predict
from mu.knobs import Count, Fraction, NonNegative, Positive
from mu.methods.badteacher import original_logits
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer

NEEDS = ("retain", "forget", "twin", "original")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 1e-4,
    alpha: NonNegative = 8.0,
    retain_fraction: Fraction = 0.3,
    batch_size: Count = 128,
    optimizer: Optimizer = "adamw",
    weight_decay: NonNegative = 5e-4,
    noise: Literal["gumbel", "none"] = "gumbel",
) -> Iterator[None]:
    target = unseen_accuracy(model, split)
    count = max(1, int(retain_fraction * len(split.retain)))
    chosen = torch.randperm(len(split.retain), generator=generator)[:count].to(split.device)
    teacher = torch.cat([original_logits(model, split, "forget"), original_logits(model, split, "retain")[chosen]])
    examples = concat(split.forget, split.retain.rows(chosen))
    positions = torch.arange(len(examples), device=split.device)
    stepper = make_optimizer(model, optimizer, lr, 0.0, weight_decay)
    for _ in resumable(epochs, generator, model, stepper):
        excess = accuracy(model, split.forget) - target
        if excess > -0.01:
            temperature = math.exp(alpha * excess)
            model.train()
            for index in batches(len(examples), batch_size, generator, split.device):
                inputs = examples.batch(index)[0]
                drawn = gumbel(teacher[index], generator) if noise == "gumbel" else teacher[index]
                forgotten = positions[index] < len(split.forget)
                t = targets(drawn, forgotten, temperature)
                stepper.zero_grad(set_to_none=True)
                (-(t * model(inputs).log_softmax(1)).sum(1).mean()).backward()
                stepper.step()
        yield


def gumbel(logits, generator):
    u = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    g = -torch.log(-torch.log(u.clamp(1e-300, 1)))
    return logits + upload(g.to(logits.dtype), logits.device)


def targets(logits, forgotten, temperature):
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
    return torch.where(forgotten[:, None], (logits / temperature).softmax(1), hard)


def accuracy(model, examples):
    logits = torch.from_numpy(predict(model, examples))
    return float((logits.argmax(1) == examples.labels.cpu()).double().mean())


def unseen_accuracy(model, split):
    held_out = split.twin
    if split.forget_class is not None and not bool((split.retain.labels == split.forget_class).any()):
        return 0.0
    return accuracy(model, held_out)
