"""Single parts of a study, read by the rules of the study file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter

from mu.data import DataSpec
from mu.models import ModelSpec
from sweeps.study.schema import Named, NumbersAsNames, Section, checked


class _Data(Section):
    """A mapping with the key `data` of a study."""

    data: Annotated[DataSpec, NumbersAsNames(), Named()]


class _Model(Section):
    """A mapping with the key `model` of a study."""

    model: Annotated[ModelSpec, Named()]


_DATA, _MODEL = TypeAdapter(_Data), TypeAdapter(_Model)


def data_of(given: Any, where: str) -> DataSpec:
    """Return the data that a study's `data` stands for. Raises StudyError, which begins with `where` and `data`."""
    return checked(_DATA, {"data": given}, where).data


def model_of(given: Any, where: str) -> ModelSpec:
    """Return the network that a study's `model` stands for. Raises StudyError, which begins with `where` and `model`."""
    return checked(_MODEL, {"model": given}, where).model
