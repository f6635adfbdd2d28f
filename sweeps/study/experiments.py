"""What a study asks beyond the search: experiments with the tuned knobs, costly metrics, and an audit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mu.evaluate import COSTLY
from sweeps.study.schema import Items, OneOf, Section, Whole

COSTLY_PHASES = ("search", "default", "confirm", "sufficient", "transfer")


class Extended(Section):
    """The sufficient-training experiment."""

    epochs: Whole = Field(ge=1, description="Number of epochs.")


def _epochs(value: Any) -> Any:
    return value["epochs"] if isinstance(value, dict) and list(value) == ["epochs"] else value


def _pairs(value: Any) -> Any:
    """Return the pairs of a list as tuples."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"must be `all` or a list of [source, target], but got {value!r}")
    for pair in value:
        texts = isinstance(pair, list) and all(isinstance(name, str) for name in pair)
        if not texts or len(pair) != 2:
            raise ValueError(f"must hold [source, target], but got {pair!r}")
        if pair[0] == pair[1]:
            raise ValueError(f"source and target are both {pair[0]!r}")
    return tuple(map(tuple, value))


class Experiments(Section):
    """What is tried with the best knobs of each cell, beyond running them on the report seeds."""

    sufficient: Annotated[
        Whole | None,
        Field(ge=1),
        BeforeValidator(_epochs, json_schema_input_type=Extended | None),
    ] = Field(None, description="`{epochs: 20}`: the same knobs, but so many epochs.")
    transfer: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(_pairs, json_schema_input_type=Literal["all"] | list[list[str]] | None),
    ] = Field(
        (),
        description="`all`, or a list of `[source, target]` requests: knobs tuned on the one, used on the other.",
    )
    defaults: bool = Field(
        True,
        description="Whether the authors' knobs (or those the study fixes) are run beside the tuned ones.",
    )

    @property
    def plain(self) -> dict[str, Any]:
        """What a study file writes of it."""
        epochs = self.sufficient
        given = self.model_dump(mode="json")
        return given | {"sufficient": {"epochs": epochs} if epochs else None}


class Metrics(Section):
    """What is computed beyond the metrics that every trial has."""

    costly: Items[Annotated[str, OneOf(COSTLY_PHASES)]] = Field(
        ("confirm",),
        description="Phases whose trials also get the costly attacks and the diagnostics of a method's own work; "
        "references get the attacks whenever any phase does.",
    )
    attacks: Items[Annotated[str, OneOf(COSTLY)]] = Field(
        ("svc", "starting_kit"), description="Which costly attacks."
    )


class Audit(Section):
    """Attacks that need many models (U-LiRA, RMIA, the challenge's F-score), on confirmed knobs."""

    models: Whole = Field(
        0,
        ge=0,
        description="Least number of report seeds, K; 0 leaves the audit out. U-LiRA needs 9: 8 besides the attacked.",
    )
