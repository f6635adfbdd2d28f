"""Ways for the steps of ``mu.training.fit`` to reach a GPU: kernel by kernel, or recorded and played back.

A small network's kernels are shorter than the time Python takes to launch them. `graph` records forward and
backward pass of a step once and plays them back as one launch; `compile` fuses kernels as well, for which the
compiler takes most of a minute, once for each kind of model. Either changes how fast numbers come, and hardly the
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

LAUNCHES = ("eager", "graph", "compile")
WARM_UP = 3
"""Real steps that run before the recording: libraries set themselves up in them."""
Loss = Callable[[Tensor, Tensor], Tensor]
_mode = "eager"


def set_launch(mode: str) -> None:
    """Choose how this process launches steps, as ``torch.set_num_threads`` chooses its threads.

    Raises:
        ValueError: The mode is not one of ``LAUNCHES``.
    """
    global _mode
    check_launch(mode)
    _mode = mode


def check_launch(mode: str) -> None:
    """Raise ValueError unless `mode` is known."""
    if mode not in LAUNCHES:
        raise ValueError(f"launch must be one of {', '.join(LAUNCHES)}, but got {mode!r}")


def gradients(model: nn.Module, loss: Loss) -> Callable[[Tensor, Tensor], None]:
    """Return a function of a batch that leaves the gradients of its loss, and nothing older, in the model's weights."""
    return Eager(model, loss) if _mode == "eager" else Repeated(model, loss, _mode == "compile")


class Eager:
    """A step that launches one kernel after the other."""

    def __init__(self, model: nn.Module, loss: Loss):
        self.model, self.loss = model, loss
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        """Leave the gradients of a batch's loss in the model's weights."""
        self._backward(self.model, inputs, labels)

    def _backward(
        self, forward: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor
    ) -> None:
        for weight in self.weights:
            weight.grad = None
        self.loss(forward(inputs), labels).backward()


class Repeated(Eager):
    """A step that is compiled if asked for and, on a GPU, recorded.

    It is so on batches of the first one's shape; others take an eager step.
    Hooks on the model itself, such as the count of samples, are called for every batch; neither a compiler nor a
    recording sees them.
    """

    def __init__(self, model: nn.Module, loss: Loss, compiled: bool):
        super().__init__(model, loss)
        run = _compiled() if compiled else _forward
        self.forward = partial(run, model)
        self.warm_up = WARM_UP
        self.shapes: tuple[torch.Size, torch.Size] | None = None
        self.stream: torch.cuda.Stream | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        shapes = inputs.shape, labels.shape
        self.shapes = self.shapes or shapes
        if shapes != self.shapes:
            super().__call__(inputs, labels)
            return
        for hook in self.model._forward_pre_hooks.values():
            hook(self.model, (inputs,))
        if not inputs.is_cuda:
            self._backward(self.forward, inputs, labels)
        elif self.warm_up:
            self.warm_up -= 1
            self._warm_up(inputs, labels)
        else:
            self._replay(inputs, labels)

    def _warm_up(self, inputs: Tensor, labels: Tensor) -> None:
        """Take a real step on a stream of its own, as recording asks for."""
        self.stream = self.stream or torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self._backward(self.forward, inputs, labels)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _replay(self, inputs: Tensor, labels: Tensor) -> None:
        """Play the recorded step back on a batch; record it first where that was not done yet."""
        if self.graph is None:  # recording computes nothing
            self.inputs, self.labels = inputs.clone(), labels.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._backward(self.forward, self.inputs, self.labels)
            self.gradients = [weight.grad for weight in self.weights]
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients):
            weight.grad = gradient


def _forward(model: nn.Module, inputs: Tensor) -> Tensor:
    return model.forward(inputs)


@cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """Return ``_forward`` through the compiler: one function for all models, so that those alike share its work."""
    return torch.compile(_forward)
