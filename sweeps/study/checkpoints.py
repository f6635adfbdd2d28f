"""Models that a study brings: checkpoints that stand in for trained originals and retrained models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mu.data import Dataset
from mu.evaluate import Outputs
from mu.models import checkpoints
from mu.problem import Problem, Role, Weights
from sweeps.state.store import Store
from sweeps.study.yaml_file import StudyError

if TYPE_CHECKING:
    from sweeps.study.study import Study

PLACES: dict[Role, tuple[str, ...]] = {"original": ("seed",), "retrain": ("request", "seed")}
"""What may stand in braces in the path of a role's checkpoints."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds a trained model.

    Args:
        digest: SHA-256 of its content.
    """

    path: Path
    digest: str

    def __str__(self) -> str:
        return f"{self.path} (sha256 {self.digest[:12]})"


Brought = Mapping[tuple[Role, str, int], Checkpoint]
"""Checkpoints by role, forget request and seed; a trained model has none."""


def find(
    raw: Mapping[str, Any], requests: Iterable[str], seeds: Sequence[int], where: str
) -> dict[tuple[Role, str, int], Checkpoint]:
    """The files that the keys `original` and `retrain` of a study name.

    Raises:
        StudyError: A value is no path with the places of its role, or a file cannot be read.
    """
    found: dict[tuple[Role, str, int], Checkpoint] = {}
    known: dict[Path, Checkpoint] = {}
    for role, places in PLACES.items():
        template = raw.get(role)
        if template is None:
            continue
        allowed = " and ".join(f"{{{place}}}" for place in places)
        if not isinstance(template, str):
            raise StudyError(
                f"{where}: {role}: must be a path with {allowed}, but got {template!r}"
            )
        used = re.findall(r"\{(.*?)\}", template)
        for place in used:
            if place not in places:
                raise StudyError(
                    f"{where}: {role}: {{{place}}} is unknown; a path may hold {allowed}"
                )
        for request in requests:
            for seed in seeds:
                text = template.replace("{seed}", str(seed)).replace("{request}", request)
                path = Path(text).expanduser()
                if path not in known:
                    try:
                        known[path] = Checkpoint(path, checkpoints.digest(path))
                    except ValueError as error:
                        raise StudyError(f"{where}: {role}: {error}") from error
                found[role, request, seed] = known[path]
    retrained = [(request, path) for (role, request, _), path in found.items() if role == "retrain"]
    if len(set(retrained)) < len(retrained):
        raise StudyError(
            f"{where}: retrain: must hold {{seed}}: the spread of retrained models is what gaps are "
            "measured by"
        )
    return found


def check(study: Study, data: Dataset, where: str) -> nn.Sequential:
    """Build the study's model, run it once on its data, and read every checkpoint of it; returns the model.

    Raises:
        StudyError: It cannot be built or run, gives something else than logits, or a checkpoint does not fit.
    """
    problem = study.problem(data, next(iter(study.forget)), study.report_seeds[0])
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
    found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != list(wanted):
        raise StudyError(
            f"{where}: model: must give logits {list(wanted)} of inputs {shape}, but gives {found}"
        )
    for (role, _, _), checkpoint in {c: (k, c) for k, c in study.brought.items()}.values():
        try:
            checkpoints.fit(checkpoints.read(checkpoint.path), model[-1], str(checkpoint.path))
        except ValueError as error:
            raise StudyError(f"{where}: {role}: {error}") from error
    return model.train()


def known(problem: Problem, role: Role, brought: Brought, store: Store) -> Weights | None:
    """A reference that need not be trained, from its checkpoint or the store, with its `seconds` of training."""
    if role not in problem.brought:
        return store.get(problem.reference_key(role))
    digest = problem.brought[role]
    path = next(found.path for found in brought.values() if found.digest == digest)
    return {**problem.read(path), "seconds": np.array(0.0)}


def refuse_guessing(checkpoint: Checkpoint, role: Role, seed: int, held_out: Outputs) -> None:
    """Raise StudyError when a model is no better than guessing on held-out data of the study.

    What counts is the mean accuracy over the classes that are not forgotten, which is 1 / K for any model that does
    not look at its input. Near is half of that, or a tenth of what is left to 1 where this is less.
    """
    outside = held_out.without_forgotten()
    right = outside.logits.argmax(1) == outside.labels
    accuracy = float(
        np.mean([right[outside.labels == label].mean() for label in set(outside.labels)])
    )
    chance = 1 / outside.logits.shape[1]
    if accuracy < chance + min(0.5 * chance, 0.1 * (1 - chance)):
        raise StudyError(
            f"{checkpoint.path}: the {role} model of seed {seed} has an accuracy of {accuracy:.3f} on held-out "
            f"data (mean over classes), where guessing has {chance:.3f}: it was trained on other data or other "
            "classes, or on inputs prepared in another way (give the mean and std it was trained with in "
            "model.normalize)"
        )
