"""The main table of a study in a few lines of Markdown, as the description of its run in MLflow."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from reports import frames
from reports.load import RecordedStudy

LIMIT = 8000
"""Characters that MLflow takes."""
HEAD = (
    "| Request | Method | Recovery | Transferred | Defaults | Longer | AvgGap | Time (s) | Speed-up | Verdict |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
)
NOTE = (
    "In percent; time in seconds, speed-up over retraining. Recovery: 0 is doing nothing, 100 is retraining. Transferred, "
    "defaults, longer: with knobs of another request, the authors' defaults, more epochs. Verdict: equivalence test "
    "against the retrained models. A dash: not run, or nothing to measure. The whole report is among the artifacts: "
    "`report/index.html`."
)


def study_description(study: RecordedStudy, limit: int = LIMIT) -> str:
    """Return the counts of a study, and a row for each method and request, the best recovery of a request first.

    Rows at the end are left out, and counted, where the text would be longer than `limit`.
    """
    listed = _sorted(study)
    first, rows = f"{_counts(study)}. {_best(listed)}", [_row(row) for row in listed]
    whole = "\n".join([first, "", *HEAD, *rows, "", NOTE])
    if len(whole) <= limit:
        return whole
    left_out = "… and {} rows more, in the report."
    text = len(whole) - sum(len(row) + 1 for row in rows) + len(left_out) + 8
    shown = 0
    while shown < len(rows) and text + len(rows[shown]) + 1 <= limit:
        text += len(rows[shown]) + 1
        shown += 1
    rest = left_out.format(len(rows) - shown)
    return "\n".join([first, "", *HEAD, *rows[:shown], "", rest, "", NOTE])


def cell_description(row: Mapping[str, Any], knobs: str, number: int | None) -> str:
    """Return what a cell came to, in one or two sentences.

    Args:
        row: Its row of ``frames.methods``.
        knobs: The chosen values of the searched knobs; empty where there are none.
        number: The configuration that was chosen.
    """
    head = f"**{row['method']}** on {row['forget']}"
    if row["reason"]:
        return f"{head}: {row['reason']}."
    parts = [
        f"recovery {_percent(row['recovery_tuned'])} %"
        if row["measurable"]
        else "nothing to measure",
        f"AvgGap {_percent(row['avg_gap'])} %",
        f"{_number(row['seconds'], lambda seconds: f'{seconds:,.2f}')} s",
    ]
    if not math.isnan(row["time_ratio"]):
        parts.append(f"{_percent(row['time_ratio'])} % of the time of retraining")
    verdict = f" {row['verdict'].capitalize()} by the equivalence test." if row["verdict"] else ""
    chosen = f" Chosen: #{number}, `{knobs}`." if number is not None and knobs else ""
    return f"{head}: {', '.join(parts)}.{verdict}{chosen}"


def _counts(study: RecordedStudy) -> str:
    statuses = Counter(record.status for record in study.records)
    odd = [f"{n} {status}" for status, n in statuses.items() if status != "finished"]
    ended = f"{len(study.records)} trials" + (f" ({', '.join(odd)})" if odd else "")
    data = study.line.get("data", {}).get("name", "")
    model = study.definition.get("model", {}).get("name", "")
    setting = ", ".join(text for text in (data, model) if text)
    return f"**{study.name}**{f' ({setting})' if setting else ''}: {ended}"


def _best(rows: list[dict[str, Any]]) -> str:
    """The method with the highest recovery on each request, in words."""
    best: dict[str, str] = {}
    for row in rows:
        if row["role"] == "method" and not math.isnan(row["recovery_tuned"]):
            share = f"{100 * row['recovery_tuned']:.1f} %"
            best.setdefault(row["forget"], f"**{row['method']}** on {row['forget']} ({share})")
    nothing = {row["forget"]: "" for row in rows if not row["measurable"]}
    texts = [f"Best recovery: {', '.join(best.values())}."] if best else []
    texts += [f"Nothing to measure on {', '.join(nothing)}."] if nothing else []
    return " ".join(texts)


def _sorted(study: RecordedStudy) -> list[dict[str, Any]]:
    """The rows of the methods table, by request in the order of the study, then by recovery, then by AvgGap."""
    rows: list[dict[str, Any]] = frames.methods(study).to_dict("records")
    order = {request.name: position for position, request in enumerate(study.requests)}

    def place(row: dict[str, Any]) -> tuple[float, ...]:
        recovery, gap = row["recovery_tuned"], row["avg_gap"]
        known = not math.isnan(recovery)
        return (
            order[row["forget"]],
            not known,
            -recovery if known else 0.0,
            math.inf if math.isnan(gap) else gap,
        )

    return sorted(rows, key=place)


def _row(row: Mapping[str, Any]) -> str:
    recoveries = [
        _percent(row[f"recovery_{part}"]) for part in ("tuned", "transferred", "defaults", "longer")
    ]
    cells = [
        str(row["forget"]),
        str(row["method"]),
        *recoveries,
        _number(row["avg_gap"], lambda gap: f"{100 * gap:.2f}"),
        _number(row["seconds"], lambda seconds: f"{seconds:,.2f}"),
        _number(row["time_ratio"], lambda share: f"{1 / share:,.1f}" if share else "–"),
        str(row["reason"] or row["verdict"] or "–"),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None) -> str:
    return _number(value, lambda share: f"{100 * share:.1f}")


def _number(value: float | None, form: Callable[[float], str]) -> str:
    return "–" if value is None or math.isnan(value) else form(value)
