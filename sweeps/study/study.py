"""The study, read and validated. Every error in its file is found before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from mu import models
from mu.choice import Choice, choice_of, retrain_seeds
from mu.data import Dataset
from mu.models import Model
from mu.models.public import TIMM
from mu.problem import Problem, Role
from sweeps.errors import StudyError, errors_at
from sweeps.study import yaml_file
from sweeps.study.methods import MethodConfig, resolve_methods
from sweeps.study.published import Printed, resolve_published
from sweeps.study.schema import checked
from sweeps.study.study_file import StudyFile
from sweeps.study.supplied import PLACES, SuppliedModel, SuppliedModels, find_supplied

_FILE = TypeAdapter(StudyFile)


class Study(StudyFile):
    """A whole study, validated: its file, with the model, methods and tables that the file names.

    `definition` is the same as plain data, from which ``parse`` makes the study again.
    """

    model: Model  # type: ignore[assignment]
    methods: tuple[MethodConfig, ...]  # type: ignore[assignment]
    published: tuple[Printed, ...]  # type: ignore[assignment]
    supplied: SuppliedModels
    definition: Mapping[str, Any] = Field(repr=False)

    @cached_property
    def choice(self) -> Choice:
        """How the knobs of a cell are chosen."""
        return choice_of(self.definition)

    @cached_property
    def further_retrains(self) -> tuple[int, ...]:
        """The seeds of the retrained models beyond those of the report seeds."""
        return retrain_seeds(self.definition["seeds"])

    @property
    def search_view(self) -> str:
        """The view of the search: `val`, or `test` when knobs are selected as the papers do."""
        return "test" if self.selection == "paper" else "val"

    def checkpoints(self, forget: str, seed: int) -> dict[Role, SuppliedModel]:
        """Return the models that are supplied for a problem, by role."""
        return {
            role: self.supplied[role, forget, seed]
            for role in PLACES
            if (role, forget, seed) in self.supplied
        }

    def problem(
        self, data: Dataset, forget: str, seed: int, chosen: NDArray[np.int64] | None = None
    ) -> Problem:
        """Return one of the study's problems, on its data; see ``mu.problem.Problem``."""
        digests = {role: model.digest for role, model in self.checkpoints(forget, seed).items()}
        request = self.forget[forget]
        return Problem(data, self.model, self.training, request, seed, chosen, digests)

    def trials(self, method: str) -> int:
        """Return the number of configurations of a method's cells: one where nothing is searched."""
        return self.search.trials if self.method(method).ranges else 1

    def method(self, name: str) -> MethodConfig:
        return next(config for config in self.methods if config.name == name)


def read(
    path: Path,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
    own_code: bool = False,
) -> Study:
    """Read and validate a study file.

    Args:
        overrides: ``key.subkey=value`` texts that replace parts of it.
        folders: Where else methods are looked for.
        own_code: Whether its model may be an import path, which runs the module that it names.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed.
    """
    raw = yaml_file.read_study(path, overrides)
    model = raw.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    if isinstance(name, str) and ":" in name and not name.startswith(TIMM) and not own_code:
        raise StudyError(
            f"{path}: model: {name!r} is code, which a study alone may not choose to run; name the folder "
            "it lies in with --code-path (any folder for a package that is installed)"
        )
    return parse(raw, str(path), folders)


def parse(raw: Mapping[str, Any], where: str, folders: Sequence[Path] = ()) -> Study:
    """Validate a study given as plain data.

    Args:
        where: Its file, for messages; published tables are looked for beside it.
        folders: Where else methods are looked for.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed.
    """
    file = checked(_FILE, raw, where)
    methods = resolve_methods(file.methods, file.forget, f"{where}: methods", folders)
    with errors_at(f"{where}: model"):
        model = models.resolve(file.model)
    with errors_at(f"{where}: search"):
        search = file.search.over(methods)
    training = file.training
    if file.resources.gpus and "precision" not in raw.get("training", {}):
        training = replace(training, precision="bf16")
    seeds = tuple(dict.fromkeys((*file.seeds.search, *file.seeds.report)))
    paths = {role: path for role in PLACES if (path := getattr(file, role)) is not None}
    supplied = find_supplied(paths, file.forget, seeds, where)
    knobs = dict.fromkeys(span.knob for config in methods for span in config.ranges)
    tables, numbers = resolve_published(file.published or (), file.forget, knobs, where)
    retrained = file.seeds.models(file.retrain is not None)
    counted = file.seeds.model_copy(update={"retrain": retrained})
    file = file.model_copy(update={"training": training, "search": search, "seeds": counted})
    definition = file.model_dump(mode="json", by_alias=True)
    short = {"data", "model", "forget"}
    definition |= file.model_dump(mode="json", by_alias=True, include=short, exclude_none=True)
    definition |= {"methods": [config.plain for config in methods], "published": tables}
    resolved = {"model": model, "methods": methods, "published": numbers, "supplied": supplied}
    return Study.model_construct(**{**dict(file), **resolved, "definition": definition})
