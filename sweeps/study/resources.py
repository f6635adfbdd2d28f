"""How a study is run: what a trial occupies, how long it may take, what the whole may cost, whom to tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mu.launch import check_launch
from sweeps.errors import StudyError
from sweeps.study.fields import build, known


@dataclass(frozen=True)
class Slot:
    """What one trial or training occupies while it runs.

    Args:
        cpus: CPU cores.
        gpus: Share of a GPU, or a whole number of them.
        custom: Further resources that nodes of the cluster declare, by Ray's name for them.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.amounts.items():
            if not 0 <= value < math.inf or (value > 1 and value != int(value)):
                raise ValueError(f"{name} must be in [0, 1] or a whole number, but got {value}")
        if not any(self.amounts.values()):
            raise ValueError("one of cpus, gpus and custom must be above 0")

    @property
    def amounts(self) -> dict[str, float]:
        """Every resource by its name here: `cpus`, `gpus`, and the custom ones."""
        return {"cpus": self.cpus, "gpus": self.gpus, **self.custom}


@dataclass(frozen=True)
class Resources:
    """Who occupies what.

    Args:
        trial: A trial.
        reference: A training of a reference, and its scoring.
        concurrent: Most trials at once; None is as many as the cluster holds.
        launch: How training steps reach a GPU: `eager`, `graph` (recorded) or `compile` (fused and recorded); see
            ``mu.launch``.
    """

    trial: Slot = Slot()
    reference: Slot = Slot()
    concurrent: int | None = None
    launch: str = "eager"

    @property
    def plain(self) -> dict[str, Any]:
        """As it is written in a study file."""
        return {
            **dataclasses.asdict(self.trial),
            "concurrent": self.concurrent,
            "launch": self.launch,
            "references": dataclasses.asdict(self.reference),
        }


@dataclass(frozen=True)
class Budget:
    """What a study may cost, all its runs together; None is no limit. The search ends early enough to stay within it.

    Args:
        gpu_hours: Hours of whole GPUs: two trials that share one for an hour cost one.
        cpu_hours: Hours of CPU cores.
        wall_minutes: Minutes in which anything ran.
    """

    gpu_hours: float | None = None
    cpu_hours: float | None = None
    wall_minutes: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, but got {value}")

    def __bool__(self) -> bool:
        return self != Budget()


@dataclass(frozen=True)
class RunSettings:
    """How a study is run. Nothing here changes a result; all of it may change between runs.

    Args:
        resources: What trials and trainings occupy.
        trial_timeout: Seconds after which a trial is ended as `failed`; None is never.
        budget: What the study may cost.
        notify: URL that is told when a run ends, or fails.
    """

    resources: Resources = Resources()
    trial_timeout: float | None = None
    budget: Budget = Budget()
    notify: str | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """As it is written in a study file, without what is secret in an URL."""
        return {
            "resources": self.resources.plain,
            "trial_timeout": self.trial_timeout,
            "budget": dataclasses.asdict(self.budget),
            "notify": self.notify and shown(self.notify),
        }


KEYS = tuple(RunSettings().plain)


def parse(raw: Mapping[str, Any], where: str) -> RunSettings:
    """The operation part of a study given as plain data. Raises StudyError."""
    timeout = raw.get("trial_timeout")
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout < math.inf):
        raise StudyError(f"{where}: trial_timeout: must be seconds above 0, but got {timeout!r}")
    notify = raw.get("notify")
    if notify is not None and not _is_web(notify):
        raise StudyError(f"{where}: notify: must be an URL with http:// or https:// and a host")
    return RunSettings(
        _resources(raw.get("resources", {}), f"{where}: resources"),
        None if timeout is None else float(timeout),
        build(Budget, raw.get("budget") or {}, f"{where}: budget"),
        notify,
    )


def _resources(raw: Any, where: str) -> Resources:
    share = [f.name for f in dataclasses.fields(Slot)]
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be a mapping, but got {raw!r}")
    known(raw, (*share, "concurrent", "launch", "references"), where)
    own = {key: value for key, value in raw.items() if key in share}
    trial = build(Slot, own, where)
    references = raw.get("references") or {}
    if not isinstance(references, dict):
        raise StudyError(f"{where}: references: must be a mapping, but got {references!r}")
    reference = build(Slot, {**own, **references}, f"{where}: references")
    concurrent = raw.get("concurrent")
    if concurrent is not None and (type(concurrent) is not int or concurrent < 1):
        raise StudyError(
            f"{where}: concurrent must be a whole number, at least 1, but got {concurrent!r}"
        )
    launch = raw.get("launch", "eager")
    try:
        check_launch(launch)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    return Resources(trial, reference, concurrent, launch)


def _is_web(value: Any) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except (AttributeError, TypeError, ValueError):
        return False


def shown(url: str) -> str:
    """An URL without what may be secret in it: user, password, path and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/..."
