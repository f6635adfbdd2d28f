"""Where models and tensors live, and how they get there without anybody waiting."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

KEEP = 256 * 2**20
"""Bytes of freed memory that a process on a CPU keeps for its next step."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def prepare(cpus: float, gpus: float) -> str:
    """Fit this process to its share of a machine; return its device, `cuda` or `cpu`.

    A process that has a part of a GPU gets no more than that part of its memory: one that needs more fails by
    itself, instead of those beside it.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if not gpus or not torch.cuda.is_available():
        keep_freed_memory()
        return "cpu"
    # Batches have one shape, so that a search for kernels pays.
    torch.backends.cudnn.benchmark = True
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return "cuda"


def keep_freed_memory() -> None:
    """Have glibc keep what a training step frees, up to ``KEEP``, for the next one.

    By default it gives the activations of every step back to the system, which clears each page again when the next
    step touches it: a quarter of a step of `small_cnn`. Without glibc nothing happens.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most it takes
        library.mallopt(M_TRIM_THRESHOLD, KEEP)


def _glibc() -> Any:
    """Return the C library of this process, where it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


def place(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a model, in place, and lay its convolutions out channels_last if its network says so for such a device."""
    kinds: list[Any] = [m.channels_last for m in model.modules() if hasattr(m, "channels_last")]
    if torch.device(device).type in (kinds[0] if kinds else ("cuda",)):
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def pays_on_cpu(input_shape: Sequence[int]) -> bool:
    """Return whether a CPU convolves inputs [C, H, W] faster in channels_last: colour images of 16 pixels and more.

    Steps of small networks take three quarters of the time then, and those of large ones the same.
    """
    return len(input_shape) == 3 and input_shape[0] > 1 and min(input_shape[1:]) >= 16


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor of the CPU on `device`.

    A copy to a GPU goes through pinned memory and is only queued: neither this call nor the GPU's work waits for
    it. Draws of a generator, which is always the CPU's, go this way in every step.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def watch_memory(device: torch.device | str) -> None:
    """Begin to measure ``peak_memory`` anew; give back what earlier work of this process left unused."""
    library = _glibc()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif library is not None:
        library.malloc_trim(0)


def peak_memory(device: torch.device | str) -> float:
    """Return the GiB of a GPU that this process has held at most since ``watch_memory``; 0 on a CPU."""
    if torch.device(device).type != "cuda":
        return 0.0
    return torch.cuda.max_memory_reserved(device) / 2**30


def out_of_memory(device: torch.device | str, asked: float = 0.0) -> str:
    """Say what to do about a lack of device memory: how many processes like this one fit on the GPU, at most.

    Args:
        asked: GiB that were asked for in vain, beside what is held.
    """
    total, peak = torch.cuda.mem_get_info(device)[1] / 2**30, peak_memory(device)
    fit = int(total / max(peak + asked, 2**-10))
    advice = "choose a smaller batch_size or model"
    if fit >= 1:
        advice = f"at most {fit} fit: set resources.gpus to {ceil(100 / fit) / 100:g} or more, or {advice}"
    lacked = f" and lacked {asked:.1f}" if asked else ""
    return f"out of device memory: held {peak:.1f}{lacked} of the GPU's {total:.1f} GiB; {advice}"
