"""Building blocks of the study file: its sections, the types of its values, and the one line for what is wrong in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from sweeps.errors import StudyError

T = TypeVar("T")
RULES = {
    "model_type": "be a mapping",
    "dataclass_type": "be a mapping",
    "dict_type": "be a mapping",
    "tuple_type": "be a list",
    "string_type": "be text",
    "string_pattern_mismatch": "be a name of letters, digits, `.`, `_`, `-`",
    "int_type": "be a whole number",
    "float_type": "be a number",
    "bool_type": "be true or false",
    "literal_error": "be one of {expected}",
    "greater_than": "be above {gt:g}",
    "greater_than_equal": "be at least {ge:g}",
    "too_short": "not be empty",
}
"""Kind of a pydantic error to what a value must."""
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""Kinds of pydantic errors for a key that a section, or a dataclass of `mu`, does not have."""


class Section(BaseModel):
    """A mapping in a study file; the texts below its fields describe its keys.

    Dataclasses of `mu` within it are read by the same rules.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,
    )


@dataclass(frozen=True)
class OneOf:
    """Annotation of a text that is one of some names; the schema lists them as an enum."""

    choices: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, _: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema([*self.choices])


class Named:
    """Annotation of a section or dataclass whose `name` alone may stand for the mapping."""

    def __get_pydantic_core_schema__(self, cls: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda value: cls(name=value) if isinstance(value, str) else value,
            core_schema.union_schema([core_schema.str_schema(), handler(cls)]),
        )


class NumbersAsNames:
    """Annotation of a dataclass whose texts may be written as numbers, such as the class `3`."""

    def __get_pydantic_core_schema__(self, cls: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(cls)
        parts: list[Any] = [handler.resolve_ref_schema(schema)]
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                parts += part.values()
                if part.get("type") == "str":
                    part |= {"strict": False, "coerce_numbers_to_str": True}
            elif isinstance(part, list):
                parts += part
        return schema


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A list; one of `Filled` is not empty."""
Filled = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]


def checked(kind: TypeAdapter[T], content: Any, where: str) -> T:
    """Return what plain data stands for. Raises StudyError, with one line on the first thing that is wrong."""
    plain = _plain(content, where)
    try:
        # As JSON, because pydantic's strict mode then takes a list for a tuple and a mapping for a dataclass.
        return kind.validate_json(json.dumps(plain, default=str))
    except ValidationError as error:
        raise StudyError(": ".join([where, *_explain(error, plain, kind)])) from None


def _plain(value: Any, where: str) -> Any:
    """Return data whose keys are text and whose whole numbers are written so; raise StudyError for infinity and NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, ": ".join([where, *_label(each, n)])) for n, each in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StudyError(f"{where}: must be a finite number, but got {value}")
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value


def _label(item: Any, position: int) -> list[str]:
    """Return what messages call an item of a list: a mapping by its name, or position from 1; else nothing."""
    return [str(item.get("name", position + 1))] if isinstance(item, dict) else []


def _explain(error: ValidationError, content: Any, kind: TypeAdapter[Any]) -> list[str]:
    """Return the keys that lead to what is wrong, then what is allowed there: unknown keys first, else the innermost."""

    def rank(problem: Any) -> tuple[bool, int, bool]:
        name = problem["type"]
        return name in UNKNOWN_KEY, len(problem["loc"]), name == "value_error"

    problems: list[Any] = error.errors(include_url=False)
    worst = max(problems, key=rank)
    steps, labels = _path(worst["loc"], content)
    if worst["type"] in UNKNOWN_KEY:
        schema = kind.json_schema()
        allowed = ", ".join(_allowed(schema, steps[:-1], schema.get("$defs", {})))
        return [*labels[:-1], f"unknown key `{steps[-1]}`; allowed are {allowed}"]
    if worst["type"] == "missing":
        return [*labels, f"`{worst['loc'][-1]}` is required"]
    if worst["type"] == "value_error":
        return [*labels, str(worst["ctx"]["error"])]
    # Where a value may be of several types, each has its own error for it.
    alike = [p for p in problems if rank(p) == rank(worst) and _path(p["loc"], content)[0] == steps]
    rules = " or ".join(dict.fromkeys(map(_rule, alike)))
    return [*labels, f"must {rules}, but got {worst['input']!r}"]


def _rule(problem: Any) -> str:
    context = problem.get("ctx", {})
    choices = ", ".join(re.findall(r"'(.*?)'", context.get("expected", "")))
    return RULES.get(problem["type"], problem["msg"]).format(**{**context, "expected": choices})


def _path(location: Sequence[int | str], content: Any) -> tuple[list[int | str], list[str]]:
    """Return the steps of a location, without pydantic's names for the types of a value, and what messages call them."""
    steps: list[int | str] = []
    labels: list[str] = []
    for step in location:
        if step == "[key]":  # the key itself is wrong, and the message shows it
            return steps[:-1], labels[:-1]
        if isinstance(content, dict) and step in content:
            labels.append(str(step))
        elif isinstance(content, list) and isinstance(step, int):
            labels += _label(content[step], step)
        else:
            continue
        content = content[step]
        steps.append(step)
    return steps, labels


def _allowed(
    part: Mapping[str, Any], steps: Sequence[int | str], definitions: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the keys that a part of a JSON schema allows at the end of some steps."""
    part = definitions.get(part.get("$ref", "").rpartition("/")[2], part)
    for alternative in part.get("anyOf", ()):
        yield from _allowed(alternative, steps, definitions)
    if not steps:
        yield from part.get("properties", ())
        return
    every = part.get("items"), part.get("additionalProperties")
    for inner in (
        part.get("properties", {}).get(steps[0]),
        *every,
        *part.get("patternProperties", {}).values(),
    ):
        if isinstance(inner, dict):
            yield from _allowed(inner, steps[1:], definitions)
