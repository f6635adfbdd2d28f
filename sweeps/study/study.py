"""The study file as frozen dataclasses. Every error in it is found before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.data import Dataset, DataSpec
from mu.forget import ForgetRequest
from mu.models import Model
from mu.problem import Problem, Role
from mu.training import Recipe
from sweeps.errors import StudyError
from sweeps.study import resources as operation
from sweeps.study import yaml_file
from sweeps.study.data import (
    parse_data,
    parse_model,
    parse_requests,
    plain_data,
    plain_model,
    plain_request,
)
from sweeps.study.experiments import (
    Audit,
    Experiments,
    Metrics,
    parse_audit,
    parse_experiments,
    parse_metrics,
    plain_experiments,
)
from sweeps.study.fields import build, known, one_of, plain
from sweeps.study.methods import MethodConfig, parse_methods, plain_method
from sweeps.study.published import Printed, parse_published
from sweeps.study.resources import Resources, RunSettings
from sweeps.study.search import Search, parse_search
from sweeps.study.supplied import PLACES, SuppliedModel, SuppliedModels, find_supplied

SELECTIONS = ("honest", "paper")


@dataclass(frozen=True)
class Study:
    """A whole study, validated. ``definition`` is the same as plain data."""

    name: str
    data: DataSpec
    model: Model
    training: Recipe
    forget: Mapping[str, ForgetRequest]
    methods: tuple[MethodConfig, ...]
    search_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    search: Search
    experiments: Experiments
    settings: RunSettings
    metrics: Metrics
    audit: Audit
    selection: str
    published: tuple[Printed, ...]
    supplied: SuppliedModels
    definition: Mapping[str, Any] = field(repr=False)

    @property
    def search_view(self) -> str:
        """What the search looks at: `val`, or `test` when knobs are selected as the papers do."""
        return "test" if self.selection == "paper" else "val"

    def checkpoints(self, forget: str, seed: int) -> dict[Role, SuppliedModel]:
        """The models that are brought for a problem, by role."""
        return {
            role: self.supplied[role, forget, seed]
            for role in PLACES
            if (role, forget, seed) in self.supplied
        }

    def problem(
        self, data: Dataset, forget: str, seed: int, chosen: NDArray[np.int64] | None = None
    ) -> Problem:
        """One of the study's problems, on its data; see ``mu.problem.Problem``."""
        supplied = {role: found.digest for role, found in self.checkpoints(forget, seed).items()}
        request = self.forget[forget]
        return Problem(data, self.model, self.training, request, seed, chosen, supplied)

    @property
    def resources(self) -> Resources:
        return self.settings.resources

    def trials(self, method: str) -> int:
        """Configurations in each cell of a method: one where nothing is searched, since all would be the same."""
        return self.search.trials if self.method(method).ranges else 1

    def method(self, name: str) -> MethodConfig:
        return next(tuned for tuned in self.methods if tuned.name == name)


KEYS = (
    "study",
    "data",
    "model",
    "original",
    "retrain",
    "training",
    "forget",
    "methods",
    "seeds",
    "search",
    "experiments",
    "metrics",
    "audit",
    "selection",
    "published",
    *operation.KEYS,
)


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
    raw = yaml_file.read(path)
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: must be a mapping with {', '.join(KEYS)}")
    if "base" in raw:
        raw = _with_base(raw, path)
    for text in overrides:
        _override(raw, text)
    model = raw.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    if isinstance(name, str) and ":" in name and not own_code:
        raise StudyError(
            f"{path}: model: {name!r} is code, which a study alone may not choose to run; name the folder "
            "it lies in with --code-path (any folder for a package that is installed)"
        )
    return parse(raw, str(path), folders)


def _with_base(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A study laid over the file it is based on, key by key of the outermost level."""
    name = raw["base"]
    if not isinstance(name, str):
        raise StudyError(f"{path}: base: must be a file beside this one, but got {name!r}")
    below = yaml_file.read(path.parent / name)
    if not isinstance(below, dict) or "base" in below:
        raise StudyError(f"{path}: base: {name} must be a mapping without a `base` of its own")
    return {**below, **{key: value for key, value in raw.items() if key != "base"}}


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise StudyError(f"-o {text}: must be key=value, such as search.trials=5")
    *path, last = key.split(".")
    target = raw
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise StudyError(f"-o {text}: `{part}` is not a mapping")
    target[last] = yaml_file.parse(value, f"-o {text}")


def parse(raw: Mapping[str, Any], where: str, folders: Sequence[Path] = ()) -> Study:
    """Validate a study given as plain data. Raises StudyError."""
    known(raw, KEYS, where)
    name = raw.get("study")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StudyError(
            f"{where}: study: must be a name of letters, digits, `.`, `_`, `-`, but got {name!r}"
        )
    data = parse_data(raw.get("data", "digits"), f"{where}: data")
    model_spec, model = parse_model(raw.get("model", "small_cnn"), f"{where}: model")
    recipe = build(Recipe, raw.get("training", {}), f"{where}: training")
    requests = parse_requests(raw.get("forget"), f"{where}: forget")
    methods = parse_methods(raw.get("methods"), requests, f"{where}: methods", folders)
    selection = raw.get("selection", "honest")
    one_of(selection, SELECTIONS, f"{where}: selection")
    search_seeds, report_seeds = _seeds(
        raw.get("seeds", {}), f"{where}: seeds", apart=selection == "honest"
    )
    every_seed = tuple(dict.fromkeys((*search_seeds, *report_seeds)))
    supplied = find_supplied(raw, requests, every_seed, where)
    search = parse_search(raw.get("search", {}), methods, f"{where}: search")
    experiments = parse_experiments(raw.get("experiments", {}), requests, f"{where}: experiments")
    metrics = parse_metrics(raw.get("metrics", {}), f"{where}: metrics")
    audit = parse_audit(raw.get("audit", {}), report_seeds, f"{where}: audit")
    running = operation.parse(raw, where)
    if running.resources.trial.gpus and "precision" not in raw.get("training", {}):
        recipe = replace(recipe, precision="bf16")
    knobs = dict.fromkeys(span.knob for tuned in methods for span in tuned.ranges)
    tables, printed = parse_published(raw.get("published"), requests, knobs, where)
    definition = {
        "study": name,
        "data": plain_data(data),
        "model": plain_model(model_spec),
        **{str(role): raw[role] for role in PLACES if raw.get(role) is not None},
        "training": plain(recipe),
        "forget": {key: plain_request(request) for key, request in requests.items()},
        "methods": [plain_method(tuned) for tuned in methods],
        "seeds": {"search": list(search_seeds), "report": list(report_seeds)},
        "search": plain(search),
        "experiments": plain_experiments(experiments),
        "metrics": plain(metrics),
        "audit": plain(audit),
        "selection": selection,
        "published": tables,
        **running.plain,
    }
    return Study(
        name,
        data,
        model,
        recipe,
        requests,
        methods,
        search_seeds,
        report_seeds,
        search,
        experiments,
        running,
        metrics,
        audit,
        selection,
        printed,
        supplied,
        definition,
    )


def _seeds(raw: Any, where: str, apart: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Search and report seeds; `apart` refuses a seed that is in both."""
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be {{search: [...], report: [...]}}, but got {raw!r}")
    known(raw, ("search", "report"), where)
    found = []
    for key, default in (("search", [0]), ("report", [1, 2, 3])):
        seeds = raw.get(key, default)
        whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise StudyError(
                f"{where}: {key}: must be a list of different whole numbers, but got {seeds!r}"
            )
        found.append(tuple(seeds))
    shared = sorted(set(found[0]) & set(found[1]))
    if shared and apart:
        raise StudyError(
            f"{where}: seed {shared[0]} is in both `search` and `report`; knobs must be reported on "
            "seeds they were not tuned on"
        )
    return found[0], found[1]
