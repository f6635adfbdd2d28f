"""Models that a study supplies: checkpoints in place of trained originals and retrained models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from mu.models import checkpoints
from mu.problem import Role
from sweeps.errors import StudyError, errors_at

PLACES: dict[Role, tuple[str, ...]] = {"original": ("seed",), "retrain": ("request", "seed")}
"""The names in braces that the path of a role's checkpoints may hold."""


@dataclass(frozen=True)
class SuppliedModel:
    """A file that holds a trained model.

    Args:
        digest: SHA-256 of its content.
    """

    path: Path
    digest: str

    def __str__(self) -> str:
        return f"{self.path} (sha256 {self.digest[:12]})"


SuppliedModels = Mapping[tuple[Role, str, int], SuppliedModel]
"""Checkpoints by role, forget request and seed; a trained model has none."""


def _check_path(role: Role) -> BeforeValidator:
    """Return the validator of the path of a role's checkpoints."""
    places = PLACES[role]
    allowed = " and ".join(f"{{{place}}}" for place in places)

    def check(path: Any) -> Any:
        if path is None:
            return None
        if not isinstance(path, str):
            raise ValueError(f"must be a path with {allowed}, but got {path!r}")
        for place in re.findall(r"\{(.*?)\}", path):
            if place not in places:
                raise ValueError(f"{{{place}}} is unknown; a path may hold {allowed}")
        return path

    return BeforeValidator(check)


Original = Annotated[str | None, _check_path("original")]
Retrain = Annotated[str | None, _check_path("retrain")]


def find_supplied(
    paths: Mapping[Role, str], requests: Iterable[str], seeds: Sequence[int], where: str
) -> dict[tuple[Role, str, int], SuppliedModel]:
    """Return the checkpoints that the keys `original` and `retrain` of a study name.

    Args:
        paths: Role to the path of its checkpoints, with names in braces.

    Raises:
        StudyError: A file cannot be read, or all seeds share one retrained model.
    """
    models: dict[tuple[Role, str, int], SuppliedModel] = {}
    read: dict[Path, SuppliedModel] = {}
    for role, template in paths.items():
        for request in requests:
            for seed in seeds:
                text = template.replace("{seed}", str(seed)).replace("{request}", request)
                path = Path(text).expanduser()
                if path not in read:
                    with errors_at(f"{where}: {role}"):
                        read[path] = SuppliedModel(path, checkpoints.digest(path))
                models[role, request, seed] = read[path]
    retrained = [(request, m.path) for (role, request, _), m in models.items() if role == "retrain"]
    if len(set(retrained)) < len(retrained):
        raise StudyError(
            f"{where}: retrain: must hold {{seed}}: the spread of retrained models is what gaps are "
            "measured by"
        )
    return models
