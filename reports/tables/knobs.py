"""Tables on the search: chosen knobs and whether the budget was enough, other rules of choice, importance."""

from __future__ import annotations

from collections.abc import Iterator

from mu import selection
from mu.selection import RULES, Candidate, Rule
from reports.analysis import choosing, tuning_check
from reports.analysis.importance import ENOUGH, importance, mean_shares
from reports.analysis.spaces import spans
from reports.analysis.summaries import compares
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables import cells
from reports.tables.cells import BLANK, Table, TableCell, Values
from reports.text import form_of, knob_text, label, searched_view


def knobs(study: RecordedStudy) -> Table | None:
    """Return the knobs that stand for each cell, and whether more trials could change the ranking."""
    caption = (
        f"{choosing.sentence(study)} Last quarter: by how much the expected best objective fell over the last quarter of "
        "the candidates (Dodge et al. 2019). To next: distance of the objective to the method ranked just "
        "before. A budget was enough when as much gain again would not close that distance, and no chosen value is within "
        "a tenth of its range of an end."
    )
    return cells.table_of(
        ("knobs", "Chosen knobs", caption, "Forget request"),
        cells.each_request(study, lambda r: [_knob_row(study, r, m) for m in study.methods]),
        texts=2,
    )


def rules(study: RecordedStudy) -> Table | None:
    """Return what it costs to choose knobs by another rule, over all cells."""
    caption = (
        f"What each rule would have chosen from the same candidates, by the {searched_view(study)} of the search seeds. An "
        "oracle compares with models retrained without the forgotten data; the other rules know what every user "
        f"has. Regret is {label(study.objective)} of the rule's choice minus the best one's."
    )
    rows = [row for rule in RULES if (row := _rule_row(study, rule))]
    head = ("rules", "Choosing without an oracle", caption, "Requests")
    return cells.table_of(head, [("all", "All requests", rows)], texts=2)


def chosen_by_rule(study: RecordedStudy) -> Table | None:
    """Return what each rule would have chosen in each cell."""
    caption = (
        "Searched knobs and objective of what each rule takes from the trials of a cell. A rule that reads a "
        "metric which was not recorded has no choice."
    )
    head = ("selection", "Choice of every rule", caption, "Forget request")
    return cells.table_of(
        head, cells.each_request(study, lambda request: _choice_rows(study, request)), texts=4
    )


def importances(study: RecordedStudy) -> Table | None:
    """Return the importance of each searched knob on each request."""
    caption = (
        "Share, in percent, of the variance of the objective that knobs explain one by one, by fANOVA on the "
        f"finished search trials; it needs {ENOUGH} of them. It says which knobs decide between good and "
        "destroyed models anywhere in the range, and not what there is to gain near the best. With few trials "
        "it is uncertain."
    )
    head = ("importance", "Importance of knobs", caption, "Method")
    groups = [
        (method.name, method.name, _importance_rows(study, method)) for method in study.methods
    ]
    return cells.table_of(head, groups, texts=2)


def _knob_row(study: RecordedStudy, request: RecordedRequest, method: RecordedMethod) -> Values:
    chosen = study.chosen(request.name, method.name)
    check = tuning_check.check_tuning(study, request.name, method.name)
    name = label(study.objective)
    row: dict[str, TableCell | str | None] = dict.fromkeys(
        ("Method", "Knobs", name, "Trial", "Candidates", "Last quarter", "To next", "Tuned enough?")
    )
    row |= {"Method": method.name, "Candidates": cells.counted(check.trials if check else 0)}
    if chosen is None or check is None:
        why = study.why_unchosen(request.name, method.name) or "not run"
        why = why if method.used_on(request.name) else "not asked for"
        return {**row, "Knobs": TableCell(why, words=True)}
    gain = None if check.enough is None else check.gain
    return {
        **row,
        "Knobs": knob_text(chosen.knobs),
        name: cells.value_of(study.objective, chosen.value),
        "Trial": choosing.trial(study, request.name, method.name),
        "Last quarter": cells.value_of(study.objective, gain),
        "To next": cells.value_of(study.objective, check.margin),
        "Tuned enough?": _verdict(check)
        if spans(study, method)
        else cells.missing_because("nothing to search"),
    }


def _verdict(check: tuning_check.TuningCheck) -> TableCell:
    if check.at_edge:
        return TableCell(f"no: {', '.join(check.at_edge)} at the edge of its range")
    if check.enough is None:
        return TableCell("too few to say", words=True)
    if not check.enough:
        return TableCell("more could change the ranking")
    return TableCell("yes: none is before it" if check.margin is None else "yes")


def _rule_row(study: RecordedStudy, rule: Rule) -> Values | None:
    """Return what a rule costs over all cells in which it has a choice; None where it has none."""
    regrets: list[tuple[float, str]] = []
    same = 0
    for request in study.requests:
        for method in study.methods if rule.applies(request.whole_class) else ():
            taken, regret = _choice(study, rule, request, method)
            if taken is None:
                continue
            regrets.append((regret, f" ({method.name}, {request.name})"))
            chosen = study.chosen(request.name, method.name)
            same += chosen is not None and taken.number == chosen.number
    if not regrets:
        return None
    worst, where = max(regrets, key=lambda item: item[0])
    form = form_of(study.objective)
    return {
        "Rule": rule.label,
        "Knows": _knows(study, rule),
        "Cells": cells.counted(len(regrets)),
        "Same choice": TableCell(number=same, form=str, suffix=f" of {len(regrets)}"),
        "Mean regret": TableCell(number=sum(r for r, _ in regrets) / len(regrets), form=form),
        "Largest regret": TableCell(number=worst, form=form, suffix=where if worst > 0 else ""),
    }


def _choice_rows(study: RecordedStudy, request: RecordedRequest) -> Iterator[Values]:
    heads = ("Knobs", "Knows", "Trial", label(study.objective), "Regret")
    for method in study.methods:
        if not study.candidates.get((request.name, method.name)):
            continue
        searched = [span.knob for span in spans(study, method)]
        for rule in RULES:
            if not rule.applies(request.whole_class):
                continue
            taken, regret = _choice(study, rule, request, method)
            row: dict[str, TableCell | str | None] = {"Method": method.name, "Rule": rule.label}
            row |= {**dict.fromkeys(heads), "Knows": _knows(study, rule)}
            if taken is None:
                yield {**row, "Knobs": TableCell("metrics not recorded", words=True)}
                continue
            varied = {knob: taken.knobs[knob] for knob in searched if knob in taken.knobs}
            row |= {"Knobs": knob_text(varied) or cells.NONE, "Trial": cells.counted(taken.number)}
            value, more = (cells.value_of(study.objective, v) for v in (taken.value, regret))
            yield {**row, label(study.objective): value, "Regret": more}


def _choice(
    study: RecordedStudy, rule: Rule, request: RecordedRequest, method: RecordedMethod
) -> tuple[Candidate | None, float]:
    """Return what a rule takes, and by how much its objective is above the best; None where metrics were not recorded."""
    eligible = study.eligible(request.name, method.name)
    taken = selection.choose(rule, eligible, study.references[request.name])
    best = selection.best_objective(eligible)
    return (taken, taken.value - best.value) if taken and best else (None, 0.0)


def _knows(study: RecordedStudy, rule: Rule) -> str:
    """Return whether a rule is an oracle; the best objective is none where that compares with no retrained model."""
    free = rule is selection.OBJECTIVE and not compares(study.objective)
    return "oracle" if rule.oracle and not free else "no retrained model"


def _importance_rows(study: RecordedStudy, method: RecordedMethod) -> Iterator[Values]:
    each = {request.name: importance(study, request, method) for request in study.requests}
    ranges = {span.knob: span for span in spans(study, method)}
    counted = any(result.shares for result in each.values())
    for knob, mean in mean_shares(study, method).items():
        shares = {
            name: TableCell(number=result.shares[knob])
            if knob in result.shares
            else cells.missing_because(result.reason)
            for name, result in each.items()
        }
        head = {"Knob": knob, "Range": ranges[knob].text}
        yield {**head, **shares, "Mean": TableCell(number=mean) if counted else BLANK}
