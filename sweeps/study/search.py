"""How cells are searched: trials, sampler, objective, early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from mu.metrics import METRICS
from sweeps.study import space
from sweeps.study.methods import MethodConfig
from sweeps.study.schema import Count, Filled, Items, OneOf, Section

_IN_TRIALS = {name: m for name, m in METRICS.items() if m.when == "trial"}
OBJECTIVES = (*(name for name, m in _IN_TRIALS.items() if m.better == "lower"), "mean_gap")
GAPPED = tuple(
    name
    for name, m in _IN_TRIALS.items()
    if m.better == "target" and name != "entropy_median_diff"  # which is itself a comparison
)
Objective = Annotated[str, OneOf(OBJECTIVES)]


Gaps = Items[Annotated[str, OneOf(GAPPED)]]


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


class Search(Section):
    """How knobs are tuned. Every cell, a method on a request, is searched with the same number of trials."""

    trials: Count = 30
    """Configurations per cell, the same for every method, but one for a method with nothing to search; of a grid, how
    many points it has."""
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2"] = "tpe"
    """`tpe`, a model of where values were low; `gp`, a Gaussian process, for few trials; `cmaes`, evolution of numeric
    knobs, for many trials; `random`; `qmc`, points spread evenly; `grid`, which tries every combination of `choices`
    and of values a `step` apart; `nsga2`, evolution towards the front of several objectives."""
    objective: Objectives = ("avg_gap_natmu",)
    """Metric to minimise on the `val` view, or a list of them, of which the first decides which knobs are best; or
    `{mean_gap: [acc_test, acc_forget]}`, the mean gap of a list of one's own."""
    mean_gap: Gaps = ()
    """The metrics whose mean gap the objective `mean_gap` is, where that is one of several objectives."""
    early_stop: Literal["collapse", "none", "asha"] = "collapse"
    """`collapse` ends a trial whose model is destroyed; `asha` ends also those that are behind others of their cell, for
    methods that improve steadily; `none` only ends what diverged."""

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
        if self.sampler == "cmaes" and len(self.objective) > 1:
            raise ValueError("sampler cmaes minimises one objective, but there are several")
        if self.sampler == "nsga2" and len(self.objective) == 1:
            raise ValueError("sampler nsga2 needs several objectives, but there is one")
        return self

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
            return self
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
        return self.model_copy(update={"trials": first})
