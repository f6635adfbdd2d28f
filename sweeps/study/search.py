"""How cells are searched: trials, sampler, objective, early stopping, and which configuration is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mu.constraints import parse_constraint
from mu.metrics import METRICS
from mu.selection import COSTS
from sweeps.study import space
from sweeps.study.methods import MethodConfig
from sweeps.study.schema import Count, CountOrZero, Filled, Items, OneOf, Section

_IN_TRIALS = {name: m for name, m in METRICS.items() if m.when == "trial"}
OBJECTIVES = (*(name for name, m in _IN_TRIALS.items() if m.better == "lower"), "mean_gap")
CURVE_OBJECTIVES = tuple(name for name in OBJECTIVES if name not in COSTS)
"""Those that a model has after each epoch, so that ``asha`` can compare them."""
GAPPED = tuple(
    name
    for name, m in _IN_TRIALS.items()
    if m.better == "target" and name != "entropy_median_diff"  # which is itself a comparison
)
Objective = Annotated[str, OneOf(OBJECTIVES)]


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Gaps = Items[Annotated[str, OneOf(GAPPED)]]


def _check_constraint(text: str) -> str:
    parse_constraint(text)
    return text


class MeanGap(Section):
    """The objective that is the mean gap over a list of metrics."""

    mean_gap: Gaps
    """The metrics whose gaps are averaged."""


Objectives = Annotated[
    Filled[Objective],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=Objective | list[Objective] | MeanGap,
    ),
]


def _unfold_choose(content: Any) -> Any:
    """Write a constraint, or a list of them, as the section that it stands for."""
    if content is None or isinstance(content, (dict, Choose)):
        return content
    return {"constraint": content}


class Choose(Section):
    """What decides among the configurations of a cell, beside the first objective."""

    weights: Annotated[dict[Objective, Positive], Field(min_length=1)] | None = None
    """Objective to its weight: the least weighted sum is chosen, each objective in its own unit."""
    lexicographic: Annotated[dict[Objective, NonNegative], Field(min_length=1)] | None = None
    """Objective to tolerance, the most important first: those within the tolerance of the best stay."""
    constraint: Annotated[
        Items[Annotated[str, AfterValidator(_check_constraint)]],
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value,
            json_schema_input_type=str | list[str],
        ),
    ] = ()
    """What must hold, such as `acc_test >= original - 0.01`, or a list of it."""

    @model_validator(mode="after")
    def _check(self) -> Choose:
        if self.weights and self.lexicographic:
            raise ValueError("must have either `weights` or `lexicographic`")
        return self

    def check(self, objective: Sequence[str], mean_gap: Sequence[str]) -> None:
        """Raise ValueError when it names a metric that the search does not know."""
        for key in ("weights", "lexicographic"):
            unknown = [name for name in getattr(self, key) or () if name not in objective]
            if unknown:
                raise ValueError(
                    f"choose: {key}: {unknown[0]!r} is no objective of the search, which has {', '.join(objective)}"
                )
        known = {*_IN_TRIALS, *(("mean_gap",) if mean_gap else ())}
        for constraint in map(parse_constraint, self.constraint):
            name = constraint.metric
            if name not in known:
                raise ValueError(
                    f"choose: constraint: unknown metric {name!r}; there are {', '.join(sorted(known))}"
                )
            if constraint.base and (name in COSTS or name == "mean_gap"):
                raise ValueError(f"choose: constraint: {constraint.base} has no {name}")


class Search(Section):
    """How knobs are tuned. Every cell, a method on a request, is searched with the same number of trials."""

    trials: CountOrZero = 30
    """Configurations per cell, the same for every method, but one for a method with nothing to search; of a grid, how
    many points it has. 0 searches nothing, where `choose` has a menu."""
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2"] = "tpe"
    """`tpe`, a model of where values were low; `gp`, a Gaussian process, for few trials; `cmaes`, evolution of numeric
    knobs, for many trials; `random`; `qmc`, points spread evenly; `grid`, which tries every combination of `choices`
    and of values a `step` apart; `nsga2`, evolution towards the front of several objectives."""
    objective: Objectives = ("avg_gap_natmu",)
    """Metric to minimise on the `val` view, or a list of them, of which the first decides which knobs are best unless
    `choose` says otherwise; or `{mean_gap: [acc_test, acc_forget]}`, the mean gap of a list of one's own."""
    mean_gap: Gaps = ()
    """The metrics whose mean gap the objective `mean_gap` is, where that is one of several objectives."""
    early_stop: Literal["collapse", "none", "asha"] = "collapse"
    """`collapse` ends a trial whose model is destroyed, after two epochs in a row or at its end; `none` only ends what diverged; `asha`
    ends also, of methods whose first epochs tell how good the last will be (`activation_prune`, `cf_k`, `finetune`, `neggrad_plus`,
    `ugradsl`), what is behind others: after epochs 1, 3, 9, 27, ... a configuration goes on if its objective, the mean over the search
    seeds, is in the best third of it and the configurations asked for before it. It needs one objective other than `time_unlearn` and
    `samples_seen`."""
    choose: Annotated[
        Choose | None,
        BeforeValidator(_unfold_choose, json_schema_input_type=Choose | str | list[str] | None),
    ] = None
    """Which configuration of a cell is taken: a constraint such as `acc_test >= original - 0.01` (`original` and
    `retrain` are the values of those models), or a list of them, which the lowest first objective must hold, or break
    least; `{weights: {avg_gap_natmu: 1, time_unlearn: 0.001}}`, the least weighted sum; or `{lexicographic:
    {avg_gap_natmu: 0.005, time_unlearn: 0}}`, by turns, those within a tolerance of the best. A `constraint` may stand
    beside the last two."""
    max_utility_loss: Annotated[float, Field(ge=0, le=1)] = 0.1
    """By how much accuracy on held-out data, of the classes that are kept, may be below the original's on the search's view, a
    fraction: a configuration that loses more is taken only where all of its cell do. 1 allows everything."""
    finalists: Count = 3
    """How many of the best configurations of a cell run again on two further search seeds before one is chosen; 1 leaves
    it out, as do supplied models and `selection: paper`. Without this key it is at most the number of trials."""
    start: Literal["defaults", "portfolio"] = "defaults"
    """What is tried first: `defaults`, the authors' knobs; `portfolio`, these and then the configurations in the
    `portfolio` of a method's search space, which were good in earlier studies and count as trials."""
    start_from: Items[str] = ()
    """Results folders of earlier studies, such as `results/earlier`: the knobs that they chose for a method of the same name, on
    the request of the same name or else on each request, are the first trials after the authors' defaults, and count as
    trials."""

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, content: Any) -> Any:
        """Write the objective `{mean_gap: [...]}` as the two keys that it stands for."""
        match content:
            case {"objective": {"mean_gap": gaps, **others}} if not others:
                return {**content, "objective": ["mean_gap"], "mean_gap": gaps}
            case {"objective": {} as other}:
                raise ValueError(f"objective: must be {{mean_gap: [...]}}, but got {other!r}")
        return content

    @model_validator(mode="after")
    def _check(self) -> Search:
        if ("mean_gap" in self.objective) != bool(self.mean_gap):
            example = "{mean_gap: [acc_test, acc_forget]}"
            raise ValueError(f"the objective mean_gap needs its list of metrics, such as {example}")
        if self.early_stop == "asha" and len(self.objective) > 1:
            raise ValueError("early_stop asha compares one objective, but there are several")
        if self.early_stop == "asha" and self.objective[0] not in CURVE_OBJECTIVES:
            raise ValueError(
                f"early_stop asha compares models after an epoch, by one of {', '.join(CURVE_OBJECTIVES)}, but "
                f"the objective is {self.objective[0]}"
            )
        if self.sampler == "cmaes" and len(self.objective) > 1:
            raise ValueError("sampler cmaes minimises one objective, but there are several")
        if self.sampler == "nsga2" and len(self.objective) == 1:
            raise ValueError("sampler nsga2 needs several objectives, but there is one")
        if self.sampler == "grid" and (self.start_from or self.start != "defaults"):
            key = "start_from" if self.start_from else "start"
            raise ValueError(f"sampler grid tries its own points, so that `{key}` has no trials")
        if self.choose is not None:
            self.choose.check(self.objective, self.mean_gap)
        if self.sampler != "grid":  # whose trials are not known yet
            self._check_finalists(max(1, self.trials))
        return self

    def _check_finalists(self, trials: int) -> None:
        if "finalists" in self.model_fields_set and self.finalists > trials:
            raise ValueError(
                f"finalists: must be at most the number of trials, {trials}, but got {self.finalists}"
            )

    def over(self, methods: Sequence[MethodConfig]) -> Search:
        """Return the search of these methods: that of a grid has as many trials as the grid has points.

        Raises:
            ValueError: A range has no points, the methods' grids differ in size, or a method has only choices
                for CMA-ES.
        """
        for method in methods if self.sampler == "cmaes" else ():
            if method.ranges and all(span.choices or span.when for span in method.ranges):
                raise ValueError(
                    f"sampler cmaes needs a range of numbers without `when`, but {method.name} has none"
                )
        if self.sampler != "grid":
            most = max(1, self.trials)
            return self.model_copy(update={"finalists": min(self.finalists, most)})
        sizes: dict[str, int] = {}
        for method in (method for method in methods if method.ranges):
            try:
                sizes[method.name] = len(space.grid(method.ranges, method.fixed))
            except ValueError as error:
                raise ValueError(f"sampler grid: {method.name}: {error}") from error
        first = next(iter(sizes.values()), 1)
        asked = self.trials if "trials" in self.model_fields_set else first
        if {*sizes.values(), asked} != {first}:
            points = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(
                f"sampler grid needs a grid of `trials` points for every method, but got {points}"
            )
        self._check_finalists(first)
        return self.model_copy(update={"trials": first, "finalists": min(self.finalists, first)})
