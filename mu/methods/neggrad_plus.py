"""NegGrad+: descend on retained data and, with a small weight, ascend on forgotten data in the same step.

Paper: Kurmanji et al., NeurIPS 2023 (arXiv:2302.09880), as the baseline of SCRUB.
Reference: `meghdadk/SCRUB` 98ffb11, `thirdparty/repdistiller/helper/loops.py` (`train_negrad`).
Differs: the code cycles the forgotten batches in the order of their first pass; here every pass is shuffled
    anew. The knob is the weight of the ascent, 1 - alpha there, so that it can be searched on a log scale.
Cost: epochs passes over D_r and as many samples of D_f.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from mu.data import batches
from mu.data.passes import Cycle
from mu.knobs import Count, Momentum, NonNegative, Positive, UnitInterval
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer

NEEDS = ("retain", "forget")
STEADY = True


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    forget_weight: UnitInterval = 0.05,
    lr: Positive = 0.01,
    momentum: Momentum = 0.0,
    weight_decay: NonNegative = 0.0,
    batch_size: Count = 128,
    forget_batch_size: Count = 128,
) -> Iterator[None]:
    """Pass once an epoch over the retained data and cycle the forgotten; yield after each epoch.

    Args:
        forget_weight: Weight of the ascent; 1 - forget_weight weighs the descent. The notebooks use 0.05 for
            10 epochs and 1e-4 for 5.
    """
    stepper = make_optimizer(model, "sgd", lr, momentum, weight_decay)
    forgotten = Cycle(len(split.forget), forget_batch_size, generator, split.device)
    for _ in resumable(epochs, generator, model, stepper, forgotten):
        model.train()
        for index in batches(len(split.retain), batch_size, generator, split.device):
            retain, retain_labels = split.retain.batch(index)
            forget, forget_labels = split.forget.batch(next(forgotten))
            descent = F.cross_entropy(model(retain), retain_labels)
            ascent = F.cross_entropy(model(forget), forget_labels)
            stepper.zero_grad(set_to_none=True)
            ((1 - forget_weight) * descent - forget_weight * ascent).backward()
            stepper.step()
        yield
