"""The knobs that earlier studies chose, as the first trials of a search (``search.start``, ``search.start_from``)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mu.choice import choice_of
from mu.current import read_current
from mu.record import PORTFOLIO
from sweeps.errors import StudyError
from sweeps.phases import Cell, Knobs
from sweeps.plan import FirstKnobs
from sweeps.study.methods import MethodConfig
from sweeps.study.study import Study


def first_knobs(study: Study, where: str) -> dict[Cell, list[FirstKnobs]]:
    """Return what the search of each cell tries after the authors' defaults.

    With `start: portfolio` that is first the portfolio of the method. Then a cell takes what an earlier study chose for the method
    of the same name, on the request of the same name or else on each of its requests.

    Args:
        where: File of the study, for messages.

    Raises:
        StudyError: An earlier study is missing, holds nothing to start from, or has other knobs than the method has
            here; or a portfolio has knobs out of their ranges here.
    """
    first: dict[Cell, list[FirstKnobs]] = {}
    for config in study.methods if study.search.start == PORTFOLIO else ():
        known = _portfolio(config)
        for forget in config.forget:
            _add(first.setdefault((forget, config.name), []), known, PORTFOLIO)
    for folder in study.search.start_from:
        here = f"{where}: search: start_from: {folder}"
        chosen = _chosen(Path(folder).expanduser(), here)
        by_method = {
            config.name: {
                forget: _searched(config, forget, knobs, here)
                for (forget, method), knobs in chosen.items()
                if method == config.name
            }
            for config in study.methods
        }
        if not any(by_method.values()):
            names = ", ".join(by_method)
            raise StudyError(f"{here}: has no chosen knobs of any method of this study ({names})")
        for config in study.methods:
            there = by_method[config.name]
            for forget in config.forget:
                same = [there[forget]] if forget in there else list(there.values())
                _add(first.setdefault((forget, config.name), []), same, folder)
    return first


def say_start(start: str, methods: Iterable[MethodConfig]) -> list[str]:
    """Return lines on the methods without a portfolio, or with one of other settings; none unless `start` is `portfolio`."""
    said, missing = [], []
    for config in methods if start == PORTFOLIO else ():
        if config.portfolio is None and config.ranges:
            missing.append(config.name)
        elif config.portfolio is not None:
            searched = {span.knob for span in config.ranges}
            fixed = {n: value for n, value in config.fixed.items() if n not in searched}
            other = config.portfolio.other_settings(fixed, config.method.check({}))
            named = ", ".join(f"{name} {value}" for name, value in other.items())
            said += [f"the portfolio of {config.name} was chosen with {named}"] if other else []
    if missing:
        said.append(f"no portfolio in the search space of {', '.join(missing)}")
    return said


def _portfolio(config: MethodConfig) -> list[dict[str, Any]]:
    known = config.portfolio
    return known.searched(config.fixed, config.ranges) if known is not None else []


def _add(first: list[FirstKnobs], more: Iterable[Knobs], origin: str) -> None:
    """Add knobs that are not there yet. A method with nothing to search has none to add."""
    for knobs in more:
        if knobs and knobs not in [each.knobs for each in first]:
            first.append(FirstKnobs(knobs, origin))


def _chosen(folder: Path, here: str) -> dict[Cell, Knobs]:
    """Return the knobs that a study chose, by cell."""
    path = folder / "trials.jsonl"
    if not path.is_file():
        raise StudyError(f"{here}: is no folder with the results of a study (trials.jsonl)")
    try:
        line, trials = read_current(path)
    except (OSError, ValueError) as error:
        raise StudyError(f"{here}: {error}") from error
    cells = dict.fromkeys((t.forget, t.method) for t in trials if t.phase == "search")
    try:
        choice = choice_of(line["definition"])
        decisions = {cell: choice.decide(trials, *cell) for cell in cells}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{here}: its study cannot be read: {error!r}") from error
    return {cell: d.chosen.knobs for cell, d in decisions.items() if d.chosen is not None}


def _searched(config: MethodConfig, forget: str, knobs: Knobs, here: str) -> dict[str, Any]:
    """Return the knobs that are searched here. Raises StudyError when others differ, or a value is out of range."""
    where = f"{here}: {config.name} on {forget}"
    if set(knobs) != set(config.fixed):
        there, names = ", ".join(sorted(knobs)), ", ".join(sorted(config.fixed))
        raise StudyError(f"{where}: has the knobs {there}; here they are {names}")
    searched = {span.knob: span for span in config.ranges if span.applies(knobs)}
    for name, value in knobs.items():
        if name in searched and value not in searched[name]:
            raise StudyError(
                f"{where}: {name} is {value!r}, which is not in its range here, {searched[name].plain}"
            )
        if name not in searched and value != config.fixed[name]:
            raise StudyError(f"{where}: {name} is {value!r}; here it is {config.fixed[name]!r}")
    return {name: knobs[name] for name in searched}
