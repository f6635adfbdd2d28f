"""Early stopping by successive halving whose decisions do not depend on which trial is faster.

At each rung a configuration is compared with those of a lower number, never with a higher one. So a decision follows from
curves and numbers alone. It is made as soon as all that it follows from is known; until then the configuration goes on.
(Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", compare with whatever has arrived; trials that run one after the
other get the same decisions here and there.)
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from sweeps.study.rungs import REDUCTION, is_rung


@dataclass(frozen=True)
class Decision:
    """What became of a configuration at a rung.

    Args:
        number: Of the configuration.
        rung: The epoch.
        value: Mean of the objective over the search seeds.
    """

    number: int
    rung: int
    value: float


@dataclass
class _Climb:
    """How far a configuration is.

    Args:
        rungs: Where it is judged.
        values: Rung to the objective of each search seed.
        means: Rung to the mean over the seeds, where an earlier run of the study has left it.
        ended: Seeds whose trials have ended.
        judged: How many of the rungs it has been judged at.
        out: Whether it fell behind at the last of these.
    """

    rungs: Sequence[int]
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    means: Mapping[int, float] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    judged: int = 0
    out: bool = False


class Halving:
    """Successive halving of the configurations of one cell.

    Args:
        seeds: The search seeds: a configuration is judged by its mean over all of them, once.
        objective: Name of the objective in a point of a curve.
    """

    def __init__(self, seeds: Collection[int], objective: str):
        self._seeds = frozenset(seeds)
        self._objective = objective
        self._climbs: dict[int, _Climb] = {}
        self._open: list[int] = []

    def start(self, number: int, rungs: Sequence[int], means: Mapping[int, float]) -> None:
        """Take a configuration that was asked for.

        Args:
            rungs: The epochs after which it may be stopped.
            means: What ``report_value`` has written of it; a stop may have left other seeds without a record.
        """
        if number not in self._climbs:
            self._climbs[number] = _Climb(rungs, means=means)
            insort(self._open, number)

    def follow(self, number: int, seed: int, curve: Sequence[Mapping[str, float]]) -> None:
        """Note the points of a trial's curve that are rungs."""
        values = self._climbs[number].values
        for point in curve:
            epoch = int(point["epoch"])
            if is_rung(epoch):
                values.setdefault(epoch, {})[seed] = point.get(self._objective, math.nan)

    def end(self, number: int, seeds: Collection[int]) -> None:
        """Note that the trials of these seeds go no further than their curves."""
        self._climbs[number].ended |= self._seeds & set(seeds)

    def is_out(self, number: int) -> bool:
        """Return whether a configuration is behind others."""
        return self._climbs[number].out

    def is_settled(self, number: int) -> bool:
        """Return whether all is decided that ever will be of a configuration."""
        return number not in self._open

    def decide(self) -> list[Decision]:
        """Judge every configuration at every rung where this can be done by now; return the new decisions in order."""
        made: list[Decision] = []
        # A decision depends on lower numbers only, so that one pass in their order finds all.
        for number in list(self._open):
            climb = self._climbs[number]
            while not climb.out and climb.judged < len(climb.rungs):
                decision = self._judge(number, climb.rungs[climb.judged])
                if decision is None:
                    break
                climb.judged += 1
                if math.isfinite(decision.value):
                    made.append(decision)
            if climb.out or self._is_finished(climb):
                self._open.remove(number)
        return made

    def _is_finished(self, climb: _Climb) -> bool:
        return climb.ended == self._seeds and climb.judged == len(climb.rungs)

    def _judge(self, number: int, rung: int) -> Decision | None:
        """Return the decision on a configuration at its next rung; None where it cannot be made yet."""
        climb = self._climbs[number]
        value = self._value(climb, rung)
        if value is None:
            return None
        if math.isnan(value):
            return Decision(number, rung, value)  # nothing to compare, so that it goes on
        others = [self._value_of_rival(other, rung) for other in range(number)]
        if None in others:
            return None
        reached = sorted([value, *(v for v in others if v is not None and not math.isnan(v))])
        climb.out = value > reached[max(1, len(reached) // REDUCTION) - 1]
        return Decision(number, rung, value)

    def _value_of_rival(self, number: int, rung: int) -> float | None:
        """Return the value that another configuration competes with; NaN if it does not, None if this is not known yet."""
        climb = self._climbs.get(number)
        if climb is None:
            return None
        value = self._value(climb, rung)
        lower = sum(epoch < rung for epoch in climb.rungs)
        if climb.out and climb.judged <= lower:
            return math.nan  # its curve may reach the rung, but it fell behind before
        if value is not None and math.isnan(value):
            return value
        return value if climb.judged >= lower else None

    def _value(self, climb: _Climb, rung: int) -> float | None:
        """Return the mean over the seeds at a rung; NaN if there is none, None if it is still to come."""
        if rung in climb.means:
            return climb.means[rung]
        values = climb.values.get(rung, {})
        missing = self._seeds - values.keys()
        if missing & climb.ended:
            return math.nan
        if missing:
            return None
        mean = sum(values[seed] for seed in sorted(values)) / len(values)
        return mean if math.isfinite(mean) else math.nan


def report_value(study: optuna.Study, decision: Decision) -> None:
    """Write the value at a rung beside a running trial: a trial that is pruned there has it as its value."""
    trial = study.get_trials(deepcopy=False)[decision.number]
    if trial.state is TrialState.RUNNING and decision.rung not in trial.intermediate_values:
        study._storage.set_trial_intermediate_value(trial._trial_id, decision.rung, decision.value)
