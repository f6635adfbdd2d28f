"""Boundary Shrink: give forgotten samples the nearest wrong label, and fine-tune on them alone. Zero-shot.

Paper: Chen et al., Boundary Unlearning, CVPR 2023 (arXiv:2303.11570).
Reference: `TY-LEE-KR/Boundary-Unlearning-Code` 19f9f23; the copy in `OPTML-Group/Unlearn-Saliency` a6e89fd.
Differs: the nearest label is never the sample's own; the code takes the plain argmax, which is the true label
    where the attack fails (`exclude_own_class=False`). The attack is of `bound` in [0, 1] pixel units, as the
    paper says; the original code undoes a normalisation that its data do not have (with a mistyped mean), so
    that its bound is another. Attacked pixels are rounded to 1/255, as there. Labels are found once: the
    attacked model does not change. `mode` chooses what batch norm does on forgotten data alone; train mode,
    as in the code, pulls its statistics towards them. Curvature and reweighting extras are left out.
Cost: 1 attack on D_f + epochs passes over D_f.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples
from mu.knobs import Count, Momentum, NonNegative, Positive
from mu.models import eval_mode
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Optimizer, make_optimizer, one_pass

NEEDS = ("forget",)
ATTACK_BATCH = 1024
logger = logging.getLogger(__name__)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("moves pixels along their gradients")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 1e-5,
    bound: Positive = 0.1,
    batch_size: Count = 64,
    optimizer: Optimizer = "sgd",
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 0.0,
    exclude_own_class: bool = True,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Train clean forgotten samples towards their nearest wrong labels; yield after each epoch.

    Args:
        bound: Largest change of a pixel in the search for a label, in [0, 1] units.
        exclude_own_class: Whether a sample's own class can not be its new label.
        mode: Of batch norm and dropout while training.
    """
    labels = nearest_labels(model, split.forget, bound, exclude_own_class)
    relabelled = split.forget.relabelled(labels)
    split.diagnostics.instances = relabelled
    stepper = make_optimizer(model, optimizer, lr, momentum, weight_decay)
    for _ in resumable(epochs, generator, model, stepper):
        model.train(mode == "train")
        one_pass(model, stepper, relabelled, generator, batch_size)
        yield


def nearest_labels(
    model: nn.Module, examples: Examples, bound: float, exclude_own_class: bool = True
) -> Tensor:
    """Return the class that the model, in eval mode, sees in each sample after one attack of size `bound`: int64 [N]."""
    nearest, hits = [], torch.zeros((), dtype=torch.int64, device=examples.device)
    with eval_mode(model):
        for start in range(0, len(examples), ATTACK_BATCH):
            inputs, labels = examples.batch(slice(start, start + ATTACK_BATCH))
            attacked = sign_attack(model, inputs, labels, bound=bound, step=bound)
            with torch.no_grad():
                logits = model(attacked.mul(255).round() / 255)
            hits += (logits.argmax(1) != labels).sum()
            if exclude_own_class:
                logits.scatter_(1, labels[:, None], -torch.inf)
            nearest.append(logits.argmax(1))
    logger.info("the attack changed the label of %d of %d samples", int(hits), len(examples))
    return torch.cat(nearest)


def sign_attack(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, bound: float, step: float, steps: int = 1
) -> Tensor:
    """Ascend on the cross-entropy of `labels` by projected sign-gradient steps; one step of size `bound` is FGSM.

    The model's mode is the caller's.

    Args:
        inputs: Pixels in [0, 1], [B, ...].
        bound: Largest change of a pixel.
        step: Change of each pixel in a step.

    Returns:
        Attacked inputs, within `bound` of `inputs` and within [0, 1].
    """
    attacked = inputs
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        loss = F.cross_entropy(model(attacked), labels, reduction="sum")
        ascent = torch.autograd.grad(loss, attacked)[0].sign()
        attacked = (attacked + step * ascent).clamp(inputs - bound, inputs + bound).clamp(0, 1)
    return attacked.detach()
