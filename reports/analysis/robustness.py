"""How far a method gets with knobs that were not tuned on the very request; and how forget accuracy goes on.

The definitions, with what speaks for them, are in ``docs/statistics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reports.analysis.summaries import VIEW, cell_summary, recovered, regret, retrained, scale
from reports.load import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, Spread, mean_estimate, spread
from reports.statistics.rankings import kendall

TRANSFER, DEFAULT, SUFFICIENT = "transfer", "default", "sufficient"
PARTS = (TRANSFER, DEFAULT, SUFFICIENT)
"""The phases whose knobs were not tuned on the request."""


@dataclass(frozen=True)
class Untuned:
    """What a method does on a request with knobs that were not tuned on it.

    Args:
        part: One of ``PARTS``.
        request: The request.
        place: What was done, as in `random10 → random2` or `random10, 20 epochs`.
        recovery: What came of it; None when it has not finished.
        regret: AvgGap minus that with the own tuned knobs; None when either is missing.
    """

    part: str
    request: str
    place: str
    recovery: Estimate | None
    regret: Estimate | None


@dataclass(frozen=True)
class Robustness:
    """Recovery of a method with knobs that were not tuned on the request; higher is better.

    Args:
        runs: Everything that the study asks for and the method can have, where there is something to measure.
        parts: Part to mean recovery of what has finished; a part without any is absent.
        total: Mean of the parts; None without any.
        tuned: Mean recovery with own knobs, for scale; None without any.
        whole: Whether every part that the study asks for is there, and every run of it. Only such a mean is compared
            with others: one over what did not fail would reward failing.
    """

    runs: tuple[Untuned, ...]
    parts: dict[str, Estimate]
    total: Estimate | None
    tuned: Estimate | None
    whole: bool

    @property
    def regrets(self) -> list[Untuned]:
        """The runs with a regret, the largest last."""
        return sorted((r for r in self.runs if r.regret), key=lambda r: r.regret.value)  # type: ignore[union-attr]

    def count(self, part: str) -> tuple[int, int]:
        """Return how many runs of a part have a recovery, and how many there should be."""
        asked = [r for r in self.runs if r.part == part]
        return sum(r.recovery is not None for r in asked), len(asked)


@dataclass(frozen=True)
class Slope:
    """How forget accuracy goes on once training passes the tuned number of epochs.

    Args:
        start, end: Epochs of tuned and of sufficient training.
        before, after: Forget accuracy at either.
        per_epoch: Change per epoch of each run that has both, which is a mean, so that Student's interval holds.
            Forget accuracy of the retrained models does not change with a method's epochs: their slope is 0.
        level: Forget accuracy of the retrained models; None when there are none.
    """

    start: int
    end: int
    before: Spread
    after: Spread
    per_epoch: Spread
    level: float | None


def asked_parts(study: RecordedStudy) -> tuple[str, ...]:
    """Return the parts of robustness that the study asks for."""
    return tuple(part for part in PARTS if _targets(study, part))


def robustness(study: RecordedStudy, method: RecordedMethod) -> Robustness:
    """Return how far a method gets with knobs that were not tuned on the request."""
    return study.once(("robustness", method.name), lambda: _robustness(study, method))


def ranking_kept(study: RecordedStudy, source: str, target: str) -> tuple[float | None, int]:
    """Return Kendall's tau of the methods' AvgGaps with own and with transferred knobs, and how many have both."""
    request = study.request(target)
    gaps = [
        (
            cell_summary(study, request, method.name).average,
            cell_summary(study, request, method.name, TRANSFER, source).average,
        )
        for method in study.methods
    ]
    pairs = [(own, moved) for own, moved in gaps if own is not None and moved is not None]
    return kendall(*zip(*pairs)) if len(pairs) > 1 else None, len(pairs)


def slope(study: RecordedStudy, request: RecordedRequest, method: RecordedMethod) -> Slope | None:
    """Return what over-forgetting a method shows on a request; None unless runs of a seed have both lengths."""
    tuned, longer = (
        study.cell(phase, request.name, method.name).finished for phase in ("confirm", SUFFICIENT)
    )
    if not tuned or not longer:
        return None
    start, end = (runs[0].knobs.get(EPOCHS) for runs in (tuned, longer))
    if not (isinstance(start, (int, float)) and isinstance(end, (int, float)) and end > start):
        return None
    before, after = (
        {r.seed: r.metrics.get(VIEW, {}).get("acc_forget", math.nan) for r in runs}
        for runs in (tuned, longer)
    )
    rates = [(after[seed] - before[seed]) / (end - start) for seed in before if seed in after]
    first, last, change = (spread(values) for values in (before.values(), after.values(), rates))
    if first is None or last is None or change is None:
        return None
    level = retrained(study, request).means.get("acc_forget")
    return Slope(int(start), int(end), first, last, change, level)


def _robustness(study: RecordedStudy, method: RecordedMethod) -> Robustness:
    runs = tuple(_runs(study, method))
    recoveries = {p: [r.recovery for r in runs if r.part == p and r.recovery] for p in PARTS}
    parts = {part: mean for part, there in recoveries.items() if (mean := mean_estimate(there))}
    tuned = (
        recovered(study, request, cell_summary(study, request, method.name))
        for request in study.requests
    )
    return Robustness(
        runs,
        parts,
        mean_estimate(list(parts.values())),
        mean_estimate([own for own in tuned if own]),
        set(parts) == set(asked_parts(study)) and all(r.recovery for r in runs),
    )


def _targets(study: RecordedStudy, part: str) -> list[tuple[str, RecordedRequest]]:
    """Return (source, request) of everything that the study asks for in a part, where there is something to measure."""
    if part == TRANSFER:
        pairs = ((source, study.request(target)) for source, target in study.transfers)
        asked = [(source, to) for source, to in pairs if study.request(source).kind == to.kind]
    elif part == DEFAULT:
        ran = {forget for phase, forget, *_ in study.runs if phase == DEFAULT}
        asked = [("", request) for request in study.requests if request.name in ran]
    else:
        asked = [("", request) for request in study.requests if study.sufficient_epochs]
    return [(source, request) for source, request in asked if scale(study, request).measurable]


def _runs(study: RecordedStudy, method: RecordedMethod) -> Iterator[Untuned]:
    for part in PARTS:
        for source, request in _targets(study, part):
            used = method.used_on(request.name) and (not source or method.used_on(source))
            if not used or (part == SUFFICIENT and not method.has_epochs):
                continue
            result = cell_summary(study, request, method.name, part, source)
            share = recovered(study, request, result)
            change = regret(result, cell_summary(study, request, method.name))
            places = {
                TRANSFER: f"{source} → {request.name}",
                DEFAULT: f"{request.name}, defaults",
                SUFFICIENT: f"{request.name}, {study.sufficient_epochs} epochs",
            }
            yield Untuned(part, request.name, places[part], share, change)
