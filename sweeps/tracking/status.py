"""``musweep status``: how far a study is, what it costs, and what went wrong, from its folder alone."""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mu.choice import Choice, Decision, choice_of, decisions
from mu.current import name_in_study
from mu.failing import failing_cells, say_failing
from mu.metrics import MEAN_GAPS
from mu.record import REFERENCE_ROLES, STATUSES, TrialRecord
from sweeps.phases import trial_phases
from sweeps.state import costs, results
from sweeps.tracking.progress import duration, side_by_side

if TYPE_CHECKING:
    from reports.load import RecordedStudy

RECENT = 100
"""Trials that the rate is taken over."""
UNITS = {"gpus": "GPU-hours", "cpus": "CPU-hours"}


def show(
    folder: Path, line: Mapping[str, Any], records: Sequence[TrialRecord], console: Console
) -> None:
    """Print the state of a study, running or not.

    Args:
        line: The last `study` line of its results.
        records: Its records.
    """
    owner, live = results.owner(folder), _summary(folder)
    state = f"run by {owner}" if owner else "not running"
    console.print(f"{line['study']}: {len(records)} trials recorded, {state}", soft_wrap=True)
    planned = line.get("planned")
    console.print(_phases(planned, records))
    study, choice = _reported(line, records), choice_of(line["definition"])
    cells = [(forget, method) for forget in line["requests"] for method in line["methods"]]
    chosen = study.decisions if study else decisions(choice, records, cells)
    layout = partial(_table, line, _best(line, records, choice, chosen))
    for table in side_by_side(list(line["requests"]), layout, console):
        console.print(table)
    if study:
        from reports import terminal

        terminal.show(study, console)
    limit = line["definition"].get("max_failures")
    failing = say_failing(failing_cells(records, limit), limit)
    for text in (
        _ended(line),
        failing,
        _rate(records, live if owner else {}),
        _cost(line, records, live),
    ):
        if text:
            console.print(text, soft_wrap=True, highlight=False)
    for text in failures(records):
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def _reported(line: Mapping[str, Any], records: Sequence[TrialRecord]) -> RecordedStudy | None:
    """Return the study as reports have it, once a run of the report has ended."""
    if not any(record.phase == "confirm" for record in records):
        return None
    from reports import load  # which takes a second to import

    return load.assemble(line, records, {})


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _phases(planned: costs.Planned | None, records: Sequence[TrialRecord]) -> Table:
    table = Table("phase", "planned", *STATUSES, box=None, padding=(0, 2, 0, 0))
    counts = results.counts({record.key: record for record in records})
    for phase in dict.fromkeys([*(planned or {}), *counts]):
        count = "" if not planned or phase not in planned else f"{planned[phase]['trials']:g}"
        statuses = counts.get(phase, {})
        if count not in ("", "0") or statuses:
            table.add_row(phase, count, *(str(statuses.get(status, 0)) for status in STATUSES))
    return table


def _best(
    line: Mapping[str, Any],
    records: Sequence[TrialRecord],
    choice: Choice,
    chosen: Mapping[tuple[str, str], Decision],
) -> dict[tuple[str, str], str]:
    """The best value of every cell so far, its recovery, and how many of its trials have finished, by method and request."""
    search = line["definition"]["search"]
    asked = {name_in_study(m): m.get("forget") for m in line["definition"].get("methods", ())}
    known = [record for record in records if record.method in REFERENCE_ROLES]
    texts = {}
    for method, about in line["methods"].items():
        budget, wanted = (
            about.get("trials", search["trials"]),
            asked.get(method) or line["requests"],
        )
        for forget in line["requests"]:
            if forget not in wanted:
                texts[method, forget] = "-"
                continue
            decision = chosen[forget, method]
            best, tried = decision.chosen, len(decision.tried)
            theirs = [record for record in known if record.forget == forget]
            share = _recovery(best.value, theirs, choice) if best else ""
            text = f"{best.value:.4f}{share} ({tried}/{budget})" if best else f"0/{budget}"
            texts[method, forget] = text
    return texts


def _recovery(value: float, references: Sequence[TrialRecord], choice: Choice) -> str:
    """The share of the way from doing nothing to retraining, where the objective is a mean gap."""
    if choice.objective not in ("mean_gap", *MEAN_GAPS[True], *MEAN_GAPS[False]):
        return ""
    nothing = [
        r.metrics.get(choice.view, {}).get(choice.objective, math.nan)
        for r in references
        if r.method == "original" and r.finished and r.seed in choice.seeds
    ]
    mean = sum(nothing) / len(nothing) if nothing else math.nan
    return f", {100 * (1 - value / mean):.0f} %" if mean > 0 else ""


def _view(line: Mapping[str, Any]) -> str:
    return "test" if line["definition"].get("selection") == "paper" else "val"


def _table(
    line: Mapping[str, Any], best: Mapping[tuple[str, str], str], requests: Sequence[str]
) -> Table:
    objective = line["definition"]["search"]["objective"][0]
    head = f"best {objective} ({_view(line)})"
    table = Table(head, *requests, box=None, padding=(0, 2, 0, 0))
    for method in line["methods"]:
        table.add_row(method, *(best[method, forget] for forget in requests))
    return table


def _ended(line: Mapping[str, Any]) -> str:
    """Whether the budget has ended the search."""
    ended = line.get("search_ended")
    if not ended:
        return ""
    return f"the budget of {ended['limit']:g} {ended['by']} ended the search after {ended['trials']} trials a cell"


def _rate(records: Sequence[TrialRecord], live: Mapping[str, Any]) -> str:
    phases = set(trial_phases())
    ends = sorted(record.ended for record in records if record.phase in phases)
    recent = ends[-RECENT:]
    parts = []
    if live.get("state") == "running":
        parts.append(f"{live.get('running', 0)} running, {live['slots']} slots")
    if len(recent) > 1 and recent[-1] > recent[0]:
        rate = 60 * (len(recent) - 1) / (recent[-1] - recent[0])
        ago = duration(max(0.0, time.time() - recent[-1]))
        parts.append(f"{rate:.3g} trials/min, the last ended {ago} ago")
    return "; ".join(parts)


def _cost(line: Mapping[str, Any], records: Sequence[TrialRecord], live: Mapping[str, Any]) -> str:
    """Costs so far and expected. Slot time is counted alike, whatever a slot holds."""
    total = costs.used(records)
    parts = [f"{duration(total['slots'])} of slots"]
    parts += [f"{total[name] / 3600:.3g} {unit}" for name, unit in UNITS.items() if total[name]]
    text = f"used: {', '.join(parts)}"
    planned = line.get("planned")
    left = (
        costs.remaining_seconds(records, planned, bool(line.get("search_ended")))
        if planned
        else None
    )
    if not left:
        return text
    share = line["definition"]["resources"]
    go = [f"{duration(left)} of slots"]
    go += [f"{left * share[n] / 3600:.3g} {unit}" for n, unit in UNITS.items() if share.get(n)]
    if live.get("slots"):
        go.append(f"{duration(left / live['slots'])} on {live['slots']} slots")
    return f"{text}; to go, about: {', '.join(go)}"


def failures(records: Sequence[TrialRecord]) -> list[str]:
    """List trials without a result, most frequent first; those whose reasons differ only by numbers share a line."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for record in records:
        if record.finished:
            continue
        reason = record.reason.strip()
        last = reason.splitlines()[-1] if reason else ""
        alike = re.sub(r"[0-9.]+", "#", last)
        key = (record.status, record.cause, record.phase, record.forget, record.method, alike)
        groups[key].append(last)
    return [
        f"{len(lasts)} {status}{f' ({cause})' if cause else ''}: {phase} {forget} {method}: {lasts[0]}"
        for (status, cause, phase, forget, method, _), lasts in sorted(
            groups.items(), key=lambda item: -len(item[1])
        )
    ]
