"""Amnesiac: the distribution of the new labels, and that they are drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn

from mu.data import Examples
from mu.methods import amnesiac
from mu.rng import generator
from mu.split import Split
from mu.training import fit

DRAWS = 5000


@pytest.mark.parametrize(
    ("expected", "weighted"), [("P_uniform_other", False), ("P_retain_other", True)]
)
def test_other_labels_have_the_stated_distribution(expected: str, weighted: bool) -> None:
    z = golden("amnesiac_property")
    labels, counts = torch.from_numpy(z["y_forget"]), torch.from_numpy(z["retain_counts"])
    weights = counts if weighted else torch.ones(len(counts))
    drawn = amnesiac.other_labels(labels.repeat(DRAWS), weights, generator("draws", expected))
    seen = torch.stack(
        [torch.bincount(column, minlength=len(counts)) for column in drawn.view(DRAWS, -1).T]
    )
    wanted = z[expected]
    spread = np.sqrt(wanted * (1 - wanted) / DRAWS)
    assert (np.abs(seen.numpy() / DRAWS - wanted) <= 4.5 * spread).all()
    assert (seen[torch.arange(len(labels)), labels] == 0).all()


@pytest.mark.parametrize("labels", ["uniform", "retain"])
def test_forgotten_samples_get_one_wrong_label_each_and_retained_ones_keep_theirs(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch, labels: Any
) -> None:
    trained: list[Examples] = []

    def spy(model: nn.Module, examples: Examples, *args: Any, **kwargs: Any) -> Iterator[None]:
        trained.append(examples)
        return fit(model, examples, *args, **kwargs)

    monkeypatch.setattr(amnesiac, "fit", spy)
    epochs = amnesiac.unlearn(model, split, generator(0), epochs=3, labels=labels)
    assert sum(1 for _ in epochs) == 3
    (examples,) = trained  # one call: the labels of the first epoch are those of the last
    kept = len(split.retain)
    assert torch.equal(examples.inputs, torch.cat([split.retain.inputs, split.forget.inputs]))
    assert torch.equal(examples.labels[:kept], split.retain.labels)
    assert (examples.labels[kept:] != split.forget.labels).all()
    assert len(examples.labels[kept:].unique()) == split.num_classes - 1


def test_labels_stay_on_the_classes_that_have_weight() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    drawn: Tensor = amnesiac.other_labels(labels, torch.tensor([9.0, 0.0, 1.0]), generator(0))
    assert (drawn == 2).all()
