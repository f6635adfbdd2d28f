"""Search spaces: YAML ranges matched against a method's knobs, and suggested to Optuna by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.knobs import Knob
from mu.methods import Method
from sweeps.errors import StudyError
from sweeps.study import yaml_file

if TYPE_CHECKING:
    import optuna

KEYS = ("low", "high", "log", "step", "choices", "when")


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

    def points(self) -> tuple[Any, ...]:
        """The values of a grid: the choices, or those `step` apart from `low` to `high`.

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

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.knob, self.choices)
        if self.whole:
            return trial.suggest_int(
                self.knob, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.knob, self.low, self.high, step=self.step, log=self.log)


def shipped(method: Method, folders: Sequence[Path] = ()) -> tuple[dict[str, Any], str]:
    """The ranges that come with a method, as YAML says them, and the file's name for messages."""
    places = [*folders, Path(str(resources.files("search_spaces")))]
    for folder in places:
        path = folder / f"{method.name}.yaml"
        if path.is_file():
            return _mapping(yaml_file.read(path), str(path)), f"search_spaces/{path.name}"
    return {}, f"search_spaces/{method.name}.yaml"


def parse(raw: Mapping[str, Any], method: Method, where: str) -> tuple[Range, ...]:
    """Check ranges against the method's knobs.

    Raises:
        StudyError: A knob is unknown, or a range is empty, reversed or outside what the knob accepts.
    """
    ranges: list[Range] = []
    for name, content in raw.items():
        if name not in method.knobs:
            known = ", ".join(sorted(method.knobs))
            raise StudyError(f"{where}: unknown knob `{name}`; {method.name} has {known}")
        spec = _mapping(content, f"{where}: {name}")
        ranges.append(_range(method.knobs[name], spec, f"{where}: {name}", method, ranges))
    return tuple(ranges)


def _range(
    knob: Knob, spec: Mapping[str, Any], where: str, method: Method, before: Sequence[Range]
) -> Range:
    for key in spec:
        if key not in KEYS:
            raise StudyError(f"{where}: unknown key `{key}`; a range has {', '.join(KEYS)}")
    conditions = _mapping(spec.get("when", {}), f"{where}: when")
    for other in conditions:
        if other not in method.knobs or other not in [r.knob for r in before]:
            raise StudyError(
                f"{where}: `when` names `{other}`, which is no knob searched before it"
            )
    when = tuple((other, _check(method.knobs[other], v, where)) for other, v in conditions.items())
    if "choices" in spec:
        if not isinstance(spec["choices"], list) or not spec["choices"]:
            raise StudyError(f"{where}: `choices` must be a list of at least one value")
        if "low" in spec or "high" in spec:
            raise StudyError(f"{where}: give either `choices` or `low` and `high`")
        choices = tuple(_check(knob, value, where) for value in spec["choices"])
        return Range(knob.name, choices=choices, when=when)
    if "low" not in spec or "high" not in spec:
        raise StudyError(f"{where}: a range needs `low` and `high`, or `choices`")
    if knob.kind not in ("int", "float"):
        raise StudyError(f"{where}: `{knob.name}` is {knob.accepts}; give `choices`")
    low, high = (_check(knob, spec[end], where) for end in ("low", "high"))
    if not low < high:
        raise StudyError(f"{where}: `low` must be less than `high`, but got {low} and {high}")
    log, step = spec.get("log", False), spec.get("step")
    if not isinstance(log, bool):
        raise StudyError(f"{where}: `log` must be true or false, but got {log!r}")
    if log and low <= 0:
        raise StudyError(f"{where}: a log range needs `low` > 0, but got {low}")
    if step is not None and (log or not isinstance(step, (int, float)) or step <= 0):
        raise StudyError(f"{where}: `step` must be a number > 0, and not with `log`")
    return Range(knob.name, knob.kind == "int", low, high, log, step, when=when)


def suggest(
    trial: optuna.trial.BaseTrial, ranges: Sequence[Range], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """All knobs of one trial: those given, overridden where a range applies."""
    values = dict(knobs)
    for span in ranges:
        if span.applies(values):
            values[span.knob] = span.suggest(trial)
    return values


def grid(ranges: Sequence[Range], knobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The searched knobs of every point of a grid; those that do not apply at a point are left out.

    Raises:
        ValueError: A range has no points.
    """
    found: list[dict[str, Any]] = [{}]
    for span in ranges:
        found = [
            {**chosen, span.knob: value} if span.applies({**knobs, **chosen}) else chosen
            for chosen in found
            for value in (span.points() if span.applies({**knobs, **chosen}) else (None,))
        ]
    return found


def _check(knob: Knob, value: Any, where: str) -> Any:
    try:
        return knob.check(value)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise StudyError(f"{where}: must be a mapping, but got {value!r}")
    return value
