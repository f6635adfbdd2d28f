"""Tables on the search: chosen knobs and whether the budget was enough, other rules of choice, importance."""

from __future__ import annotations

from dataclasses import dataclass

from mu import selection
from mu.selection import RULES, Candidate, Rule
from reports.analysis import choosing, tuning_check
from reports.analysis.importance import ENOUGH, importance, mean_shares
from reports.analysis.spaces import spans
from reports.analysis.summaries import compares
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy
from reports.tables.cells import (
    BLANK,
    NONE,
    Group,
    Row,
    Table,
    TableCell,
    by_request,
    knob_text,
    label,
    number,
    percent,
    searched_view,
)


@dataclass(frozen=True)
class Choice:
    """What a rule makes of the trials of a cell.

    Args:
        candidate: The configuration that it takes; None when its metrics were not recorded.
        regret: By how much the objective is above the best; None without a candidate.
    """

    candidate: Candidate | None
    regret: float | None


def knobs(study: RecordedStudy) -> Table:
    """The knobs that stand for each cell, and whether more trials could change the ranking."""
    return Table(
        "knobs",
        "Chosen knobs",
        f"{choosing.sentence(study)} Last quarter: by how much the expected best objective fell over the last quarter of "
        "the candidates (Dodge et al. 2019). To next: distance of the objective to the method ranked just "
        "before. A budget was enough when as much gain again would not close that distance, and no chosen value is within "
        "a tenth of its range of an end.",
        "Forget request",
        (
            "Method",
            "Knobs",
            label(study.objective),
            "Trial",
            "Candidates",
            "Last quarter",
            "To next",
            "Tuned enough?",
        ),
        by_request(study, lambda request: _knob_rows(study, request)),
        texts=2,
    )


def rules(study: RecordedStudy) -> Table | None:
    """What it costs to choose knobs by another rule, over all cells."""
    rows = []
    for rule in RULES:
        found = [
            (request, method, choice)
            for request in study.requests
            if rule.applies(request.whole_class)
            for method in study.methods
            if (choice := _choice(study, rule, request, method)).regret is not None
        ]
        if not found:
            continue
        regrets = [choice.regret or 0.0 for *_, choice in found]
        request, method, _ = found[max(range(len(found)), key=regrets.__getitem__)]
        same = sum(
            choice.candidate is not None
            and (chosen := study.chosen(request.name, method.name)) is not None
            and choice.candidate.number == chosen.number
            for request, method, choice in found
        )
        worst = number(study.objective, max(regrets))
        rows.append(
            (
                TableCell(rule.label),
                TableCell(_knows(study, rule)),
                TableCell(str(len(found))),
                TableCell(f"{same} of {len(found)}"),
                TableCell(number(study.objective, sum(regrets) / len(regrets))),
                TableCell(
                    f"{worst} ({method.name}, {request.name})" if max(regrets) > 0 else worst
                ),
            )
        )
    if not rows:
        return None
    return Table(
        "rules",
        "Choosing without an oracle",
        f"What each rule would have chosen from the same candidates, by the {searched_view(study)} of the search seeds. An "
        "oracle compares with models retrained without the forgotten data; the other rules know what every user "
        f"has. Regret is {label(study.objective)} of the rule's choice minus the best one's.",
        "Requests",
        ("Rule", "Knows", "Cells", "Same choice", "Mean regret", "Largest regret"),
        (Group("all", "All requests", tuple(rows)),),
        texts=2,
    )


def chosen_by_rule(study: RecordedStudy) -> Table | None:
    """What each rule would have chosen in each cell."""
    if not any(study.candidates.values()):
        return None
    return Table(
        "selection",
        "Choice of every rule",
        "Searched knobs and objective of what each rule takes from the trials of a cell. A rule that reads a "
        "metric which was not recorded has no choice.",
        "Forget request",
        ("Method", "Rule", "Knobs", "Knows", "Trial", label(study.objective), "Regret"),
        by_request(study, lambda request: _rule_rows(study, request)),
        texts=4,
    )


def importances(study: RecordedStudy) -> Table | None:
    """Importance of each searched knob on each request."""
    groups = tuple(
        Group(method.name, method.name, rows)
        for method in study.methods
        if (rows := _importance_rows(study, method))
    )
    if not groups:
        return None
    return Table(
        "importance",
        "Importance of knobs",
        "Share, in percent, of the variance of the objective that knobs explain one by one, by fANOVA on the "
        f"finished search trials; it needs {ENOUGH} of them. It says which knobs decide between good and "
        "destroyed models anywhere in the range, and not what there is to gain near the best. With few trials "
        "it is uncertain.",
        "Method",
        ("Knob", "Range", *(request.name for request in study.requests), "Mean"),
        groups,
        texts=2,
    )


def _knob_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    rows: list[Row] = []
    for method in study.methods:
        best = study.chosen(request.name, method.name)
        enough = tuning_check.check_tuning(study, request.name, method.name)
        if best is None or enough is None:
            tried = study.searched(request.name, method.name)
            why = "no finished search trial" if tried else "not run"
            why = why if method.used_on(request.name) else "not asked for"
            rest = (BLANK, BLANK, TableCell("0"), BLANK, BLANK, BLANK)
            rows.append((TableCell(method.name), TableCell(why, words=True), *rest))
            continue
        rows.append(
            (
                TableCell(method.name),
                TableCell(knob_text(best.knobs)),
                TableCell(number(study.objective, best.value)),
                TableCell(choosing.trial(study, request.name, method.name)),
                TableCell(str(enough.trials)),
                BLANK if enough.enough is None else TableCell(number(study.objective, enough.gain)),
                BLANK
                if enough.margin is None
                else TableCell(number(study.objective, enough.margin)),
                _verdict(enough)
                if spans(study, method)
                else TableCell("nothing to search", words=True),
            )
        )
    return rows


def _verdict(found: tuning_check.TuningCheck) -> TableCell:
    if found.at_edge:
        return TableCell(f"no: {', '.join(found.at_edge)} at the edge of its range")
    if found.enough is None:
        return TableCell("too few to say", words=True)
    if not found.enough:
        return TableCell("more could change the ranking")
    return TableCell("yes: none is before it" if found.margin is None else "yes")


def _rule_rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    rows: list[Row] = []
    for method in study.methods:
        if not study.candidates.get((request.name, method.name)):
            continue
        searched = [span.knob for span in spans(study, method)]
        for rule in RULES:
            if not rule.applies(request.whole_class):
                continue
            found = _choice(study, rule, request, method)
            head = (TableCell(method.name), TableCell(rule.label))
            if found.candidate is None or found.regret is None:
                why = TableCell("metrics not recorded", words=True)
                rows.append((*head, why, TableCell(_knows(study, rule)), BLANK, BLANK, BLANK))
                continue
            chosen = found.candidate
            varied = {knob: chosen.knobs[knob] for knob in searched if knob in chosen.knobs}
            rows.append(
                (
                    *head,
                    TableCell(knob_text(varied) or NONE),
                    TableCell(_knows(study, rule)),
                    TableCell(str(chosen.number)),
                    TableCell(number(study.objective, chosen.value)),
                    TableCell(number(study.objective, found.regret)),
                )
            )
    return rows


def _choice(
    study: RecordedStudy, rule: Rule, request: RecordedRequest, method: RecordedMethod
) -> Choice:
    found = study.eligible(request.name, method.name)
    taken = selection.choose(rule, found, study.references[request.name])
    best = selection.best_objective(found)
    if taken is None or best is None:
        return Choice(None, None)
    return Choice(taken, taken.value - best.value)


def _knows(study: RecordedStudy, rule: Rule) -> str:
    """Whether a rule is an oracle; the best objective is none where that compares with no retrained model."""
    free = rule is selection.OBJECTIVE and not compares(study.objective)
    return "oracle" if rule.oracle and not free else "no retrained model"


def _importance_rows(study: RecordedStudy, method: RecordedMethod) -> tuple[Row, ...]:
    found = [importance(study, request, method) for request in study.requests]
    means = mean_shares(study, method)
    ranges = {span.knob: span for span in spans(study, method)}
    counted = any(result.shares for result in found)
    return tuple(
        (
            TableCell(knob),
            TableCell(ranges[knob].text),
            *(
                TableCell(percent(result.shares[knob]))
                if knob in result.shares
                else TableCell(result.reason or NONE, words=True)
                for result in found
            ),
            TableCell(percent(mean)) if counted else BLANK,
        )
        for knob, mean in means.items()
    )
