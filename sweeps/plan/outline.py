"""What follows from a study alone, without its data: cells, seeds, and how many trials each phase has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property

from mu.problem import Role
from mu.problem_names import COSTS, kind_of, request_of, stand_in_name
from mu.stand_ins import ROLES
from sweeps.phases import EPOCHS, PHASES, Cell, Knobs, Run
from sweeps.study.menu import MenuItem, menu
from sweeps.study.study import Study


class Outline:
    """The numbers of a study.

    Args:
        study: The study.
    """

    def __init__(self, study: Study):
        self.study = study

    def menu(self, cell: Cell) -> list[MenuItem]:
        """Return the menu of a cell; empty where the study asks for none."""
        asked = self.study.choose
        return menu(self.study.method(cell[1]), asked.menu) if asked else []

    @cached_property
    def menu_cells(self) -> list[Cell]:
        """Every cell, and every twin of its request with its method, on which menus are tried."""
        if self.study.choose is None:
            return []
        twins = [
            (stand_in_name(forget, "twin"), method)
            for forget, method in self.cells
            if stand_in_name(forget, "twin") in self.study.stand_ins
        ]
        return [*self.cells, *twins]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every (forget request, method)."""
        return [
            (forget, config.name)
            for forget in self.study.forget
            for config in self.study.methods
            if forget in config.forget
        ]

    @cached_property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        """Role to its seeds; `finalist` is there where configurations run again before one is chosen."""
        seeds = {"search": self.study.seeds.search} if self.study.search.trials else {}
        if self.finalists:
            seeds["finalist"] = self.study.choice.further_seeds
        return {**seeds, "report": self.study.seeds.report}

    @cached_property
    def finalists(self) -> dict[Cell, int]:
        """Number of finalists of each cell that has any: a cell of one configuration has no choice."""
        choice = self.study.choice
        if not choice.further_seeds:
            return {}
        counts = {cell: min(choice.finalists, self.study.trials(cell[1])) for cell in self.cells}
        return {cell: count for cell, count in counts.items() if count > 1}

    @cached_property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds of all roles, those of the search first, and last those that are retrained on alone."""
        return tuple(dict.fromkeys((*self.trial_seeds, *self.study.further_retrains)))

    @cached_property
    def problem_names(self) -> list[tuple[str, int]]:
        """Forget request and seed of every problem, those of stand-ins last."""
        own = [(forget, seed) for seed in self.every_seed for forget in self.study.forget]
        seeds = self.study.seeds.report
        return own + [(name, seed) for seed in seeds for name in self.study.stand_ins]

    def roles(self, name: str, seed: int) -> tuple[Role, ...]:
        """Return the references of a problem: further seeds have no original, and a study without an oracle no retrained model."""
        if kind := kind_of(name):
            return ROLES[kind]
        roles: tuple[Role, ...] = ("original",) if seed in self.trial_seeds else ()
        return (*roles, "retrain") if self.study.oracle else roles

    @cached_property
    def trial_seeds(self) -> tuple[int, ...]:
        """The seeds on which methods run, and which have an original model."""
        return tuple(dict.fromkeys(itertools.chain(*self.seeds.values())))

    def final_runs(self, best: Mapping[Cell, Knobs]) -> dict[str, list[Run]]:
        """The runs of every phase that follows the search, by phase; each is run on every report seed."""
        defaults = {cell: self.study.method(cell[1]).fixed for cell in self.cells}
        return {
            phase.name: list(phase.runs(self.study.experiments, defaults, best))
            for phase in PHASES.values()
            if phase.runs is not None
        }

    @cached_property
    def _expected_runs(self) -> dict[str, list[Run]]:
        """What will follow the search, were the defaults chosen everywhere."""
        searched = self.cells if self.study.search.trials else ()
        return self.final_runs({cell: self.study.method(cell[1]).fixed for cell in searched})

    @cached_property
    def counts(self) -> dict[str, int]:
        """Records of each phase when nothing fails."""
        study, seeds = self.study, len(self.study.seeds.report)
        searched = sum(study.trials(method) for _, method in self.cells) * len(study.seeds.search)
        counts = {
            "reference": len(self.reference_records),
            "search": searched,
            "finalist": sum(self.finalists.values()) * len(study.choice.further_seeds),
            "menu": sum(len(self.menu(self.real(cell))) for cell in self.menu_cells) * seeds,
            "audit": len(self.cells) * seeds if study.audit.models else 0,
            **{phase: len(runs) * seeds for phase, runs in self._expected_runs.items()},
        }
        return {phase: counts[phase] for phase in PHASES}

    @cached_property
    def reference_records(self) -> list[tuple[str, int, Role, str]]:
        """Problem, seed, reference and role of the seed of every record of a reference."""
        by_role = {**self.seeds, "report": (*self.study.seeds.report, *self.study.further_retrains)}
        own = [
            (forget, seed, method, role)
            for role, seeds in by_role.items()
            for forget in self.study.forget
            for seed in seeds
            for method in self.roles(forget, seed)
        ]
        stand_ins = [
            (name, seed, method, "report")
            for name, seed in self.problem_names
            if name in self.study.stand_ins
            for method in self.roles(name, seed)
        ]
        return own + stand_ins

    @staticmethod
    def real(cell: Cell) -> Cell:
        """Return the cell of the request itself, where its name may be that of a stand-in."""
        return request_of(cell[0]), cell[1]

    @property
    def trained(self) -> int:
        """Number of references that no file and no other request brings, but for those of stand-ins."""
        supplied = {
            (role, seed) if role == "original" else (role, forget, seed)
            for role, forget, seed in self.study.supplied
        }
        # Requests share the original models.
        retrained = len(self.every_seed) * len(self.study.forget) if self.study.oracle else 0
        return len(self.trial_seeds) + retrained - len(supplied)

    @cached_property
    def epochs(self) -> dict[str, float]:
        """Rough number of passes over the training data in each phase, an epoch of a method counted as one."""
        study = self.study
        searched = sum(
            study.trials(method) * study.method(method).fixed.get(EPOCHS, 1)
            for _, method in self.cells
        )
        again = sum(
            count * study.method(method).fixed.get(EPOCHS, 1)
            for (_, method), count in self.finalists.items()
        )
        seeds = len(study.seeds.report)
        stand_ins = sum(COSTS[kind_of(name)] for name in study.stand_ins) * seeds
        epochs = {
            "reference": (self.trained + stand_ins) * study.training.epochs,
            "search": searched * len(study.seeds.search),
            "finalist": again * len(study.choice.further_seeds),
            "menu": seeds
            * sum(i.knobs.get(EPOCHS, 1) for c in self.menu_cells for i in self.menu(self.real(c))),
            "audit": 0,
        }
        for phase, runs in self._expected_runs.items():
            epochs[phase] = seeds * sum(r.knobs.get(EPOCHS, 1) for r in runs)
        return {phase: float(epochs[phase]) for phase in PHASES}
