"""Checks that need the data: whether it loads, and whether requests, model, checkpoints and methods fit it.

They run in the driver before anything is started, so that a study that cannot work costs seconds.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mu import forget
from mu.data import Dataset, load
from mu.data.decode import DataMissing
from mu.metrics import MEAN_GAPS
from mu.models import checkpoints
from mu.problem import Problem
from mu.problem_names import stand_in_name
from mu.ranking import early_epochs
from mu.stand_ins import check_twin
from sweeps.errors import DataMissingError, StudyError
from sweeps.study.methods import MethodConfig
from sweeps.study.study import Study

logger = logging.getLogger(__name__)


def load_data(study: Study, where: str, cache: Path | None = None) -> Dataset:
    """Load the study's data, and check every forget request and the model against it.

    Raises:
        DataMissingError: The data is not on this machine.
        StudyError: The data cannot be loaded; a request selects nothing, everything, or an unknown class; or the
            model, or a checkpoint of it, does not fit the data.
    """
    try:
        data = load(study.data, cache)
    except DataMissing as error:
        raise DataMissingError(f"{where}: {error}") from error
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    stand_ins: dict[str, Problem] = {}
    for name, request in study.forget.items():
        try:
            stand_ins[name] = _problem(study, data, name, forget.stand_in(request, data))
            if request.kind == "hardest":
                early_epochs(stand_ins[name])
            _check_held_out(study, stand_ins[name])
            if stand_in_name(name, "twin") in study.stand_ins and not request.ranked:
                _check_twin(study, stand_ins[name], name)
        except ValueError as error:
            raise StudyError(f"{where}: forget: {name}: {error}") from error
    if study.training.augment != "none" and not data.images:
        raise StudyError(
            f"{where}: training: augment: {study.training.augment} changes images, but {data.name} holds "
            "tokens; leave it out, or `none`"
        )
    model = check_model(study, data, where)
    for tuned in study.methods:
        if "twin" in tuned.method.needs and len(data.parts["twin"]) == 0:
            raise StudyError(
                f"{where}: methods: {tuned.name} needs held-out data of its own; set data.twin, "
                "such as 0.1"
            )
        if refusal := tuned.method.refusal(model):
            raise StudyError(f"{where}: methods: {tuned.name}: {refusal}")
        _check_problems(tuned, model, stand_ins, f"{where}: methods: {tuned.name}")
    return data


def _problem(study: Study, data: Dataset, name: str, chosen: NDArray[np.int64]) -> Problem:
    return Problem(data, study.model, study.training, study.forget[name], 0, chosen)


def _check_held_out(study: Study, problem: Problem) -> None:
    """Raise ValueError where the objective needs held-out samples of a forgotten class, or of others, and there are none."""
    view = study.search_view
    forgotten = problem.held_out(view)[1]
    if not study.oracle or forgotten is None:
        return
    lacking = {"acc_test_forget": not forgotten.any(), "acc_test_retain": bool(forgotten.all())}
    for objective in study.search.objective:
        needed = {"mean_gap": study.search.mean_gap, **MEAN_GAPS[True]}.get(objective, (objective,))
        for name in needed:
            if lacking.get(name, False):
                whose = "the class to forget" if name == "acc_test_forget" else "another class"
                raise ValueError(
                    f"none of the {len(forgotten)} {view} samples is of {whose}, so that {objective} cannot be "
                    "measured; raise data.val, data.subset or --sample"
                )


def _check_twin(study: Study, problem: Problem, name: str) -> None:
    """Raise ValueError where a request has no twin; of a ranked request this is known after the ranking."""
    supplied = study.checkpoints(name, study.seeds.report[0])
    digests = {role: model.digest for role, model in supplied.items()}
    check_twin(replace(problem, supplied=digests))


def _check_problems(
    tuned: MethodConfig, model: nn.Module, problems: Mapping[str, Problem], where: str
) -> None:
    """Ask a method whether it can work on the requests it is used on, and log its warnings. One model serves all of them."""
    if tuned.method.check_problem is None:
        return
    warnings: dict[str, list[str]] = defaultdict(list)
    for name in tuned.forget:
        split = problems[name].split().only(tuned.method.data)
        try:
            tuned.method.check_problem(model, split)
        except ValueError as error:
            raise StudyError(f"{where}: {name}: {error}") from error
        for text in split.diagnostics.warnings:
            warnings[text].append(name)
    for text, names in warnings.items():
        logger.warning("%s: %s: %s", where, ", ".join(names), text)


def check_model(study: Study, data: Dataset, where: str) -> nn.Sequential:
    """Build the study's model, run it once on its data, read every model the study supplies, and return the model.

    Raises:
        StudyError: It cannot be built or run, gives something else than logits, or a checkpoint does not fit.
    """
    problem = study.problem(data, next(iter(study.forget)), study.seeds.report[0])
    model = check_network(problem, where)
    if study.choose is not None and study.choose.proxy_model is not None:
        check_network(
            replace(problem, model=study.choose.proxy_model, supplied={}),
            f"{where}: choose: proxy_model",
        )
    for (role, _, _), checkpoint in {c: (k, c) for k, c in study.supplied.items()}.values():
        try:
            checkpoints.fit(checkpoints.read(checkpoint.path), model[-1], str(checkpoint.path))
        except ValueError as error:
            raise StudyError(f"{where}: {role}: {error}") from error
    return model


def check_network(problem: Problem, where: str) -> nn.Sequential:
    """Build the network of a problem, run it once on its data, and return it.

    Raises:
        StudyError: It cannot be built or run, or gives something else than logits.
    """
    data = problem.data
    channels, given = data.input_shape[0], len(problem.normalization.mean)
    if data.images and given != channels:
        raise StudyError(
            f"{where}: model: normalize: must hold a number for each of {channels} channels, but "
            f"holds {given}"
        )
    inputs, _ = data.parts["train"].take(np.arange(2)).examples().batch(slice(None))
    shape, wanted = list(inputs.shape), (len(inputs), len(data.classes))
    try:
        model = problem.build().eval()
        with torch.inference_mode():
            logits = model(inputs)
    except ValueError as error:
        raise StudyError(f"{where}: model: {error}") from error
    except Exception as error:
        kind, text = type(error).__name__, str(error).partition("\n")[0]
        raise StudyError(f"{where}: model: fails on inputs {shape}: {kind}: {text}") from error
    given_shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if given_shape != list(wanted):
        raise StudyError(
            f"{where}: model: must give logits {list(wanted)} of inputs {shape}, but gives {given_shape}"
        )
    return model.train()
