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
    "model_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "string_pattern_mismatch": "must be a name of letters, digits, `.`, `_`, `-`",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must not be empty",
}
"""Kind of a pydantic error to what it demands."""
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
        tags = {str: "name", dict: "", cls: ""}
        either = core_schema.tagged_union_schema(
            {"name": core_schema.str_schema(), "": handler(cls)},
            discriminator=lambda value: tags.get(type(value)),
            custom_error_type="named",
            custom_error_message="must be a name, or a mapping with a `name`",
        )
        return core_schema.no_info_after_validator_function(
            lambda value: cls(name=value) if isinstance(value, str) else value, either
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


def checked(adapter: TypeAdapter[T], content: Any, where: str) -> T:
    """Return what plain data stands for. Raises StudyError, with one line on the first thing that is wrong."""
    plain = _plain(content, where)
    try:
        # As JSON, because pydantic's strict mode then takes a list for a tuple and a mapping for a dataclass.
        return adapter.validate_json(json.dumps(plain, default=str))
    except ValidationError as error:
        raise StudyError(": ".join([where, *_explain(error, plain, adapter)])) from None


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
    """Return what messages call an item of a list: a mapping by its alias, name or position from 1; else nothing."""
    if not isinstance(item, dict):
        return []
    return [str(item.get("as") or item.get("name", position + 1))]


def _explain(error: ValidationError, content: Any, adapter: TypeAdapter[Any]) -> list[str]:
    """Return the keys that lead to the first problem, an unknown key before others, and what is allowed there."""
    problems: list[Any] = error.errors(include_url=False)
    first = next((each for each in problems if each["type"] in UNKNOWN_KEY), problems[0])
    kind, context, value = first["type"], first.get("ctx", {}), first["input"]
    steps = [step for step in first["loc"] if step != ""]  # which is the tag of a mapping
    if kind in UNKNOWN_KEY:
        key, schema = steps.pop(), adapter.json_schema()
        allowed = ", ".join(_allowed(schema, steps, schema.get("$defs", {})))
        text = f"unknown key `{key}`; allowed are {allowed}"
    elif kind == "missing":
        text = f"`{steps.pop()}` is required"
    elif kind == "value_error":
        text = str(context["error"])
    else:
        if steps[-1:] == ["[key]"]:  # the key itself is wrong, and the message shows it
            steps = steps[:-2]
        context["expected"] = ", ".join(re.findall(r"'(.*?)'", context.get("expected", "")))
        rule = RULES.get(kind, first["msg"]).format(**context)
        text = f"{rule}, but got {value!r}"
    return [*_labels(steps, content), text]


def _labels(steps: Sequence[int | str], content: Any) -> list[str]:
    """Return what messages call the steps that lead to a value."""
    labels: list[str] = []
    for step in steps:
        inner = content.get(step) if isinstance(content, dict) else None
        if isinstance(step, str):
            labels.append(step)
        elif isinstance(content, list):
            inner = content[step]
            labels += _label(inner, step)
        content = inner
    return labels


def _allowed(
    part: Mapping[str, Any], steps: Sequence[int | str], definitions: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the keys that a part of a JSON schema allows at the end of some steps."""
    part = definitions.get(part.get("$ref", "").rpartition("/")[2], part)
    inner = [part.get("items"), part.get("additionalProperties")]
    inner += part.get("patternProperties", {}).values()
    for alternative in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from _allowed(alternative, steps, definitions)
    if not steps:
        yield from part.get("properties", ())
        return
    for each in (part.get("properties", {}).get(steps[0]), *inner):
        if isinstance(each, dict):
            yield from _allowed(each, steps[1:], definitions)
