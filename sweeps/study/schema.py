"""Building blocks of the study file: its sections, the types of its values, and the one line for what is wrong in it."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from sweeps.errors import StudyError

T = TypeVar("T")
MESSAGES = {
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "string_pattern_mismatch": "must be a name of letters, digits, `.`, `_`, `-`",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "too_short": "must not be empty",
}
"""Kind of a pydantic error to what it demands."""


class Section(BaseModel):
    """A mapping in a study file; the texts below its fields describe its keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        allowed = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, dict) else ():
            if key not in allowed:
                raise ValueError(f"unknown key `{key}`; allowed are {', '.join(allowed)}")
        return content


class _Described(Section):
    """A section whose fields have their descriptions already."""

    model_config = ConfigDict(use_attribute_docstrings=False)


class OneOf:
    """Annotation of a text that is one of some names; the schema lists them as an enum."""

    def __init__(self, choices: Collection[str]) -> None:
        self.choices = choices

    def __get_pydantic_core_schema__(self, source: Any, _: GetCoreSchemaHandler) -> CoreSchema:
        none = [None] if type(None) in get_args(source) else []
        return core_schema.literal_schema([*self.choices, *none])


class FromFile:
    """Annotation of a dataclass of `mu` that a study file writes as a mapping, described by the docstring of the class.

    Args:
        named: Whether its `name` alone may stand for the mapping.
        fields: Field of the class to further annotations for pydantic.
    """

    def __init__(self, named: bool = False, **fields: Sequence[Any]) -> None:
        self.named, self.fields = named, fields

    def __get_pydantic_core_schema__(self, cls: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        section = _section(cls, self.fields)
        keys = {name: field.alias or name for name, field in section.model_fields.items()}

        def build(content: Section) -> Any:
            return cls(**{name: getattr(content, name) for name in content.model_fields_set})

        def write(value: Any) -> Any:
            values = {key: getattr(value, name) for name, key in keys.items()}
            values = {key: value for key, value in values.items() if value not in (None, ())}
            return values["name"] if self.named and len(values) == 1 else values

        mapping = handler.generate_schema(section)
        writer = core_schema.plain_serializer_function_ser_schema(write)
        schema = core_schema.no_info_after_validator_function(build, mapping, serialization=writer)
        if not self.named:
            return schema
        written = core_schema.union_schema([core_schema.str_schema(), mapping])
        return core_schema.no_info_before_validator_function(
            named, schema, json_schema_input_schema=written, serialization=writer
        )


def _section(cls: type[Any], annotations: Mapping[str, Sequence[Any]]) -> type[Section]:
    """Return the section that holds the fields of a dataclass, which itself checks what its types do not say."""
    hints, doc = get_type_hints(cls), inspect.cleandoc(cls.__doc__ or "")
    pattern = re.compile(r"^    (\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)
    texts = {name: " ".join(text.split()) for name, text in pattern.findall(doc)}
    fields: dict[str, Any] = {}
    for each in dataclasses.fields(cls):
        kind = _written(hints[each.name])
        text = texts[each.name].replace("``", "`")
        for annotation in (Field(description=text), *annotations.get(each.name, ())):
            kind = Annotated[kind, annotation]
        fields[each.name] = (kind, ... if each.default is dataclasses.MISSING else each.default)
    return create_model(
        cls.__name__, __base__=_Described, __doc__=doc.split(". ")[0].split("\n")[0], **fields
    )


def _written(hint: Any) -> Any:
    """Return the type in a study file of a field's values."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # all of them are `X | None`
        return _written(args[0]) | None
    if dataclasses.is_dataclass(hint):
        return Annotated[hint, FromFile()]
    if origin is tuple:
        return Items[_written(args[0])]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[Word, _written(args[1])]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return Items[Word]
    return Whole if hint is int else hint


def named(content: Any) -> Any:
    """Return the mapping that a name alone stands for."""
    if not isinstance(content, (str, dict)):
        raise ValueError(f"must be a name, or a mapping with a `name`, but got {content!r}")
    return {"name": content} if isinstance(content, str) else content


def word(value: Any) -> Any:
    """Return a number as the name that it is meant as, such as the class `3`."""
    return str(value) if type(value) in (int, float) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, but got {value}")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_FROM_FLOAT = BeforeValidator(
    lambda v: int(v) if isinstance(v, float) and v.is_integer() else _finite(v)
)
_FROM_LIST = BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
Whole = Annotated[int, _FROM_FLOAT]
"""A whole number, also as `3.0` or `1e3`; `Count` and `CountOrZero` have a least value."""
Count = Annotated[int, Field(ge=1), _FROM_FLOAT]
CountOrZero = Annotated[int, Field(ge=0), _FROM_FLOAT]
Word = Annotated[str, BeforeValidator(word, json_schema_input_type=str | float)]
"""The name of something in the data, also one that looks like a number."""
Items = Annotated[tuple[T, ...], _FROM_LIST]
"""A list; one of `Filled` is not empty."""
Filled = Annotated[tuple[T, ...], Field(min_length=1), _FROM_LIST]
Value = Annotated[Any, AfterValidator(_finite)]
"""The value of a knob, which the method itself checks."""


def checked(build: Callable[[Any], T], content: Any, where: str) -> T:
    """Return what `build` makes of some content. Raises StudyError, with one line on the first thing that is wrong."""
    try:
        return build(content)
    except ValidationError as error:
        raise StudyError(f"{where}: {_explain(error, content)}") from None
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from None


def _explain(error: ValidationError, content: Any) -> str:
    """Return the first error as one line: key, value and what is allowed."""
    first = error.errors(include_url=False)[0]
    kind, context, location = first["type"], first.get("ctx", {}), list(first["loc"])
    if kind == "missing":
        text = f"`{location.pop()}` is required"
    elif kind == "value_error":
        text = str(context["error"])
    else:
        context["expected"] = ", ".join(re.findall(r"'(.*?)'", context.get("expected", "")))
        value = list(first["input"]) if isinstance(first["input"], tuple) else first["input"]
        rule = MESSAGES[kind].format(**context) if kind in MESSAGES else first["msg"]
        text = f"{rule}, but got {value!r}"
    return ": ".join([*_keys(location, content), text])


def _keys(location: Sequence[int | str], content: Any) -> list[str]:
    """Return the keys that lead to a value; those of a list's mappings are their names, or positions from 1."""
    keys: list[str] = []
    for step in location:
        if step == "[key]":  # the key itself is wrong, and the message shows it
            return keys[:-1]
        if isinstance(content, dict) or isinstance(step, str):
            content = content.get(step) if isinstance(content, dict) else None
            keys.append(str(step))
        else:
            content = content[step] if isinstance(content, list) else None
            if isinstance(content, dict):
                keys.append(str(content.get("name", step + 1)))
    return keys
