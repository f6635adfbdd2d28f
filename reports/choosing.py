"""How knobs were chosen, in words: the rule, the finalists, and trials that started from earlier studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from reports.load import RecordedStudy
from reports.table_cells import count, objective, searched_view


def rule(study: RecordedStudy) -> str:
    """Return what `search.choose` says; empty where the lowest first objective is chosen."""
    search = study.definition.get("search")
    choose = search.get("choose") if isinstance(search, dict) else None
    if not choose:
        return ""
    return "; ".join(f"{key} {_plain(value)}" for key, value in choose.items() if value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return ", ".join(value)


def sentence(study: RecordedStudy) -> str:
    """Return which configuration stands for a cell."""
    seeds = count(len(study.search_seeds), "search seed")
    said = rule(study)
    which = f"chosen by {said}" if said else f"with the smallest {objective(study)}"
    text = (
        f"The configuration {which} on the {searched_view(study)}, averaged over {seeds}, among the candidates: "
        "those that finished on every search seed."
    )
    if study.further_seeds:
        text += (
            f" The best {study.finalists} ran again on {count(len(study.further_seeds), 'further search seed')}, "
            "and the mean over all seeds decided among these finalists."
        )
    return text


def trial(study: RecordedStudy, forget: str, method: str) -> str:
    """Return the number of the chosen trial, the finalists it was chosen from, and the origin of its knobs."""
    decision = study.decisions[forget, method]
    if decision.chosen is None:
        return ""
    text = str(decision.chosen.number)
    if decision.finalists:
        numbers = ", ".join(str(one.number) for one in decision.finalists)
        text += f" of {numbers}" if decision.settled else f" (finalists {numbers} have not ended)"
    origins = {r.number: r.origin for r in study.searched(forget, method)}
    origin = origins.get(decision.chosen.number)
    return f"{text}; {origin}" if origin else text


def started_from(study: RecordedStudy) -> str:
    """Return how many search trials had the knobs of which earlier study."""
    trials = {
        (r.forget, r.method, r.number): r.origin
        for r in study.records
        if r.phase == "search" and r.origin not in ("", "defaults")
    }
    return ", ".join(
        f"{count(number, 'trial')} with knobs of {origin}"
        for origin, number in Counter(trials.values()).items()
    )
