"""The plain summary: sentences formed from the results by simple rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mu.failing import failing_cells, say_failing
from reports.analysis import choosing, tuning_check
from reports.analysis.comparison import NOTHING, pairs
from reports.analysis.robustness import robustness as of_method
from reports.analysis.summaries import TOLERANCE, cell_summary, recovered, retrained, scale
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.equivalence import DIFFERENT, SAME
from reports.statistics.intervals import Estimate
from reports.text import count, percent, share

LEFT_OPEN = ", a difference that so few seeds leave open"


def sentences(study: RecordedStudy) -> list[str]:
    """Who is closest, who over-forgets, whose knobs do not transfer, how sure that is, and what did not finish."""
    found = [closest(study, request) for request in study.requests]
    if not any(found):
        found = ["No method has a gap to retraining yet."]
    found += [
        over_forgetting(study),
        robustness(study),
        told_apart(study),
        tuned_enough(study),
        below_floor(study),
        unfinished(study),
    ]
    return [sentence for sentence in found if sentence]


def closest(study: RecordedStudy, request: RecordedRequest) -> str:
    """The method that recovers most of a request, beside ceiling and runner-up; empty without one."""
    by = scale(study, request)
    if by.nothing:
        return f"On {request.name} there is nothing to measure: doing nothing is within three noise floors of retraining."
    results = {method.name: cell_summary(study, request, method.name) for method in study.methods}
    shares = {
        name: estimate
        for name, result in results.items()
        if (estimate := recovered(study, request, result)) is not None
    }
    if not shares:
        return ""
    (name, best), *others = sorted(shares.items(), key=lambda item: -item[1].value)
    if best.value <= TOLERANCE:
        return f"On {request.name}, no method is closer to retraining than doing nothing."
    word = {
        SAME: ", the same as retraining by all metrics",
        DIFFERENT: ", different from retraining",
    }
    text = f"On {request.name}, {name} comes closest to retraining: recovery {share(best.value)} %"
    text += word.get(
        results[name].verdict, ", and its runs leave open whether it is the same as retraining"
    )
    if by.ceiling is None:
        text += "; with fewer than two retrained models, what chance does is unknown"
    else:
        text += f"; a retrained model gets {share(by.ceiling)} %"
    if others:
        second, next_best = others[0]
        text += f"; {second} follows with {share(next_best.value)} %"
        text += LEFT_OPEN * (not _sure(_apart(best, next_best)))
    worse = [other for other, estimate in shares.items() if estimate.value < 0]
    if worse:
        text += f"; {_listed(worse, 4)} {'is' if len(worse) == 1 else 'are'} further off than doing nothing"
    return text + "."


def _apart(better: Estimate, worse: Estimate) -> Estimate:
    """The difference of two estimates that share their bootstrap samples."""
    n = min(worse.n, better.n)
    return Estimate(better.value - worse.value, better.replicas - worse.replicas, n)


def over_forgetting(study: RecordedStudy) -> str:
    """Methods whose forget accuracy falls below the retrained models' by more than the noise floor."""
    drops: list[tuple[float, str]] = []
    tried, floors = False, True
    for request in study.requests:
        reference = retrained(study, request)
        level = reference.means.get("acc_forget")
        for method in study.methods:
            value = cell_summary(study, request, method.name, "sufficient").spreads.get(
                "acc_forget"
            )
            if value is None or level is None:
                continue
            tried, floors = True, floors and "acc_forget" in reference.floors
            drop = level - value.mean
            if drop > reference.floors.get("acc_forget", 0.0) + TOLERANCE:
                drops.append((drop, f"{method.name} on {request.name} ({percent(drop)} points)"))
    if not tried:
        return ""
    start = f"With {study.sufficient_epochs} epochs"
    measure = "by more than the noise floor" if floors else "(the noise floor is unknown)"
    if not drops:
        return f"{start}, no method's forget accuracy falls below that of retraining {measure}."
    named = [text for _, text in sorted(drops, reverse=True)]
    return f"{start}, forget accuracy falls below that of retraining {measure} for {_listed(named, 4)}."


def robustness(study: RecordedStudy) -> str:
    """Who gets furthest, and least far, without knobs of its own; of methods that lack nothing."""
    totals = {
        method.name: found.total
        for method in study.methods
        if (found := of_method(study, method)).whole and found.total is not None
    }
    if len(totals) < 2:
        return ""
    ordered = sorted(totals, key=lambda name: -totals[name].value)
    best, worst = totals[ordered[0]], totals[ordered[-1]]
    return (
        f"With knobs that were not tuned on the request itself, {ordered[0]} recovers most "
        f"({share(best.value)} %) and {ordered[-1]} least ({share(worst.value)} %)"
        f"{'' if _sure(_apart(best, worst)) else LEFT_OPEN}."
    )


def told_apart(study: RecordedStudy) -> str:
    """How many pairs of methods differ over the requests."""
    every = [pair for pair in pairs(study) if NOTHING not in (pair.first, pair.second)]
    if not every:
        return ""
    most = max(pair.requests for pair in every)
    apart = sum(pair.told_apart for pair in every)
    return f"Over {count(most, 'request')}, {apart} of {count(len(every), 'pair')} of methods can be told apart."


def tuned_enough(study: RecordedStudy) -> str:
    """In how many cells the budget may decide the ranking, or better knobs may lie beyond the range."""
    checks = [
        check
        for request in study.requests
        for method in study.methods
        if (check := tuning_check.check_tuning(study, request.name, method.name)) is not None
        and check.enough is not None
    ]
    edges = sum(bool(check.at_edge) for check in checks)
    short = sum(check.enough is False for check in checks) - edges
    parts = [
        (short, "a larger search budget could change the ranking"),
        (edges, "a chosen knob is at the edge of its range"),
    ]
    cells = count(len(checks), "cell")
    return " ".join(f"In {number} of {cells}, {what}." for number, what in parts if number)


def below_floor(study: RecordedStudy) -> str:
    """In which cells no configuration keeps as much utility as the study asks for."""
    cells, limit = choosing.below_floor(study), study.max_utility_loss
    if not cells or limit is None:
        return ""
    return (
        f"Every configuration loses more than {100 * limit:g} points of held-out accuracy on what is kept for "
        f"{_listed(cells, 4)}."
    )


def unfinished(study: RecordedStudy) -> str:
    """How many trials gave no result, and how much is still to run."""
    statuses = Counter(record.status for record in study.records)
    parts = [
        f"{statuses[status]:,} {word}"
        for status, word in (
            ("failed", "failed"),
            ("diverged", "diverged"),
            ("stopped", "stopped early"),
        )
        if statuses[status]
    ]
    total = len(study.records)
    text = f"Of {total:,} trials, {_listed(parts, 3)}; they give no numbers." if parts else ""
    limit = study.definition.get("max_failures")
    ended = say_failing(failing_cells(study.records, limit), limit)
    if ended:
        text += f" Cells {ended}."
    missing = sum(
        max(0, (study.planned(phase) or 0) - sum(counter.values()))
        for phase, counter in study.counts().items()
    )
    if missing:
        text += f" {missing:,} planned trials have not run."
    return text.strip()


def _sure(difference: Estimate | None) -> bool:
    """Whether the interval of a difference leaves out 0; without an interval nothing is sure."""
    interval = difference.interval if difference else None
    return interval is not None and interval.low > TOLERANCE


def _listed(items: Iterable[str], most: int) -> str:
    """Items as a sentence has them; those beyond `most` are counted."""
    texts = list(items)
    if len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most} more"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
