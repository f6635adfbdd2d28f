"""The study, read and validated. Every error in its file is found before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from mu.problem_names import stand_in_name
from mu.rules import RULE
from mu.stand_ins import ROLES, stand_in
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
        return retrain_seeds(self.definition["seeds"]) if self.oracle else ()

    @property
    def oracle(self) -> bool:
        """Whether models are retrained."""
        return self.choose is None or self.choose.oracle

    @cached_property
    def stand_ins(self) -> dict[str, tuple[str, str]]:
        """Name of each stand-in that a rule needs to its forget request and kind."""
        rules = [RULE[name] for name in self.choose.rules] if self.choose else []
        return {
            stand_in_name(forget, kind): (forget, kind)
            for kind in ROLES
            for forget, request in self.forget.items()
            if any(kind in rule.needs and rule.applies(request.whole_class) for rule in rules)
        }

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

    def stand_in(self, problem: Problem, name: str) -> Problem:
        """Return the stand-in of that name of one of the study's problems."""
        network = self.choose.proxy_model if self.choose is not None else None
        return stand_in(problem, self.stand_ins[name][1], network or "")

    def trials(self, method: str) -> int:
        """Return the number of configurations of a method's cells: one where nothing is searched."""
        return self.search.trials if self.method(method).ranges else min(1, self.search.trials)

    def method(self, name: str) -> MethodConfig:
        return next(config for config in self.methods if config.name == name)


def unchanged(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a study file as it is."""
    return raw


def read(
    path: Path,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
    own_code: bool = False,
    change: Callable[[dict[str, Any]], dict[str, Any]] = unchanged,
) -> Study:
    """Read and validate a study file.

    Args:
        overrides: ``key.subkey=value`` texts that replace parts of it.
        folders: Where else methods are looked for.
        own_code: Whether its model may be an import path, which runs the module that it names.
        change: What is made of its content before it is validated.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed.
    """
    raw = change(yaml_file.read_study(path, overrides))
    if not own_code:
        refuse_code(raw.get("model"), str(path))
    return parse(raw, str(path), folders)


def refuse_code(model: Any, where: str) -> None:
    """Raise StudyError when a study's `model` is an import path: a file from anyone may not choose code to run."""
    name = model.get("name") if isinstance(model, dict) else model
    if isinstance(name, str) and ":" in name and not name.startswith(TIMM):
        raise StudyError(
            f"{where}: model: {name!r} is code, which a study alone may not choose to run; name the folder "
            "it lies in with --code-path (any folder for a package that is installed)"
        )


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
    searched = file.seeds.search if search.trials else ()
    seeds = tuple(dict.fromkeys((*searched, *file.seeds.report)))
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
