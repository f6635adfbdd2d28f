"""The search of one cell: what it asks for next, and what Optuna is told of the configurations that ended.

Optuna's storage holds the configurations that were asked for; the results file holds first what came of them. A driver
that starts again tells Optuna the results that it missed, and runs again, with the same knobs, every configuration without
a result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from mu.record import TrialRecord
from mu.selection import objective_value
from sweeps.phases import Cell, Run
from sweeps.plan import FirstKnobs, Job, Plan
from sweeps.search.asha import Halving, report_value
from sweeps.search.samplers import make_sampler, resume
from sweeps.study import space
from sweeps.study.rungs import BEHIND, is_judged
from sweeps.study.space import Range

ORIGIN = "origin"
"""Attribute of a trial in Optuna's storage; see ``mu.record.TrialRecord``."""


class CellSearch:
    """The search of one cell.

    Args:
        plan: What the study runs.
        cell: Forget request and method.
        storage: Optuna's storage.
        name: Of the cell's study there.
        records: Of the cell, from earlier runs of the study.

    Attributes:
        trials: Configurations that it may ask for.
        asked: Configurations that it has asked for.
        waiting: Jobs that were asked for and not handed out.
    """

    def __init__(
        self,
        plan: Plan,
        cell: Cell,
        storage: optuna.storages.BaseStorage,
        name: str,
        records: Iterable[TrialRecord],
    ):
        self.plan = plan
        self.cell = cell
        self.search = plan.study.search
        self.seeds = plan.study.seeds.search
        self.config = plan.study.method(cell[1])
        self.trials = plan.study.trials(cell[1])
        self.asked = 0
        self.waiting: deque[Job] = deque()
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize"] * len(self.search.objective),
            sampler=self._sampler(0),
            load_if_exists=True,
        )
        self._ended: dict[int, list[TrialRecord]] = {}  # by number, of each search seed
        self._seconds = 0.0  # the sum of what these took
        self._untold: list[int] = []  # numbers that have ended, and of which Optuna knows nothing
        self._halving: Halving | None = None
        if self.search.early_stop == "asha" and is_judged(self.config.method):
            self._halving = Halving(self.seeds, self.search.objective[0])
        for record in records:
            self._add(record)
        self._reconcile()

    @property
    def crowded(self) -> bool:
        """Whether as many configurations run as can do without knowing of each other: a quarter of the trials."""
        return self.asked - len(self._ended) >= max(1, self.trials // 4)

    @property
    def seconds_left(self) -> float:
        """Estimate of what the configurations take that it may still ask for; infinite before the first result."""
        mean = self._seconds / len(self._ended) if self._ended else math.inf
        return (self.trials - self.asked) * mean

    def ask(self) -> None:
        """Ask for the next configuration; its jobs wait then."""
        self._enqueue_given(self.asked)
        self._study.sampler = self._sampler(self.asked)
        trial = self._study.ask()
        self.asked = trial.number + 1
        knobs = space.suggest(trial, self.config.ranges, self.config.fixed)
        self._start(trial.number, knobs, {})
        self._wait_for(trial.number, knobs, trial.user_attrs.get(ORIGIN, ""), self.seeds)

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job, and tell Optuna once every search seed of its number has ended and is judged.

        A job whose worker was lost has not ended: the next run of the study asks for it again, and this one waits for it no longer.
        """
        assert record.number is not None
        if not record.lost:
            self._add(record)
            self._note(record)
        elif self._halving is not None:
            self._halving.end(record.number, [record.seed])
        self._tell_decided()

    def behind(self, job: Job, curve: Sequence[Mapping[str, float]]) -> bool:
        """Return whether a running job, which has this curve by now, should end because others of its cell are better."""
        assert job.number is not None
        if self._halving is None:
            return False
        self._halving.follow(job.number, job.seed, curve)
        self._tell_decided()
        return self._halving.is_out(job.number)

    def _add(self, record: TrialRecord) -> None:
        assert record.number is not None
        self._ended.setdefault(record.number, []).append(record)
        self._seconds += record.time_total

    def _reconcile(self) -> None:
        """Make Optuna agree with the records, and queue again the configurations that never ended."""
        self._ask_again()
        for frozen in self._study.get_trials():
            if frozen.state is TrialState.WAITING:
                continue
            if frozen.number >= self.trials:  # asked for when the study had more trials
                break
            self.asked = frozen.number + 1
            records = self._ended.get(frozen.number, [])
            knobs = records[0].knobs if records else self._knobs(frozen)
            self._start(frozen.number, knobs, frozen.intermediate_values)
            if self._complete(records):
                continue
            recorded = {record.seed for record in records}
            left = [seed for seed in self.seeds if seed not in recorded]
            self._wait_for(frozen.number, knobs, frozen.user_attrs.get(ORIGIN, ""), left)

    def _ask_again(self) -> None:
        """Ask for the configurations that have records but are not in Optuna's storage: it was lost, or cut short.

        Each is told at once, since what samplers write beside a trial follows from those that have ended.
        """
        ranges, fixed = self.config.ranges, self.config.fixed
        asked = [t for t in self._study.get_trials() if t.state is not TrialState.WAITING]
        for number in range(len(asked), max(self._ended, default=-1) + 1):
            if number in self._ended:
                record = self._ended[number][0]
                self._enqueue(FirstKnobs(_searched(ranges, record.knobs), record.origin))
            else:
                self._enqueue_given(number)
            self._study.sampler = self._sampler(number)
            knobs = space.suggest(self._study.ask(), ranges, fixed)
            self._start(number, knobs, {})

    def _start(self, number: int, knobs: Mapping[str, Any], means: Mapping[int, float]) -> None:
        """Take a configuration that was asked for, with the records that it has, and tell Optuna what follows.

        Args:
            means: Its values at rungs in Optuna's storage.
        """
        if self._halving is not None:
            self._halving.start(number, self.plan.rungs(self.config.name, knobs), means)
        for record in self._ended.get(number, []):
            self._note(record)
        self._tell_decided()

    def _knobs(self, frozen: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """Return all knobs of a configuration that was asked for; draw those that a crash left out."""
        trial: optuna.trial.BaseTrial = optuna.trial.FixedTrial(frozen.params)
        if frozen.state is TrialState.RUNNING:  # the driver may have died between two knobs
            trial = resume(self._sampler(frozen.number), self._study, frozen)
        return space.suggest(trial, self.config.ranges, self.config.fixed)

    def _wait_for(
        self, number: int, knobs: Mapping[str, Any], origin: str, seeds: Iterable[int]
    ) -> None:
        """Let the jobs of a configuration on these seeds wait to be handed out."""
        run = Run(*self.cell, knobs)
        self.waiting += [self.plan.job("search", run, seed, number, origin) for seed in seeds]

    def _enqueue_given(self, number: int) -> None:
        """Let the next trial have the knobs of the grid, or those that are tried first, if `number` is one of these."""
        if self.search.sampler == "grid":
            points = space.grid(self.config.ranges, self.config.fixed)
            self._enqueue(FirstKnobs(points[number], ""))
            return
        first = self._first_knobs()
        if number < len(first):
            self._enqueue(first[number])

    def _first_knobs(self) -> list[FirstKnobs]:
        """Return what is tried before a sampler draws: the authors' own values, then those of earlier studies."""
        ranges, fixed = self.config.ranges, self.config.fixed
        first = list(self.plan.first_knobs.get(self.cell, ()))
        if all(fixed[span.knob] in span for span in ranges if span.applies(fixed)):
            defaults = FirstKnobs(_searched(ranges, fixed), "defaults")
            first = [defaults, *(each for each in first if each.knobs != defaults.knobs)]
        return first

    def _enqueue(self, first: FirstKnobs) -> None:
        """Let the next trial that is asked have these knobs. A driver that died may have enqueued them already."""
        waiting = self._study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if not waiting:
            self._study.enqueue_trial(dict(first.knobs), user_attrs={ORIGIN: first.origin})

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return make_sampler(self.search, self.config, self.plan.study.name, self.cell, number)

    def _note(self, record: TrialRecord) -> None:
        """Take what follows from a record for its configuration."""
        assert record.number is not None
        if self._halving is not None:
            self._halving.follow(record.number, record.seed, record.curve)
            self._halving.end(record.number, self.seeds if _is_behind(record) else [record.seed])
        if self._complete(self._ended[record.number]) and record.number not in self._untold:
            self._untold.append(record.number)

    def _complete(self, records: list[TrialRecord]) -> bool:
        """Return whether a configuration has ended: on every search seed, or on one because others are better."""
        behind = any(map(_is_behind, records))
        return behind or {record.seed for record in records} >= set(self.seeds)

    def _tell_decided(self) -> None:
        """Judge what can be judged by now, and tell Optuna of the configurations that have ended and are judged."""
        if self._halving is not None:
            for decision in self._halving.decide():
                report_value(self._study, decision)
        waiting, self._untold = self._untold, []
        for number in waiting:
            if self._halving is None or self._halving.is_settled(number):
                self._tell(number)
            else:
                self._untold.append(number)

    def _tell(self, number: int) -> None:
        records, view = self._ended[number], self.plan.study.search_view
        outcome = TrialState.FAIL
        if self._halving is not None and self._halving.is_out(number):
            outcome = TrialState.PRUNED  # even if it ended before this was known
        elif all(record.finished for record in records):
            values = [
                sum(objective_value(record, name, view) for record in records) / len(records)
                for name in self.search.objective
            ]
            if all(map(math.isfinite, values)):
                self._study.tell(number, values, skip_if_finished=True)
                return
        elif not any(record.status in ("failed", "diverged") for record in records):
            outcome = TrialState.PRUNED
        self._study.tell(number, state=outcome, skip_if_finished=True)


def _is_behind(record: TrialRecord) -> bool:
    return record.status == "stopped" and record.reason == BEHIND


def _searched(ranges: Sequence[Range], knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs that are searched and apply."""
    return {span.knob: knobs[span.knob] for span in ranges if span.applies(knobs)}
