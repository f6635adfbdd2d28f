"""The study file as pydantic models, and the JSON schema that editors check it by."""

from __future__ import annotations

from itertools import permutations
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

from mu.data import LOADERS, DataSpec
from mu.evaluate import COSTLY
from mu.forget import ForgetRequest
from mu.models import ModelSpec
from mu.models.architectures import MODELS
from mu.training import Recipe
from sweeps.phases import EPOCHS, trial_phases
from sweeps.study.methods import MethodSection
from sweeps.study.published import Published
from sweeps.study.resources import RunSettings
from sweeps.study.schema import (
    Count,
    CountOrZero,
    Filled,
    Items,
    Name,
    Named,
    NumbersAsNames,
    OneOf,
    Section,
)
from sweeps.study.search import Search
from sweeps.study.supplied import Original, Retrain


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"must be a list of different whole numbers, but got {list(seeds)}")
    return seeds


DEFAULT = Field(validate_default=True)
SeedList = Annotated[
    Filled[CountOrZero], AfterValidator(_different), Field(json_schema_extra={"uniqueItems": True})
]


DEFAULT_RETRAINED = 5
"""Retrained models of a request, unless the study says how many: of three, an equivalence test can tell little."""


class Seeds(Section):
    """Seeds that knobs are tuned on, and others on which the report says how good they are."""

    search: SeedList = (0,)
    """Seeds of the search."""
    report: SeedList = (1, 2, 3)
    """Seeds of the report."""
    retrain: Count | None = None
    """Number of retrained models that the report compares with: one of each report seed, and further ones of seeds of
    their own, which need no original model. At least the number of report seeds; by default 5, or as many as report seeds
    where those are more, or where retrained models are supplied."""

    def models(self, supplied: bool) -> int:
        """Return the number of retrained models; `supplied` says whether the user brings them."""
        reported = len(self.report)
        return self.retrain or (reported if supplied else max(DEFAULT_RETRAINED, reported))


def _pairs(value: Any) -> Any:
    """Refuse what is no list of pairs, the items of which pydantic checks."""
    listed = isinstance(value, (list, tuple))
    if listed and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
        return tuple(map(tuple, value))
    raise ValueError(f"must be `all` or a list of [source, target], but got {value!r}")


class Experiments(Section):
    """What is tried with the best knobs of each cell, beyond running them on the report seeds."""

    sufficient: Annotated[
        dict[Annotated[str, OneOf([EPOCHS])], Count] | None, Field(min_length=1)
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


def _names(value: Any) -> Any:
    """Refuse what is neither a word nor a list, the items of which pydantic checks."""
    listed = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    if value in ("none", "all") or (listed and value):
        return value
    raise ValueError(f"must be none, all or a list of methods, but got {value!r}")


class Keep(Section):
    """What is stored of confirmed trials beyond their records. What is missing runs again when it is asked for later."""

    models: Annotated[
        Literal["none", "all"] | Filled[str],
        BeforeValidator(_names, json_schema_input_type=Literal["none", "all"] | list[str]),
    ] = "none"
    """Whose unlearned models: `none`, `all`, or a list of methods, as the study calls them. They lie in the storage, as many as
    methods x requests x report seeds, and `musweep export` writes one of them to a file."""

    def keeps(self, method: str) -> bool:
        """Return whether the models of a method are kept."""
        return method in self.models if isinstance(self.models, tuple) else self.models == "all"


class Report(Section):
    """How the report compares with the retrained models."""

    margin: Annotated[float, Field(gt=0)] | None = None
    """By how many percent points a metric may be off the retrained models to be *the same*; by default two standard
    deviations of the retrained models, at least half a point."""


class StudyFile(RunSettings):
    """A study of musweep: what is forgotten, by which methods, and how their knobs are tuned and compared."""

    name: Annotated[Name, Field(alias="study")]
    """Its name: results go to `results/<study>`."""
    data: Annotated[DataSpec, NumbersAsNames(), Named(), DEFAULT] = "digits"  # type: ignore[assignment]
    """Name of a data set, or a mapping."""
    model: Annotated[ModelSpec, Named(), DEFAULT] = "small_cnn"  # type: ignore[assignment]
    """Name of a network, or a mapping."""
    original: Original = None
    """Trained models to unlearn from, such as `models/{seed}.pt`, instead of training them."""
    retrain: Retrain = None
    """The same for retrained models: `models/{request}-{seed}.pt`."""
    training: Recipe = Field(default_factory=Recipe)
    """The recipe of every original and retrained model; methods have knobs of their own."""
    forget: Annotated[dict[Name, Annotated[ForgetRequest, NumbersAsNames()]], Field(min_length=1)]
    """Name of each request to what it selects."""
    methods: Filled[Annotated[MethodSection, Named()]]
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
    keep: Keep = Keep()
    """Which unlearned models are stored."""
    selection: Literal["honest", "paper"] = "honest"
    """`paper` chooses knobs on the reported seeds and images, as the papers do, and the report says so."""
    report: Report = Report()
    """What the report calls the same."""
    published: Items[Published] | None = None
    """Printed tables beside our results."""

    @field_validator("experiments", mode="before")
    @classmethod
    def _every_pair(cls, content: Any, info: ValidationInfo) -> Any:
        """Write `transfer: all` as the list of all pairs of requests."""
        match content:
            case {"transfer": "all" | None as asked}:
                pairs = permutations(info.data.get("forget", ()), 2) if asked else ()
                return {**content, "transfer": [*pairs]}
        return content

    @model_validator(mode="after")
    def _check_together(self) -> StudyFile:
        shared = sorted(set(self.seeds.search) & set(self.seeds.report))
        if shared and self.selection == "honest":
            raise ValueError(
                f"seeds: seed {shared[0]} is in both `search` and `report`; knobs must be reported on "
                "seeds they were not tuned on"
            )
        models, reported = self.seeds.models(self.retrain is not None), len(self.seeds.report)
        if models < reported or (self.retrain is not None and models > reported):
            allowed = "" if self.retrain is not None else "at least "
            raise ValueError(
                f"seeds: retrain: must be {allowed}{reported}, the number of report seeds"
                f"{' of which models are supplied' if self.retrain is not None else ''}, but got {models}"
            )
        if self.search.early_stop == "asha" and self.selection == "paper":
            raise ValueError(
                "search: early_stop: asha compares on the `val` view, but `selection: paper` searches on `test`"
            )
        for source, target in self.experiments.transfer:
            if source == target:
                raise ValueError(f"experiments: transfer: source and target are both {source!r}")
            unknown = [name for name in (source, target) if name not in self.forget]
            if unknown:
                raise ValueError(
                    f"experiments: transfer: unknown request {unknown[0]!r}; there are "
                    + ", ".join(self.forget)
                )
        names = [method.alias or method.name for method in self.methods]
        for name in self.keep.models if isinstance(self.keep.models, tuple) else ():
            if name not in names:
                raise ValueError(
                    f"keep: models: unknown method {name!r}; the study has {', '.join(names)}"
                )
        audited, most = self.audit.models, len(self.seeds.report)
        if audited and not 2 <= audited <= most:
            raise ValueError(
                f"audit: models: must be 0, or in [2, {most}] (the report seeds), but got {audited}"
            )
        if self.data.name not in LOADERS:
            allowed = ", ".join(LOADERS)
            raise ValueError(f"data: name: must be one of {allowed}, but got {self.data.name!r}")
        return self


class _Untitled(GenerateJsonSchema):
    """A generator of schemas whose keys have no titles, which would only repeat them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def str_schema(self, schema: Any) -> dict[str, Any]:
        either = {"type": ["string", "number"]} if schema.get("coerce_numbers_to_str") else {}
        return super().str_schema(schema) | either


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file, and of a file that others are based on."""
    schema = StudyFile.model_json_schema(schema_generator=_Untitled)
    keys, required = schema["properties"], schema.pop("required")
    networks = [{"enum": [*MODELS]}, {"type": "string", "pattern": ":"}]
    schema["$defs"]["DataSpec"]["properties"]["name"]["enum"] = [*LOADERS]
    schema["$defs"]["ModelSpec"]["properties"]["name"] |= {"anyOf": networks}
    running = {key: keys.pop(key) for key in RunSettings.model_fields}
    text = "A file beside this one, whose outermost keys hold where this one has none."
    base = {"type": "string", "description": text}
    schema["properties"] = {"study": keys.pop("study"), "base": base, **keys, **running}
    # A file without a name is the base of others; one with a base may leave out what its base has.
    whole = {"required": ["study"], "not": {"required": ["base"]}}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "musweep study"
    return {"$schema": dialect, **schema, "if": whole, "then": {"required": required}}
