"""How a study is run: what a trial occupies, how long it may take, what the whole may cost, whom to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mu.launch import LAUNCHES
from sweeps.study.schema import OneOf, Section, Whole


def _amount(value: float) -> float:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"must be in [0, 1] or a whole number, but got {value:g}")
    return value


def _seconds(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and not value <= 0):
        raise ValueError(f"must be seconds above 0, but got {value!r}")
    return value


def _web(value: Any) -> Any:
    """Refuse what is no address, without showing it: it may hold a secret."""
    try:
        parts = urlsplit(value)
        web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except (AttributeError, TypeError, ValueError):
        web = False
    if value is not None and not web:
        raise ValueError("must be an URL with http:// or https:// and a host")
    return value


Amount = Annotated[float, AfterValidator(_amount), Field(json_schema_extra={"minimum": 0})]
Seconds = Annotated[float | None, BeforeValidator(_seconds)]
Address = Annotated[str | None, BeforeValidator(_web)]
Limit = Annotated[float | None, Field(gt=0)]


class Occupied(Section):
    """Resources of Ray, some of which may be left out."""

    cpus: Amount = Field(1.0, description="CPU cores.")
    gpus: Amount = Field(0.0, description="Share of a GPU, or a whole number of them.")
    custom: dict[str, Amount] = Field(
        {},
        description="Further resources that nodes of the cluster declare, by Ray's name for them.",
    )

    @property
    def amounts(self) -> dict[str, float]:
        """Every resource by its name here: `cpus`, `gpus`, and the custom ones."""
        return {"cpus": self.cpus, "gpus": self.gpus, **self.custom}


class Slot(Occupied):
    """What one trial or training occupies while it runs."""

    @model_validator(mode="after")
    def _check(self) -> Slot:
        if not any(self.amounts.values()):
            raise ValueError("one of cpus, gpus and custom must be above 0")
        return self


@dataclass(frozen=True)
class Resources:
    """Who occupies what.

    Args:
        trial: A trial.
        reference: A training of a reference, and its scoring.
        concurrent: Most trials at once; None is as many as the cluster holds.
        launch: How training steps reach a GPU, one of ``mu.launch.LAUNCHES``.
    """

    trial: Slot = field(default_factory=Slot)
    reference: Slot = field(default_factory=Slot)
    concurrent: int | None = None
    launch: str = "eager"

    @property
    def plain(self) -> dict[str, Any]:
        """What a study file writes of it."""
        return {
            **self.trial.model_dump(),
            "concurrent": self.concurrent,
            "launch": self.launch,
            "references": self.reference.model_dump(),
        }


class ResourcesSection(Slot):
    """What a trial occupies: `{cpus: 4, gpus: 0.25}` puts four trials on each GPU."""

    concurrent: Annotated[Whole | None, Field(ge=1)] = Field(
        None, description="Most trials at once; as many as the cluster holds when left out."
    )
    launch: Annotated[str, OneOf(LAUNCHES)] = Field(
        "eager",
        description="How training steps reach a GPU: `eager`, `graph` (recorded) or `compile` (fused and recorded); "
        "see `mu.launch`.",
    )
    references: Occupied | None = Field(
        None,
        description="The same three keys for trainings of references, such as `{gpus: 1}`; as trials when left out.",
    )

    @property
    def _of_references(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in Occupied.model_fields}
        return own | (self.references.model_dump(exclude_unset=True) if self.references else {})

    @model_validator(mode="after")
    def _check_references(self) -> ResourcesSection:
        if not any(Occupied(**self._of_references).amounts.values()):
            raise ValueError("references: one of cpus, gpus and custom must be above 0")
        return self

    def resolve(self) -> Resources:
        """Return who occupies what."""
        trial = Slot(cpus=self.cpus, gpus=self.gpus, custom=self.custom)
        return Resources(trial, Slot(**self._of_references), self.concurrent, self.launch)


class Budget(Section):
    """What a study may cost, all its runs together. The search ends early enough to stay within it."""

    gpu_hours: Limit = Field(
        None, description="Hours of whole GPUs: two trials that share one for an hour cost one."
    )
    cpu_hours: Limit = Field(None, description="Hours of CPU cores.")
    wall_minutes: Limit = Field(None, description="Minutes in which anything ran.")

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

    resources: Resources = field(default_factory=Resources)
    trial_timeout: float | None = None
    budget: Budget = field(default_factory=Budget)
    notify: str | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """What a study file writes of it, without what is secret in an URL."""
        return {
            "resources": self.resources.plain,
            "trial_timeout": self.trial_timeout,
            "budget": self.budget.model_dump(),
            "notify": self.notify and shown(self.notify),
        }


def shown(url: str) -> str:
    """Return an URL without what may be secret in it: user, password, path and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/..."
