"""Bounds on metrics that a chosen configuration must hold, as a study writes them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mu.selection import Candidate, References, measured

_CONSTRAINT = re.compile(
    r"(?P<metric>\w+)\s*(?P<sign>>=|<=)\s*"
    r"(?:(?P<base>original|retrain)\s*(?:(?P<plus>[+-])\s*(?P<offset>[\d.eE-]+))?|(?P<limit>-?[\d.eE-]+))"
)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric of the search's view.

    Args:
        metric: The metric.
        least: Whether the bound is the least that is allowed, and not the most.
        base: Reference whose value of the metric is added to `offset`: `original`, `retrain`, or empty.
        offset: A number in the unit of the metric.
    """

    metric: str
    least: bool
    base: str
    offset: float

    def excess(self, candidate: Candidate, known: References) -> float:
        """Return by how much a candidate breaks it, 0 where it does not; infinity where a value is missing."""
        bound = self.offset
        if self.base:
            bound += getattr(known, self.base).get(self.metric, math.nan)
        beyond = measured(candidate, self.metric) - bound
        beyond = round(-beyond if self.least else beyond, 9)
        return math.inf if math.isnan(beyond) else max(0.0, beyond)


def parse_constraint(text: str) -> Constraint:
    """Read a constraint such as ``acc_test >= original - 0.01``. Raises ValueError when it is none."""
    match = _CONSTRAINT.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        number = match["limit"] or match["offset"] or "0"
        offset = float(number) * (-1 if match["plus"] == "-" else 1)
        if not math.isfinite(offset):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"must be a constraint such as `acc_test >= original - 0.01`, but got {text!r}"
        ) from None
    return Constraint(match["metric"], match["sign"] == ">=", match["base"] or "", offset)
