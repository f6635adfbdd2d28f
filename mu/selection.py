"""Which search trial stands for a cell: small named rules over the view the search saw. Needs no torch.

The rules of ``RULES`` differ in what they may know. An oracle compares with models retrained without the
forgotten data, as the papers do; a user who could retrain would have no need to unlearn, so there are rules
beside it that know the original model and what the trial itself shows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mu.record import REFERENCE_ROLES, TrialRecord

Values = Mapping[str, float]
COSTS = ("time_unlearn", "samples_seen")
"""Objectives that are read from the trial itself, not from a view."""


@dataclass(frozen=True)
class Candidate:
    """One configuration of a cell, tried on every search seed.

    Args:
        number: Its number within the cell.
        knobs: Every knob with its value.
        value: Mean of the objective over the search seeds; lower is better.
        metrics: Mean of each metric of the `val` view over the search seeds.
        costs: Mean of each of ``COSTS``.
        origin: As in a record.
        on: Where the same knobs were tried besides, such as `twin`, to the metrics there; see ``mu.menu``.
    """

    number: int
    knobs: dict[str, Any]
    value: float
    metrics: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict, compare=False)
    origin: str = field(default="", compare=False)
    on: Mapping[str, Values] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class References:
    """The `val` view of a request's reference models: metric to mean over the search seeds.

    Args:
        original: The model before unlearning; every user has it.
        retrain: The model without the forgotten data, the mean of all of them; only an oracle has it.
        one: A single one of them.
        on: Where candidates were tried besides, to the references there.
        whole_class: Whether a whole class goes, which decides the list of metrics of AvgGap.
    """

    original: Values = field(default_factory=dict)
    retrain: Values = field(default_factory=dict)
    one: Values = field(default_factory=dict)
    on: Mapping[str, References] = field(default_factory=dict)
    whole_class: bool = False


@dataclass(frozen=True)
class Rule:
    """A way to choose among candidates.

    Args:
        name: Its name in files.
        label: What it does, in a few words.
        oracle: Whether it reads the retrained models.
        whole_class: Whether it is for requests that forget whole classes, or for others; None is for all.
        cost: What it makes least, given a candidate and the references: numbers that are compared in order.
            NaN where a metric is missing.
        needs: What it reads beside the cell itself, such as `twin`; see ``mu.menu``.
        retrainings: What it costs beyond the trials of the menu, in retrainings; NaN for one of every seed.
        reason: The paper that it is from, or why it should work.
        parts: Names of the rules whose mean rank it makes least, in place of `cost`.
        ranks: Whether it puts candidates in an order; else it only names one.
    """

    name: str
    label: str
    oracle: bool
    whole_class: bool | None
    cost: Callable[[Candidate, References], tuple[float, ...]]
    needs: tuple[str, ...] = ()
    retrainings: float = 0.0
    reason: str = ""
    parts: tuple[str, ...] = ()
    ranks: bool = True

    def applies(self, whole_class: bool) -> bool:
        """Return whether the rule is for requests of this kind."""
        return self.whole_class in (None, whole_class)


def candidates(
    records: Iterable[TrialRecord],
    forget: str,
    method: str,
    objective: str,
    seeds: Sequence[int],
    view: str = "val",
    phases: Sequence[str] = ("search",),
) -> list[Candidate]:
    """Return the configurations of a cell that finished, with a finite value, on all of some seeds, by number.

    Args:
        view: What the search looked at; `test` only where a study selects as the papers do.
        phases: `search`, and `finalist` where its seeds are among them.
    """
    runs: dict[int, dict[int, TrialRecord]] = defaultdict(dict)
    for record in records:
        if (record.forget, record.method) != (forget, method) or record.phase not in phases:
            continue
        if record.finished and record.number is not None and record.seed in seeds:
            runs[record.number][record.seed] = record
    complete = [
        Candidate(
            number,
            list(by_seed.values())[-1].knobs,
            _mean(objective_value(r, objective, view) for r in by_seed.values()),
            _means(by_seed.values(), view),
            {name: _mean(getattr(r, name) for r in by_seed.values()) for name in COSTS},
        )
        for number, by_seed in sorted(runs.items())
        if set(by_seed) == set(seeds)
    ]
    return [candidate for candidate in complete if math.isfinite(candidate.value)]


def references(
    records: Iterable[TrialRecord],
    forget: str,
    seeds: Sequence[int],
    view: str = "val",
    roles: Sequence[str] = ("search",),
) -> References:
    """Return the reference models of a request on seeds of these roles, as far as they were recorded."""
    runs: dict[str, dict[int, TrialRecord]] = {name: {} for name in REFERENCE_ROLES}
    for record in records:
        here = (record.phase, record.forget) == ("reference", forget) and record.role in roles
        if here and record.finished and record.seed in seeds and record.method in runs:
            runs[record.method][record.seed] = record
    original, retrain = (_means(runs[name].values(), view) for name in ("original", "retrain"))
    return References(original, retrain)


def best_objective(tried: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with the lowest value; the earliest of equals; None when there is none."""
    return choose(OBJECTIVE, tried, References())


def choose(rule: Rule, tried: Sequence[Candidate], known: References) -> Candidate | None:
    """Return the candidate of least cost; the earliest of equals; None when no cost can be told."""
    costs = [(rule.cost(candidate, known), candidate.number) for candidate in tried]
    comparable = [
        (cost, candidate)
        for cost, candidate in zip(costs, tried)
        if all(math.isfinite(number) for number in cost[0])
    ]
    return min(comparable, key=lambda item: item[0], default=(None, None))[1]


def objective_value(record: TrialRecord, objective: str, view: str = "val") -> float:
    """Return the objective of a finished search trial: its cost, or a metric of the view it was searched on."""
    if objective in COSTS:
        return float(getattr(record, objective))
    return record.metrics.get(view, {}).get(objective, math.nan)


def kept_accuracy(values: Values) -> float:
    """Return the accuracy on held-out data that a model should keep; NaN where none was recorded."""
    return values.get("acc_test_retain", values.get("acc_test", math.nan))


def utility_loss(candidate: Candidate, known: References) -> float:
    """Return by how much held-out accuracy on what should be kept is below the original model's; NaN if either is missing."""
    lost = kept_accuracy(known.original) - kept_accuracy(candidate.metrics)
    return _rounded(lost) if math.isnan(lost) else max(0.0, _rounded(lost))


def measured(candidate: Candidate, name: str) -> float:
    """Return a candidate's mean of a metric or cost; NaN where it has none."""
    values = candidate.costs if name in COSTS else candidate.metrics
    return values.get(name, math.nan)


def _lowest_objective(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (_rounded(candidate.value),)


def _forget_accuracy_first(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return the distance to retraining of forget accuracy, then of the MIA, which decides between equals (NatMU)."""
    names = ("acc_forget", "mia_lr_entropy")
    return tuple(_distance(candidate, name, known.retrain.get(name, math.nan)) for name in names)


def _held_out_accuracy(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return the distance to where forgotten samples are classified as well as held-out ones, as if never seen.

    What held-out accuracy has lost is added: a destroyed model classifies both equally badly.
    """
    held_out = candidate.metrics.get("acc_test", math.nan)
    return (_rounded(_distance(candidate, "acc_forget", held_out) + _lost(candidate, known)),)


def _held_out_losses(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return the distance of the losses of forgotten samples to those of held-out ones, plus what accuracy has lost."""
    return (_rounded(candidate.metrics.get("loss_ks", math.nan) + _lost(candidate, known)),)


def _attack_as_held_out(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return the distance of the rates at which the entropy attack calls D_f and held-out samples members, plus what accuracy has lost.

    The rate on held-out samples lies above one half where members and others overlap (0.80 for NatMU's retrained models on
    CIFAR-10).
    """
    target = candidate.metrics.get("mia_lr_entropy_held_out", math.nan)
    return (_rounded(_distance(candidate, "mia_lr_entropy", target) + _lost(candidate, known)),)


def _divergence(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return RF-JSD, plus what accuracy has lost, which it does not see."""
    return (_rounded(candidate.metrics.get("rf_jsd", math.nan) + _lost(candidate, known)),)


def _class_gone(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return the forget accuracy, 0 where the class is no longer recognised, plus what accuracy on the rest has lost.

    The rule is right for a class. Of a sub-class a retrained model recognises some, by what it shares with its siblings.
    """
    forgotten = candidate.metrics.get("acc_forget", math.nan)
    return (_rounded(forgotten + _lost(candidate, known, "acc_test_retain")),)


OBJECTIVE = Rule("objective", "Best objective", True, None, _lowest_objective)
RULES = (
    OBJECTIVE,
    Rule("forget_first", "Forget accuracy, then MIA (NatMU)", True, None, _forget_accuracy_first),
    Rule(
        "held_out",
        "Forget accuracy as held-out",
        False,
        False,
        _held_out_accuracy,
        reason="SCRUB+R (2302.09880), 2503.08633",
    ),
    Rule(
        "losses",
        "Forget losses as held-out",
        False,
        False,
        _held_out_losses,
        reason="a model that has not seen D_f has losses on it as on any new data",
    ),
    Rule(
        "attack",
        "MIA rate as held-out",
        False,
        False,
        _attack_as_held_out,
        reason="an attack finds no more in D_f than in data that was never seen",
    ),
    Rule(
        "rf_jsd",
        "RF-JSD (LoTUS)",
        False,
        False,
        _divergence,
        reason="LoTUS (2503.18314)",
    ),
    Rule(
        "class_gone",
        "Class gone, rest kept",
        False,
        True,
        _class_gone,
        reason="a model that never saw a class does not predict it",
    ),
)
"""Every rule, that of the search first."""


def _distance(candidate: Candidate, name: str, target: float) -> float:
    return _rounded(abs(candidate.metrics.get(name, math.nan) - target))


def _lost(candidate: Candidate, known: References, name: str = "acc_test") -> float:
    """Return by how much held-out accuracy is below that of the original model; 0 when it is not."""
    drop = known.original.get(name, math.nan) - candidate.metrics.get(name, math.nan)
    return drop if math.isnan(drop) else max(0.0, drop)


def _rounded(value: float) -> float:
    """Round away the errors of floating-point numbers, which must not decide between equals."""
    return round(value, 9)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _means(runs: Iterable[TrialRecord], view: str) -> dict[str, float]:
    """Return the mean of each metric of a view that all the runs have."""
    views = [run.metrics.get(view, {}) for run in runs]
    if len(views) == 1:  # one search seed, as in most studies
        return dict(views[0])
    shared = [name for name in (views[0] if views else {}) if all(name in view for view in views)]
    return {name: sum(view[name] for view in views) / len(views) for name in shared}
