"""Tables of choosing knobs without a retrained model: what each rule gives up against the best of the menu."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from mu.rules import RULE
from mu.selection import Rule
from reports.analysis import regret
from reports.load import RecordedRequest, RecordedStudy
from reports.tables import cells
from reports.tables.cells import Table, TableCell, Values
from reports.text import Form, percent, seconds, share

BASE = "defaults"
"""What a user without any rule would do."""
START = "Without a retrained model, "
BASES = (BASE, "held_out")
"""The rules that others are compared with: `held_out` is that of the literature."""


def choice(study: RecordedStudy) -> Table | None:
    """Return the regret of every rule, over all requests and on each."""
    found = regret.cells(study)
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
    groups: list[tuple[str, str, Iterable[Values]]]
    groups = [("all", "All requests", _rows(study, found))]
    if len(study.requests) > 1:
        groups += cells.each_request(
            study, lambda r: _rows(study, found[found["forget"] == r.name])
        )
    head = ("choice", "Choosing knobs without a retrained model", caption, "Forget request")
    return cells.table_of(head, groups, texts=2)


def choice_by_cell(study: RecordedStudy) -> Table | None:
    """Return the regret of every rule in every cell."""
    found = regret.cells(study)
    caption = "Regret of each rule for each method, in percent points, the mean over the seeds on which it chose."
    head = ("choice_cells", "The same, method by method", caption, "Forget request")

    def rows(request: RecordedRequest) -> Iterator[Values]:
        for rule, of in regret.by_rule(found[found["forget"] == request.name]).items():
            points = regret.by_cell(of, "points").droplevel("forget")
            named = {m.name: cells.difference(points.get(m.name)) for m in study.methods}
            yield {"Rule": rule.name, **named}

    return cells.table_of(head, cells.each_request(study, rows))


def sentence(study: RecordedStudy) -> str:
    """Return which rule without a retrained model gives up least, and how much; empty without a menu.

    Requests for whole classes have rules of their own, and a sentence of their own where there are others.
    """
    found = regret.cells(study)
    classes = found["forget"].isin([r.name for r in study.requests if r.whole_class])
    samples, whole = _best_of(found[~classes]), _best_of(found[classes])
    if samples and whole:
        whole = f"Where a whole class goes: {whole.removeprefix(START)}"
    return " ".join(filter(None, [samples, whole]))


def _best_of(found: pd.DataFrame) -> str:
    """Return the sentence on requests of one kind; empty where no rule has chosen on all of them."""
    everywhere = found["forget"].nunique()
    free = {rule: of for rule, of in regret.by_rule(found).items() if _is_free(rule)}
    means = {rule: mean for rule, of in free.items() if (mean := regret.mean_regret(of))}
    whole = [r for r in means if r.ranks and free[r]["forget"].nunique() == everywhere]
    if not whole:
        return ""
    best = min(whole, key=lambda rule: means[rule].value)
    text = (
        f"{START}choose knobs by {best.name} ({best.label}): it gives up "
        f"{percent(means[best].value)} points of AvgGap"
    )
    if base := means.get(RULE[BASE]):
        text += f"; the authors' defaults give up {percent(base.value)}"
    return f"{text}."


def _is_free(rule: Rule) -> bool:
    """Return whether a user who retrains nothing, not even in part, has the rule."""
    return not rule.oracle and (not rule.retrainings or rule.needs == ("twin",))


def _rows(study: RecordedStudy, found: pd.DataFrame) -> Iterator[Values]:
    every = regret.by_rule(found)
    for rule, of in every.items():
        points, within = regret.mean_regret(of), regret.mean_regret(of, "within")
        yield {
            "Rule": rule.name,
            "What it does": rule.label,
            "Retrainings": TableCell(number=regret.retrainings(study, rule), form="{:.2g}".format),
            "Cells": cells.counted(len(regret.by_cell(of, "points"))),
            "Regret": cells.difference(points.value, points.interval) if points else None,
            "Units": _mean(of, "noise"),
            "Share": _median(of, "share", share),
            "Near": TableCell(number=within.value, form=share) if within else None,
            **{f"Below {base}": _below(of, every, base) for base in BASES},
            "Tau": _mean(of, "tau"),
            "Seconds": _median(of, "seconds", seconds),
        }


def _below(found: pd.DataFrame, every: Mapping[Rule, pd.DataFrame], base: str) -> TableCell | None:
    """Return by how much the regret of a rule is below that of another, in the cells that both have."""
    others = every.get(RULE[base])
    if others is None or others is found:
        return None
    less = regret.mean_regret(others, minus=found)
    return cells.difference(less.value, less.interval) if less else None


def _mean(found: pd.DataFrame, value: str) -> TableCell | None:
    mean = regret.mean_regret(found, value)
    return TableCell(number=mean.value, form="{:.2f}".format) if mean else None


def _median(found: pd.DataFrame, value: str, form: Form) -> TableCell | None:
    listed = regret.by_cell(found, value).tolist()
    return TableCell(number=statistics.median(listed), form=form) if listed else None
