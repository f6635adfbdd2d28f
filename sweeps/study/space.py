"""Search spaces: the ranges of YAML files, checked against a method's knobs and suggested to Optuna by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from mu.knobs import Knob
from mu.methods import Method
from mu.record import PORTFOLIO
from sweeps.errors import StudyError, errors_at
from sweeps.study import yaml_file
from sweeps.study.schema import Filled, Section, checked

if TYPE_CHECKING:
    import optuna


class RangeSection(Section):
    """The values of a knob to search: `{low: 1.0e-4, high: 1.0e-1, log: true}` or `{choices: [1, 5, 10]}`."""

    low: float | None = None
    """Smallest value; needed unless there are choices."""
    high: float | None = None
    """Largest value; needed unless there are choices."""
    log: bool = False
    """Whether to sample on a logarithmic scale."""
    step: Annotated[float | None, Field(gt=0)] = None
    """Distance of values from `low`; continuous (1 for integers) when left out."""
    choices: Filled[Any] | None = None
    """Values to choose from."""
    when: dict[str, Any] | None = None
    """Other knobs and the values they must have for this one to matter."""


_RANGES = TypeAdapter(dict[str, RangeSection])


@dataclass(frozen=True)
class Range:
    """The values of one knob that a search may try.

    Args:
        knob: Name of the knob.
        whole: Whether values are integers.
        low, high: Inclusive ends; unused when there are choices.
        log: Whether to sample on a logarithmic scale.
        step: Distance of values from `low`; None is continuous (1 for integers).
        choices: Values to choose from.
        when: Other knobs and the values they must have for this one to matter.
    """

    knob: str
    whole: bool = False
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, Any], ...] = ()

    def applies(self, knobs: Mapping[str, Any]) -> bool:
        return all(knobs.get(name) == value for name, value in self.when)

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    @property
    def plain(self) -> dict[str, Any]:
        """What a study file writes of it."""
        content: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.choices:
            content = {"choices": list(self.choices)}
        content |= {"log": True} if self.log else {}
        content |= {"step": self.step} if self.step is not None else {}
        return content | ({"when": dict(self.when)} if self.when else {})

    def points(self) -> tuple[Any, ...]:
        """Return the values of a grid: the choices, or those `step` apart from `low` to `high`.

        Raises:
            ValueError: It is continuous, or logarithmic.
        """
        if self.choices:
            return self.choices
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            raise ValueError(f"`{self.knob}` needs `choices`, or a `step`, to be a grid")
        count = int((self.high - self.low) / step + 1e-9) + 1
        return tuple(round(self.low + i * step, 12) for i in range(count))

    def at(self, position: float) -> Any:
        """Return the value at a position in [0, 1]. Values that are a step apart have shares of equal width."""
        if self.choices:
            return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]
        step = int(self.step or 1) if self.whole else self.step
        value = number_at(position, self.low, self.high, self.log, step)
        return int(value) if self.whole else value

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.knob, self.choices)
        if self.whole:
            return trial.suggest_int(
                self.knob, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.knob, self.low, self.high, step=self.step, log=self.log)


def number_at(position: float, low: float, high: float, log: bool, step: float | None) -> float:
    """Return the number at a position in [0, 1] of a range, whose values may be a step apart."""
    first, last = ends(low, high, log, step)
    value = first + position * (last - first)
    value = math.exp(value) if log else value
    if step:
        value = round(low + step * round((value - low) / step), 12)
    return min(max(value, low), high)


def ends(low: float, high: float, log: bool, step: float | None) -> tuple[float, float]:
    """Return the ends of the positions: half a step beyond those of the values, on the scale of the range."""
    half = (step or 0) / 2
    low, high = low - half, high + half
    return (math.log(low), math.log(high)) if log else (low, high)


def shipped(method: Method, folders: Sequence[Path] = ()) -> tuple[dict[str, Any], str]:
    """Return the ranges that come with a method, as YAML says them, and the name of their file for messages.

    The file may also have a portfolio, which is none of them: see ``sweeps.study.portfolio``.
    """
    content, name = shipped_content(method, folders)
    return {knob: section for knob, section in content.items() if knob != PORTFOLIO}, name


def shipped_content(method: Method, folders: Sequence[Path] = ()) -> tuple[dict[str, Any], str]:
    """Return the content of the file of a method's ranges, and its name for messages; empty where there is none."""
    path, name = shipped_file(method, folders)
    return (_content(path) if path is not None else {}), name


def shipped_file(method: Method, folders: Sequence[Path] = ()) -> tuple[Path | None, str]:
    """Return the file of a method's ranges, None where there is none, and its name for messages.

    That of another package's method lies beside its module.
    """
    if method.file is not None and method.package != "mu.methods":
        beside = method.file.with_suffix(".yaml")
        return (beside if beside.is_file() else None), str(beside)
    places = [*folders, Path(str(resources.files("search_spaces")))]
    for folder in places:
        path = folder / f"{method.name}.yaml"
        if path.is_file():
            return path, f"search_spaces/{path.name}"
    return None, f"search_spaces/{method.name}.yaml"


def _content(path: Path) -> dict[str, Any]:
    content = yaml_file.read(path) or {}
    if not isinstance(content, dict):
        raise StudyError(f"{path}: must be a mapping, but got {content!r}")
    return content


def parse(raw: Mapping[str, Any], method: Method, where: str) -> tuple[Range, ...]:
    """Return the ranges that plain data says for a method's knobs.

    Raises:
        StudyError: A knob is unknown, or a range is empty, reversed or outside what the knob accepts.
    """
    sections = checked(_RANGES, raw, where)
    return resolve(sections, method, where)


def resolve(sections: Mapping[str, RangeSection], method: Method, where: str) -> tuple[Range, ...]:
    """Return ranges, checked against a method's knobs. Raises StudyError, as ``parse`` does."""
    ranges: list[Range] = []
    for name, section in sections.items():
        if name not in method.knobs:
            known = ", ".join(sorted(method.knobs))
            raise StudyError(f"{where}: unknown knob `{name}`; {method.name} has {known}")
        for other, value in (section.when or {}).items():
            searched = other in [r.knob for r in ranges]
            usual = other not in sections and _has_default(method, other, value)
            if not searched and not usual:
                raise StudyError(
                    f"{where}: {name}: `when` names `{other}`, which is no knob searched before it, "
                    "nor one with this default"
                )
        with errors_at(f"{where}: {name}"):
            ranges.append(_range(method.knobs, method.knobs[name], section))
    return tuple(ranges)


def _has_default(method: Method, knob: str, value: Any) -> bool:
    return knob in method.knobs and bool(method.knobs[knob].default == value)


def _range(knobs: Mapping[str, Knob], knob: Knob, section: RangeSection) -> Range:
    """Return the range of a knob. Raises ValueError when it does not fit the knob."""
    when = tuple((other, knobs[other].check(v)) for other, v in (section.when or {}).items())
    if section.choices is not None:
        if section.low is not None or section.high is not None:
            raise ValueError("give either `choices` or `low` and `high`")
        choices = tuple(knob.check(value) for value in section.choices)
        return Range(knob.name, choices=choices, when=when)
    if section.low is None or section.high is None:
        raise ValueError("a range needs `low` and `high`, or `choices`")
    if knob.kind not in ("int", "float"):
        raise ValueError(f"`{knob.name}` is {knob.accepts}; give `choices`")
    low, high = knob.check(section.low), knob.check(section.high)
    if not low < high:
        raise ValueError(f"`low` must be less than `high`, but got {low} and {high}")
    if section.log and low <= 0:
        raise ValueError(f"a log range needs `low` > 0, but got {low}")
    if section.log and section.step is not None:
        raise ValueError("`step` does not go with `log`")
    whole, step = knob.kind == "int", section.step
    if whole and step is not None:
        if not step.is_integer():
            raise ValueError(f"`step` of whole numbers must be one, but got {step}")
        step = int(step)
    return Range(knob.name, whole, low, high, section.log, step, when=when)


def suggest(
    trial: optuna.trial.BaseTrial, ranges: Sequence[Range], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all knobs of one trial: those given, overridden where a range applies."""
    values = dict(knobs)
    for span in ranges:
        if span.applies(values):
            values[span.knob] = span.suggest(trial)
    return values


def grid(ranges: Sequence[Range], knobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the searched knobs of every point of a grid, without those that do not apply at the point.

    Raises:
        ValueError: A range has no points.
    """
    points: list[dict[str, Any]] = [{}]
    for span in ranges:
        longer = []
        for point in points:
            if span.applies({**knobs, **point}):
                longer += [{**point, span.knob: value} for value in span.points()]
            else:
                longer.append(point)
        points = longer
    return points
