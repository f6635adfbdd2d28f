"""Forget requests: which training samples must go.

A request selects the same samples for every seed of a study (as the papers' released index files do), so
that the retrained models of all seeds are replicates of one distribution and their spread is the noise
floor. "Another forget set" is another request, with another `draw`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mu.checks import not_finite
from mu.data import Dataset, stratified_choice
from mu.data.index_files import read_positions
from mu.keys import derive_seed


@dataclass(frozen=True)
class ForgetRequest:
    """What must be forgotten."""

    kind: Literal[*KINDS]  # type: ignore[valid-type]
    """`full_class` (all of one class), `sub_class` (all of one sub-class, while the model predicts superclasses),
    `random` (a share of the training set), `class_subset` (some of one class), `identities` (all of some people, of
    data that says who is who), `hardest` (what a model learns last), `worst_case` (what gives away most that it was
    trained on), or `indices` (a file says). `mu.ranking` defines `hardest` and `worst_case`."""
    target: str | None = field(default=None, metadata={"alias": "class"})
    """Class or sub-class, by name; `hardest` and `worst_case` choose from it where it is given."""
    fraction: float | None = None
    """Share of the training set to forget, in (0, 1); of `identities` the share of people, of `hardest` and
    `worst_case` that of the samples they choose from."""
    count: int | None = None
    """Number of samples to forget: of the class for `class_subset`; for `hardest` and `worst_case`."""
    stratified: bool = True
    """Whether every class loses the same share; `random` only."""
    draw: int = 0
    """Names the random draw: requests that differ only here forget different samples. For `hardest` and `worst_case`
    it is the seed of the model that ranks the samples."""
    identities: tuple[str, ...] | None = None
    """Which people to forget, by number; `identities` only."""
    among: tuple[str, ...] | None = None
    """Classes to which people must mostly belong to be drawn; `identities` with a `fraction` only."""
    epochs: int | None = None
    """Early epochs that decide which samples are hard; `hardest` only. None is a fifth of all."""
    file: str | None = None
    """A .npy file of positions among all training samples (see `mu.data.index_files`); `indices` only."""
    held_out: Literal["whole", "without_forgotten"] | None = None
    """Whether accuracies, attacks and gaps are over the whole held-out set, as UGradSL's for sub-classes, or leave out
    the forgotten class, which is the default of `full_class` and `sub_class`; other kinds leave out nothing."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, but got {self.kind!r}")
        takes = KINDS[self.kind]
        for choice in takes.needs:
            given = [name for name in choice if getattr(self, name) is not None]
            if not given:
                keys = " or ".join(f"`{_key(name)}`" for name in choice)
                raise ValueError(f"{self.kind} needs {keys}")
            if len(given) > 1:
                keys = " or ".join(f"`{_key(name)}`" for name in choice)
                raise ValueError(f"{self.kind} takes {keys}, not both")
        known = {*sum(takes.needs, ()), *takes.may}
        for name in (
            "target",
            "fraction",
            "count",
            "identities",
            "among",
            "epochs",
            "file",
            "held_out",
        ):
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"{self.kind} does not take `{_key(name)}`")
        if self.held_out not in (None, "whole", "without_forgotten"):
            raise ValueError(
                f"`held_out` must be whole or without_forgotten, but got {self.held_out!r}"
            )
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(f"`fraction` must be in (0, 1), but got {self.fraction}")
        for name in ("count", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {value}")
        if self.among is not None and self.fraction is None:
            raise ValueError(
                "`among` limits the draw of a `fraction`; leave it out with `identities`"
            )
        for person in self.identities or ():
            if not person.isdecimal():
                raise ValueError(f"`identities` must be whole numbers, but got {person!r}")
        for name in not_finite(self):
            raise ValueError(f"`{name}` must be finite, but got {getattr(self, name)!r}")

    @property
    def whole_class(self) -> bool:
        """Whether a whole class or sub-class goes."""
        return self.kind in ("full_class", "sub_class")

    @property
    def splits_held_out(self) -> bool:
        """Whether held-out samples are told apart by whether their class is forgotten, which decides the lists of metrics."""
        return self.whole_class and self.held_out != "whole"

    @property
    def ranked(self) -> bool:
        """Whether a model has to be trained before it is known which samples are selected."""
        return self.kind in ("hardest", "worst_case")


@dataclass(frozen=True)
class Fields:
    """The fields of a kind of request.

    Args:
        needs: Each a choice of fields of which one must be given.
        may: Those that can be given besides.
    """

    needs: tuple[tuple[str, ...], ...]
    may: tuple[str, ...] = ()


KINDS: Mapping[str, Fields] = {
    "full_class": Fields((("target",),), ("held_out",)),
    "sub_class": Fields((("target",),), ("held_out",)),
    "random": Fields((("fraction",),)),
    "class_subset": Fields((("target",), ("count",))),
    "identities": Fields((("fraction", "identities"),), ("among",)),
    "hardest": Fields((("fraction", "count"),), ("target", "epochs")),
    "worst_case": Fields((("fraction", "count"),), ("target",)),
    "indices": Fields((("file",),)),
}
"""Each kind with its fields."""


def _key(name: str) -> str:
    return "class" if name == "target" else name


def members(request: ForgetRequest, data: Dataset, part: str) -> NDArray[np.bool_]:
    """Return which samples of a part belong to the request's class or sub-class: bool [N]; all False if none.

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
    return (samples.fine if fine else samples.labels) == _label(request.target, names, data)


def _label(name: str, names: Sequence[str], data: Dataset) -> int:
    if name not in names:
        raise ValueError(f"unknown class {name!r}; {data.name} has {', '.join(names)}")
    return names.index(name)


def select(
    request: ForgetRequest, data: Dataset, scores: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Return the sorted positions in the training part of the samples to forget.

    Args:
        scores: One number for each training sample, of which the largest are selected; for ``ranked`` requests,
            which need it, see ``mu.ranking``.

    Raises:
        ValueError: The request selects nothing, or everything, or leaves a class it must keep without samples; or
            its file is wrong.
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
    elif request.kind == "identities":
        chosen = np.flatnonzero(np.isin(_groups(data), _people(request, data, rng)))
    elif request.kind == "indices":
        chosen = _listed(request, data)
    elif request.ranked:
        assert scores is not None, "a ranked request needs scores"
        pool = _pool(request, data)
        order = np.argsort(-scores[pool], kind="stable")
        chosen = np.sort(pool[order[: _ranked_size(request, len(pool))]])
    else:
        chosen = np.flatnonzero(members(request, data, "train"))
        if request.count is not None:
            _check_count(request, len(chosen))
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


def stand_in(request: ForgetRequest, data: Dataset) -> NDArray[np.int64]:
    """Return what ``select`` returns; for a ranked request as many samples, the first ones, as none is ranked yet.

    Raises:
        ValueError: As ``select``, as far as it can be known by now.
    """
    if not request.ranked:
        return select(request, data)
    pool = _pool(request, data)
    size = _ranked_size(request, len(pool))
    if not 0 < size < len(data.parts["train"]):
        raise ValueError(
            f"the request selects {size} of {len(data.parts['train'])} training samples"
        )
    return pool[:size]


def _pool(request: ForgetRequest, data: Dataset) -> NDArray[np.int64]:
    """Return the training samples that a ranked request chooses from."""
    if request.target is None:
        return np.arange(len(data.parts["train"]))
    return np.flatnonzero(members(request, data, "train"))


def _ranked_size(request: ForgetRequest, pool: int) -> int:
    if request.fraction is not None:
        return round(request.fraction * pool)
    assert request.count is not None
    _check_count(request, pool)
    return request.count


def _check_count(request: ForgetRequest, most: int) -> None:
    assert request.count is not None
    if request.count > most:
        where = f" of class {request.target!r}" if request.target is not None else ""
        raise ValueError(
            f"`count` must be at most {most}, the training samples{where}, but got {request.count}"
        )


def _groups(data: Dataset) -> NDArray[np.int64]:
    groups = data.parts["train"].groups
    if groups is None:
        raise ValueError(
            f"identities needs data that says who is who, such as celeba, not {data.name}"
        )
    return groups


def _people(request: ForgetRequest, data: Dataset, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the identities to forget: those listed, or a share of all, at least one, drawn among those that qualify."""
    groups = _groups(data)
    every = np.unique(groups)
    if request.identities is not None:
        listed = np.array([int(person) for person in request.identities], np.int64)
        unknown = np.setdiff1d(listed, every)
        if len(unknown):
            raise ValueError(
                f"identity {unknown[0]} has no training sample; {data.name} has {len(every)} "
                f"from {every[0]} to {every[-1]}"
            )
        return listed
    assert request.fraction is not None
    count = max(1, round(request.fraction * len(every)))
    if request.among is not None:
        wanted = [_label(name, data.classes, data) for name in request.among]
        votes = np.zeros((len(every), len(data.classes)), np.int64)
        np.add.at(votes, (np.searchsorted(every, groups), data.parts["train"].labels), 1)
        every = every[np.isin(votes.argmax(1), wanted)]
        if count > len(every):
            raise ValueError(
                f"`among` leaves {len(every)} identities, but {count} are to be forgotten"
            )
    return rng.permutation(every)[:count]


def _listed(request: ForgetRequest, data: Dataset) -> NDArray[np.int64]:
    """Return the samples that the request's file names."""
    assert request.file is not None
    positions = read_positions(request.file, data.total, "file", data.fingerprint)
    chosen = data.train_positions(positions)
    away = positions[chosen < 0]
    if len(away):
        raise ValueError(
            f"file: {len(away)} of the {len(positions)} samples of {request.file}, such as {away[0]}, are "
            "not trained on: they are held out, or data.subset left them out; name the file in data.reserve, "
            "too, so that val and twin are cut from the others"
        )
    return np.sort(chosen)
