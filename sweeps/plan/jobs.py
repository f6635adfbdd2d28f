"""What a study will run: problems, cells and jobs, each named by its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mu.choice import Decision
from mu.data import Dataset
from mu.forget import select
from mu.keys import content_key
from mu.problem import Problem, Role
from mu.problem_names import request_of, stand_in_name
from mu.stand_ins import check_twin
from sweeps.phases import EPOCHS, PHASES, Cell, Knobs, Run
from sweeps.plan.outline import Outline
from sweeps.study.menu import MenuItem
from sweeps.study.rungs import rungs_of
from sweeps.study.study import Study


class FirstKnobs(NamedTuple):
    """Searched knobs that no sampler drew, and their origin, as a record names it."""

    knobs: Knobs
    origin: str


@dataclass(frozen=True)
class Job:
    """One piece of work for a slot: a trial, or work for the references.

    Args:
        key: Content key of everything below that decides its numbers, and of the problem.
        phase: One of ``sweeps.phases.PHASES``.
        forget: Name of the forget request, or of a stand-in of it (see ``mu.stand_ins``).
        method: Name of the method in the study; for references what the work is for, such as `original` or `retrain`.
        seed: Seed of the problem.
        knobs: Every knob with its value.
        number: Number of the configuration within its cell, or its menu; search, finalists and menu only.
        source: Request whose knobs these are; transfer only.
        origin: Where the knobs come from, if they were not drawn; search and menu only, and no part of the key.
        views: The views it is scored on: an honest search never sees `test`.
        attacks: Groups of costly attacks that are run as well; the diagnostics of the method's own work come
            with any.
        keep: Whether its outputs are kept for the audit.
        keep_model: Whether its model is kept; no part of the key.
        work: `trial`; or for references: `train` one, `score` those of a problem, `rank` the samples of a request.
        roles: The references that are scored.
        problem, cell, code, alias_of: As in a record.
        rungs: Epochs after which it may be stopped because others are better; search only, and no part of the key.
        rewind: Epoch after which the state of a training is kept for twins; 0 keeps none.
    """

    key: str
    phase: str
    forget: str
    method: str
    seed: int
    knobs: Mapping[str, Any]
    number: int | None = None
    source: str | None = None
    origin: str = ""
    views: tuple[str, ...] = ("val", "test")
    attacks: tuple[str, ...] = ()
    keep: bool = False
    keep_model: bool = False
    work: Literal["trial", "train", "score", "rank"] = "trial"
    roles: tuple[Role, ...] = ()
    problem: str = ""
    cell: str = ""
    code: str = ""
    alias_of: str = ""
    rungs: tuple[int, ...] = ()
    rewind: int = 0

    @property
    def role(self) -> str:
        """The role of its seed: `search`, `finalist` or `report`."""
        return PHASES[self.phase].role

    def __deepcopy__(self, memo: Any) -> Job:
        """Return the job itself, which nothing changes: Tune copies the configuration of a trial three times."""
        return self

    @property
    def checkpoint_key(self) -> str:
        """Names its checkpoint, which another code of its method does not continue."""
        return content_key(self.key, self.code)


class Plan(Outline):
    """A study with its data: the problems and jobs that follow from both.

    Args:
        study: The study.
        data: Its data.
        first_knobs: Cell to what its search tries after the authors' defaults, by ``sweeps.search.earlier``.

    Attributes:
        code: Method to the digest of its code.
        counts_as: Method to the digest under which its trials are kept: that of its code, or of an earlier code whose
            trials are kept as if they were its own.
    """

    def __init__(
        self,
        study: Study,
        data: Dataset,
        first_knobs: Mapping[Cell, Sequence[FirstKnobs]] = MappingProxyType({}),
    ):
        super().__init__(study)
        self.first_knobs = first_knobs
        self.data = data
        self.code = {config.name: config.method.code for config in study.methods}
        self.counts_as = dict(self.code)
        self._cell_keys: dict[tuple[str, str], str] = {}
        self._problems: dict[tuple[str, int], Problem] = {}
        self._chosen: dict[str, NDArray[np.int64]] = {
            name: select(request, data)
            for name, request in study.forget.items()
            if request.kind == "indices"  # workers do not have the file
        }
        self.rankings = {
            name: (
                Problem(data, study.model, study.training, request, request.draw)
                if request.kind == "hardest"  # which trains a model of its own
                else study.problem(data, name, request.draw)
            )
            for name, request in study.forget.items()
            if request.ranked
        }
        """The problems that decide which samples ranked requests select; they know none before ``choose``."""

    def choose(self, forget: str, scores: NDArray[np.float64]) -> None:
        """Set which samples a ranked request selects. Raises ValueError as ``mu.forget.select``, or where they have no twin."""
        self._chosen[forget] = select(self.study.forget[forget], self.data, scores)
        self._problems = {
            name: p for name, p in self._problems.items() if request_of(name[0]) != forget
        }
        if stand_in_name(forget, "twin") in self.study.stand_ins:
            check_twin(self.problem(forget, self.study.seeds.report[0]))

    def chosen(self, forget: str) -> NDArray[np.int64]:
        """Return the sorted positions in the training part of the samples that a request selects."""
        return self.problem(forget, self.study.seeds.report[0]).forget_index

    def use_data(self, data: Dataset) -> None:
        """Use this copy of the data from now on, so that the memory of the copy before can be freed."""
        self.data = data
        self._problems.clear()

    def problem(self, forget: str, seed: int) -> Problem:
        """Return the problem of a request, or of the stand-in of that name, on a seed, the same object each time."""
        if (forget, seed) not in self._problems:
            request, chosen = request_of(forget), self._chosen.get(request_of(forget))
            problem = self.study.problem(self.data, request, seed, chosen)
            if forget in self.study.stand_ins:
                problem = self.study.stand_in(problem, forget)
            self._problems[forget, seed] = problem
        return self._problems[forget, seed]

    @property
    def problems(self) -> dict[tuple[str, int], Problem]:
        """Every problem of the study, by forget request and seed, or by name of a stand-in and seed."""
        return {name: self.problem(*name) for name in self.problem_names}

    @property
    def reported(self) -> tuple[int, ...]:
        """The seeds of the retrained models that the report compares with."""
        return (*self.study.seeds.report, *self.study.further_retrains)

    def reference_key(self, forget: str, seed: int, method: str, role: str) -> str:
        """Return the record key of a reference on a problem; `role` is that of its seed, `search`, `finalist` or `report`."""
        cell = self.reference_cell(role, seed)
        return content_key(self.problem(forget, seed).key, "reference", method, cell)

    def reference_cell(self, role: str, seed: int) -> str:
        """Return the key of how references of a seed are scored, for trials on the seeds of a role."""
        scored = self.reference_views(seed), self.attacks_on(seed), self.reference_keep(seed)
        return content_key("reference", role, scored)

    def reference_views(self, seed: int) -> tuple[str, ...]:
        """Return the views on which references of a seed are scored."""
        if seed in self.reported:
            return ("val", "test")
        return tuple(dict.fromkeys((self.study.search_view, "val")))

    def reference_keep(self, seed: int) -> bool:
        """Return whether the outputs of references of a seed are kept for the audit."""
        return seed in self.study.seeds.report and bool(self.study.audit.models)

    def attacks_on(self, seed: int) -> tuple[str, ...]:
        """Return the costly attacks on references of a seed: those of any phase that runs on it."""
        asked = self.study.metrics
        seeds = {**self.seeds, "report": self.reported}
        wanted = any(seed in seeds.get(PHASES[phase].role, ()) for phase in asked.costly)
        return asked.attacks if wanted else ()

    def job(
        self, phase: str, run: Run, seed: int, number: int | None = None, origin: str = ""
    ) -> Job:
        """Return the job of a run on a seed; `number` and `origin` are those of its configuration, in the search."""
        problem, cell = self.problem(run.forget, seed).key, self.cell_key(phase, run.method)
        key = content_key(problem, run.forget, cell, run.knobs, number, run.source)
        return Job(
            key=key,
            phase=phase,
            forget=run.forget,
            method=run.method,
            seed=seed,
            knobs=run.knobs,
            number=number,
            source=run.source,
            origin=origin,
            views=("val",) if run.forget in self.study.stand_ins else self._views(phase),
            attacks=self._attacks(phase),
            keep=self._keep(phase),
            keep_model=PHASES[phase].keeps and self.study.keep.keeps(run.method),
            problem=problem,
            cell=cell,
            code=self.code[run.method],
            alias_of=self.study.method(run.method).alias_of,
            rungs=self.rungs(run.method, run.knobs) if phase == "search" else (),
        )

    def cell_key(self, phase: str, method: str) -> str:
        """Return the key of all that decides the numbers of a method's trials in a phase, but for problem and knobs.

        Of the number of trials it says nothing: a search may grow.
        """
        if (phase, method) not in self._cell_keys:
            self._cell_keys[phase, method] = content_key(*self._decisive(phase, method))
        return self._cell_keys[phase, method]

    def _decisive(self, phase: str, method: str) -> list[Any]:
        """Return what the key of a cell is made of."""
        config, search = self.study.method(method), self.study.search
        stops = search.early_stop != "none"
        asked = (self._views(phase), self._attacks(phase), self._keep(phase), stops)
        # An alias is a part, as the name of a request is, for two of them may ask for the same trial.
        name = [method, config.alias_of] if config.alias_of else method
        parts: list[Any] = [phase, name, self.counts_as[method], dict(config.fixed), asked]
        if PHASES[phase].role != "report":
            draws: tuple[Any, ...] = search.sampler, search.start_from
            if search.start == "portfolio" and config.portfolio is not None:
                draws += (config.portfolio.configurations,)
            how = draws, search.objective, search.mean_gap, search.early_stop
            ranges = [range_.plain for range_ in config.ranges]
            names = [range_.knob for range_ in config.ranges]
            parts += [names, ranges, how, self.study.seeds.search]
        elif PHASES[phase].menu:
            parts.append([[range_.knob, range_.plain] for range_ in config.ranges])
        return parts

    def count_as(self, method: str, code: str) -> None:
        """Keep the trials of a method under the digest of an earlier code."""
        self.counts_as[method] = code
        self._cell_keys.clear()

    def search_key(self, cell: Cell) -> str:
        """Return the key of one cell's search: of its problems, and of all else that decides its trials."""
        forget, method = cell
        problems = [self.problem(forget, seed).key for seed in self.study.seeds.search]
        return content_key(problems, self.cell_key("search", method))

    def _views(self, phase: str) -> tuple[str, ...]:
        searches = PHASES[phase].role != "report"
        return (self.study.search_view,) if searches else ("val", "test")

    def _attacks(self, phase: str) -> tuple[str, ...]:
        metrics = self.study.metrics
        return metrics.attacks if phase in metrics.costly else ()

    def _keep(self, phase: str) -> bool:
        return PHASES[phase].audited and self.study.audit.models > 0

    def rungs(self, method: str, knobs: Knobs) -> tuple[int, ...]:
        """Return the epochs after which a search trial of a method with these knobs may be stopped."""
        return rungs_of(self.study.search, self.study.method(method).method, knobs)

    def menu(self, cell: Cell) -> list[MenuItem]:
        items, config = super().menu(cell), self.study.method(cell[1])
        if not items:
            return items
        for first in self.first_knobs.get(cell, ()):
            knobs = {**config.fixed, **first.knobs}
            if knobs not in [item.knobs for item in items]:
                items.append(MenuItem(len(items), knobs, first.origin))
        return items

    @cached_property
    def menu_jobs(self) -> list[Job]:
        """The jobs of every menu, on every report seed; the longest first, but those of requests before those of twins."""
        jobs = [
            self.job("menu", Run(*cell, item.knobs), seed, item.number, item.origin)
            for cell in self.menu_cells
            for item in self.menu(self.real(cell))
            for seed in self.study.seeds.report
        ]
        return sorted(
            jobs, key=lambda job: (job.forget in self.study.stand_ins, -job.knobs.get(EPOCHS, 1))
        )

    def finalist_jobs(self, decisions: Mapping[Cell, Decision]) -> list[Job]:
        """Return the jobs of all finalists, on every further search seed, the longest first."""
        jobs = [
            self.job("finalist", Run(*cell, finalist.knobs), seed, finalist.number)
            for cell, decision in decisions.items()
            for finalist in decision.finalists
            for seed in self.study.choice.further_seeds
        ]
        return sorted(jobs, key=lambda job: -job.knobs.get(EPOCHS, 1))

    def final_jobs(self, best: Mapping[Cell, Knobs]) -> list[Job]:
        """Return the fixed list after the search, on every report seed, the longest first.

        Args:
            best: The knobs chosen for each cell; a cell without any runs its defaults only.
        """
        jobs = [
            self.job(phase, run, seed)
            for phase, runs in self.final_runs(best).items()
            for run in runs
            for seed in self.study.seeds.report
        ]
        return sorted(jobs, key=lambda job: -job.knobs.get(EPOCHS, 1))

    @cached_property
    def samples(self) -> dict[str, float]:
        """Rough number of samples trained on in each phase."""
        train = len(self.data.parts["train"])
        return {phase: epochs * train for phase, epochs in self.epochs.items()}

    @property
    def planned(self) -> dict[str, dict[str, float]]:
        """Phase to its number of `trials`, and roughly of `samples` they train on."""
        return {
            phase: {"trials": count, "samples": self.samples[phase]}
            for phase, count in self.counts.items()
        }
