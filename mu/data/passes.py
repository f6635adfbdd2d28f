"""Endless passes over shuffled examples, for the set of two that ends first. They can be saved and resumed."""

from __future__ import annotations

import torch
from torch import Tensor

from mu.device import upload


class Stream:
    """Positions without end, shuffled anew at each pass.

    Args:
        count: Examples in a pass.
        generator: Draws the order of each pass.
        device: Where positions are put.
    """

    def __init__(self, count: int, generator: torch.Generator, device: torch.device | str = "cpu"):
        self.count = count
        self.generator = generator
        self.left = torch.empty(0, dtype=torch.int64, device=device)

    def take(self, size: int) -> Tensor:
        """Return the next `size` positions, across the ends of passes: int64 [size]."""
        while len(self.left) < size:
            self._shuffle()
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def _shuffle(self) -> None:
        order = torch.randperm(self.count, generator=self.generator)
        self.left = torch.cat([self.left, upload(order, self.left.device)])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the positions that are left of the pass."""
        return {"left": self.left.clone()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Go on with the positions that were left."""
        self.left = state_dict["left"].to(self.left.device)


class Cycle(Stream):
    """Batches without end, each within a pass; a pass is cut as ``mu.data.dataset.batches`` cuts it."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        super().__init__(count, generator, device)
        self.batch_size = batch_size

    def __next__(self) -> Tensor:
        if not len(self.left):
            self._shuffle()
        alone = len(self.left) == self.batch_size + 1
        return self.take(min(self.batch_size + alone, len(self.left)))
