"""How a study is run: what a trial occupies, how long it may take, what the whole may cost, whom to tell."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

from mu.launch import LAUNCHES
from sweeps.study.schema import Count, OneOf, Section


def _amount(value: float) -> float:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"must be in [0, 1] or a whole number, but got {value:g}")
    return value


def _web(value: Any) -> Any:
    """Refuse what is no web address, without showing it: it may hold a secret."""
    try:
        parts = urlsplit(value)
        valid = value is None or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except (AttributeError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError("must be an URL with http:// or https:// and a host")
    return value


def shown(url: str) -> str:
    """Return an URL without what may be secret in it: user, password, path and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/..."


Amount = Annotated[float, AfterValidator(_amount)]
Limit = Annotated[float | None, Field(gt=0)]


class Slot(Section):
    """Resources, by Ray's names for them."""

    cpus: Amount = 1.0
    """CPU cores."""
    gpus: Amount = 0.0
    """Share of a GPU, or a whole number of them."""
    custom: dict[str, Amount] = Field(default_factory=dict)
    """Further resources that nodes of the cluster declare."""

    @property
    def occupied(self) -> dict[str, float]:
        """The amounts above 0, as records say them."""
        return {name: amount for name, amount in self.amounts.items() if amount}

    @property
    def amounts(self) -> dict[str, float]:
        """Every resource by its name here: `cpus`, `gpus`, and the custom ones."""
        return {"cpus": self.cpus, "gpus": self.gpus, **self.custom}


def _as_trials(content: Any, info: ValidationInfo) -> Any:
    """Fill what is left out of the resources of references with those of trials."""
    if not isinstance(content, dict | None):
        return content
    shared = {key: info.data[key] for key in Slot.model_fields if key in info.data}
    return shared | (content or {})


class Resources(Slot):
    """What a trial occupies: `{cpus: 4, gpus: 0.25}` puts four trials on each GPU."""

    concurrent: Count | None = None
    """Most trials at once; as many as the cluster holds when left out."""
    launch: Annotated[str, OneOf(LAUNCHES)] = "eager"
    """How training steps reach a GPU: `eager`, `graph` (recorded) or `compile` (fused and recorded); see `mu.launch`."""
    references: Annotated[Slot, BeforeValidator(_as_trials, json_schema_input_type=Slot | None)] = (
        Field(default=None, validate_default=True)
    )
    """The same three keys for a training of a reference and its scoring, such as `{gpus: 1}`; what is left out is as of
    trials."""

    @model_validator(mode="after")
    def _check(self) -> Resources:
        for where, slot in (("", self), ("references: ", self.references)):
            if not any(slot.amounts.values()):
                raise ValueError(f"{where}one of cpus, gpus and custom must be above 0")
        return self

    @property
    def trial(self) -> Slot:
        """What a trial occupies."""
        return Slot(cpus=self.cpus, gpus=self.gpus, custom=self.custom)


class Budget(Section):
    """What a study may cost, all its runs together. The search ends early enough to stay within it."""

    gpu_hours: Limit = None
    """Hours of whole GPUs: two trials that share one for an hour cost one."""
    cpu_hours: Limit = None
    """Hours of CPU cores."""
    wall_minutes: Limit = None
    """Minutes in which anything ran."""

    def __bool__(self) -> bool:
        return self != Budget()


class RunSettings(Section):
    """How a study is run. Nothing here changes a result; all of it may change between runs."""

    resources: Resources = Field(default_factory=Resources)
    """What trials and trainings occupy."""
    trial_timeout: Limit = None
    """Seconds after which a trial is ended, and recorded as `failed`; never when left out."""
    max_failures: Count | None = 5
    """A cell ends when its first so many trials all failed; null: never. Five are the authors' own knobs and four draws:
    where all of these fail, it is hardly the knobs."""
    budget: Annotated[
        Budget, BeforeValidator(lambda value: value or {}, json_schema_input_type=Budget | None)
    ] = Field(default_factory=Budget)
    """What the study may cost."""
    notify: Annotated[
        str | None, BeforeValidator(_web), PlainSerializer(shown, when_used="json-unless-none")
    ] = None
    """URL that is told when a run ends, or fails."""
