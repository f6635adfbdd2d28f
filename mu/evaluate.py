"""From a model to metrics: one pass per split gives arrays, everything after is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mu import attacks, metrics
from mu.data import Examples
from mu.models import eval_mode


@dataclass(frozen=True)
class Outputs:
    """What a model says about one set.

    Args:
        logits: float32 [N, K].
        labels: int64 [N].
        forgotten: bool [N], which held-out samples belong to the forgotten class or sub-class.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    forgotten: NDArray[np.bool_] | None = None


@torch.inference_mode()
def predict(model: nn.Module, examples: Examples, batch_size: int = 2048) -> NDArray[np.float32]:
    """Logits [N, K] in eval mode without augmentation; leaves modes and random state as they were."""
    with eval_mode(model):
        chunks = [
            model(examples.batch(slice(start, start + batch_size))[0])
            for start in range(0, len(examples), batch_size)
        ]
    return torch.cat(chunks).float().cpu().numpy()


def outputs(
    model: nn.Module, examples: Examples, forgotten: NDArray[np.bool_] | None = None
) -> Outputs:
    """Run one set through the model once."""
    return Outputs(predict(model, examples), examples.labels.cpu().numpy(), forgotten)


def score(retain: Outputs, forget: Outputs, held_out: Outputs) -> dict[str, float]:
    """All metrics of one view that need no retrained model, under their canonical names.

    Args:
        retain: Outputs on the retained training samples.
        forget: Outputs on the forgotten training samples.
        held_out: Outputs on the view's held-out samples (`val` or `test`).

    Returns:
        Metric name to value; NaN where logits are not finite. `acc_test_retain` and `acc_test_forget`
        appear only where a whole class or sub-class is forgotten.
    """
    values = {
        "acc_retain": metrics.accuracy(retain.logits, retain.labels),
        "acc_forget": metrics.accuracy(forget.logits, forget.labels),
        "acc_test": metrics.accuracy(held_out.logits, held_out.labels),
        "mia_lr_entropy": attacks.mia_lr_entropy(
            *(metrics.entropy(part.logits) for part in (retain, held_out, forget))
        ),
    }
    values["err_forget"] = 1 - values["acc_forget"]
    if held_out.forgotten is not None and held_out.forgotten.any():
        for name, mask in (
            ("acc_test_retain", ~held_out.forgotten),
            ("acc_test_forget", held_out.forgotten),
        ):
            values[name] = metrics.accuracy(held_out.logits[mask], held_out.labels[mask])
    return values


def mean_of(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over runs that all have it."""
    names = set.intersection(*(set(run) for run in runs)) if runs else set()
    return {name: float(np.mean([run[name] for run in runs])) for name in sorted(names)}
