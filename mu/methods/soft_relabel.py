"""Soft-Relabeling: label forgotten samples by their similarity to retained ones, train, then fine-tune.

Paper: Akbari, Gaudi and Morshed, section 3.1 (Michigan State University report).
Reference: `sachit3022/unlearning` a58b04f, class `NNTrainer` of `trainer.py`.
Differs: this is the method as described. The released first phase steps a deep copy of the optimizer, which
    owns copies of the weights, so that only batch-norm statistics ever move; its 20 passes were not tuned
    for a phase that works, and fewer and smaller steps are the default here. The original model is in eval
    mode (in train mode there), its logits are taken once of unaugmented images, and similarity is a softmax
    over the retained samples alone (a mask of +-1e5 in float32 there, good to 1/128). A retained set that is
    used up starts again; the code goes on with forgotten samples. Fine-tuning runs all its epochs, and its
    cosine reaches zero; the code stops two short. Labels are not smoothed, as the models here are trained
    without; on CIFAR-10 theirs train and unlearn with 0.1. `exclude_own_class` is ours: in a random request
    the nearest retained samples mostly share the label, so that little is forgotten without it.
Cost: relabel passes over D_f with as many of D_r, twice forward + fine-tuning passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples, batches
from mu.data.passes import Cycle
from mu.evaluate import predict
from mu.knobs import Count, NonNegative, Positive, UnitInterval
from mu.split import Split
from mu.training import Hyperparameters, Schedule, fit, make_optimizer

NEEDS = ("retain", "forget", "original")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    lr: Positive = 1e-3,
    relabel_epochs: Count = 5,
    relabel_lr: Positive = 1e-4,
    tau: Positive = 1.0,
    retain_batch: Count = 512,
    forget_batch: Count = 512,
    batch_size: Count = 512,
    weight_decay: NonNegative = 5e-3,
    label_smoothing: UnitInterval = 0.0,
    schedule: Schedule = "cosine",
    augment: bool = False,
    exclude_own_class: bool = False,
) -> Iterator[None]:
    """Train on forgotten data with soft labels, then on retained data, both with AdamW; yield after each later epoch.

    Args:
        epochs: Passes over the retained data in the second phase.
        relabel_epochs: Passes over the forgotten data in the first phase, each batch beside a retained one.
        relabel_lr: Of the first phase, constant.
        tau: Distance in logits over which a similarity falls by e.
        retain_batch: Retained samples beside each batch of forgotten ones, which also make up its labels.
        forget_batch: Forgotten samples in a step of the first phase.
        lr, batch_size: Of the second phase, where `schedule` applies.
        exclude_own_class: Whether retained samples of a forgotten sample's own class lend it no label.
    """
    logits = original_logits(model, split)
    loss = partial(F.cross_entropy, label_smoothing=label_smoothing)
    stepper = make_optimizer(model, "adamw", relabel_lr, weight_decay=weight_decay)
    retain_batches = Cycle(len(split.retain), retain_batch, generator, split.device)
    for _ in range(relabel_epochs):
        model.train()
        for forgotten in batches(len(split.forget), forget_batch, generator, split.device):
            inputs, targets = soft_batch(
                split, logits, next(retain_batches), forgotten, tau, exclude_own_class
            )
            inputs = split.augment(inputs, generator) if augment else inputs
            stepper.zero_grad(set_to_none=True)
            loss(model(inputs), targets).backward()
            stepper.step()
    yield from fit(
        model,
        split.retain,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer="adamw",
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        augment=split.augment if augment else None,
        loss=loss,
    )


def soft_batch(
    split: Split,
    logits: tuple[Tensor, Tensor],
    retained: Tensor,
    forgotten: Tensor,
    tau: float,
    exclude_own_class: bool,
) -> tuple[Tensor, Tensor]:
    """Return inputs [B_r + B_f, ...] and targets [B_r + B_f, K] of a retained batch and a softly labelled forgotten one.

    Args:
        logits: The original model's on all retained and all forgotten samples.
        retained: Positions of the retained batch, [B_r].
        forgotten: Positions of the forgotten batch, [B_f].
        tau, exclude_own_class: As in ``unlearn``.
    """
    retain_logits, forget_logits = logits
    inputs, labels = split.retain.batch(retained)
    forget_inputs, forget_labels = split.forget.batch(forgotten)
    onehot = F.one_hot(labels, split.num_classes).to(forget_logits)
    soft = soft_labels(
        forget_logits[forgotten],
        retain_logits[retained],
        onehot,
        tau,
        same_class=forget_labels[:, None] == labels if exclude_own_class else None,
    )
    return torch.cat([inputs, forget_inputs]), torch.cat([onehot, soft])


def original_logits(model: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Return the original model's logits [N, K] on retained and on forgotten samples, once per problem."""

    def logits(examples: Examples) -> Tensor:
        return torch.from_numpy(predict(model, examples)).to(examples.device)

    return split.cached(
        "soft_relabel logits", lambda draws: (logits(split.retain), logits(split.forget))
    )


def soft_labels(
    forget_logits: Tensor,
    retain_logits: Tensor,
    retain_targets: Tensor,
    tau: float = 1.0,
    same_class: Tensor | None = None,
) -> Tensor:
    """Return the mean of the retained samples' labels, weighted by softmax(-distance / tau) of their logits: [B_f, K].

    Args:
        forget_logits: [B_f, K], of the original model.
        retain_logits: [B_r, K], likewise.
        retain_targets: One-hot labels [B_r, K].
        tau: Distance over which a weight falls by e.
        same_class: bool [B_f, B_r], pairs that lend no label; a row that would be left without any keeps all.
    """
    distance = torch.cdist(
        forget_logits, retain_logits, compute_mode="donot_use_mm_for_euclid_dist"
    )
    if same_class is not None:
        left_out = same_class & ~same_class.all(1, keepdim=True)
        distance = distance.masked_fill(left_out, torch.inf)
    return (-distance / tau).softmax(1) @ retain_targets
