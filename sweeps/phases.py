"""The phases of a study in order: the one table that study files, plan, costs, status and reports follow.

A new phase is an entry in ``PHASES``. If its trials follow from the chosen knobs, its ``runs`` lists them, and plan, costs,
status and the report's counts have it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

EPOCHS = "epochs"
"""The knob that sufficient training extends. A method without it has nothing to extend."""
Cell = tuple[str, str]
"""Forget request and method: what one search tunes."""
Knobs = Mapping[str, Any]


class Run(NamedTuple):
    """Knobs to run on every report seed; `source` names the request they were tuned on, if it is another one."""

    forget: str
    method: str
    knobs: Knobs
    source: str | None = None


class Experiments(Protocol):
    """What a study asks to be tried with chosen knobs; see ``sweeps.study.study_file.Experiments``."""

    @property
    def sufficient(self) -> Mapping[str, int] | None: ...
    @property
    def transfer(self) -> Sequence[tuple[str, str]]: ...
    @property
    def defaults(self) -> bool: ...


Runs = Callable[[Experiments, Mapping[Cell, Knobs], Mapping[Cell, Knobs]], Iterable[Run]]
"""From what a study asks, each cell's default knobs and each cell's chosen knobs."""


@dataclass(frozen=True)
class Phase:
    """One phase of a study.

    Args:
        name: As records carry it.
        title: As reports print it.
        role: The seeds it runs on.
        runs: The trials that follow from the chosen knobs; None for phases that are no such list, among them the
            finalists, from which knobs are chosen.
        audited: Whether its models' outputs are kept for the audit.
        keeps: Whether a study may ask for its models themselves.
        menu: Whether its trials have the knobs of the menu, which does not follow from the search (see
            ``sweeps.study.menu``).
    """

    name: str
    title: str
    role: Literal["search", "finalist", "report"] = "report"
    runs: Runs | None = None
    audited: bool = False
    keeps: bool = False
    menu: bool = False

    @property
    def follows_search(self) -> bool:
        """Whether its trials count as work beyond the search, for which a budget leaves room."""
        return self.runs is not None or self.role == "finalist" or self.menu

    @property
    def has_trials(self) -> bool:
        """Whether methods run in it: its trials may have costly metrics, and printed numbers beside them."""
        return self.follows_search or self.role != "report"


def _defaults(
    asked: Experiments, defaults: Mapping[Cell, Knobs], chosen: Mapping[Cell, Knobs]
) -> list[Run]:
    return [Run(*cell, knobs) for cell, knobs in defaults.items()] if asked.defaults else []


def _confirm(
    asked: Experiments, defaults: Mapping[Cell, Knobs], chosen: Mapping[Cell, Knobs]
) -> list[Run]:
    return [Run(*cell, knobs) for cell, knobs in chosen.items()]


def _sufficient(
    asked: Experiments, defaults: Mapping[Cell, Knobs], chosen: Mapping[Cell, Knobs]
) -> list[Run]:
    if not asked.sufficient:
        return []
    return [
        Run(*cell, {**knobs, **asked.sufficient})
        for cell, knobs in chosen.items()
        if EPOCHS in knobs
    ]


def _transfer(
    asked: Experiments, defaults: Mapping[Cell, Knobs], chosen: Mapping[Cell, Knobs]
) -> list[Run]:
    return [
        Run(target, method, knobs, source)
        for (forget, method), knobs in chosen.items()
        for source, target in asked.transfer
        if source == forget and (target, method) in chosen
    ]


PHASES = {
    phase.name: phase
    for phase in (
        Phase("reference", "references"),
        Phase("search", "search", role="search"),
        Phase("finalist", "finalists", role="finalist"),
        Phase("menu", "menu of knobs", menu=True),
        Phase("default", "default knobs", runs=_defaults),
        Phase("confirm", "tuned knobs", runs=_confirm, audited=True, keeps=True),
        Phase("sufficient", "sufficient training", runs=_sufficient),
        Phase("transfer", "transfer", runs=_transfer),
        Phase("audit", "audit"),
    )
}
"""Name to phase, in the order in which a study passes through them."""


def trial_phases() -> tuple[str, ...]:
    """Return the names of the phases in which methods run."""
    return tuple(phase.name for phase in PHASES.values() if phase.has_trials)


def final_phases() -> tuple[str, ...]:
    """Return the names of the phases that follow the search."""
    return tuple(phase.name for phase in PHASES.values() if phase.follows_search)
