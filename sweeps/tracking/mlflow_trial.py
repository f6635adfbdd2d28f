"""What the run of a trial holds in MLflow: name, tags, metrics with their curves, and status."""

from __future__ import annotations

import time

from mu.keys import content_key
from mu.record import TrialRecord
from sweeps.tracking.mlflow_store import Metric

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
MAX_TEXT = 5000
"""Characters of a reason that are kept in a tag."""


def trial_name(record: TrialRecord) -> str:
    """Return what a trial is called beside the others of its cell, such as `search #3 seed 0`."""
    phase = record.role or record.phase if record.phase == "reference" else record.phase
    parts = [phase, *([f"of {record.source}"] if record.source else [])]
    parts += [f"#{record.number}"] if record.number is not None else []
    return " ".join([*parts, f"seed {record.seed}"])


def trial_status(record: TrialRecord) -> str:
    """Return MLflow's status of a trial."""
    return STATUS[record.status]


def trial_tags(record: TrialRecord) -> dict[str, str]:
    """Return what a trial was, how it ended, and where it ran."""
    return {
        "phase": record.phase,
        "forget": record.forget,
        "method": record.method,
        **({"alias_of": record.alias_of} if record.alias_of else {}),
        "seed": str(record.seed),
        "status": record.status,
        **({"source": record.source} if record.source else {}),
        **({"number": str(record.number)} if record.number is not None else {}),
        **({"reason": record.reason[-MAX_TEXT:]} if record.reason else {}),
        **{f"env.{name}": value for name, value in record.environment.items()},
    }


def trial_metrics(record: TrialRecord) -> list[Metric]:
    """Return final metrics as ``<view>/<metric>``, the curve as ``curve/<metric>`` by epoch, and the cost.

    Held-out accuracy in a curve is always on the `val` view, and is called so.
    """
    ended = milliseconds(record.ended)
    metrics = [
        Metric(f"{view}/{name}", value, ended, 0)
        for view, values in record.metrics.items()
        for name, value in values.items()
    ]
    metrics += [
        Metric(
            f"curve/{name.replace('acc_test', 'acc_val')}",
            value,
            milliseconds(record.started + point["seconds"]),
            epoch,
        )
        for point in record.curve
        if (epoch := int(point["epoch"])) >= 0
        for name, value in point.items()
        if name not in ("epoch", "seconds")
    ]
    costs = {
        "time_unlearn": record.time_unlearn,
        "time_total": record.time_total,
        "samples_seen": float(record.samples_seen),
        "device_memory": record.device_memory,
    }
    return metrics + [Metric(name, value, ended, 0) for name, value in costs.items()]


def trial_version(record: TrialRecord) -> tuple[int, str]:
    """Return what tells a run of a trial from an earlier one: its end, and a digest of its metrics."""
    return milliseconds(record.ended), content_key(record.metrics)


def milliseconds(seconds: float) -> int:
    """Return MLflow's form of a time; now, where there is none."""
    return int((seconds or time.time()) * 1000)
