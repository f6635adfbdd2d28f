"""Forget requests: which training samples must go.

A request selects the same samples for every seed of a study (as the papers' released index files do), so
that the retrained models of all seeds are replicates of one distribution and their spread is the noise
floor. "Another forget set" is another request, with another `draw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mu.data import Dataset, stratified_choice
from mu.keys import derive_seed


@dataclass(frozen=True)
class ForgetRequest:
    """What must be forgotten.

    Args:
        kind: `full_class` (all of one class), `sub_class` (all of one sub-class, while the model predicts
            superclasses), `random` (a share of the training set) or `class_subset` (some of one class).
        target: Class or sub-class, by name.
        fraction: Share of the training set to forget, in (0, 1); `random` only.
        count: Number of samples of `target` to forget; `class_subset` only.
        stratified: Whether every class loses the same share; `random` only.
        draw: Names the random draw: requests that differ only here forget different samples.
    """

    kind: str
    target: str | None = None
    fraction: float | None = None
    count: int | None = None
    stratified: bool = True
    draw: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, but got {self.kind!r}")
        for name in ("target", "fraction", "count"):
            given, needed = getattr(self, name) is not None, name in KINDS[self.kind]
            if needed and not given:
                raise ValueError(f"{self.kind} needs `{_key(name)}`")
            if given and not needed:
                raise ValueError(f"{self.kind} does not take `{_key(name)}`")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(f"`fraction` must be in (0, 1), but got {self.fraction}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"`count` must be at least 1, but got {self.count}")

    @property
    def whole_class(self) -> bool:
        """Whether a whole class or sub-class goes, so that test accuracy splits into retain and forget."""
        return self.kind in ("full_class", "sub_class")


KINDS: Mapping[str, tuple[str, ...]] = {
    "full_class": ("target",),
    "sub_class": ("target",),
    "random": ("fraction",),
    "class_subset": ("target", "count"),
}
"""Each kind with the fields it needs."""


def _key(name: str) -> str:
    return "class" if name == "target" else name


def members(request: ForgetRequest, data: Dataset, part: str) -> NDArray[np.bool_]:
    """Which samples of a part belong to the request's class or sub-class: bool [N]; all False if none.

    Raises:
        ValueError: The class does not exist, or `sub_class` is asked of data without superclasses.
    """
    samples = data.parts[part]
    if request.target is None:
        return np.zeros(len(samples), bool)
    fine = request.kind == "sub_class"
    if fine and data.classes == data.fine_classes:
        raise ValueError(
            f"sub_class needs data with superclasses, which {data.name} has not; set data.superclasses"
        )
    names = data.fine_classes if fine else data.classes
    if request.target not in names:
        raise ValueError(f"unknown class {request.target!r}; {data.name} has {', '.join(names)}")
    return (samples.fine if fine else samples.labels) == names.index(request.target)


def select(request: ForgetRequest, data: Dataset) -> NDArray[np.int64]:
    """Sorted positions in the training part of the samples to forget.

    Raises:
        ValueError: The request selects nothing, or everything, or leaves a class it must keep without samples.
    """
    train = data.parts["train"]
    rng = np.random.default_rng(
        derive_seed("forget", request.kind, request.target, request.draw, data.fingerprint)
    )
    if request.kind == "random":
        assert request.fraction is not None
        count = round(request.fraction * len(train))
        if request.stratified:
            chosen = stratified_choice(train.fine, count, rng)
        else:
            chosen = np.sort(rng.permutation(len(train))[:count])
    else:
        chosen = np.flatnonzero(members(request, data, "train"))
        if request.count is not None:
            if request.count > len(chosen):
                raise ValueError(
                    f"`count` must be at most {len(chosen)}, the training samples of class "
                    f"{request.target!r}, but got {request.count}"
                )
            chosen = np.sort(rng.permutation(chosen)[: request.count])
    if len(chosen) == 0:
        raise ValueError(f"the request selects nothing of {len(train)} training samples")
    if len(chosen) == len(train):
        raise ValueError(
            f"the request selects all {len(train)} training samples; none would be retained"
        )
    gone = np.setdiff1d(train.labels, np.delete(train.labels, chosen))
    if len(gone) and not request.whole_class:
        raise ValueError(
            f"the request leaves no training sample of class {data.classes[gone[0]]!r}; "
            "forget fewer, or the full_class"
        )
    return chosen
