"""Peak memory of a trial, and how many trials like it fit on its machine or device."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

import torch

from mu.device import out_of_memory, watch_memory

GIB = 2**30
_PROCESS = Path("/proc/self")


def watch(device: str) -> None:
    """Start to measure peaks anew; earlier work of the process may have had higher ones."""
    watch_memory(device)
    with contextlib.suppress(OSError):  # without it, the peak is that of the whole process so far
        (_PROCESS / "clear_refs").write_text("5")


def peak() -> float:
    """Return the most main memory that this process has held since ``watch``, in GiB."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / GIB
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def ran_out(error: BaseException) -> bool:
    """Return whether an exception says that there was not enough memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def advice(error: BaseException, device: str) -> str:
    """Return one line that says how many pieces of work fit which need as much memory as one that ran out of it."""
    asked = _asked(str(error))
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return out_of_memory(device, asked) + "\n"
    needed, total = peak() + asked, host_memory()
    count = int(total / needed)
    fits = f"at most {count} like it fit at once" if count else "not even one like it fits"
    return f"out of memory: needed {needed:,.1f} of the machine's {total:,.1f} GiB; {fits}\n"


def _asked(text: str) -> float:
    """Return the GiB that an allocation asked for, as the message of its failure says it; 0 when it does not say."""
    said = re.search(r"allocate ([0-9.]+) ([KMGTPE]?i?B|bytes)", text)
    if said is None:
        return 0.0
    power = " KMGTPE".index(said[2][0]) if said[2].endswith("iB") else 0
    return float(said[1]) * 1024**power / GIB


def host_memory() -> float:
    """Return the GiB of this machine, or of the container that confines this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # another kind of group, or no limit
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
    return total / GIB
