"""The study file as pydantic models, and the JSON schema that editors check it by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from mu.evaluate import COSTLY
from mu.training import Recipe
from sweeps.phases import trial_phases
from sweeps.study.data import Data, Network, Request, Training
from sweeps.study.methods import Entry
from sweeps.study.published import Published
from sweeps.study.resources import RunSettings
from sweeps.study.schema import Count, CountOrZero, Filled, Items, Name, OneOf, Section
from sweeps.study.search import Search
from sweeps.study.supplied import Original, Retrain


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"must be a list of different whole numbers, but got {list(seeds)}")
    return seeds


SeedList = Annotated[
    Filled[CountOrZero], AfterValidator(_different), Field(json_schema_extra={"uniqueItems": True})
]


class Seeds(Section):
    """Seeds that knobs are tuned on, and others on which the report says how good they are."""

    search: SeedList = (0,)
    """Seeds of the search."""
    report: SeedList = (1, 2, 3)
    """Seeds of the report."""


class Extended(Section):
    """The sufficient-training experiment."""

    epochs: Count
    """Number of epochs."""


def _epochs(value: Any) -> Any:
    if isinstance(value, dict) and list(value) != ["epochs"]:
        raise ValueError(f"must be {{epochs: n}} with n at least 1, but got {value!r}")
    return value["epochs"] if isinstance(value, dict) else value


def _pairs(value: Any) -> Any:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"must be `all` or a list of [source, target], but got {value!r}")
    for pair in value or ():
        if not isinstance(pair, list) or [type(name) for name in pair] != [str, str]:
            raise ValueError(f"must hold [source, target], but got {pair!r}")
        if pair[0] == pair[1]:
            raise ValueError(f"source and target are both {pair[0]!r}")
    return tuple(map(tuple, value or ()))


class Experiments(Section):
    """What is tried with the best knobs of each cell, beyond running them on the report seeds."""

    sufficient: Annotated[
        Count | None,
        BeforeValidator(_epochs, json_schema_input_type=Extended | None),
    ] = None
    """`{epochs: 20}`: the same knobs, but so many epochs."""
    transfer: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(_pairs, json_schema_input_type=Literal["all"] | list[list[str]] | None),
    ] = ()
    """`all`, or a list of `[source, target]` requests: knobs tuned on the one, used on the other."""
    defaults: bool = True
    """Whether the authors' knobs (or those the study fixes) are run beside the tuned ones."""


class Metrics(Section):
    """What is computed beyond the metrics that every trial has."""

    costly: Items[Annotated[str, OneOf(trial_phases())]] = ("confirm",)
    """Phases whose trials also get the costly attacks and the diagnostics of a method's own work; references get the
    attacks whenever any phase does."""
    attacks: Items[Annotated[str, OneOf(COSTLY)]] = ("svc", "starting_kit")
    """Which costly attacks."""


class Audit(Section):
    """Attacks that need many models (U-LiRA, RMIA, the challenge's F-score), on confirmed knobs."""

    models: CountOrZero = 0
    """Least number of report seeds, K; 0 leaves the audit out. U-LiRA needs 9: 8 besides the attacked."""


class StudyFile(RunSettings):
    """A study of musweep: what is forgotten, by which methods, and how their knobs are tuned and compared."""

    study: Name
    """Its name: results go to `results/<study>`."""
    data: Annotated[Data, Field(validate_default=True)] = "digits"  # type: ignore[assignment]
    """Name of a data set, or a mapping."""
    model: Annotated[Network, Field(validate_default=True)] = "small_cnn"  # type: ignore[assignment]
    """Name of a network, or a mapping."""
    original: Original = None
    """Trained models to unlearn from, such as `models/{seed}.pt`, instead of training them."""
    retrain: Retrain = None
    """The same for retrained models: `models/{request}-{seed}.pt`."""
    training: Training = Field(default_factory=Recipe)
    """The recipe of every original and retrained model; methods have knobs of their own."""
    forget: Annotated[dict[Name, Request], Field(min_length=1)]
    """Name of each request to what it selects."""
    methods: Filled[Entry]
    """List of methods, each a name or a mapping."""
    seeds: Seeds = Seeds()
    """Seeds to tune knobs on, and others to report them on."""
    search: Search = Field(default_factory=Search)
    """How knobs are tuned."""
    experiments: Experiments = Field(default_factory=Experiments)
    """What else is done with tuned knobs."""
    metrics: Metrics = Field(default_factory=Metrics)
    """What is computed beyond what every trial has."""
    audit: Audit = Field(default_factory=Audit)
    """Attacks over many models."""
    selection: Literal["honest", "paper"] = "honest"
    """`paper` chooses knobs on the reported seeds and images, as the papers do, and the report says so."""
    published: Items[Published] | None = None
    """Printed tables beside our results."""

    @field_validator("experiments", mode="before")
    @classmethod
    def _every_pair(cls, content: Any, info: ValidationInfo) -> Any:
        """Write `transfer: all` as the list of all pairs of requests."""
        if not isinstance(content, dict) or content.get("transfer") != "all":
            return content
        names = list(info.data.get("forget", ()))
        return {**content, "transfer": [[s, t] for s in names for t in names if s != t]}

    @model_validator(mode="after")
    def _check_together(self) -> StudyFile:
        shared = sorted(set(self.seeds.search) & set(self.seeds.report))
        if shared and self.selection == "honest":
            raise ValueError(
                f"seeds: seed {shared[0]} is in both `search` and `report`; knobs must be reported on "
                "seeds they were not tuned on"
            )
        unknown = [
            name for pair in self.experiments.transfer for name in pair if name not in self.forget
        ]
        if unknown:
            there = ", ".join(self.forget)
            raise ValueError(
                f"experiments: transfer: unknown request {unknown[0]!r}; there are {there}"
            )
        audited, most = self.audit.models, len(self.seeds.report)
        if audited and not 2 <= audited <= most:
            raise ValueError(
                f"audit: models: must be 0, or in [2, {most}] (the report seeds), but got {audited}"
            )
        return self


class _Untitled(GenerateJsonSchema):
    """A generator of schemas whose keys have no titles, which would only repeat them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file, and of a file that others are based on."""
    schema = StudyFile.model_json_schema(schema_generator=_Untitled)
    keys, required = schema["properties"], schema.pop("required")
    running = {key: keys.pop(key) for key in RunSettings.model_fields}
    text = "A file beside this one, whose outermost keys hold where this one has none."
    base = {"type": "string", "description": text}
    schema["properties"] = {"study": keys.pop("study"), "base": base, **keys, **running}
    # A file without a name is the base of others; one with a base may leave out what its base has.
    whole = {"required": ["study"], "not": {"required": ["base"]}}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "musweep study"
    return {"$schema": dialect, **schema, "if": whole, "then": {"required": required}}
