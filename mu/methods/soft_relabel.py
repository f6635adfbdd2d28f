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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples, batches
from mu.data.passes import Cycle
from mu.evaluate import predict
from mu.knobs import Count, NonNegative, Positive, UnitInterval
from mu.split import Split
from mu.training import Schedule, fit, make_optimizer

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
    """Passes over the forgotten data with soft labels, then epochs over the retained, both with AdamW.

    Yields after each epoch of the second phase.

    Args:
        epochs: Passes over the retained data in the second phase.
        lr: Of the second phase, where `schedule` applies.
        relabel_epochs: Passes over the forgotten data in the first phase, each batch beside a retained one.
        relabel_lr: Of the first phase, constant.
        tau: Distance in logits over which a similarity falls by e.
        retain_batch: Retained samples beside each batch of forgotten ones, which also make up its labels.
        forget_batch: Forgotten samples in a step of the first phase.
        batch_size: Of the second phase.
        exclude_own_class: Whether retained samples of a forgotten sample's own class lend it no label.
    """
    retain_logits, forget_logits = split.cached(
        "soft_relabel logits",
        lambda draws: (_logits(model, split.retain), _logits(model, split.forget)),
    )
    stepper = make_optimizer(model, "adamw", relabel_lr, weight_decay=weight_decay)
    retain_batches = Cycle(len(split.retain), retain_batch, generator, split.device)
    for _ in range(relabel_epochs):
        model.train()
        for forgotten in batches(len(split.forget), forget_batch, generator, split.device):
            beside = next(retain_batches)
            inputs, labels = split.retain.batch(beside)
            forget_inputs, forget_labels = split.forget.batch(forgotten)
            soft = soft_labels(
                forget_logits[forgotten],
                retain_logits[beside],
                F.one_hot(labels, split.num_classes).to(forget_logits),
                tau,
                same_class=forget_labels[:, None] == labels if exclude_own_class else None,
            )
            inputs = torch.cat([inputs, forget_inputs])
            if augment and split.augment:
                inputs = split.augment(inputs, generator)
            targets = torch.cat([F.one_hot(labels, split.num_classes).to(soft), soft])
            stepper.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), targets, label_smoothing=label_smoothing).backward()
            stepper.step()
    yield from fit(
        model,
        split.retain,
        generator,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer="adamw",
        weight_decay=weight_decay,
        schedule=schedule,
        augment=split.augment if augment else None,
        loss=lambda logits, labels: F.cross_entropy(
            logits, labels, label_smoothing=label_smoothing
        ),
    )


def _logits(model: nn.Module, examples: Examples) -> Tensor:
    return torch.from_numpy(predict(model, examples)).to(examples.device)


def soft_labels(
    forget_logits: Tensor,
    retain_logits: Tensor,
    retain_targets: Tensor,
    tau: float = 1.0,
    same_class: Tensor | None = None,
) -> Tensor:
    """Mean of the retained samples' labels, weighted by softmax(-distance / tau) of their logits: [B_f, K].

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
