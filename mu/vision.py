"""The one place that imports torchvision.

The registry's torchvision wheel is built for CUDA; beside a CPU build of torch its import fails because the
C++ operators `nms` and `qnms` are never registered. Declaring their schemas first is enough: data sets,
transforms and models then import and work, and only calling the two operators themselves would fail.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_library: torch.library.Library | None = None


def models() -> ModuleType:
    """Return ``torchvision.models``, importable whatever builds of torch and torchvision are installed."""
    return _import("torchvision.models")


def datasets() -> ModuleType:
    """Return ``torchvision.datasets``, likewise."""
    return _import("torchvision.datasets")


def _import(name: str) -> ModuleType:
    global _library
    if _library is None and not hasattr(torch.ops.torchvision, "nms"):
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            _library.define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    return importlib.import_module(name)
