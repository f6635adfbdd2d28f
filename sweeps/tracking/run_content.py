"""What the run of a study or of a cell shows in MLflow, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mu.keys import content_key

Cell = tuple[str, str]
"""Forget request and method; the method may be `original` or `retrain`."""
Points = Sequence[tuple[int, float]]
"""Values by step."""


@dataclass(frozen=True)
class RunContent:
    """What a run of a study or of a cell shows.

    Args:
        name: Name of the run.
        tags, params: Texts by name; `params` cannot be changed in MLflow.
        metrics: Name to value, all finite.
        series: Name to values by step: trials, or epochs.
        started, ended: Seconds since the epoch.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Points] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0

    @property
    def digest(self) -> str:
        """Key of all of it."""
        return content_key(self)
