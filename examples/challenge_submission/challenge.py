"""Challenge: a submission to the NeurIPS 2023 challenge, which fine-tunes on the retained data.

Paper: NeurIPS 2023 machine unlearning challenge.
Reference: none; written in the form that the challenge asks for.
Differs: normalisation is inside the model, and the constants of the submission are knobs.
Cost: epochs passes over D_r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mu.data import Examples, as_float
from mu.knobs import Count, Positive
from mu.split import Split

NEEDS = ("retain", "forget", "twin")


def unlearning(net, retain_loader, forget_loader, val_loader, epochs=1, lr=0.001):  # type: ignore[no-untyped-def]
    """Fine-tune with SGD and a cosine schedule, as a submission would do it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    net.train()
    for _ in range(epochs):
        for images, labels in retain_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        scheduler.step()
    net.eval()


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 3,
    lr: Positive = 0.001,
    batch_size: Count = 64,
) -> Iterator[None]:
    """Run the submission once on loaders made of the split; yields when it has ended."""

    def loader(part: Examples) -> DataLoader[tuple[torch.Tensor, ...]]:
        data = TensorDataset(as_float(part.inputs), part.labels)
        return DataLoader(data, batch_size, shuffle=True, generator=generator)

    retain, forget, val = (loader(part) for part in (split.retain, split.forget, split.twin))
    unlearning(model, retain, forget, val, epochs, lr)
    yield
