"""What follows from a study alone, without its data: cells, seeds, and how many trials each phase has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property

from mu.record import REFERENCE_ROLES
from sweeps.phases import EPOCHS, PHASES, Cell, Knobs, Run
from sweeps.study.study import Study


class Outline:
    """The numbers of a study.

    Args:
        study: The study.
    """

    def __init__(self, study: Study):
        self.study = study

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
        seeds = {"search": self.study.seeds.search}
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
        return self.final_runs({cell: self.study.method(cell[1]).fixed for cell in self.cells})

    @cached_property
    def counts(self) -> dict[str, int]:
        """Records of each phase when nothing fails."""
        study, seeds = self.study, len(self.study.seeds.report)
        every_seed = sum(map(len, self.seeds.values()))
        searched = sum(study.trials(method) for _, method in self.cells) * len(study.seeds.search)
        counts = {
            "reference": len(study.forget)
            * (every_seed * len(REFERENCE_ROLES) + len(study.further_retrains)),
            "search": searched,
            "finalist": sum(self.finalists.values()) * len(study.choice.further_seeds),
            "audit": len(self.cells) * seeds if study.audit.models else 0,
            **{phase: len(runs) * seeds for phase, runs in self._expected_runs.items()},
        }
        return {phase: counts[phase] for phase in PHASES}

    @property
    def trained(self) -> int:
        """Number of references that no file and no other request brings."""
        supplied = {
            (role, seed) if role == "original" else (role, forget, seed)
            for role, forget, seed in self.study.supplied
        }
        # Requests share the original models.
        every = len(self.trial_seeds) + len(self.every_seed) * len(self.study.forget)
        return every - len(supplied)

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
        epochs = {
            "reference": self.trained * study.training.epochs,
            "search": searched * len(study.seeds.search),
            "finalist": again * len(study.choice.further_seeds),
            "audit": 0,
        }
        for phase, runs in self._expected_runs.items():
            epochs[phase] = len(study.seeds.report) * sum(r.knobs.get(EPOCHS, 1) for r in runs)
        return {phase: float(epochs[phase]) for phase in PHASES}
