"""Tables of choosing knobs without a retrained model: what each rule gives up against the best of the menu."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from mu.rules import MENU_RULES
from mu.selection import Rule
from reports.analysis import regret
from reports.analysis.regret import Regret
from reports.load import RecordedStudy
from reports.statistics.intervals import Estimate, Interval
from reports.tables import cells
from reports.tables.cells import BESIDE, Table, TableCell, Values
from reports.text import percent, seconds, share, title

BASE = "defaults"
"""What a user without any rule would do."""
START = "Without a retrained model, "
BASES = (BASE, "held_out")
"""The rules that others are compared with: `held_out` is that of the literature."""


def choice(study: RecordedStudy) -> Table | None:
    """Return the regret of every rule, over all requests and on each."""
    found = regret.regrets(study)
    caption = (
        "Knobs chosen from a menu of evenly spread configurations by rules that differ in what they know. A rule sees one "
        "report seed and the validation view, and is judged on the other report seeds and the test view. Regret: AvgGap (of "
        "means) of its choice minus that of the best of the menu, in percent points, the mean over methods, with its 95 % "
        "interval over requests (of one request over methods). Units: the same in noise floors of retraining; "
        "share: the median over cells of regret / (median of the menu - best), in percent; near: how often the choice is "
        "within one noise floor of the best; below defaults, below held_out: their regret minus that of the rule. Tau: "
        "Kendall's, of the rule's order with the true one. Retrainings: what the rule costs beyond the trials of "
        "the menu; seconds: slot time for one method of all that it reads. Even the truth of a menu has noise, so that an "
        "oracle has regret as well."
    )
    groups = [("all", "All requests", _rows(study, found))]
    if len(study.requests) > 1:
        groups += [
            (r.name, title(r), _rows(study, [one for one in found if one.forget == r.name]))
            for r in study.requests
        ]
    head = ("choice", "Choosing knobs without a retrained model", caption, "Forget request")
    return cells.table_of(head, groups, texts=2)


def choice_by_cell(study: RecordedStudy) -> Table | None:
    """Return the regret of every rule in every cell."""
    found = regret.regrets(study)
    caption = "Regret of each rule for each method, in percent points, the mean over the seeds on which it chose."
    head = ("choice_cells", "The same, method by method", caption, "Forget request")
    return cells.table_of(
        head,
        [
            (r.name, title(r), _cell_rows(study, [one for one in found if one.forget == r.name]))
            for r in study.requests
        ],
    )


def sentence(study: RecordedStudy) -> str:
    """Return which rule without a retrained model gives up least, and how much; empty without a menu.

    Requests for whole classes have rules of their own, and a sentence of their own where there are others.
    """
    found = regret.regrets(study)
    whole = {request.name: request.whole_class for request in study.requests}
    kinds = [[one for one in found if whole[one.forget] is kind] for kind in (False, True)]
    told = [_best_of(each) for each in kinds]
    mixed = all(told)
    return " ".join(
        f"Where a whole class goes: {text.removeprefix(START)}" if kind and mixed else text
        for kind, text in enumerate(told)
        if text
    )


def _best_of(found: Sequence[Regret]) -> str:
    """Return the sentence on requests of one kind; empty where no rule has chosen on all of them."""
    by_rule = _by_rule(found)
    free = [rule for rule in MENU_RULES if rule.name in by_rule and _is_free(rule)]
    means = {
        rule.name: mean
        for rule in free
        if (mean := regret.mean_regret(by_rule[rule.name])) is not None
    }
    ranked = [
        rule for rule in free if rule.name in means and rule.ranks and _everywhere(rule, by_rule)
    ]
    if not ranked:
        return ""
    best = min(ranked, key=lambda rule: means[rule.name].value)
    text = (
        f"{START}choose knobs by {best.name} ({best.label}): it gives up "
        f"{percent(means[best.name].value)} points of AvgGap"
    )
    if BASE in means:
        text += f"; the authors' defaults give up {percent(means[BASE].value)}"
    return f"{text}."


def _is_free(rule: Rule) -> bool:
    """Return whether a user who retrains nothing, not even in part, has the rule."""
    return not rule.oracle and (not rule.retrainings or rule.needs == ("twin",))


def _everywhere(rule: Rule, by_rule: Mapping[str, Sequence[Regret]]) -> bool:
    """Return whether a rule has chosen on every request that any rule has."""
    requests = {one.forget for found in by_rule.values() for one in found}
    return {one.forget for one in by_rule[rule.name]} == requests


def _by_rule(found: Iterable[Regret]) -> dict[str, list[Regret]]:
    by_rule: dict[str, list[Regret]] = {}
    for one in found:
        by_rule.setdefault(one.rule, []).append(one)
    return by_rule


def _rows(study: RecordedStudy, found: Sequence[Regret]) -> list[Values]:
    by_rule = _by_rule(found)
    rules = [rule for rule in MENU_RULES if rule.name in by_rule]
    bases = {base: by_rule.get(base, []) for base in BASES}
    return [_row(study, rule, by_rule[rule.name], bases) for rule in rules]


def _row(
    study: RecordedStudy,
    rule: Rule,
    found: Sequence[Regret],
    bases: Mapping[str, Sequence[Regret]],
) -> Values:
    points = regret.mean_regret(found)
    within = regret.mean_regret(found, "within")
    spent = statistics.median(regret.by_cell(found, "seconds").values())
    return {
        "Rule": rule.name,
        "What it does": rule.label,
        "Retrainings": TableCell(number=regret.retrainings(study, rule), form="{:.2g}".format),
        "Cells": cells.counted(len(regret.by_cell(found, "points"))),
        "Regret": cells.difference(points.value, points.interval) if points else None,
        "Units": _mean(regret.mean_regret(found, "noise")),
        "Share": _median(regret.by_cell(found, "share").values()),
        "Near": TableCell(number=within.value, form=share) if within else None,
        **{
            f"Below {base}": _below(found, others) if others and rule.name != base else None
            for base, others in bases.items()
        },
        "Tau": _mean(regret.mean_regret(found, "tau")),
        "Seconds": TableCell(number=spent, form=seconds),
    }


def _below(found: Sequence[Regret], others: Sequence[Regret]) -> TableCell | None:
    """Return by how much the regret of a rule is below that of another, in the cells that both have."""
    less = regret.mean_regret(found, minus=others)
    return cells.difference(-less.value, _turned(less), BESIDE) if less else None


def _turned(found: Estimate) -> Interval | None:
    """Return the interval of the negative of a number."""
    ends = found.interval
    return None if ends is None else Interval(-ends.high, -ends.low)


def _mean(found: Estimate | None) -> TableCell | None:
    return TableCell(number=found.value, form="{:.2f}".format) if found else None


def _median(values: Iterable[float]) -> TableCell | None:
    listed = list(values)
    return TableCell(number=statistics.median(listed), form=share) if listed else None


def _cell_rows(study: RecordedStudy, found: Sequence[Regret]) -> list[Values]:
    by_rule = _by_rule(found)
    rows: list[Values] = []
    for rule in MENU_RULES:
        if rule.name in by_rule:
            points = regret.by_cell(by_rule[rule.name], "points")
            values = {method: points.get((forget, method)) for forget, method in points}
            named = {m.name: cells.difference(values.get(m.name)) for m in study.methods}
            rows.append({"Rule": rule.name, **named})
    return rows
