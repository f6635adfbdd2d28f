"""``musweep choose --no-oracle``: methods and knobs for one's own model, by rules that need no retrained model.

The study is read without its search, its retrained models and all that follows from them; what is left is a menu of knobs
for every method, tried on the study's search seeds. No job trains or scores a retrained model, so that no rule can see one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from mu.menu import MenuRecords, menu_records
from mu.record import TrialRecord
from mu.relative import mean_of
from mu.rules import EVERYTHING, RULE, chosen, eligible, scores
from mu.selection import Candidate, References, Rule
from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.state.store import Store, write_atomically

SHOWN = 3
"""Configurations that are shown of a request."""
FALLBACK = {False: ("ranks", "expected", "losses"), True: ("class_gone",)}
"""Rules that decide while none is measured, the first that a study has; by whether whole classes go."""


def without_oracle(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study as plain data without its search, retrained models, and all that follows from them.

    Its menu runs on the seeds of its search. Its name is another, since its results are.
    """
    kept = {
        key: value
        for key, value in raw.items()
        if key not in ("experiments", "audit", "published", "selection", "metrics", "seeds")
    }
    seeds = (raw.get("seeds") or {}).get("search") or [0]
    search = {
        key: value for key, value in (raw.get("search") or {}).items() if key in KEPT_OF_SEARCH
    }
    return {
        **kept,
        "study": f"{raw.get('study')}-choice",
        "seeds": {"search": [max(seeds) + 1], "report": list(seeds)},
        "search": {**search, "trials": 0},
        "experiments": {"defaults": False},
        "metrics": {"costly": []},
        "choose": {**(raw.get("choose") or {}), "oracle": False},
    }


KEPT_OF_SEARCH = ("start", "start_from", "max_utility_loss", "early_stop")
"""Keys of the search that mean something to a menu."""


@dataclass(frozen=True)
class Configuration:
    """A method with knobs, as rules see it.

    Args:
        method: The method.
        candidate: Its knobs and metrics, means over seeds; numbers count over all methods.
        places: Rule to its place among all configurations, from 1; the smaller the better.
    """

    method: str
    candidate: Candidate
    places: Mapping[str, float]


def ranked(
    recorded: MenuRecords, forget: str, methods: Sequence[str], rules: Iterable[Rule], limit: float
) -> list[Configuration]:
    """Return all configurations of all methods on a request that keep utility, with their place by each rule."""
    pooled: list[tuple[str, Candidate]] = []
    known = References()
    for method in methods:
        tried, known = _mean_situation(recorded, forget, method, known)
        pooled += [(method, replace(one, number=len(pooled) + n)) for n, one in enumerate(tried)]
    kept = eligible([one for _, one in pooled], known, limit)
    places: dict[str, dict[int, float]] = {}
    for rule in rules:
        order = scores(rule, kept, known)
        sorted_costs = sorted(order.values())
        places[rule.name] = {n: sorted_costs.index(cost) + 1 for n, cost in order.items()}
    names = {one.number: method for method, one in pooled}
    return [
        Configuration(
            names[one.number],
            one,
            {rule: place[one.number] for rule, place in places.items() if one.number in place},
        )
        for one in kept
    ]


def _mean_situation(
    recorded: MenuRecords, forget: str, method: str, known: References
) -> tuple[list[Candidate], References]:
    """Return the candidates of a cell that finished on all seeds, and the references, with means over the seeds."""
    each = [recorded.situation(forget, method, seed) for seed in recorded.seeds(forget, method)]
    if not each:
        return [], known
    by_number = [{one.number: one for one in tried} for tried, _ in each]
    shared = sorted(set.intersection(*map(set, by_number)))
    tried = [
        replace(
            by_number[0][number],
            metrics=mean_of([runs[number].metrics for runs in by_number]),
            on={
                name: mean_of([runs[number].on[name] for runs in by_number])
                for name in by_number[0][number].on
                if all(name in runs[number].on for runs in by_number)
            },
        )
        for number in shared
    ]
    first = each[0][1]
    on = {
        name: replace(
            there,
            original=mean_of([of.on[name].original for _, of in each]),
            retrain=mean_of([of.on[name].retrain for _, of in each]),
        )
        for name, there in first.on.items()
    }
    return tried, replace(first, original=mean_of([of.original for _, of in each]), on=on)


def measured() -> dict[str, Any]:
    """Return the measured reliability of rules: rule to `samples` or `classes` to its numbers, and `from`, where they are from."""
    file = resources.files("sweeps.study").joinpath("reliability.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def deciding(rules: Sequence[Rule], whole_class: bool, evidence: Mapping[str, Any]) -> Rule:
    """Return the rule that decides: the one with the smallest measured mean regret, else one by ``FALLBACK``.

    The mean counts the cells where a rule fails badly, which a median share would not.

    Raises:
        StudyError: None of the rules puts configurations in an order.
    """
    kind = "classes" if whole_class else "samples"
    able = [rule for rule in rules if rule.ranks and rule.applies(whole_class)]
    known = [rule for rule in able if kind in evidence.get("rules", {}).get(rule.name, {})]
    if known:
        return min(known, key=lambda rule: evidence["rules"][rule.name][kind]["regret"])
    for name in FALLBACK[whole_class]:
        if name in [rule.name for rule in able]:
            return RULE[name]
    if not able:
        raise StudyError(f"choose: rules: none puts configurations in an order for {kind}")
    return able[0]


def say_reliability(rule: Rule, whole_class: bool, evidence: Mapping[str, Any]) -> str:
    """Return what has been measured of a rule, in words."""
    kind = "classes" if whole_class else "samples"
    numbers = evidence.get("rules", {}).get(rule.name, {}).get(kind)
    if numbers is None:
        return "how reliable it is has not been measured yet"
    return (
        f"measured on {numbers['cells']} cells ({evidence['from']}): it gave up {numbers['regret']:.2f} points of AvgGap "
        f"in the mean, and in the median cell {numbers['share']:.0%} of (median - best)"
    )


def conclude(
    plan: Plan, records: Iterable[TrialRecord], store: Store, folder: Path, console: Console
) -> None:
    """Print the best methods and knobs for each request, and the command that unlearns with the best; write its files.

    Args:
        store: Holds the originals that were trained.
        folder: The results folder of the study.
    """
    study, evidence = plan.study, measured()
    whole = {name: request.splits_held_out for name, request in study.forget.items()}
    recorded = menu_records(records, whole)
    assert study.choose is not None
    rules = [RULE[name] for name in study.choose.rules if name not in EVERYTHING]
    for forget, request in study.forget.items():
        methods = [config.name for config in study.methods if forget in config.forget]
        fitting = [rule for rule in rules if rule.applies(request.whole_class) and rule.ranks]
        found = ranked(recorded, forget, methods, fitting, study.search.max_utility_loss)
        rule = deciding(fitting, request.whole_class, evidence)
        best = [one for one in found if rule.name in one.places]
        if not best:
            console.print(f"{forget}: no configuration has finished on every seed", highlight=False)
            continue
        best.sort(key=lambda one: (one.places[rule.name], one.candidate.number))
        told = say_reliability(rule, request.whole_class, evidence)
        count = len(chosen({one.candidate.number: (one.places[rule.name],) for one in best}))
        console.print(
            f"\n{forget}: {len(found)} configurations of {len(methods)} methods, by {rule.name} ({rule.label}); {told}. "
            f"{'' if count == 1 else f'{count} share the first place. '}No retrained model was trained or read.",
            highlight=False,
            soft_wrap=True,
        )
        searched = {config.name: [s.knob for s in config.ranges] for config in study.methods}
        order = [rule.name, *(one.name for one in fitting if one.name != rule.name)]
        console.print(_table(best[:SHOWN], order, searched))
        command = _write(plan, forget, best[0], store, folder)
        console.print(
            f"Unlearn with it:\n  {command}", markup=False, highlight=False, soft_wrap=True
        )


def _table(
    best: Sequence[Configuration], rules: Sequence[str], searched: Mapping[str, Sequence[str]]
) -> Table:
    """Return the first configurations, their searched knobs, and their place by each rule."""
    from reports.text import knob_value  # which imports what a run does not need to begin

    table = Table("method", "knobs", "place by rule", box=None, padding=(0, 2, 0, 0))
    for one in best:
        values = one.candidate.knobs
        knobs = ", ".join(f"{name} {knob_value(values[name], 3)}" for name in searched[one.method])
        places = [f"{rule} {one.places[rule]:g}" for rule in rules if rule in one.places]
        table.add_row(one.method, knobs, ", ".join(places))
    return table


def _write(plan: Plan, forget: str, best: Configuration, store: Store, folder: Path) -> str:
    """Write knobs and original model beside the results, and return the command that unlearns with them."""
    study, seed = plan.study, plan.study.seeds.report[0]
    config = study.method(best.method)
    knobs = folder / "choice" / f"{forget}.yaml"
    text = yaml.safe_dump(dict(best.candidate.knobs), sort_keys=False)
    write_atomically(knobs, text.encode())
    supplied = study.checkpoints(forget, seed)
    weights = (
        supplied["original"].path
        if "original" in supplied
        else folder / "choice" / f"original-{seed}.pt"
    )
    if "original" not in supplied:
        _write_original(plan, forget, store, weights)
    model = study.definition["model"]
    words = {
        "--model": model["name"] if set(model) == {"name"} else json.dumps(model),
        "--weights": str(weights),
        "--data": json.dumps(study.definition["data"]),
        "--forget-indices": str(folder / "splits" / f"{forget}.npy"),
        "--method": config.method.name,
        "--knobs": str(knobs),
        "--out": f"{forget}-{best.method}.pt",
    }
    if study.training.augment != "none":
        words["--augment"] = study.training.augment
    return " ".join(
        ["musweep unlearn", *(f"{key} {shlex.quote(value)}" for key, value in words.items())]
    )


def _write_original(plan: Plan, forget: str, store: Store, path: Path) -> None:
    """Write the original of the first seed as a state dict of the network."""
    problem = plan.problem(forget, plan.study.seeds.report[0])
    arrays = store.get(problem.reference_key("original"))
    assert arrays is not None
    weights = {name: value for name, value in arrays.items() if name != "seconds"}
    network = problem.load(weights)[-1]  # type: ignore[index]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
