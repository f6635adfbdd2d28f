"""What a study's problems are made of: data, a model and forget requests, and whether they fit each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mu import forget, models
from mu.data import Dataset, DataSpec, load
from mu.forget import ForgetRequest
from mu.models import Model, ModelSpec
from mu.problem import Problem
from mu.ranking import early_epochs
from sweeps.study import checkpoints
from sweeps.study.fields import build, plain
from sweeps.study.methods import Tuned
from sweeps.study.yaml_file import StudyError

if TYPE_CHECKING:
    from sweeps.study.study import Study


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


def load_data(study: Study, where: str, cache: Path | None = None) -> Dataset:
    """Load the study's data, and check every forget request and the model against it.

    Raises:
        StudyError: The data cannot be loaded; a request selects nothing, everything, or an unknown class; or the
            model, or a checkpoint of it, does not fit the data.
    """
    try:
        data = load(study.data, cache)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    stand_ins: dict[str, Problem] = {}
    for name, request in study.forget.items():
        try:
            stand_ins[name] = _problem(study, data, name, forget.stand_in(request, data))
            if request.kind == "hardest":
                early_epochs(stand_ins[name])
        except ValueError as error:
            raise StudyError(f"{where}: forget: {name}: {error}") from error
    if study.training.augment != "none" and not data.images:
        raise StudyError(
            f"{where}: training: augment: {study.training.augment} changes images, but {data.name} holds "
            "tokens; leave it out, or `none`"
        )
    model = checkpoints.check(study, data, where)
    for tuned in study.methods:
        if "twin" in tuned.method.needs and len(data.parts["twin"]) == 0:
            raise StudyError(
                f"{where}: methods: {tuned.name} needs held-out data of its own; set data.twin, "
                "such as 0.1"
            )
        _check_problems(tuned, model, stand_ins, f"{where}: methods: {tuned.name}")
    return data


def _problem(study: Study, data: Dataset, name: str, chosen: NDArray[np.int64]) -> Problem:
    return Problem(data, study.model, study.training, study.forget[name], 0, chosen)


def _check_problems(
    tuned: Tuned, model: nn.Module, problems: Mapping[str, Problem], where: str
) -> None:
    """Ask the method itself whether it can work on the requests it is used on; one model serves them all."""
    if tuned.method.check_problem is None:
        return
    for name in tuned.forget:
        problem = problems[name]
        try:
            tuned.method.check_problem(model, problem.split().only(tuned.method.data))
        except ValueError as error:
            raise StudyError(f"{where}: {name}: {error}") from error
