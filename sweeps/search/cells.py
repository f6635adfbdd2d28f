"""The search: one Optuna study per cell, interleaved, by ask and tell.

What was asked lives in Optuna's storage; what came of it lives first in the results file. A driver that
starts again tells Optuna what it missed, and runs again, with the same knobs, what was asked but never ended.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from mu.keys import derive_seed
from mu.record import TrialRecord
from mu.selection import objective_value
from sweeps.plan import Job, Plan
from sweeps.search.optuna_storage import open_storage
from sweeps.study import space
from sweeps.study.methods import MethodConfig
from sweeps.study.search import Search

optuna.logging.set_verbosity(optuna.logging.WARNING)
Cell = tuple[str, str]


@dataclass
class _Cell:
    study: optuna.Study
    tuned: MethodConfig
    trials: int
    waiting: deque[Job] = field(default_factory=deque)
    asked: int = 0
    ended: dict[int, list[TrialRecord]] = field(default_factory=dict)


class Cells:
    """All cells of a study. Hands out jobs, and takes the records of those that ended."""

    def __init__(self, plan: Plan, location: str, records: Iterable[TrialRecord] = ()):
        self.plan = plan
        self.search: Search = plan.study.search
        storage = open_storage(location)
        done: dict[Cell, list[TrialRecord]] = {}
        for record in records:
            if record.phase == "search":
                done.setdefault((record.forget, record.method), []).append(record)
        self._cells = {cell: self._open(cell, storage, done.get(cell, [])) for cell in plan.cells}

    def _open(
        self, cell: Cell, storage: optuna.storages.BaseStorage, records: list[TrialRecord]
    ) -> _Cell:
        forget, method = cell
        study = optuna.create_study(
            storage=storage,
            study_name=f"{self.plan.study.name}/{forget}/{method}",
            directions=["minimize"] * len(self.search.objective),
            sampler=self._sampler(cell, 0),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
            load_if_exists=True,
        )
        state = _Cell(study, self.plan.study.method(method), self.plan.study.trials(method))
        for record in records:
            if record.number is not None:
                state.ended.setdefault(record.number, []).append(record)
        self._reconcile(cell, state)
        return state

    def _reconcile(self, cell: Cell, state: _Cell) -> None:
        """Make Optuna agree with the records, and queue again what was asked but never ended."""
        ranges, fixed = state.tuned.ranges, state.tuned.fixed
        asked = [t for t in state.study.get_trials() if t.state is not TrialState.WAITING]
        for number in range(len(asked), max(state.ended, default=-1) + 1):
            # The storage was lost: ask again for what the records say was asked.
            if number in state.ended:
                knobs = state.ended[number][0].knobs
                state.study.enqueue_trial(
                    {s.knob: knobs[s.knob] for s in ranges if s.applies(knobs)}
                )
            space.suggest(state.study.ask(), ranges, fixed)
        for frozen in state.study.get_trials():
            if frozen.state is TrialState.WAITING:
                continue
            state.asked = frozen.number + 1
            records = state.ended.get(frozen.number, [])
            if self._complete(records):
                self._tell(state, frozen.number)
                continue
            trial: optuna.trial.BaseTrial = optuna.trial.FixedTrial(frozen.params)
            if frozen.state is TrialState.RUNNING:  # may have died before all knobs were suggested
                state.study.sampler = self._sampler_after(cell, state.study, frozen)
                trial = optuna.trial.Trial(state.study, frozen._trial_id)
            knobs = space.suggest(trial, ranges, fixed)
            done = {record.seed for record in records}
            state.waiting += [
                self.plan.job("search", *cell, seed, knobs, frozen.number)
                for seed in self.plan.study.search_seeds
                if seed not in done
            ]

    def remaining(self, more: bool = True) -> int:
        """Jobs not yet handed out; without `more` only those that were asked for already."""
        if not more:
            return sum(len(state.waiting) for state in self._cells.values())
        seeds = len(self.plan.study.search_seeds)
        return sum(
            len(state.waiting) + max(0, state.trials - state.asked) * seeds
            for state in self._cells.values()
        )

    @property
    def asked(self) -> int:
        """Configurations that every cell has been asked for, if it has so many; some may have been for one more."""
        counts = [state.asked for state in self._cells.values() if state.asked < state.trials]
        return min(counts, default=self.search.trials)

    def next(self, more: bool = True) -> Job | None:
        """The next job of the cell that has been asked least; None when every cell has had its trials.

        Without `more`, only what was asked for already: then all cells have had the same number, but for one.
        """
        for state in self._cells.values():
            if state.waiting:
                return state.waiting.popleft()
        if not more:
            return None
        left = [item for item in self._cells.items() if item[1].asked < item[1].trials]
        if not left:
            return None
        cell, state = min(left, key=lambda item: item[1].asked)
        self._ask(cell, state)
        return state.waiting.popleft()

    def _ask(self, cell: Cell, state: _Cell) -> None:
        ranges, fixed = state.tuned.ranges, state.tuned.fixed
        fresh = state.asked == 0 and not state.study.get_trials(deepcopy=False)
        if self.search.sampler == "grid":
            state.study.enqueue_trial(space.grid(ranges, fixed)[state.asked])
        elif fresh and all(fixed[span.knob] in span for span in ranges if span.applies(fixed)):
            # The authors' own values are always among what is tried.
            defaults = {s.knob: fixed[s.knob] for s in ranges if s.applies(fixed)}
            state.study.enqueue_trial(defaults)
        state.study.sampler = self._sampler(cell, state.asked)
        trial = state.study.ask()
        state.asked = trial.number + 1
        knobs = space.suggest(trial, ranges, fixed)
        state.waiting += [
            self.plan.job("search", *cell, seed, knobs, trial.number)
            for seed in self.plan.study.search_seeds
        ]

    def _sampler(self, cell: Cell, number: int) -> optuna.samplers.BaseSampler:
        """A sampler whose draws depend on the trial's number, so that a restart replays nothing."""
        seed = derive_seed("sampler", self.plan.study.name, *cell, number) % 2**32
        if self.search.sampler in ("random", "grid"):  # a grid leaves nothing to draw
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _sampler_after(
        self, cell: Cell, study: optuna.Study, frozen: optuna.trial.FrozenTrial
    ) -> optuna.samplers.BaseSampler:
        """The sampler of a trial's number once it has drawn the knobs that the trial has, so that it goes on alike."""
        sampler = self._sampler(cell, frozen.number)
        for name, distribution in frozen.distributions.items():
            sampler.sample_independent(study, frozen, name, distribution)
        return sampler

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job; tells Optuna once every search seed of its number has ended.

        What was lost has not ended: the next run of the study asks for it again.
        """
        assert record.number is not None
        if record.lost:
            return
        state = self._cells[record.forget, record.method]
        state.ended.setdefault(record.number, []).append(record)
        if self._complete(state.ended[record.number]):
            self._tell(state, record.number)

    def _complete(self, records: list[TrialRecord]) -> bool:
        return {record.seed for record in records} >= set(self.plan.study.search_seeds)

    def _tell(self, state: _Cell, number: int) -> None:
        records, view = state.ended[number], self.plan.study.search_view
        outcome = TrialState.FAIL
        if all(record.finished for record in records):
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

    def behind(self, job: Job, epoch: int, value: float) -> bool:
        """Whether a running job should end because others of its cell were better by this epoch (ASHA)."""
        state = self._cells[job.forget, job.method]
        assert job.number is not None
        identifier = state.study.get_trials(deepcopy=False)[job.number]._trial_id
        trial = optuna.trial.Trial(state.study, identifier)
        trial.report(value, epoch)
        return trial.should_prune()
