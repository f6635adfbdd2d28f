"""What is known of a trial: its result, its state between two epochs, and its record."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu.record import TrialRecord
from mu.snapshot import Snapshot
from sweeps.plan import Job
from sweeps.workers.curve import CurvePoint

PROGRESS = ("curve", "time_unlearn", "samples_seen")
"""What is known of a result between epochs, and saved with a checkpoint."""


@dataclass
class TrialResult:
    """How a trial ended: the fields of a record that follow from running it, and its outputs."""

    status: str = "finished"
    reason: str = ""
    cause: str = ""
    warnings: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    time_unlearn: float = 0.0
    samples_seen: int = 0
    confusions: dict[str, list[list[int]]] = field(default_factory=dict)
    device_memory: float = 0.0
    host_memory: float = 0.0
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays that go to the driver beside the record: weights or scores of references, logits for an audit."""


class RunningTrial:
    """A trial between two epochs.

    Args:
        checkpoint: What ``save`` returned; None starts at the beginning.

    Attributes:
        result: What is known so far of the result: curve, time, samples.
        snapshot: State of the method.
    """

    def __init__(self, checkpoint: Mapping[str, NDArray[np.uint8]] | None = None):
        method = progress = b""
        if checkpoint:
            method, progress = (checkpoint[name].tobytes() for name in ("method", "progress"))
        self.result = TrialResult(**json.loads(progress)) if progress else TrialResult()
        self.snapshot = Snapshot(method)

    def save(self) -> dict[str, NDArray[np.uint8]]:
        """Return a checkpoint for another process; it is empty when the method is in no loop that can be resumed."""
        method = self.snapshot.save()
        if not method:
            return {}
        progress = json.dumps({name: getattr(self.result, name) for name in PROGRESS}).encode()
        parts = {"method": method, "progress": progress}
        return {name: np.frombuffer(content, np.uint8) for name, content in parts.items()}


def new_record(job: Job, study: str, resources: Mapping[str, float], **ended: Any) -> TrialRecord:
    """Return the record of a job.

    Args:
        resources: What the trial occupied.
        ended: The fields that say how it ended.
    """
    return TrialRecord(
        key=job.key,
        study=study,
        phase=job.phase,
        forget=job.forget,
        method=job.method,
        seed=job.seed,
        knobs=dict(job.knobs),
        number=job.number,
        origin=job.origin,
        source=job.source,
        problem=job.problem,
        cell=job.cell,
        code=job.code,
        alias_of=job.alias_of,
        resources=dict(resources),
        **ended,
    )


def environment(device: str) -> dict[str, str]:
    """Return where a trial runs: host, device and versions."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "host": platform.node(),
        "device": f"{device} ({name})",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
