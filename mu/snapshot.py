"""The state of a training or a method at the end of an epoch, so that it can go on elsewhere with the same numbers.

Loops over epochs take their numbers from ``resumable``, and name all that changes in them. The code before a loop
follows from seeds and runs again; the loop itself goes on behind the last epoch that was saved.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch

T = TypeVar("T")


class Stateful(Protocol):
    """A module, an optimizer, or anything else whose state is plain data and tensors."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class Snapshot:
    """The state of one training or method run: that of the loop it is in, and how many epochs of it are done.

    Args:
        content: The bytes that ``save`` returned; empty begins at the beginning.

    Attributes:
        epochs: Epochs done in the loop that runs.
        pending: Whether the loop that was saved has not been reached yet.
        resumed: Called when the state has been restored, before the first new epoch.
    """

    def __init__(self, content: bytes = b""):
        self.epochs = 0
        self.pending = bool(content)
        self._content = content
        self.resumed: Callable[[], None] | None = None
        self._loops = 0
        self._inside: tuple[torch.Generator, tuple[Stateful, ...]] | None = None

    def follow(self, steps: Iterator[T]) -> Generator[T, None, None]:
        """Yield from `steps`, whose loops this snapshot saves and resumes; pass over those before the saved one."""
        with closing(cast(Generator[T, None, None], steps)):
            while True:
                with _current(self):
                    try:
                        item = next(steps)
                    except StopIteration:
                        return
                if not self.pending:
                    yield item

    def save(self) -> bytes:
        """Return the state after the epoch that has just ended; empty when no loop runs. Call it between steps."""
        if self._inside is None:
            return b""
        generator, parts = self._inside
        state: dict[str, Any] = {
            "loop": self._loops,
            "epochs": self.epochs,
            "parts": [part.state_dict() for part in parts],
            "generator": generator.get_state(),
            "process": torch.get_rng_state(),
        }
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def loop(
        self, epochs: int, generator: torch.Generator, parts: tuple[Stateful, ...]
    ) -> Iterator[int]:
        """Yield the numbers of a loop's epochs; see ``resumable``."""
        assert self._inside is None, "a loop that can be resumed holds no other"
        self._inside = generator, parts
        self._loops += 1
        self.epochs = 0
        if self.pending:
            self._restore(generator, parts)
        for epoch in range(self.epochs, epochs):
            self.epochs = epoch + 1
            yield epoch
        self._inside = None

    def _restore(self, generator: torch.Generator, parts: tuple[Stateful, ...]) -> None:
        """Put the saved state into the loop's parts, if this is the loop that was saved."""
        state = torch.load(io.BytesIO(self._content), map_location="cpu", weights_only=True)
        if state["loop"] != self._loops:
            return
        self.pending, self._content = False, b""
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        generator.set_state(state["generator"])
        torch.set_rng_state(state["process"])
        if torch.cuda.is_available() and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])
        self.epochs = state["epochs"]
        if self.resumed:
            self.resumed()


def resumable(epochs: int, generator: torch.Generator, *parts: Stateful) -> Iterator[int]:
    """Return the numbers, from 0, of a loop's epochs, without those that ran before what a snapshot goes on from.

    Args:
        generator: The generator that the loop draws from.
        parts: All else that the loop changes: models, optimizers, ``mu.data.passes``.
    """
    if _followed is None:
        return iter(range(epochs))
    return _followed.loop(epochs, generator, parts)


_followed: Snapshot | None = None


@contextmanager
def _current(snapshot: Snapshot | None) -> Iterator[None]:
    """Let loops that begin meanwhile belong to a snapshot, or to none."""
    global _followed
    before, _followed = _followed, snapshot
    try:
        yield
    finally:
        _followed = before


def unfollowed(action: Callable[[], T]) -> T:
    """Run an action whose loops are not saved, such as a computation whose result later trials share."""
    with _current(None):
        return action()
