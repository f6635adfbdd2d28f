"""What would happen on an accelerator, without one: no step mixes devices, and none waits for a copy to the host.

Weights and data are `meta` tensors, which have shapes and no values. A mode of torch's dispatcher stands in for the
device: it refuses operations on tensors of two devices, as a GPU does, hands out made-up values where a method asks for
some on the host, and counts how often that is. Twice as many steps must not need more of such copies.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_settings import request_kind, short_knobs
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy import toy_problem, toy_reference

from mu import optimizers
from mu.device import place
from mu.methods import load, names
from mu.rng import generator

pytestmark = [
    pytest.mark.fault,  # for the time it takes
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter"),
]
aten = torch.ops.aten
COPY_IN_EACH_STEP = {"mu_mis": "its stopping rule compares sensitivities after every batch"}
"""Method to the reason why it must know values on the host in its inner loop. `gkt` waits as well: it trains on those
generated images alone of which the teacher is sure; its steps do not depend on the batch size."""
UPLOADS = (aten.copy_, aten._to_copy)
"""Operations that may read the host and write the device: they are queued."""


class Accelerator(TorchDispatchMode):
    """Stands in for a device; `copies` counts where the host waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, op = kwargs or {}, func._overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            made_up = self._on_host(op, args, kwargs)
            if made_up is not None:
                self.copies[_caller()] += 1
                return made_up
            # A number on the host may join tensors on a device.
            others = [t for t in tensors if not t.is_meta and t.dim() > 0]
            assert not others or op in UPLOADS, f"{func} mixes devices"
        return func(*args, **kwargs)

    def _on_host(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return made-up values where an operation brings values to the host, or needs them for a shape; else None."""
        first = args[0]
        if op is aten._local_scalar_dense:
            return {torch.bool: True}.get(first.dtype, 0.5 if first.is_floating_point() else 1)
        if op in (aten._to_copy, aten.to) and first.is_meta:
            asked = [kwargs.get("device"), *args[1:]]
            to = next((each for each in asked if isinstance(each, torch.device)), first.device)
            return None if to.type == "meta" else torch.zeros(first.shape, dtype=first.dtype)
        if op is aten.copy_ and args[1].is_meta and not first.is_meta:
            return first.zero_()
        if op is aten.nonzero:
            return _meta(max(1, first.shape[0] // 2), first.dim(), dtype=torch.long)
        if op is aten._unique2:
            return _meta(3, dtype=first.dtype), _meta(0), _meta(0)
        masks = [each for each in args[1] if each is not None] if op is aten.index else []
        if masks and masks[0].dtype == torch.bool:
            assert masks[0].is_meta == first.is_meta, f"{op} mixes devices"
            kept, rest = max(1, len(masks[0]) // 2), first.shape[masks[0].dim() :]
            return _meta(kept, *rest, dtype=first.dtype)
        return None


def _caller() -> str:
    """Return the line of the product that is running."""
    frame: Any = sys._getframe()
    while "/mu/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.fixture(autouse=True)
def plain_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers have no fused step for `meta`; the plain one does the same to the same tensors."""

    def plain(optimizer: Callable[..., Any]) -> Callable[..., Any]:
        return lambda weights, **options: optimizer(
            weights, **{**options, "fused": False, "foreach": False}
        )

    for name in ("SGD", "Adam", "AdamW"):
        monkeypatch.setattr(optimizers, name, plain(getattr(optimizers, name)))


def copies(name: str, batch_size: int | None) -> Counter[str]:
    """Return where a method waits for the device on the toy problem, and how often."""
    method = load(name)
    problem = toy_problem(request_kind(method))
    model = place(problem.load(toy_reference("original")).train(), "meta")
    split = problem.split("meta").only(method.data)
    given = {} if batch_size is None else {"batch_size": batch_size}
    with Accelerator() as device:
        for _ in method.unlearn(model, split, generator("copies"), **short_knobs(method, **given)):
            pass
    return device.copies


@pytest.mark.parametrize("name", names())
def test_no_step_mixes_devices_or_waits_for_a_copy(name: str) -> None:
    if "batch_size" not in load(name).knobs:
        copies(name, None)
        return
    few, many = copies(name, 16), copies(name, 4)
    assert (many != few) == (name in COPY_IN_EACH_STEP), many - few


def test_the_stand_in_sees_mixed_devices_and_copies() -> None:
    there, here = torch.zeros(4, 2, device="meta"), torch.zeros(4, 2)
    with Accelerator() as device:
        with pytest.raises(AssertionError, match="mixes devices"):
            there.index_select(0, torch.arange(2))
        assert (there * torch.tensor(2.0)).is_meta
        assert here.to("meta").is_meta
        assert not device.copies
