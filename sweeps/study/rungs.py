"""Where early stopping by ``asha`` compares trials: the epochs called rungs, and the methods that it leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, takewhile
from typing import Any

from mu.methods import Method
from sweeps.phases import EPOCHS
from sweeps.study.methods import MethodConfig
from sweeps.study.search import Search

REDUCTION = 3
"""One in so many configurations goes on after a rung, and each rung is so many times as high as the one before."""
BEHIND = "behind others"
"""The reason of a trial that was stopped at a rung."""


def all_rungs() -> Iterator[int]:
    """Yield every rung: epochs 1, 3, 9, 27 and so on."""
    return (REDUCTION**power for power in count())


def is_rung(epoch: int) -> bool:
    """Return whether an epoch is a rung."""
    return epoch in takewhile(lambda rung: rung <= epoch, all_rungs())


def is_judged(method: Method) -> bool:
    """Return whether trials of a method may be stopped: it has epochs, of which the first tell how good the last will be."""
    return EPOCHS in method.knobs and method.steady and not method.impairs_first


def rungs_of(search: Search, method: Method, knobs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the epochs after which a trial with these knobs may be stopped; its last one is not among them."""
    if search.early_stop != "asha" or not is_judged(method):
        return ()
    return tuple(takewhile(lambda rung: rung < knobs[EPOCHS], all_rungs()))


def say_exempt(search: Search, methods: Iterable[MethodConfig]) -> str:
    """Return a line on the methods that ``asha`` never stops; empty where there are none, and without ``asha``."""
    if search.early_stop != "asha":
        return ""
    whys: dict[str, list[str]] = {}
    for config in methods:
        if not is_judged(config.method):
            whys.setdefault(_why(config.method), []).append(config.name)
    told = [f"{', '.join(names)} ({why})" for why, names in whys.items()]
    return f"early_stop asha never stops {', '.join(told)}" if told else ""


def _why(method: Method) -> str:
    if EPOCHS not in method.knobs:
        return f"no knob `{EPOCHS}`"
    return "impairs first" if method.impairs_first else "not STEADY"
