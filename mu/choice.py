"""Which knobs a cell is given: the one way in which search, status and report choose among what was tried.

Needs no torch. A study says what counts (``search.objective``, ``search.choose``), how much utility a configuration may lose
(``search.max_utility_loss``), and how many of the best run again on further search seeds before one is chosen
(``search.finalists``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mu.constraints import Constraint, parse_constraint
from mu.keys import derive_seed
from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import (
    Candidate,
    References,
    best_objective,
    candidates,
    measured,
    references,
    utility_loss,
)

FURTHER_SEEDS = 2
"""Number of seeds on which finalists run again."""


@dataclass(frozen=True)
class Decision:
    """What is known of the choice of a cell.

    Args:
        tried: The configurations that finished on all search seeds, by number.
        finalists: The best of them, which run again; empty where none does.
        chosen: The one that stands for the cell; None while there is none. As long as a finalist has not ended, it is
            the best of the search.
        settled: Whether every finalist has ended.
        too_lossy: Numbers of the configurations that lose more utility than the study allows.
        lossy: Whether the chosen one does: every other one that it was chosen among does so, too.
    """

    tried: tuple[Candidate, ...] = ()
    finalists: tuple[Candidate, ...] = ()
    chosen: Candidate | None = None
    settled: bool = True
    too_lossy: frozenset[int] = frozenset()
    lossy: bool = False

    @property
    def eligible(self) -> tuple[Candidate, ...]:
        """The configurations that may be chosen: those that lose too much only where all do."""
        kept = tuple(one for one in self.tried if one.number not in self.too_lossy)
        return kept or self.tried


@dataclass(frozen=True)
class Choice:
    """How a study chooses.

    Args:
        objective: The first metric that the search minimises, which decides where nothing else is said.
        seeds: The search seeds.
        view: The view that the search looks at.
        finalists: How many of the best run again on the further seeds.
        further_seeds: These seeds; empty where none run again.
        weights: Objective to its weight: the least weighted sum is chosen.
        lexicographic: Objective to tolerance, the most important first: those within the tolerance of the best stay.
        constraints: What must hold. Where nothing holds them all, the least excess is chosen.
        max_utility_loss: By how much held-out accuracy on what should be kept may be below the original model's, a
            fraction. A configuration that loses more is chosen only where all do.
    """

    objective: str
    seeds: tuple[int, ...]
    view: str = "val"
    finalists: int = 1
    further_seeds: tuple[int, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    lexicographic: Mapping[str, float] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    max_utility_loss: float = math.inf

    def best(self, tried: Iterable[Candidate], known: References) -> Candidate | None:
        """Return the best configuration; the earliest of equals; None when nothing can be compared."""
        return self._least(self._eligible(tried, known), known)

    def _least(self, left: list[Candidate], known: References) -> Candidate | None:
        """Return the best of the configurations that may be chosen."""
        if self.constraints:
            excess = {
                c.number: round(sum(x.excess(c, known) for x in self.constraints), 9) for c in left
            }
            least = min(excess.values(), default=0.0)
            left = [candidate for candidate in left if excess[candidate.number] == least]
        if self.weights:
            sums = {c.number: self._weighted(c) for c in left}
            left = _lowest(left, sums, 0.0)
        for name, tolerance in self.lexicographic.items():
            left = _lowest(left, {c.number: measured(c, name) for c in left}, tolerance)
        if self.weights or self.lexicographic:
            return min(left, key=lambda candidate: candidate.number, default=None)
        return best_objective(left)

    def _eligible(self, tried: Iterable[Candidate], known: References) -> list[Candidate]:
        """Return the configurations that lose no more utility than is allowed; all of them where each loses more."""
        every = list(tried)
        return [one for one in every if not self._is_lossy(one, known)] or every

    def _is_lossy(self, candidate: Candidate, known: References) -> bool:
        """Return whether a configuration loses more utility than is allowed; False where its loss is unknown."""
        return utility_loss(candidate, known) > self.max_utility_loss

    def _weighted(self, candidate: Candidate) -> float:
        return sum(weight * measured(candidate, name) for name, weight in self.weights.items())

    def decide(self, records: Sequence[TrialRecord], forget: str, method: str) -> Decision:
        """Return the choice of a cell, as far as its records settle it."""
        tried = candidates(records, forget, method, self.objective, self.seeds, self.view)
        known = references(records, forget, self.seeds, self.view)
        lossy = frozenset(one.number for one in tried if self._is_lossy(one, known))
        eligible = [one for one in tried if one.number not in lossy] or tried
        best, finalists = self._least(eligible, known), self._first(eligible, known)
        first = Decision(
            tuple(tried),
            chosen=best,
            too_lossy=lossy,
            lossy=best is not None and best.number in lossy,
        )
        if best is None or len(finalists) < 2:
            return first
        ended = {
            (record.number, record.seed)
            for record in records
            if (record.phase, record.forget, record.method) == ("finalist", forget, method)
            and not record.lost
        }
        wanted = {(one.number, seed) for one in finalists for seed in self.further_seeds}
        if not wanted <= ended:
            return replace(first, finalists=finalists, settled=False)
        both, phases = (*self.seeds, *self.further_seeds), ("search", "finalist")
        again = candidates(records, forget, method, self.objective, both, self.view, phases)
        numbers = {one.number for one in finalists}
        known = references(records, forget, both, self.view, phases)
        chosen = self.best([one for one in again if one.number in numbers], known)
        if chosen is None:
            return replace(first, finalists=finalists)
        return replace(
            first, finalists=finalists, chosen=chosen, lossy=self._is_lossy(chosen, known)
        )

    def _first(self, eligible: Sequence[Candidate], known: References) -> tuple[Candidate, ...]:
        """Return the best of the configurations that may be chosen in their order, as many as there are finalists."""
        if not self.further_seeds:
            return ()
        left = list(eligible)
        first: list[Candidate] = []
        while len(first) < self.finalists and (best := self._least(left, known)) is not None:
            first.append(best)
            left.remove(best)
        return tuple(first)


def decisions(
    choice: Choice, records: Iterable[TrialRecord], cells: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Decision]:
    """Return what is chosen in each cell, by forget request and method, which its own records and its references settle."""
    by_cell: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        by_cell[record.forget, record.method].append(record)
    return {
        (forget, method): choice.decide(
            [r for name in (*REFERENCE_ROLES, method) for r in by_cell[forget, name]],
            forget,
            method,
        )
        for forget, method in cells
    }


def _lowest(
    tried: Sequence[Candidate], values: Mapping[int, float], tolerance: float
) -> list[Candidate]:
    """Return the candidates whose value, by number, is within the tolerance of the lowest."""
    finite = [one for one in tried if math.isfinite(values[one.number])]
    least = min((values[one.number] for one in finite), default=math.nan)
    return [one for one in finite if round(values[one.number] - least, 9) <= tolerance]


def choice_of(definition: Mapping[str, Any]) -> Choice:
    """Return how a study chooses, from its definition as plain data. Raises ValueError as ``parse_constraint``."""
    search, seeds = definition["search"], definition["seeds"]
    choose = search.get("choose") or {}
    if not isinstance(choose, dict):
        choose = {"constraint": choose}
    constraints = choose.get("constraint") or ()
    texts = [constraints] if isinstance(constraints, str) else constraints
    finalists = search.get("finalists") or 1
    supplied = any(definition.get(role) for role in REFERENCE_ROLES)
    paper = definition.get("selection") == "paper"
    further = () if finalists == 1 or supplied or paper else further_seeds(seeds)
    return Choice(
        objective=search["objective"][0],
        seeds=tuple(seeds["search"]),
        view="test" if paper else "val",
        finalists=finalists,
        further_seeds=further,
        weights=choose.get("weights") or {},
        lexicographic=choose.get("lexicographic") or {},
        constraints=tuple(parse_constraint(text) for text in texts),
        # A study that an earlier version recorded chose without the floor.
        max_utility_loss=search.get("max_utility_loss", math.inf),
    )


def further_seeds(seeds: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the further seeds of a study's `search` seeds; none of them is another seed of the study."""
    return _more_seeds(("finalist", *seeds["search"]), FURTHER_SEEDS, _listed(seeds))


def retrain_seeds(seeds: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the seeds of the retrained models beyond those of the report seeds; none of them is another of the study.

    Args:
        seeds: The `search` and `report` seeds of a study, and in `retrain` how many models are retrained for the report;
            no more than report seeds where that is missing.
    """
    report = seeds.get("report") or ()
    count = (seeds.get("retrain") or 0) - len(report)
    if count <= 0:
        return ()
    return _more_seeds(("retrain", *report), count, {*_listed(seeds), *further_seeds(seeds)})


def _listed(seeds: Mapping[str, Any]) -> set[int]:
    return {seed for role in ("search", "report") for seed in seeds.get(role) or ()}


def _more_seeds(name: Sequence[Any], count: int, taken: Collection[int]) -> tuple[int, ...]:
    """Return so many seeds that follow from a name; more of the same name begin with the same ones."""
    more: list[int] = []
    number = 0
    while len(more) < count:
        seed = derive_seed(*name, number) % 10**6
        number += 1
        if seed not in taken and seed not in more:
            more.append(seed)
    return tuple(more)
