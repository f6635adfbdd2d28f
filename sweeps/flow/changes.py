"""How a run takes up a study's results: what is refused, what counts, and what is left out because the study has changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mu.current import belongs, current
from mu.record import TrialRecord, to_line
from sweeps.errors import StudyError
from sweeps.flow.job_sources import UNBILLED, decide
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.state import results
from sweeps.state.kept import kept_key
from sweeps.state.results import Results
from sweeps.state.store import Store
from sweeps.state.unbilled import Unbilled
from sweeps.study.resources import RunSettings


def open_results(
    plan: Plan, folder: Path, accept_code_change: bool = False
) -> tuple[Results, list[str]]:
    """Open the results of a study and note what is asked for now.

    Args:
        accept_code_change: Whether trials of a method whose code alone has changed are kept. The plan then counts
            new trials of the method as of that earlier code, too.

    Returns:
        The results, and what the user should know before anything starts, a line each.

    Raises:
        StudyError: The folder holds trials of other data or another model, or is held by another driver.
    """
    opened = Results(folder)
    before = opened.study
    said = _keep_code(plan, before, accept_code_change)
    line = study_line(plan)
    changes = results.incompatible(before, line) if before else []
    if changes:
        opened.close()
        raise StudyError(
            f"{folder} holds trials of a different study; {'; '.join(changes[:3])}. "
            "Use another study name or --results"
        )
    if not before or _asked(before) != _asked(json.loads(to_line("study", line))):
        said += _left_out(opened.records.values(), before, line)
        opened.begin(line)
    opened.keep(current(list(opened.records.values()), opened.study))
    opened.set_aside(lambda record: runs_again(record, plan.study))
    return opened, said


def run_unkept_again(plan: Plan, opened: Results, store: Store) -> list[str]:
    """Set aside the confirmed trials whose models the study keeps and the store lacks, so that they run again.

    They were recorded before the study kept models, or the store was emptied since. What they cost stays billed: their
    new records bill it, too.

    Returns:
        What the user should know of it, a line or none. Raises OSError when the store cannot be reached.
    """
    decisions = decide(plan, opened.records.values(), plan.cells)
    chosen = {cell: one.chosen.knobs for cell, one in decisions.items() if one.chosen}
    lacking = {
        job.key
        for job in plan.final_jobs(chosen)
        if job.keep_model
        and (record := opened.records.get(job.key)) is not None
        and record.finished
        and not store.has(kept_key(job.key))
    }
    if not lacking:
        return []
    unbilled = Unbilled(opened.folder / UNBILLED)
    for key in lacking:
        spent = opened.records[key].time_total
        if (
            unbilled.lost[key] < spent
        ):  # else an earlier run has noted it, and not come to the trial
            unbilled.add(key, spent)
    unbilled.note({}, now=True)
    opened.set_aside(lambda record: record.key in lacking)
    return [
        f"{len(lacking)} confirmed trials run again, because their models are not in the storage"
    ]


def _keep_code(plan: Plan, before: Mapping[str, Any], accept: bool) -> list[str]:
    """Let the plan count a method's trials as of an earlier code, where this is accepted now or was before."""
    accepted = []
    for name, code in plan.code.items():
        about = before.get("methods", {}).get(name, {})
        if about.get("alias_of", "") != plan.study.method(name).alias_of:
            continue  # it was another method
        if about.get("code") == code:
            plan.count_as(name, about["counts_as"])
        elif accept and "counts_as" in about:
            plan.count_as(name, about["counts_as"])
            accepted.append(name)
    return [f"trials of earlier code are kept: {', '.join(accepted)}"] if accepted else []


def _asked(line: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a study line that need a new one when they change."""
    names = ("code", "counts_as", "cells")
    methods = {
        method: [about.get(name) for name in names] for method, about in line["methods"].items()
    }
    return [line["definition"], methods, line.get("problems"), line.get("references")]


def _left_out(
    records: Iterable[TrialRecord], before: Mapping[str, Any], line: Mapping[str, Any]
) -> list[str]:
    """Say in one line how many trials counted before and do not now, though their methods and requests are still there."""
    counts = Counter(
        (record.method, record.forget, _reason(record, before, line))
        for record in records
        if record.phase not in ("reference", "audit")
        and record.method in line["methods"]
        and record.forget in line["methods"][record.method]["forget"]
        and belongs(record, before)
        and not belongs(record, line)
    )
    reasons: dict[tuple[str, str], list[str]] = {}
    for (method, forget, reason), count in counts.items():
        reasons.setdefault((method, reason), []).append(f"{count} on {forget}")
    if not reasons:
        return []
    texts = [
        f"{method} ({', '.join(cells)}: {reason})" for (method, reason), cells in reasons.items()
    ]
    return [f"{sum(counts.values())} recorded trials are left out: {'; '.join(texts)}"]


def _reason(record: TrialRecord, before: Mapping[str, Any], line: Mapping[str, Any]) -> str:
    """Return what has changed since a trial was recorded."""
    if line["problems"].get(record.forget, {}).get(str(record.seed)) != record.problem:
        return "the request or its seeds changed"
    was, now = before["methods"][record.method], line["methods"][record.method]
    if was.get("alias_of", "") != now["alias_of"]:
        return "the name is that of another method"
    if was["counts_as"] != now["counts_as"]:
        return "the code changed; --accept-code-change keeps them"
    return "what is searched or measured changed"


def runs_again(record: TrialRecord, settings: RunSettings) -> bool:
    """Return whether a failed trial is run again: its worker was lost, or the limit that ended it has changed."""
    limit = settings.trial_timeout
    return (
        record.lost
        or (record.cause == "memory" and record.resources != settings.resources.trial.occupied)
        or (record.cause == "timeout" and (limit is None or limit > record.time_total))
    )
