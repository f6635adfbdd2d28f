"""How far a method's results depend on knobs tuned on the very request: regret, its score, rankings, slopes.

The definitions, with what speaks for them, are in ``docs/robustness.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.load import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy
from reports.ranks import kendall
from reports.stats import Estimate, Spread, spread
from reports.summaries import VIEW, CellSummary, cell_summary, regret, retrained

TRANSFER, SUFFICIENT = "transfer", "sufficient"


@dataclass(frozen=True)
class Regret:
    """What other than a cell's own tuned knobs cost it.

    Args:
        part: `transfer` or `sufficient`.
        place: What was done, as in `random10 → class3` or `random10, 20 epochs`.
        result: What came of it.
        estimate: AvgGap minus that with the own tuned knobs; None when either is missing.
    """

    part: str
    place: str
    result: CellSummary
    estimate: Estimate | None


@dataclass(frozen=True)
class Score:
    """How robust a method is to its knobs: a mean regret, lower is better.

    Args:
        regrets: Every regret that the study asks for and the method can have.
        parts: Part to mean regret of what has finished; a part without any is absent.
        total: Mean of the parts; None without any.
    """

    regrets: tuple[Regret, ...]
    parts: dict[str, Estimate]
    total: Estimate | None

    @property
    def complete(self) -> bool:
        """Whether every regret is there: a mean over what did not fail would reward failing."""
        return bool(self.regrets) and all(r.estimate is not None for r in self.regrets)

    @property
    def worst(self) -> Regret | None:
        found = [r for r in self.regrets if r.estimate is not None]
        return max(found, key=lambda r: r.estimate.value if r.estimate else 0.0, default=None)

    def count(self, part: str) -> tuple[int, int]:
        """How many regrets of a part there are, and how many there should be."""
        asked = [r for r in self.regrets if r.part == part]
        return sum(r.estimate is not None for r in asked), len(asked)


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


def score(study: RecordedStudy, method: RecordedMethod) -> Score:
    """The robustness score of a method."""
    return study.once(("score", method.name), lambda: _score(study, method))


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


def _score(study: RecordedStudy, method: RecordedMethod) -> Score:
    regrets = _regrets(study, method)
    found: dict[str, list[Estimate]] = {TRANSFER: [], SUFFICIENT: []}
    for r in regrets:
        if r.estimate is not None:
            found[r.part].append(r.estimate)
    parts = {part: mean_estimate(estimates) for part, estimates in found.items() if estimates}
    return Score(regrets, parts, mean_estimate(list(parts.values())) if parts else None)


def _regrets(study: RecordedStudy, method: RecordedMethod) -> tuple[Regret, ...]:
    found = []
    for source, target in study.transfers:
        if method.used_on(source) and method.used_on(target):
            request = study.request(target)
            own = cell_summary(study, request, method.name)
            moved = cell_summary(study, request, method.name, TRANSFER, source)
            found.append(Regret(TRANSFER, f"{source} → {target}", moved, regret(moved, own)))
    if study.sufficient_epochs and method.has_epochs:
        for request in study.requests:
            if method.used_on(request.name):
                own = cell_summary(study, request, method.name)
                longer = cell_summary(study, request, method.name, SUFFICIENT)
                place = f"{request.name}, {study.sufficient_epochs} epochs"
                found.append(Regret(SUFFICIENT, place, longer, regret(longer, own)))
    return tuple(found)


def _epochs(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None
