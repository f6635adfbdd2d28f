"""Models that a study brings: checkpoints that stand in for trained originals and retrained models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.models import checkpoints
from mu.problem import Role
from sweeps.errors import StudyError

if TYPE_CHECKING:
    pass

PLACES: dict[Role, tuple[str, ...]] = {"original": ("seed",), "retrain": ("request", "seed")}
"""What may stand in braces in the path of a role's checkpoints."""


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


def find_supplied(
    raw: Mapping[str, Any], requests: Iterable[str], seeds: Sequence[int], where: str
) -> dict[tuple[Role, str, int], SuppliedModel]:
    """The files that the keys `original` and `retrain` of a study name.

    Raises:
        StudyError: A value is no path with the places of its role, or a file cannot be read.
    """
    found: dict[tuple[Role, str, int], SuppliedModel] = {}
    known: dict[Path, SuppliedModel] = {}
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
                        known[path] = SuppliedModel(path, checkpoints.digest(path))
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
