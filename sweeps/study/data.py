"""What a study's problems are made of: data, a model and forget requests, and whether they fit each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mu import models
from mu.data import DataSpec
from mu.forget import ForgetRequest
from mu.models import Model, ModelSpec
from sweeps.errors import StudyError
from sweeps.study.fields import build, plain

if TYPE_CHECKING:
    pass


def parse_data(raw: Any, where: str) -> DataSpec:
    """The data of a study: its name, or a mapping. Raises StudyError."""
    return build(DataSpec, {"name": raw} if isinstance(raw, str) else raw, where)


def plain_data(spec: DataSpec) -> dict[str, Any]:
    """As it is written in a study file."""
    return {key: item for key, item in plain(spec).items() if item not in (None, [])}


def parse_model(raw: Any, where: str) -> tuple[ModelSpec, Model]:
    """The model of a study, as it is asked for and as it is built: its name, or a mapping. Raises StudyError."""
    spec = build(ModelSpec, {"name": raw} if isinstance(raw, str) else raw, where)
    try:
        return spec, models.resolve(spec)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def plain_model(spec: ModelSpec) -> str | dict[str, Any]:
    """As it is written in a study file."""
    found = {key: item for key, item in plain(spec).items() if item is not None}
    return found if len(found) > 1 else spec.name


def parse_requests(raw: Any, where: str) -> dict[str, ForgetRequest]:
    """The forget requests of a study by name. Raises StudyError."""
    if not isinstance(raw, dict) or not raw:
        raise StudyError(f"{where}: must name at least one forget request, but got {raw!r}")
    requests = {}
    for name, content in raw.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise StudyError(f"{where}: {name!r}: must be a name of letters, digits, `.`, `_`, `-`")
        if isinstance(content, dict) and "class" in content:
            # YAML reads the class `3` as a number; classes are names.
            content = {key: value for key, value in content.items() if key != "class"} | {
                "target": str(content["class"])
            }
        requests[name] = build(
            ForgetRequest, content, f"{where}: {name}", renamed={"target": "class"}
        )
    return requests


def plain_request(request: ForgetRequest) -> dict[str, Any]:
    """As it is written in a study file."""
    found = {"class" if key == "target" else key: item for key, item in plain(request).items()}
    return {key: item for key, item in found.items() if item is not None}
