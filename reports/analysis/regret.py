"""What it costs to choose knobs by a rule: regret of every rule, method and request, from the records of a menu.

A rule chooses on one report seed and the `val` view, and is judged on the other report seeds and the `test` view, by the
retrained models of other seeds; every seed takes its turn. Where a rule cannot tell some candidates apart, the regret is
the mean over them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from mu.menu import JUDGED, MenuRecords, menu_records
from mu.metrics import AVG_GAP_NATMU
from mu.problem_names import COSTS, kind_of, stand_in_name
from mu.relative import mean_of
from mu.rules import EVERYTHING, MENU_RULES, RULE, Scores, average_gap, chosen, eligible, scores
from mu.selection import Rule
from reports.load import RecordedStudy
from reports.statistics.intervals import Estimate, leave_one_out, nested_mean

Cell = tuple[str, str, int]
"""Request, method and seed."""
CELL = ["rule", "forget", "method"]
NUMBERS = ("points", "noise", "share", "within", "tau", "seconds")


@dataclass(frozen=True)
class Truth:
    """How good every configuration of a cell is, as judged on other seeds than the one on which a rule chose.

    Args:
        gaps: Number of a configuration to its AvgGap (of means), a fraction.
        noise: Noise floor of AvgGap of the judging retrained models; NaN for fewer than two.
    """

    gaps: Mapping[int, float]
    noise: float

    @cached_property
    def best(self) -> float:
        """The smallest AvgGap of the menu."""
        return min(self.gaps.values())

    @cached_property
    def spread(self) -> float:
        """How far the median of the menu is above its best."""
        return statistics.median(self.gaps.values()) - self.best


def regrets(study: RecordedStudy) -> pd.DataFrame:
    """Return what the choice of every rule of a study's menu cost, in every cell, on every seed; no row without a menu.

    Columns:
        rule, forget, method, seed: Who chose where; the seed is the one that the rule saw.
        source: The request from which knobs were transferred; empty for other rules.
        points: AvgGap of the choice above the best of the menu, a fraction.
        noise: The same in noise floors; NaN where there is none.
        share: The same as a share of median - best; NaN where the menu is flat.
        within: Share of the candidates chosen that are within a noise floor of the best.
        tau: Kendall's tau-b of the rule's order with the truth; NaN where a rule gives no order.
        seconds: Slot-seconds of what the rule read: trials, and the training of stand-ins.
    """
    return study.once(
        "regrets",
        lambda: pd.DataFrame(
            _regrets(study), columns=["rule", "forget", "method", "seed", "source", *NUMBERS]
        ),
    )


def cells(study: RecordedStudy) -> pd.DataFrame:
    """Return the means of the regrets of each rule in each cell, over seeds and sources."""
    return study.once(
        "regret cells",
        lambda: regrets(study).groupby(CELL, sort=False)[list(NUMBERS)].mean().reset_index(),
    )


def _regrets(study: RecordedStudy) -> Iterator[tuple[Any, ...]]:
    asked = study.definition.get("choose") or {}
    rules = [RULE[name] for name in asked.get("rules", ()) if name in RULE]
    whole = {request.name: request.whole_class for request in study.requests}
    recorded = menu_records(study.records, whole)
    for request in study.requests if rules else ():
        for method in study.methods:
            for seed in recorded.seeds(request.name, method.name):
                truth = judged(recorded, request.name, method.name, seed)
                for rule in rules:
                    if truth and rule.applies(request.whole_class):
                        cell = (request.name, method.name, seed)
                        yield from _of_rule(recorded, rule, cell, truth, study.max_utility_loss)


def judged(recorded: MenuRecords, forget: str, method: str, seed: int) -> Truth | None:
    """Return how good the configurations are that finished on all seeds, judged on all but one; None where none can be."""
    seeds = recorded.seeds(forget, method)
    others = [each for each in seeds if each != seed]
    retrained = {
        each: record.metrics.get(JUDGED, {})
        for each, record in recorded.references.get((forget, "retrain"), {}).items()
        if each != seed
    }
    if not others or not retrained:
        return None
    whole = recorded.whole_class[forget]
    reference = mean_of(list(retrained.values()))
    runs = [recorded.trials[forget, method, each] for each in seeds]
    gaps = {}
    for number in sorted(set.intersection(*map(set, runs))):
        views = [recorded.trials[forget, method, s][number].metrics[JUDGED] for s in others]
        gaps[number] = average_gap(mean_of(views), reference, whole)
    gaps = {number: gap for number, gap in gaps.items() if math.isfinite(gap)}
    return Truth(gaps, noise_floor(list(retrained.values()), reference, whole)) if gaps else None


def noise_floor(
    models: Sequence[Mapping[str, float]], reference: Mapping[str, float], whole: bool
) -> float:
    """Return the noise floor of AvgGap: the mean over its metrics of the distance of each model to the others."""
    names = AVG_GAP_NATMU[whole]
    if len(models) < 2 or not set(names) <= set(reference):
        return math.nan
    return statistics.fmean(
        statistics.fmean(leave_one_out(model[name] for model in models)) for name in names
    )


def _of_rule(
    recorded: MenuRecords, rule: Rule, cell: Cell, truth: Truth, limit: float | None
) -> Iterator[tuple[Any, ...]]:
    """Yield the regrets of one rule: one, or of `transfer` one for each other request."""
    forget, method, seed = cell
    sources: list[str | None] = [None]
    if "transfer" in rule.needs:
        kind = recorded.whole_class[forget]
        others = [
            name for name, of in recorded.whole_class.items() if of == kind and name != forget
        ]
        sources = [name for name in others if (name, method, seed) in recorded.trials]
    for source in sources:
        tried, known = recorded.situation(forget, method, seed, source)
        tried = [one for one in tried if one.number in truth.gaps]
        if rule.name not in EVERYTHING and limit is not None:
            tried = eligible(tried, known, limit)
        if order := scores(rule, tried, known):
            spent = _seconds(recorded, rule, cell, source)
            yield rule.name, *cell, source or "", *_numbers(rule, order, truth), spent


def _numbers(rule: Rule, order: Scores, truth: Truth) -> tuple[float, ...]:
    """Return `points`, `noise`, `share`, `within` and `tau` of what a rule chose, given what it makes least."""
    gaps = [truth.gaps[number] for number in chosen(order)]
    points = statistics.fmean(gaps) - truth.best
    noise = truth.noise if truth.noise > 0 else math.nan
    share = points / truth.spread if truth.spread > 0 else math.nan
    near = statistics.fmean(gap <= truth.best + noise for gap in gaps)
    within = near if math.isfinite(noise) else math.nan
    return points, points / noise, share, within, _tau(order, truth) if rule.ranks else math.nan


def _tau(order: Scores, truth: Truth) -> float:
    """Return Kendall's tau-b between a rule's order and the true one; NaN for fewer than three candidates."""
    if len(order) < 3:
        return math.nan
    places = sorted(order.values())
    ranks = [places.index(cost) for cost in order.values()]
    return float(kendalltau(ranks, [truth.gaps[number] for number in order]).statistic)


def _seconds(recorded: MenuRecords, rule: Rule, cell: Cell, source: str | None) -> float:
    """Return the slot-seconds of all that a rule read: the menu on the seed, and the stand-ins with theirs."""
    forget, method, seed = cell
    at = [forget, *(stand_in_name(forget, kind) for kind in COSTS if kind in rule.needs)]
    spent = 0.0
    for name in [*at, *([source] if source else [])]:
        spent += sum(r.time_total for r in recorded.trials.get((name, method, seed), {}).values())
    for name in at[1:] + ([source] if source else []) + ([forget] if rule.oracle else []):
        for role in ("original", "retrain"):
            models = recorded.references.get((name, role), {})
            if seed in models and (role == "retrain" or name != source):
                spent += models[seed].time_unlearn
    return spent


def retrainings(study: RecordedStudy, rule: Rule) -> float:
    """Return what a rule cost beyond the trials of the menu, in retrainings; of a smaller network, by the seconds of its training."""
    if math.isnan(rule.retrainings):
        return float(study.definition.get("seeds", {}).get("retrain") or len(study.report_seeds))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for record in study.records if "model" in rule.needs else ():
        if (record.phase, record.method) == ("reference", "retrain") and record.time_unlearn:
            kind = kind_of(record.forget)
            if kind in ("", "model"):
                seconds[kind == "model"].append(record.time_unlearn)
    if all(seconds.values()):
        return statistics.fmean(seconds[True]) / statistics.fmean(seconds[False])
    return rule.retrainings


def by_rule(found: pd.DataFrame) -> dict[Rule, pd.DataFrame]:
    """Return every rule that has chosen to its rows, in the order of the rules."""
    named = dict(iter(found.groupby("rule", sort=False)))
    return {rule: named[rule.name] for rule in MENU_RULES if rule.name in named}


def mean_regret(
    found: pd.DataFrame, value: str = "points", minus: pd.DataFrame | None = None
) -> Estimate | None:
    """Return the mean over requests of the mean over methods, with bootstrap samples of requests.

    Args:
        found: Rows of ``cells`` of one rule.
        value: Which number of a regret.
        minus: Those of another rule, whose number is subtracted cell by cell where both have one.
    """
    numbers = by_cell(found, value)
    if minus is not None:
        numbers = (numbers - by_cell(minus, value).reindex(numbers.index)).dropna()
    return nested_mean({str(name): list(of) for name, of in numbers.groupby("forget", sort=False)})


def by_cell(found: pd.DataFrame, value: str) -> pd.Series:
    """Return (forget, method) to a number of the rows of one rule, where there is one."""
    return found.set_index(["forget", "method"])[value].dropna()
