"""The study file as pydantic models: its outermost keys, and the JSON schema that editors check it by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema

from mu.training import Recipe
from sweeps.study.data import Data, Network, Request, Training
from sweeps.study.experiments import Audit, Experiments, Metrics
from sweeps.study.methods import Entry
from sweeps.study.published import Published
from sweeps.study.resources import Address, Budget, ResourcesSection, Seconds
from sweeps.study.schema import Items, Name, Section, Whole
from sweeps.study.search import Search
from sweeps.study.supplied import Original, Retrain

BASE = "A file beside this one, whose outermost keys hold where this one has none."


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"must be a list of different whole numbers, but got {list(seeds)}")
    return seeds


SeedList = Annotated[
    Items[Annotated[Whole, Field(ge=0)]],
    AfterValidator(_different),
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
]


class Seeds(Section):
    """Seeds of the trials, and of the problems they run on."""

    search: SeedList = Field((0,), description="Seeds that knobs are tuned on.")
    report: SeedList = Field(
        (1, 2, 3), description="Other seeds, on which the report says how good the knobs are."
    )


class StudyFile(Section):
    """A study of musweep: what is forgotten, by which methods, and how their knobs are tuned and compared."""

    study: Name = Field(description="Its name: results go to `results/<study>`.")
    data: Data = Field(
        "digits", validate_default=True, description="Name of a data set, or a mapping."
    )
    model: Network = Field(
        "small_cnn", validate_default=True, description="Name of a network, or a mapping."
    )
    original: Original = Field(
        None,
        description="Trained models to unlearn from, such as `models/{seed}.pt`, instead of training them.",
    )
    retrain: Retrain = Field(
        None, description="The same for retrained models: `models/{request}-{seed}.pt`."
    )
    training: Training = Field(
        default_factory=Recipe, description="How original and retrained models are trained."
    )
    forget: dict[Name, Request] = Field(
        min_length=1, description="Name of each request to what it selects."
    )
    methods: Items[Entry] = Field(
        min_length=1, description="List of methods, each a name or a mapping."
    )
    seeds: Seeds = Field(
        Seeds(), description="Seeds to tune knobs on, and others to report them on."
    )
    search: Search = Field(default_factory=Search, description="How knobs are tuned.")
    experiments: Experiments = Field(
        default_factory=Experiments, description="What else is done with tuned knobs."
    )
    metrics: Metrics = Field(
        default_factory=Metrics, description="What is computed beyond what every trial has."
    )
    audit: Audit = Field(default_factory=Audit, description="Attacks over many models.")
    selection: Literal["honest", "paper"] = Field(
        "honest",
        description="`paper` chooses knobs on the reported seeds and images, as the papers do, and the report says so.",
    )
    published: Items[Published] | None = Field(
        None, description="Printed tables beside our results."
    )
    resources: ResourcesSection = Field(
        default_factory=ResourcesSection, description="What a trial occupies."
    )
    trial_timeout: Seconds = Field(
        None, description="Seconds after which a trial is ended, and recorded as failed."
    )
    budget: Budget | None = Field(None, description="What the study may cost.")
    notify: Address = Field(None, description="URL that is told when a run ends, or fails.")

    @field_validator("experiments", mode="before")
    @classmethod
    def _every_pair(cls, content: Any, info: ValidationInfo) -> Any:
        """Write `transfer: all` as the list of all pairs of requests."""
        if not isinstance(content, dict) or content.get("transfer") != "all":
            return content
        names = list(info.data.get("forget", ()))
        return {**content, "transfer": [[s, t] for s in names for t in names if s != t]}

    @model_validator(mode="after")
    def _check_sections(self) -> StudyFile:
        """Check what one section says against another."""
        shared = sorted(set(self.seeds.search) & set(self.seeds.report))
        if shared and self.selection == "honest":
            raise ValueError(
                f"seeds: seed {shared[0]} is in both `search` and `report`; knobs must be reported on "
                "seeds they were not tuned on"
            )
        for name in (name for pair in self.experiments.transfer for name in pair):
            if name not in self.forget:
                raise ValueError(
                    f"experiments: transfer: unknown request {name!r}; there are {', '.join(self.forget)}"
                )
        seeds = len(self.seeds.report)
        if self.audit.models and not 2 <= self.audit.models <= seeds:
            raise ValueError(
                f"audit: models: must be 0, or in [2, {seeds}] (the report seeds), but got {self.audit.models}"
            )
        return self


class _Untitled(GenerateJsonSchema):
    """A generator of schemas whose keys have no titles: they would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file, and of a file that others are based on."""
    schema = StudyFile.model_json_schema(schema_generator=_Untitled)
    required = schema.pop("required")
    name, data, *others = schema["properties"].items()
    base = {"type": "string", "description": BASE}
    schema["properties"] = dict([name, ("base", base), data, *others])
    # A file without a name is the base of others; one with a base may leave out what its base has.
    whole = {"required": ["study"], "not": {"required": ["base"]}}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    conditions = {"if": whole, "then": {"required": required}}
    return {"$schema": dialect, **schema, "title": "musweep study", **conditions}
