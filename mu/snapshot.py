"""Where a training is, at the end of an epoch, so that it can go on elsewhere with the same numbers."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn


class Snapshot:
    """The state of one ``mu.training.fit``: weights, optimizer, random generators, epochs done.

    Args:
        content: What ``save`` gave; empty begins at the first epoch.
    """

    def __init__(self, content: bytes = b""):
        self._content = content
        self._parts: tuple[nn.Module, torch.optim.Optimizer, torch.Generator] | None = None
        self.epochs = 0

    def start(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> int:
        """Bring all to the state that was saved; returns how many epochs are done."""
        self._parts = model, optimizer, generator
        if self._content:
            state = torch.load(io.BytesIO(self._content), map_location="cpu", weights_only=True)
            self._content = b""
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            generator.set_state(state["generator"])
            torch.set_rng_state(state["process"])
            if torch.cuda.is_available() and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"])
            self.epochs = state["epochs"]
        return self.epochs

    def save(self) -> bytes:
        """The state as it is now; to be called between epochs."""
        assert self._parts is not None, "the training has not started"
        model, optimizer, generator = self._parts
        state: dict[str, Any] = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
            "process": torch.get_rng_state(),
            "epochs": self.epochs,
        }
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()
