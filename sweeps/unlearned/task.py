"""What ``musweep unlearn`` is asked for, checked: model, weights, data, D_f, method and knobs as one task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu import methods, models
from mu.data import LOADERS, Dataset, DataSpec, load
from mu.data.decode import DataMissing
from mu.data.index_files import read_positions
from mu.forget import ForgetRequest
from mu.methods import Method
from mu.models import ModelSpec, checkpoints
from mu.problem import Problem
from mu.training import Recipe
from mu.unlearning import check_method, request_of
from reports.load import RecordedStudy
from sweeps.errors import DataMissingError, StudyError, errors_at
from sweeps.preflight import check_network
from sweeps.study import yaml_file
from sweeps.study.parts import data_of, model_of
from sweeps.unlearned.card import check_out
from sweeps.unlearned.export import knobs_from, read_study
from sweeps.unlearned.unlearn import Task

TUNED = "tuned:"


@dataclass(frozen=True)
class Asked:
    """The options of the command.

    Args:
        model: Name of a network, `module:function`, or a mapping as a study's `model`.
        weights: Checkpoint of the original model.
        data: Name of a data set, a folder or .zip of images, a mapping as a study's `data`, or a study file that has one.
        root: Where the data set's files are.
        forget_indices: .npy file of the positions of D_f.
        method: Name of the method.
        knobs: `defaults`, a YAML file, or `tuned:STUDY_DIR` with `:REQUEST` behind it.
        out: Where the model goes.
        seed: Of all that is drawn.
        augment: What the method may do to the images it trains on, as the recipe of the original model.
        device: `cpu`, `cuda`, or `auto`.
        methods_path: Folder with methods of one's own.
    """

    model: str
    weights: Path
    data: str
    root: str | None
    forget_indices: Path
    method: str
    knobs: str
    out: Path
    seed: int = 0
    augment: str | None = None
    device: str = "auto"
    methods_path: Path | None = None


def task_of(asked: Asked) -> Task:
    """Read and check all that is asked for.

    Raises:
        DataMissingError: The data is not on this machine.
        StudyError: Something is wrong; the message names the option and what is allowed.
    """
    check_out(asked.out)
    with errors_at("--method"):
        method = methods.load(
            asked.method, [asked.methods_path] if asked.methods_path is not None else []
        )
    knobs, origin, training = _knobs(asked, method)
    with errors_at("--augment"):
        recipe = Recipe(**{**training, **({"augment": asked.augment} if asked.augment else {})})
    with errors_at("--weights"):
        digest = checkpoints.digest(asked.weights.expanduser())
    spec = _model(asked.model)
    with errors_at("--model"):
        network = models.resolve(spec)
    data, forget = _data(asked)
    request = _request(data, forget, asked)
    problem = Problem(
        data, network, recipe, request, asked.seed, forget, supplied={"original": digest}
    )
    model = check_network(problem, "--model")
    with errors_at("--weights"):
        weights = problem.read(asked.weights.expanduser())
    with errors_at("--method"):
        _check(method, model, problem)
    device = asked.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Task(problem, weights, digest, method, knobs, origin, device, asked.out)


def _check(method: Method, model: torch.nn.Module, problem: Problem) -> None:
    """Raise ValueError when the method cannot work on the problem."""
    if "twin" in method.data and not len(problem.data.parts["twin"]):
        raise ValueError(
            f"{method.name} needs held-out data of its own, which the model was not trained on; give --data a mapping with a "
            f"share of it, such as '{{name: {problem.data.name}, twin: 0.1}}'"
        )
    check_method(method, model, problem.split(), problem.request.kind)


def _model(text: str) -> ModelSpec:
    # The text alone, as `pkg.nets:build` would be a mapping in YAML.
    given = yaml_file.parse(text, "--model") if text.lstrip().startswith("{") else text
    return model_of(given, "unlearn")


def _data(asked: Asked) -> tuple[Dataset, NDArray[np.int64]]:
    """Return the data, and the positions of D_f in its training part."""
    given = _data_mapping(asked.data)
    if asked.root is not None:
        given = {**given, "root": asked.root}
    spec = data_of(given, "unlearn")
    cut = bool(given.get("val"))
    try:
        data = load(spec, cut_val=cut)
        fingerprints = data.fingerprint if cut else _any_fingerprint(spec, data, asked)
    except DataMissing as error:
        raise DataMissingError(f"--data: {error}") from error
    except ValueError as error:
        raise StudyError(f"--data: {error}") from error
    where = "--forget-indices"
    with errors_at():
        positions = read_positions(str(asked.forget_indices), data.total, where, fingerprints)
    forget = data.train_positions(positions)
    away = positions[forget < 0]
    if len(away):
        raise StudyError(
            f"{where} {asked.forget_indices}: {len(away)} of {len(positions)} samples, such as {away[0]}, are not trained on: "
            "val, twin or subset of --data leave them out"
        )
    if len(forget) == 0 or len(forget) == len(data.parts["train"]):
        what = "no sample" if len(forget) == 0 else "every training sample"
        raise StudyError(
            f"{where} {asked.forget_indices}: holds {what}; something must go, and something stay"
        )
    return data, np.sort(forget)


def _data_mapping(text: str) -> dict[str, Any]:
    if text in LOADERS:
        return {"name": text}
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml"):
        content = yaml_file.read(path)
        if not isinstance(content, dict) or not isinstance(
            content.get("data", content), (dict, str)
        ):
            raise StudyError(f"--data {path}: must be a mapping, or a study with `data`")
        given = content.get("data", content)
    elif path.is_dir() or path.suffix == ".zip":
        given = {"name": "image_folder", "root": text}
    else:
        given = yaml_file.parse(text, "--data")
    if isinstance(given, dict) and given.get("name") in LOADERS:
        return given
    if isinstance(given, str) and given in LOADERS:
        return {"name": given}
    name = given.get("name") if isinstance(given, dict) else given
    raise StudyError(
        f"--data: must be one of {', '.join(LOADERS)}, a folder or .zip of images, a mapping with such a `name`, or a study "
        f"file, but got {name!r}"
    )


def _any_fingerprint(spec: DataSpec, data: Dataset, asked: Asked) -> str:
    """Return the fingerprint that the file of positions names, if it is that of the data with or without `val` cut from it."""
    beside = asked.forget_indices.expanduser().with_suffix(".json")
    if beside.is_file():
        try:
            theirs = json.loads(beside.read_text(encoding="utf-8"))["fingerprint"]
        except (ValueError, KeyError, TypeError):
            return data.fingerprint  # the reader of the file says what is wrong
        usual = replace(spec, val=spec.val or DataSpec.val)
        if theirs == (cut := load(usual).fingerprint):
            return cut
    return data.fingerprint


def _request(data: Dataset, forget: NDArray[np.int64], asked: Asked) -> ForgetRequest:
    """Return the request that selects D_f: a class where it is all of one."""
    train = data.parts["train"]
    retain = np.setdiff1d(np.arange(len(train)), forget)
    kind, label = request_of(train.take(retain).examples(), train.take(forget).examples())
    if kind == "full_class" and label is not None:
        return ForgetRequest("full_class", target=data.classes[label])
    return ForgetRequest("indices", file=str(asked.forget_indices))


def _knobs(
    asked: Asked, method: Method
) -> tuple[dict[str, Any], dict[str, Any], Mapping[str, Any]]:
    """Return the knobs, where they come from, and the recipe of the study that they come from."""
    if asked.knobs == "defaults":
        return method.defaults(), {"how": "defaults", "oracle": False}, {}
    if asked.knobs.startswith(TUNED):
        return _tuned(asked.knobs.removeprefix(TUNED), method)
    path = Path(asked.knobs).expanduser()
    if not path.is_file():
        raise StudyError(
            f"--knobs: must be defaults, {TUNED}STUDY_DIR or a YAML file, but got {asked.knobs!r}"
        )
    content = yaml_file.read(path)
    if not isinstance(content, dict):
        raise StudyError(f"--knobs {path}: must be a mapping of knobs, but holds {content!r}")
    with errors_at(f"--knobs {path}"):
        return method.check(content), {"how": "file", "file": path.name, "oracle": None}, {}


def _tuned(text: str, method: Method) -> tuple[dict[str, Any], dict[str, Any], Mapping[str, Any]]:
    """Return the knobs that a study chose, by `STUDY_DIR` or `STUDY_DIR:REQUEST`."""
    folder, request = Path(text).expanduser(), ""
    if not folder.is_dir() and ":" in text:
        before, _, request = text.rpartition(":")
        folder = Path(before).expanduser()
    study, where = read_study(folder), f"--knobs {TUNED}{text}"
    name = _name_in(study, method, where)
    decided = {
        forget: decision.chosen
        for (forget, of), decision in study.decisions.items()
        if of == name and decision.chosen is not None
    }
    if request and request not in decided:
        raise StudyError(
            f"{where}: no knobs were chosen for {name} on {request!r}; they were for "
            f"{', '.join(decided) or 'no request'}"
        )
    if not decided or (not request and len(decided) > 1):
        listed = ", ".join(f"{TUNED}{folder}:{forget}" for forget in decided)
        raise StudyError(
            f"{where}: {'choose a request: ' + listed if decided else f'no knobs were chosen for {name}'}"
        )
    forget = request or next(iter(decided))
    chosen = decided[forget]
    assert chosen is not None
    with errors_at(where):
        knobs = method.check(chosen.knobs)
    recipe = {**study.definition["training"]}
    recipe["milestones"] = tuple(recipe.get("milestones", (0.8, 0.9)))
    return knobs, knobs_from(study, forget, name), recipe


def _name_in(study: RecordedStudy, method: Method, where: str) -> str:
    """Return what a study calls a method."""
    names = [m.name for m in study.methods if method.name in (m.name, m.alias_of)]
    if not names:
        known = ", ".join(m.name for m in study.methods)
        raise StudyError(f"{where}: the study has no {method.name}; it has {known}")
    return names[0]
