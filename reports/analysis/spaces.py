"""What the search could try: the range of each searched knob, from the study or else from the trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reports.load import RecordedMethod, RecordedStudy
from reports.text import knob_value


@dataclass(frozen=True)
class Span:
    """The values of one knob.

    Args:
        knob: Its name.
        low, high: Ends; unused when there are choices.
        log: Whether it was sampled on a logarithmic scale.
        choices: Values to choose from, in order; empty for a range.
    """

    knob: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        if self.choices:
            return "{" + ", ".join(map(knob_value, self.choices)) + "}"
        return f"[{self.low:.4g}, {self.high:.4g}]" + (" log" if self.log else "")

    def place(self, value: Any) -> float:
        """Where a value lies on an axis; a choice at its position. NaN where it has none."""
        if self.choices:
            return float(self.choices.index(value)) if value in self.choices else math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value) if value > 0 or not self.log else math.nan
        return math.nan

    def share(self, value: Any) -> float:
        """How far along its range a value lies, from 0 to 1, by decades where it was searched so; NaN where it has no place."""
        low, high, at = self.low, self.high, self.place(value)
        if self.choices:
            low, high = 0.0, len(self.choices) - 1.0
        elif self.log:
            low, high, at = (math.log(end) if end > 0 else math.nan for end in (low, high, at))
        if math.isnan(at) or low == high:
            return at if math.isnan(at) else 0.5
        return (at - low) / (high - low)


def spans(study: RecordedStudy, method: RecordedMethod) -> tuple[Span, ...]:
    """Every knob that the search varied, in the order of the study."""
    return study.once(("spans", method.name), lambda: _spans(study, method))


def _spans(study: RecordedStudy, method: RecordedMethod) -> tuple[Span, ...]:
    tried: dict[str, list[Any]] = {}
    for request in study.requests:
        for trial in study.searched(request.name, method.name):
            for knob, value in trial.knobs.items():
                tried.setdefault(knob, []).append(value)
    if method.space:
        return tuple(_given(knob, span, tried.get(knob, [])) for knob, span in method.space.items())
    return tuple(
        _given(knob, {}, values)
        for knob, values in tried.items()
        if any(value != values[0] for value in values)
    )


def _given(knob: str, content: Mapping[str, Any], values: Iterable[Any]) -> Span:
    """The range as the study has it, widened by what earlier ranges of the same study gave."""
    found = list(values)
    numbers = [v for v in found if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if "choices" in content or len(numbers) < len(found):
        choices = list(content.get("choices", ()))
        choices += [value for value in found if value not in choices]
        return Span(knob, choices=tuple(dict.fromkeys(choices)))
    ends = [*numbers, *(content[end] for end in ("low", "high") if end in content)]
    if not ends:
        return Span(knob)
    return Span(knob, float(min(ends)), float(max(ends)), bool(content.get("log", False)))
