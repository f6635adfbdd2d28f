"""How far a method gets with knobs that were not tuned on the very request; and how forget accuracy goes on.

The definitions, with what speaks for them, are in ``docs/statistics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reports.analysis.summaries import VIEW, cell_summary, recovered, regret, retrained, scale
from reports.load import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy
from reports.statistics.intervals import Estimate, Spread, spread
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
        """How many runs of a part have a recovery, and how many there should be."""
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
    """The parts of robustness that the study asks for."""
    return tuple(part for part in PARTS if _targets(study, part))


def robustness(study: RecordedStudy, method: RecordedMethod) -> Robustness:
    """How far a method gets with knobs that were not tuned on the request."""
    return study.once(("robustness", method.name), lambda: _robustness(study, method))


def ranking_kept(study: RecordedStudy, source: str, target: str) -> tuple[float | None, int]:
    """Kendall's tau of the methods' AvgGaps with own and with transferred knobs, and how many have both."""
    request = study.request(target)
    pairs = [
        (own.average, moved.average)
        for method in study.methods
        if (own := cell_summary(study, request, method.name)).average is not None
        and (moved := cell_summary(study, request, method.name, TRANSFER, source)).average
        is not None
    ]
    if len(pairs) < 2:
        return None, len(pairs)
    own_gaps, moved_gaps = zip(*pairs)
    return kendall(own_gaps, moved_gaps), len(pairs)


def slope(study: RecordedStudy, request: RecordedRequest, method: RecordedMethod) -> Slope | None:
    """What over-forgetting a method shows on a request; None unless runs of a seed have both lengths."""
    tuned = study.cell("confirm", request.name, method.name)
    longer = study.cell(SUFFICIENT, request.name, method.name)
    if not tuned.finished or not longer.finished:
        return None
    start, end = (_epochs(runs.finished[0].knobs.get(EPOCHS)) for runs in (tuned, longer))
    if start is None or end is None or end <= start:
        return None
    before, after = (
        {r.seed: r.metrics.get(VIEW, {}).get("acc_forget", math.nan) for r in runs.finished}
        for runs in (tuned, longer)
    )
    changes = [(after[seed] - before[seed]) / (end - start) for seed in before if seed in after]
    spreads = [spread(values) for values in (before.values(), after.values(), changes)]
    if spreads[0] is None or spreads[1] is None or spreads[2] is None:
        return None
    level = retrained(study, request).means.get("acc_forget")
    return Slope(start, end, spreads[0], spreads[1], spreads[2], level)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of estimates that share their bootstrap samples."""
    return Estimate(
        math.fsum(e.value for e in estimates) / len(estimates),
        np.mean([e.replicas for e in estimates], axis=0),
        min(e.n for e in estimates),
    )


def _robustness(study: RecordedStudy, method: RecordedMethod) -> Robustness:
    runs = tuple(_runs(study, method))
    recoveries = {p: [r.recovery for r in runs if r.part == p and r.recovery] for p in PARTS}
    parts = {part: mean_estimate(there) for part, there in recoveries.items() if there}
    tuned = [
        own
        for request in study.requests
        if (own := recovered(study, request, cell_summary(study, request, method.name)))
    ]
    return Robustness(
        runs,
        parts,
        mean_estimate(list(parts.values())) if parts else None,
        mean_estimate(tuned) if tuned else None,
        set(parts) == set(asked_parts(study)) and all(r.recovery for r in runs),
    )


def _targets(study: RecordedStudy, part: str) -> list[tuple[str, RecordedRequest]]:
    """(source, request) of everything that the study asks for in a part, where there is something to measure."""
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
            yield Untuned(
                part,
                request.name,
                _place(study, part, source, request.name),
                recovered(study, request, result),
                regret(result, cell_summary(study, request, method.name)),
            )


def _place(study: RecordedStudy, part: str, source: str, request: str) -> str:
    if part == TRANSFER:
        return f"{source} → {request}"
    return f"{request}, " + ("defaults" if part == DEFAULT else f"{study.sufficient_epochs} epochs")


def _epochs(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None
