"""What was found, in sentences formed from the numbers by simple rules; the first few stand on cards.

No method is put first whose interval meets that of another, and none where doing nothing is as good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from mu.failing import failing_cells, say_failing
from reports import frames
from reports.analysis import tuning_check
from reports.analysis.comparison import NOTHING, pairs
from reports.analysis.robustness import robustness as of_method
from reports.analysis.summaries import TOLERANCE, cell_summary, retrained, scale
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.equivalence import DIFFERENT, SAME
from reports.tables import choice
from reports.text import count, percent, share

MOST, LISTED = 5, 4
"""Most cards, and most names in a sentence."""
WORDS = {
    SAME: "by every metric it is the same as retraining",
    DIFFERENT: "it can be told from retraining",
}
LEFT_OPEN = ", a difference that so few seeds leave open"


class Card(NamedTuple):
    """A sentence and the few words or the number above it."""

    head: str
    text: str


def cards(study: RecordedStudy) -> tuple[list[Card], list[str]]:
    """Return the cards of the first screen, and the sentences for which they have no room."""
    rule = choice.sentence(study)
    leaders = [closest(study, request) for request in study.requests if _measured(study, request)]
    first = [
        *filter(None, [unmeasured(study)]),
        *sorted(leaders, key=lambda card: card.head.endswith("methods"))[:2],
        *([Card("Without an oracle", rule)] if rule else []),
        *filter(None, [equal(study), slower(study), robustness(study)]),
    ]
    if not leaders and len(first) == 0:
        first = [Card("No result yet", "No method has a gap to retraining yet.")]
    shown = first[:MOST]
    rest = [card.text for card in [*leaders, *first] if card not in shown]
    rest += [
        *(over_forgetting(study), told_apart(study), tuned_enough(study)),
        *(below_floor(study), unfinished(study)),
    ]
    return shown, [text for text in rest if text]


def sentences(study: RecordedStudy) -> list[str]:
    """Return all that the cards and the list below them say."""
    shown, rest = cards(study)
    return [*(card.text for card in shown), *rest]


def closest(study: RecordedStudy, request: RecordedRequest) -> Card:
    """Return which method recovers most of a request, at which cost, or which cannot be told apart."""
    rows = _rows(study, request).sort_values("recovery_tuned", ascending=False, kind="stable")
    best = rows.iloc[0]
    on, value = f"on {request.name}", best["recovery_tuned"]
    if value <= TOLERANCE:
        return Card("0 %", f"No method is closer to retraining than doing nothing {on}.")
    rivals = rows.iloc[1:]
    equals = rivals[~(rivals["recovery_tuned_high"] < best["recovery_tuned_low"])]
    ceiling = scale(study, request).ceiling
    above = (
        "; with fewer than two retrained models, what chance does is unknown"
        if ceiling is None
        else f"; a retrained model gets {_percent(ceiling)} %"
    )
    if len(equals):
        names = _listed([best["method"], *equals["method"]], LISTED)
        span = f"{_percent(equals.iloc[-1]['recovery_tuned'])} to {_percent(value)} %"
        text = (
            f"{names} cannot be told apart {on}: they get {span} of the way to retraining{above}."
        )
        return Card(f"{1 + len(equals)} methods", text)
    text = (
        f"{best['method']} gets {_percent(value)} %{_interval(best)} of the way to retraining {on}"
    )
    if pd.notna(best["time_ratio"]):
        text += f" at {_percent(best['time_ratio'])} % of its cost"
    if pd.notna(best["recovery_transferred"]):
        text += f"; with knobs from another set, {_percent(best['recovery_transferred'])} %"
    if best["verdict"] in WORDS:
        text += f"; {WORDS[best['verdict']]}"
    if len(rivals):
        second = rivals.iloc[0]
        text += f"; {second['method']} follows with {_percent(second['recovery_tuned'])} %"
    worse = list(rows.loc[rows["recovery_tuned_high"] < 0, "method"])
    if worse:
        text += f"; {_listed(worse, LISTED)} {_are(worse)} further off than doing nothing"
    return Card(f"{_percent(value)} %", f"{text}{above}.")


def unmeasured(study: RecordedStudy) -> Card | None:
    """Return on which requests doing nothing is about as good as retraining."""
    names = [request.name for request in study.requests if scale(study, request).nothing]
    if not names:
        return None
    text = f"On {_listed(names, LISTED)} there is nothing to measure: doing nothing is within three noise floors of retraining."
    return Card("Nothing to measure", text)


def equal(study: RecordedStudy) -> Card | None:
    """Return where most methods are the same as retraining, by an equivalence test of every metric."""
    frame = frames.methods(study).dropna(subset=["recovery_tuned"])
    tested = frame[(frame["role"] == "method") & (frame["verdict"] != "")]
    if tested.empty:
        return None
    name = (tested["verdict"] == SAME).groupby(tested["forget"], sort=False).sum().idxmax()
    rows = tested[tested["forget"] == name]
    same = rows.loc[rows["verdict"] == SAME, "method"]
    differ = int((rows["verdict"] == DIFFERENT).sum())
    left = len(rows) - len(same) - differ
    rest = f"{differ} differ{'s' if differ == 1 else ''}, {left} {_are(left)} undecided"
    head = f"{len(same)} of {len(rows)}"
    if same.empty:
        text = f"No method is shown to be the same as retraining on any request; on {name}, {rest}."
        return Card(head, text)
    text = f"On {name}, {_listed(same, LISTED)} {_are(same)} the same as retraining by every metric; {rest}."
    return Card(head, text)


def slower(study: RecordedStudy) -> Card | None:
    """Return which methods take longer than retraining, by their median over the requests."""
    frame = frames.methods(study)
    ratios = frame[frame["role"] == "method"].dropna(subset=["time_ratio"])
    times = ratios.groupby("method", sort=False)["time_ratio"].median().sort_values(kind="stable")
    if times.empty:
        return None
    slow = times[times > 1]
    over = ", by the median over the requests" if ratios["forget"].nunique() > 1 else ""
    quickest = f"{times.index[0]} takes {_percent(times.iloc[0])} % of its time"
    if slow.empty:
        text = f"No method is slower than retraining{over}: {quickest}."
        return Card(f"{_percent(times.iloc[-1])} % at most", text)
    names = _listed([f"{name} ({_percent(value)} %)" for name, value in slow.items()], LISTED)
    head = f"{len(slow)} of {len(times)}"
    return Card(head, f"{names} {_are(len(slow))} slower than retraining{over}; {quickest}.")


def robustness(study: RecordedStudy) -> Card | None:
    """Return who gets furthest, and least far, without knobs of its own; of methods that lack nothing."""
    totals = {
        method.name: result.total
        for method in study.methods
        if (result := of_method(study, method)).whole and result.total is not None
    }
    if len(totals) < 2:
        return None
    ordered = sorted(totals, key=lambda name: -totals[name].value)
    best, worst = totals[ordered[0]], totals[ordered[-1]]
    text = (
        f"With knobs that were not tuned on the request itself, {ordered[0]} recovers most "
        f"({share(best.value)} %) and {ordered[-1]} least ({share(worst.value)} %)"
    )
    apart = best.minus(worst).interval
    text += "." if apart and apart.low > TOLERANCE else f"{LEFT_OPEN}."
    return Card(f"{_percent(worst.value)} to {_percent(best.value)} %", text)


def over_forgetting(study: RecordedStudy) -> str:
    """Return whose forget accuracy falls below the retrained models' by more than the noise floor."""
    drops: list[tuple[float, str]] = []
    floors: list[float | None] = []
    for request in study.requests:
        reference = retrained(study, request)
        level, floor = (v.get("acc_forget") for v in (reference.means, reference.floors))
        for method in study.methods:
            longer = cell_summary(study, request, method.name, "sufficient")
            value = longer.spreads.get("acc_forget")
            if value is not None and level is not None:
                floors.append(floor)
                drop = level - value.mean
                if drop > (floor or 0.0) + TOLERANCE:
                    where = f"{method.name} on {request.name} ({percent(drop)} points)"
                    drops.append((drop, where))
    if not floors:
        return ""
    start = f"With {study.sufficient_epochs} epochs"
    measure = "(the noise floor is unknown)" if None in floors else "by more than the noise floor"
    if not drops:
        return f"{start}, no method's forget accuracy falls below that of retraining {measure}."
    named = [text for _, text in sorted(drops, reverse=True)]
    return f"{start}, forget accuracy falls below that of retraining {measure} for {_listed(named, LISTED)}."


def told_apart(study: RecordedStudy) -> str:
    """Return how many pairs of methods differ over the requests."""
    every = [pair for pair in pairs(study) if NOTHING not in (pair.first, pair.second)]
    if not every:
        return ""
    most = max(pair.requests for pair in every)
    apart = sum(pair.told_apart for pair in every)
    return f"Over {count(most, 'request')}, {apart} of {count(len(every), 'pair')} of methods can be told apart."


def tuned_enough(study: RecordedStudy) -> str:
    """Return in how many cells the budget may decide the ranking, or better knobs may lie beyond the range."""
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
    """Return in which cells no configuration keeps as much utility as the study asks for."""
    limit = study.max_utility_loss
    cells = [f"{method} on {forget}" for (forget, method), d in study.decisions.items() if d.lossy]
    if not cells or limit is None:
        return ""
    return (
        f"Every configuration loses more than {100 * limit:g} points of held-out accuracy on what is kept for "
        f"{_listed(cells, LISTED)}."
    )


def unfinished(study: RecordedStudy) -> str:
    """Return how many trials gave no result, and how many are still to run."""
    statuses = Counter(record.status for record in study.records)
    words = {"failed": "failed", "diverged": "diverged", "stopped": "stopped early"}
    parts = [f"{statuses[name]:,} {word}" for name, word in words.items() if statuses[name]]
    total = len(study.records)
    text = f"Of {total:,} trials, {_listed(parts, 3)}; they give no numbers." if parts else ""
    limit = study.definition.get("max_failures")
    ended = say_failing(failing_cells(study.records, limit), limit)
    if ended:
        text += f" Cells {ended}."
    if missing := to_run(study):
        text += f" {missing:,} planned trials have not run."
    return text.strip()


def to_run(study: RecordedStudy) -> int:
    """Return how many trials of the plan have not ended."""
    counts = study.counts().items()
    return sum(max(0, (study.planned(phase) or 0) - sum(c.values())) for phase, c in counts)


def _measured(study: RecordedStudy, request: RecordedRequest) -> bool:
    return scale(study, request).measurable and len(_rows(study, request)) > 0


def _rows(study: RecordedStudy, request: RecordedRequest) -> pd.DataFrame:
    """Return the methods that have a recovery on a request."""
    frame = frames.methods(study)
    mine = frame[(frame["forget"] == request.name) & (frame["role"] == "method")]
    return mine.dropna(subset=["recovery_tuned"])


def _interval(row: Any) -> str:
    low, high = row["recovery_tuned_low"], row["recovery_tuned_high"]
    return "" if pd.isna(low) else f" ({_percent(low)} to {_percent(high)})"


def _percent(value: float) -> str:
    """Return a share in percent, with a decimal where it is small."""
    points = round(100 * value, 9)  # the same text wherever sums are rounded otherwise
    text = f"{points:.0f}" if abs(points) >= 10 else f"{points:.1f}"
    return text.replace("-0.0", "0.0").replace("-", "\u2212")


def _are(items: Any) -> str:
    return "is" if (items if isinstance(items, int) else len(items)) == 1 else "are"


def _listed(items: Iterable[str], most: int) -> str:
    """Return items as a sentence has them; those beyond `most` are counted."""
    texts: list[str] = list(items)
    if len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most} more"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
