"""The study file as pydantic models, and the JSON schema that editors check it by."""

from __future__ import annotations

from collections.abc import Sequence
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
from mu.rules import MENU_RULES, RULE
from mu.selection import Rule
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


SMALLEST_MENU = 5


class MenuOfKnobs(Section):
    """How knobs are chosen without a retrained model, and what that costs: `docs/choosing.md`."""

    rules: Annotated[
        Filled[Annotated[str, OneOf(tuple(RULE))]],
        BeforeValidator(
            lambda value: tuple(RULE) if value == "all" else value,
            json_schema_input_type=Filled[Annotated[str, OneOf(tuple(RULE))]] | Literal["all"],
        ),
    ] = tuple(rule.name for rule in MENU_RULES if not rule.needs)
    """Rules that are compared, or `all` that fit the study; without this key those of them that need no model beside those
    of the study. `twin` needs held-out data (`data.twin`) and doubles the trials; `expected_model` and `proxy_model` need
    the key `proxy_model`."""
    proxy_model: Annotated[str, OneOf(tuple(MODELS))] | None = None
    """A smaller network that is retrained in place of the study's, such as `small_cnn`."""
    menu: Annotated[int, Field(ge=SMALLEST_MENU)] = 24
    """Configurations of each method that are drawn from its ranges; the authors' knobs are one more."""
    oracle: bool = True
    """Whether models are retrained, so that the best of the menu is known. `musweep choose --no-oracle` sets it to false."""


def unfit(rule: Rule, whole_class: Sequence[bool], earlier: bool, asked: MenuOfKnobs) -> str:
    """Return why a rule fits nothing in a study; empty where it does.

    Args:
        whole_class: Of each request, whether whole classes go.
        earlier: Whether the search starts from earlier studies.
        asked: What the study asks for.
    """
    if not any(map(rule.applies, whole_class)):
        which = "whole classes" if rule.whole_class else "samples of classes that stay"
        return f"is for requests that forget {which}, and there is none"
    if "transfer" in rule.needs and len(whole_class) < 2:
        return "takes knobs from another request of the study, and there is none"
    if "start_from" in rule.needs and not earlier:
        return "takes knobs from an earlier study, and search.start_from names none"
    if "model" in rule.needs and asked.proxy_model is None:
        return "reads a smaller network, and choose.proxy_model names none"
    if rule.oracle and not asked.oracle:
        return "reads retrained models, and without an oracle there are none"
    if not asked.oracle and rule.retrainings and rule.needs != ("twin",):
        return "reads a model that is retrained, if in part, and without an oracle there is none"
    return ""


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
    choose: MenuOfKnobs | None = None
    """A menu of knobs that every cell tries on every report seed, and the rules that choose from it without a retrained
    model; `search.trials` may then be 0."""
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
        self._check_choose()
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

    @field_validator("choose", mode="after")
    @classmethod
    def _fitting(cls, asked: MenuOfKnobs | None, info: ValidationInfo) -> MenuOfKnobs | None:
        """Leave out the rules that fit nothing, unless the study names them one by one."""
        if asked is None or "forget" not in info.data or "search" not in info.data:
            return asked
        whole = [request.whole_class for request in info.data["forget"].values()]
        earlier = bool(info.data["search"].start_from)
        reasons = {name: unfit(RULE[name], whole, earlier, asked) for name in asked.rules}
        named = "rules" in asked.model_fields_set and set(asked.rules) != set(RULE)
        if named and any(reasons.values()):
            name, reason = next(item for item in reasons.items() if item[1])
            raise ValueError(f"rules: {name} {reason}")
        return asked.model_copy(update={"rules": tuple(n for n in asked.rules if not reasons[n])})

    def _check_choose(self) -> None:
        """Refuse what does not go with the menu."""
        if self.choose is None or self.choose.oracle:
            if not self.search.trials and self.choose is None:
                raise ValueError("search: trials: must be at least 1, unless `choose` has a menu")
        elif self.retrain is not None:
            raise ValueError(
                "choose: without an oracle there is no retrained model, but `retrain` supplies one"
            )
        elif self.search.trials:
            raise ValueError(
                f"choose: without an oracle there is no search, so search.trials must be 0, but is {self.search.trials}"
            )
        if self.choose is not None and self.choose.oracle and len(self.seeds.report) < 2:
            raise ValueError(
                "choose: rules choose on one report seed and are judged on the others, so there must be two or more in "
                f"seeds.report, but there are {len(self.seeds.report)}"
            )


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
