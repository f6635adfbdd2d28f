"""How knobs were chosen, in words: the rule, the finalists, and trials that started from earlier studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from reports.load import RecordedStudy, mapping
from reports.text import count, objective, searched_view


def rule(study: RecordedStudy) -> str:
    """Return what `search.choose` says; empty where the lowest first objective is chosen."""
    choose = mapping(mapping(study.definition.get("search")).get("choose"))
    return "; ".join(f"{key} {_plain(value)}" for key, value in choose.items() if value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return ", ".join(value)


def floor(study: RecordedStudy) -> str:
    """Return how much utility a chosen configuration may lose; empty where the study has no such limit."""
    limit = study.max_utility_loss
    if limit is None:
        return ""
    return (
        f"a configuration that loses more than {100 * limit:g} points of held-out accuracy on what is kept, against the "
        "original, is no candidate unless all of its cell do"
    )


def sentence(study: RecordedStudy) -> str:
    """Return which configuration stands for a cell."""
    seeds = count(len(study.search_seeds), "search seed")
    said = rule(study)
    which = f"chosen by {said}" if said else f"with the smallest {objective(study)}"
    text = (
        f"The configuration {which} on the {searched_view(study)}, averaged over {seeds}, among the candidates: "
        "those that finished on every search seed."
    )
    if said := floor(study):
        text += f" Utility floor: {said}."
    if study.further_seeds:
        text += (
            f" The best {study.finalists} ran again on {count(len(study.further_seeds), 'further search seed')}, "
            "and the mean over all seeds decided among these finalists."
        )
    return text


def trial(study: RecordedStudy, forget: str, method: str) -> str:
    """Return the number of the chosen trial, its finalists, the origin of its knobs, and how many are below the utility floor."""
    decision = study.decisions[forget, method]
    if decision.chosen is None:
        return ""
    text = str(decision.chosen.number)
    if decision.finalists:
        numbers = ", ".join(str(one.number) for one in decision.finalists)
        text += f" of {numbers}" if decision.settled else f" (finalists {numbers} have not ended)"
    origins = {r.number: r.origin for r in study.searched(forget, method)}
    if origin := origins.get(decision.chosen.number):
        text += f"; {origin}"
    out = len(decision.tried) - len(decision.eligible)
    if decision.lossy:
        text += "; below the utility floor, as all are"
    elif out:
        text += f"; {count(out, 'other')} below the utility floor"
    return text


def started_from(study: RecordedStudy) -> str:
    """Return how many search trials had the knobs of which earlier study."""
    trials = {
        (r.forget, r.method, r.number): r.origin for r in study.records if r.phase == "search"
    }
    origins = Counter(origin for origin in trials.values() if origin not in ("", "defaults"))
    return ", ".join(f"{count(n, 'trial')} with knobs of {name}" for name, n in origins.items())
