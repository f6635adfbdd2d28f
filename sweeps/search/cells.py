"""The search: one Optuna study per cell, interleaved, by ask and tell.

Optuna's storage holds the configurations that were asked for; the results file holds first what came of them. A driver
that starts again tells Optuna the results that it missed, and runs again, with the same knobs, every configuration without
a result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from mu.record import TrialRecord
from mu.selection import objective_value
from sweeps.phases import Cell, Run
from sweeps.plan import FirstKnobs, Job, Plan
from sweeps.search.asha import Halving, report_value
from sweeps.search.optuna_storage import open_storage
from sweeps.search.samplers import make_sampler, resume
from sweeps.study import space
from sweeps.study.methods import MethodConfig
from sweeps.study.rungs import BEHIND, is_judged
from sweeps.study.search import Search
from sweeps.study.space import Range

optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()  # to run.log, and to the console in our own form
ORIGIN = "origin"
"""Attribute of a trial in Optuna's storage; see ``mu.record.TrialRecord``."""


@dataclass
class _CellState:
    """How far the search of one cell is.

    Args:
        study: Optuna's study of the cell.
        config: The method, with the ranges that are searched.
        trials: Configurations that it may ask for.
        waiting: Jobs that were asked for and not handed out.
        asked: Configurations that it has asked for.
        ended: Number of a configuration to the records of its search seeds.
        seconds: The sum of what these took.
        untold: Configurations that have ended and that Optuna has not been told.
        halving: What decides which configurations are stopped; None where none are.
    """

    study: optuna.Study
    config: MethodConfig
    trials: int
    waiting: deque[Job] = field(default_factory=deque)
    asked: int = 0
    ended: dict[int, list[TrialRecord]] = field(default_factory=dict)
    seconds: float = 0.0
    untold: list[int] = field(default_factory=list)
    halving: Halving | None = None

    def add(self, record: TrialRecord) -> None:
        """Take the record of a trial."""
        assert record.number is not None
        self.ended.setdefault(record.number, []).append(record)
        self.seconds += record.time_total

    @property
    def crowded(self) -> bool:
        """Whether as many configurations run as can do without knowing of each other: a quarter of the trials."""
        return self.asked - len(self.ended) >= max(1, self.trials // 4)

    @property
    def seconds_left(self) -> float:
        """Estimate of what the configurations take that it may still ask for; infinite before the first result."""
        mean = self.seconds / len(self.ended) if self.ended else math.inf
        return (self.trials - self.asked) * mean


class Cells:
    """The searches of all cells of a study. They hand out jobs, and are told the records of those that ended.

    Args:
        plan: What the study runs.
        location: Of Optuna's storage; see ``open_storage``.
        records: Of earlier runs of the study.
        study_id: UUID of the study: others of its name may use the same storage.
    """

    def __init__(
        self, plan: Plan, location: str, records: Iterable[TrialRecord] = (), study_id: str = ""
    ):
        self.plan = plan
        self.study_id = study_id
        self.search: Search = plan.study.search
        storage = open_storage(location)
        done: dict[Cell, list[TrialRecord]] = {}
        for record in records:
            if record.phase == "search":
                done.setdefault((record.forget, record.method), []).append(record)
        self._cells = {cell: self._open(cell, storage, done.get(cell, [])) for cell in plan.cells}

    def _open(
        self, cell: Cell, storage: optuna.storages.BaseStorage, records: list[TrialRecord]
    ) -> _CellState:
        study = optuna.create_study(
            storage=storage,
            study_name=self.study_name(cell),
            directions=["minimize"] * len(self.search.objective),
            sampler=self._sampler(cell, 0),
            load_if_exists=True,
        )
        method = cell[1]
        state = _CellState(study, self.plan.study.method(method), self.plan.study.trials(method))
        if self.search.early_stop == "asha" and is_judged(state.config.method):
            state.halving = Halving(self.plan.study.seeds.search, self.search.objective[0])
        for record in records:
            state.add(record)
        self._reconcile(cell, state)
        return state

    def study_name(self, cell: Cell) -> str:
        """Return the name of a cell's study in Optuna's storage: a cell that has changed starts a new one."""
        forget, method = cell
        key = self.plan.search_key(cell)
        return f"{self.plan.study.name}/{forget}/{method}/{key[:16]}/{self.study_id}"

    def _reconcile(self, cell: Cell, state: _CellState) -> None:
        """Make Optuna agree with the records, and queue again the configurations that never ended."""
        self._ask_again(cell, state)
        for frozen in state.study.get_trials():
            if frozen.state is TrialState.WAITING:
                continue
            if frozen.number >= state.trials:  # asked for when the study had more trials
                break
            state.asked = frozen.number + 1
            records = state.ended.get(frozen.number, [])
            knobs = records[0].knobs if records else self._knobs(cell, state, frozen)
            self._start(state, frozen.number, knobs, frozen.intermediate_values)
            if self._complete(records):
                continue
            recorded = {record.seed for record in records}
            origin = frozen.user_attrs.get(ORIGIN, "")
            state.waiting += [
                self.plan.job("search", Run(*cell, knobs), seed, frozen.number, origin)
                for seed in self.plan.study.seeds.search
                if seed not in recorded
            ]

    def _ask_again(self, cell: Cell, state: _CellState) -> None:
        """Ask for the configurations that have records but are not in Optuna's storage: it was lost, or cut short.

        Each is told at once, since what samplers write beside a trial follows from those that have ended.
        """
        ranges, fixed = state.config.ranges, state.config.fixed
        asked = [t for t in state.study.get_trials() if t.state is not TrialState.WAITING]
        for number in range(len(asked), max(state.ended, default=-1) + 1):
            if number in state.ended:
                record = state.ended[number][0]
                self._enqueue(state, FirstKnobs(_searched(ranges, record.knobs), record.origin))
            else:
                self._enqueue_given(cell, state, number)
            state.study.sampler = self._sampler(cell, number)
            knobs = space.suggest(state.study.ask(), ranges, fixed)
            self._start(state, number, knobs, {})

    def _start(
        self, state: _CellState, number: int, knobs: Mapping[str, Any], means: Mapping[int, float]
    ) -> None:
        """Take a configuration that was asked for, with the records that it has, and tell Optuna what follows.

        Args:
            means: Its values at rungs in Optuna's storage.
        """
        if state.halving is not None:
            state.halving.start(number, self.plan.rungs(state.config.name, knobs), means)
        for record in state.ended.get(number, []):
            self._note(state, record)
        self._tell_decided(state)

    def _knobs(
        self, cell: Cell, state: _CellState, frozen: optuna.trial.FrozenTrial
    ) -> dict[str, Any]:
        """All knobs of a configuration that was asked for; draws those that a crash left out."""
        trial: optuna.trial.BaseTrial = optuna.trial.FixedTrial(frozen.params)
        if frozen.state is TrialState.RUNNING:  # the driver may have died between two knobs
            trial = resume(self._sampler(cell, frozen.number), state.study, frozen)
        return space.suggest(trial, state.config.ranges, state.config.fixed)

    def remaining(self, more: bool = True) -> int:
        """Return how many jobs are to be handed out; without `more` only those that were asked for already."""
        return sum(self.left(cell, more) for cell in self._cells)

    @property
    def asked(self) -> int:
        """Configurations that every cell has been asked for, if it has so many; some cells may be one ahead."""
        counts = [state.asked for state in self._cells.values() if state.asked < state.trials]
        return min(counts, default=self.search.trials)

    def left(self, cell: Cell, more: bool = True) -> int:
        """Return how many jobs of a cell are to be handed out; without `more` only those asked for already."""
        state, seeds = self._cells[cell], len(self.plan.study.seeds.search)
        fresh = max(0, state.trials - state.asked) * seeds if more else 0
        return len(state.waiting) + fresh

    def end(self, cell: Cell) -> None:
        """Hand out no more jobs of a cell. What it was asked for and did not run is asked for by the next run."""
        state = self._cells[cell]
        state.waiting.clear()
        state.trials = state.asked

    def next(self, more: bool = True, forgets: Collection[str] | None = None) -> Job | None:
        """Return the next job; None when there is none.

        Args:
            more: Without it, only jobs that were asked for already: then all cells have had the same number, but for one.
            forgets: The requests whose trials may run; None is all.
        """
        cells = [i for i in self._cells.items() if forgets is None or i[0][0] in forgets]
        for _, state in cells:
            if state.waiting:
                return state.waiting.popleft()
        if not more:
            return None
        left = [item for item in cells if item[1].asked < item[1].trials]
        if not left:
            return None
        cell, state = min(left, key=self._turn)
        self._ask(cell, state)
        return state.waiting.popleft()

    def _turn(self, item: tuple[Cell, _CellState]) -> tuple[float, ...]:
        """Order cells by whose turn it is: after a first trial of each, the one with most work left is next.

        So no long cell is left over at the end. A cell of slow trials would collect many that run at once, and its sampler
        would know little: then others are next. A budget may end the search at any time, so under one it is the turn of
        the cell that has been asked least.
        """
        _, state = item
        if self.plan.study.budget:
            return (state.asked,)
        return (state.crowded, state.asked > 0, -state.seconds_left, state.asked)

    def _ask(self, cell: Cell, state: _CellState) -> None:
        ranges, fixed = state.config.ranges, state.config.fixed
        self._enqueue_given(cell, state, state.asked)
        state.study.sampler = self._sampler(cell, state.asked)
        trial = state.study.ask()
        state.asked = trial.number + 1
        knobs = space.suggest(trial, ranges, fixed)
        self._start(state, trial.number, knobs, {})
        origin = trial.user_attrs.get(ORIGIN, "")
        state.waiting += [
            self.plan.job("search", Run(*cell, knobs), seed, trial.number, origin)
            for seed in self.plan.study.seeds.search
        ]

    def _enqueue_given(self, cell: Cell, state: _CellState, number: int) -> None:
        """Let the next trial have the knobs of the grid, or those that are tried first, if `number` is one of these."""
        if self.search.sampler == "grid":
            points = space.grid(state.config.ranges, state.config.fixed)
            self._enqueue(state, FirstKnobs(points[number], ""))
            return
        first = self._first_knobs(cell, state.config)
        if number < len(first):
            self._enqueue(state, first[number])

    def _first_knobs(self, cell: Cell, config: MethodConfig) -> list[FirstKnobs]:
        """Return what is tried before a sampler draws: the authors' own values, then those of earlier studies."""
        ranges, fixed = config.ranges, config.fixed
        first = list(self.plan.first_knobs.get(cell, ()))
        if all(fixed[span.knob] in span for span in ranges if span.applies(fixed)):
            defaults = FirstKnobs(_searched(ranges, fixed), "defaults")
            first = [defaults, *(each for each in first if each.knobs != defaults.knobs)]
        return first

    def _enqueue(self, state: _CellState, first: FirstKnobs) -> None:
        """Let the next trial that is asked have these knobs. A driver that died may have enqueued them already."""
        waiting = state.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if not waiting:
            state.study.enqueue_trial(dict(first.knobs), user_attrs={ORIGIN: first.origin})

    def _sampler(self, cell: Cell, number: int) -> optuna.samplers.BaseSampler:
        study = self.plan.study
        return make_sampler(self.search, study.method(cell[1]), study.name, cell, number)

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job, and tell Optuna once every search seed of its number has ended and is judged.

        A job whose worker was lost has not ended: the next run of the study asks for it again, and this one waits for it no longer.
        """
        assert record.number is not None
        state = self._cells[record.forget, record.method]
        if not record.lost:
            state.add(record)
            self._note(state, record)
        elif state.halving is not None:
            state.halving.end(record.number, [record.seed])
        self._tell_decided(state)

    def _note(self, state: _CellState, record: TrialRecord) -> None:
        """Take what follows from a record for its configuration."""
        assert record.number is not None
        if state.halving is not None:
            state.halving.follow(record.number, record.seed, record.curve)
            every, one = self.plan.study.seeds.search, [record.seed]
            state.halving.end(record.number, every if _is_behind(record) else one)
        if self._complete(state.ended[record.number]) and record.number not in state.untold:
            state.untold.append(record.number)

    def _complete(self, records: list[TrialRecord]) -> bool:
        """Return whether a configuration has ended: on every search seed, or on one because others are better."""
        behind = any(map(_is_behind, records))
        return behind or {record.seed for record in records} >= set(self.plan.study.seeds.search)

    def _tell_decided(self, state: _CellState) -> None:
        """Judge what can be judged by now, and tell Optuna of the configurations that have ended and are judged."""
        if state.halving is not None:
            for decision in state.halving.decide():
                report_value(state.study, decision)
        waiting, state.untold = state.untold, []
        for number in waiting:
            if state.halving is None or state.halving.is_settled(number):
                self._tell(state, number)
            else:
                state.untold.append(number)

    def _tell(self, state: _CellState, number: int) -> None:
        records, view = state.ended[number], self.plan.study.search_view
        outcome = TrialState.FAIL
        if state.halving is not None and state.halving.is_out(number):
            outcome = TrialState.PRUNED  # even if it ended before this was known
        elif all(record.finished for record in records):
            values = [
                sum(objective_value(record, name, view) for record in records) / len(records)
                for name in self.search.objective
            ]
            if all(map(math.isfinite, values)):
                state.study.tell(number, values, skip_if_finished=True)
                return
        elif not any(record.status in ("failed", "diverged") for record in records):
            outcome = TrialState.PRUNED
        state.study.tell(number, state=outcome, skip_if_finished=True)

    def behind(self, job: Job, curve: Sequence[Mapping[str, float]]) -> bool:
        """Return whether a running job, which has this curve by now, should end because others of its cell are better."""
        assert job.number is not None
        state = self._cells[job.forget, job.method]
        if state.halving is None:
            return False
        state.halving.follow(job.number, job.seed, curve)
        self._tell_decided(state)
        return state.halving.is_out(job.number)


def _is_behind(record: TrialRecord) -> bool:
    return record.status == "stopped" and record.reason == BEHIND


def _searched(ranges: Sequence[Range], knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs that are searched and apply."""
    return {span.knob: knobs[span.knob] for span in ranges if span.applies(knobs)}
