"""Building blocks of the study file: the base of its sections, the types of its values, and the one line for what is wrong."""

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
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
MESSAGES = {
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "too_short": "must not be empty",
}
"""Kind of a pydantic error to what it demands; the kinds that name their choices are handled by `explain`."""


class Section(BaseModel):
    """A mapping in a study file, whose keys are all known and whose values have the types of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        """Refuse the first unknown key by name, before anything else that is wrong."""
        allowed = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, dict) else ():
            if key not in allowed:
                raise ValueError(f"unknown key `{key}`; allowed are {', '.join(allowed)}")
        return content


class OneOf:
    """Annotation of a text that must be one of some names; the schema lists them as an enum."""

    def __init__(self, choices: Collection[str]) -> None:
        self.choices = choices

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        none = [None] if type(None) in get_args(source) else []
        return core_schema.literal_schema([*self.choices, *none])


class FromFile:
    """Annotation of a frozen dataclass of `mu` that a study file writes as a mapping.

    Its fields become the keys, with the texts of the class's docstring as descriptions. A ValueError of the class
    itself is an error of this mapping.

    Args:
        named: Whether its `name` alone may stand for the mapping.
        fields: Field to the further annotations of pydantic that it has.
    """

    def __init__(self, named: bool = False, **fields: Sequence[Any]) -> None:
        self.named, self.fields = named, fields

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        mapping = handler.generate_schema(section_of(source, self.fields))

        def build(content: Section) -> Any:
            given = {name: getattr(content, name) for name in content.model_fields_set}
            return source(**given)

        schema = core_schema.no_info_after_validator_function(build, mapping)
        if not self.named:
            return schema
        written = core_schema.union_schema([core_schema.str_schema(), mapping])
        return core_schema.no_info_before_validator_function(
            named, schema, json_schema_input_schema=written
        )


def section_of(cls: type[Any], more: Mapping[str, Sequence[Any]]) -> type[Section]:
    """Return the section of a study file that holds the fields of a dataclass."""
    hints, texts = get_type_hints(cls), _arguments(cls)
    fields: dict[str, Any] = {}
    for each in dataclasses.fields(cls):
        described = Field(description=texts[each.name])
        kind = Annotated[(_written(hints[each.name]), described, *more.get(each.name, ()))]
        default = ... if each.default is dataclasses.MISSING else each.default
        fields[each.name] = (kind, default)
    summary = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
    return create_model(cls.__name__, __base__=Section, __doc__=summary, **fields)


def _written(hint: Any) -> Any:
    """Return how a study file writes values of a type: numbers and names as people write them, lists for tuples."""
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


def _arguments(cls: type[Any]) -> dict[str, str]:
    """Return what the docstring of a class says of each field, as Markdown of one line."""
    _, _, arguments = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")
    texts: dict[str, str] = {}
    for match in re.finditer(r"^    (\w[\w, ]*): (.+(?:\n {5,}.+)*)", arguments, re.MULTILINE):
        text = " ".join(match[2].split()).replace("``", "`")
        texts |= dict.fromkeys(match[1].split(", "), text)
    return texts


def named(content: Any) -> Any:
    """Return the mapping that a name alone stands for."""
    if isinstance(content, str):
        return {"name": content}
    if not isinstance(content, dict):
        raise ValueError(f"must be a name, or a mapping with a `name`, but got {content!r}")
    return content


def _name(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise ValueError(f"must be a name of letters, digits, `.`, `_`, `-`, but got {value!r}")
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def word(value: Any) -> Any:
    """Return a number as the name that it is meant as: YAML reads the class `3` as a number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number else value


def _items(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, but got {value}")
    return value


Name = Annotated[str, BeforeValidator(_name), Field(pattern=f"^{NAME}$")]
"""A name that can be part of a path."""
Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, also written as `3.0` or `1e3`."""
Word = Annotated[str, BeforeValidator(word, json_schema_input_type=str | float)]
"""The name of something in the data, also one that looks like a number."""
Items = Annotated[tuple[T, ...], BeforeValidator(_items)]
"""A list."""
Value = Annotated[Any, AfterValidator(_finite)]
"""The value of a knob, which the method itself checks."""


def checked(build: Callable[[Any], T], content: Any, where: str) -> T:
    """Return what `build` makes of a section of a study file.

    Raises:
        StudyError: Something in it is wrong. The message names the place, the value and what is allowed.
    """
    try:
        return build(content)
    except ValidationError as error:
        raise StudyError(f"{where}: {explain(error, content)}") from None
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from None


def explain(error: ValidationError, content: Any) -> str:
    """Return the first thing that is wrong with some content, in one line."""
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    location = list(first["loc"])
    if kind == "missing":
        text = f"`{location.pop()}` is required"
    elif kind == "value_error":
        text = str(context["error"])
    elif kind == "literal_error":
        choices = ", ".join(re.findall(r"'(.*?)'", context["expected"]))
        text = f"must be one of {choices}, but got {first['input']!r}"
    else:
        rule = MESSAGES.get(kind, first["msg"][:1].lower() + first["msg"][1:])
        text = f"{rule.format(**context)}, but got {first['input']!r}"
    return ": ".join([*_place(location, content), text])


def _place(location: Sequence[int | str], content: Any) -> list[str]:
    """Return the keys that lead to a value; those of a list's mappings are their names, or positions from 1."""
    keys = []
    for step in location:
        if step == "[key]":  # what is wrong is the key itself, which the message shows
            return keys[:-1]
        if isinstance(step, int) and not isinstance(content, dict):
            content = content[step] if isinstance(content, list) else None
            if isinstance(content, dict):
                keys.append(str(content.get("name", step + 1)))
        else:
            content = content.get(step) if isinstance(content, dict) else None
            keys.append(str(step))
    return keys
