"""``RecordedStudy``: what a study asked for and what came of it, everything that a report is made from."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mu.choice import Decision
from mu.metrics import AVG_GAP_NATMU
from mu.record import TrialRecord
from mu.selection import Candidate, References, objective_value

T = TypeVar("T")
EPOCHS = "epochs"
"""The knob that sufficient training extends."""


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class RecordedRequest:
    """A forget request.

    Args:
        name: Its name in the study.
        kind: Such as `random` or `full_class`; empty when not recorded.
        forget, retain: Number of training samples; None when not recorded.
        whole_class: Whether a whole class or sub-class goes, which decides the list of metrics.
        details: The request as the study file has it.
    """

    name: str
    kind: str
    forget: int | None
    retain: int | None
    whole_class: bool
    details: Mapping[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of AvgGap."""
        return AVG_GAP_NATMU[self.whole_class]


@dataclass(frozen=True)
class RecordedMethod:
    """A method of the study.

    Args:
        name: Its name in the study.
        position: Its place in the study; decides its colour.
        summary: One line on what it does; empty when not recorded.
        zero_shot: Whether it works without retained data.
        has_epochs: Whether more epochs can be asked of it.
        requests: The forget requests it is used on; None is all.
        space: Searched knob to its range (`low`, `high`, `log`, or `choices`); empty when not recorded.
        alias_of: The method's own name, where the study calls it by another; else empty.
        fixed: Knob to the value that the study fixes; empty when not recorded.
    """

    name: str
    position: int
    summary: str
    zero_shot: bool
    has_epochs: bool
    requests: tuple[str, ...] | None = None
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alias_of: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def used_on(self, request: str) -> bool:
        return self.requests is None or request in self.requests


@dataclass(frozen=True)
class Runs:
    """The runs of one cell in one phase that count now, at most one per report seed.

    Args:
        records: Ended runs, by seed; all with the same knobs.
        outdated: Whether the search has found better knobs since.
    """

    records: tuple[TrialRecord, ...] = ()
    outdated: bool = False

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        return tuple(r for r in self.records if r.finished)


@dataclass(frozen=True)
class RecordedStudy:
    """What was asked for, and what came of it.

    Args:
        name: Name of the study.
        line: The last study line as written; empty when there is none.
        requests, methods: In the order of the study file.
        phases: Name to title of every phase, in the order in which a study passes through them.
        search_seeds, report_seeds: Seeds of tuning and of reporting.
        further_seeds: Search seeds on which finalists ran again; empty where none did.
        finalists: How many of a cell did.
        objective: Metric by which knobs are chosen, on the `val` view.
        trials: Configurations per cell; None when not recorded.
        sufficient_epochs: Epochs of the sufficient-training experiment; None when it is not asked for.
        transfers: (source, target) requests of the transfer experiment.
        records: Every ended trial.
        audits: Number of audits; their metrics are in the records of the trials that they attacked.
        decisions: (request, method) to what was tried and chosen.
        references: Request to what the rules of selection may compare with.
        runs: (phase, request, method, source) to the runs that count; source is empty but in `transfer`.
        summary: Content of ``summary.json``; empty when there is none.
        memo: What has been worked out from all this.
    """

    name: str
    line: Mapping[str, Any]
    requests: tuple[RecordedRequest, ...]
    methods: tuple[RecordedMethod, ...]
    phases: Mapping[str, str]
    search_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    further_seeds: tuple[int, ...]
    finalists: int
    objective: str
    trials: int | None
    sufficient_epochs: int | None
    transfers: tuple[tuple[str, str], ...]
    records: tuple[TrialRecord, ...]
    audits: int
    decisions: Mapping[tuple[str, str], Decision]
    references: Mapping[str, References]
    runs: Mapping[tuple[str, str, str, str], Runs]
    summary: Mapping[str, Any]
    memo: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def definition(self) -> Mapping[str, Any]:
        """The study file as it was resolved; empty when not recorded."""
        return mapping(self.line.get("definition"))

    @property
    def oracle(self) -> bool:
        """Whether knobs were chosen on the reported seeds and view, as the papers do."""
        return self.definition.get("selection") == "paper"

    @property
    def own_list(self) -> tuple[str, ...]:
        """Metrics of the objective `mean_gap`; empty when the study has no list of its own."""
        search = mapping(self.definition.get("search"))
        return tuple({**search, **mapping(search.get("objective"))}.get("mean_gap") or ())

    @property
    def margin(self) -> float | None:
        """How far off the retrained models a fraction may be to be the same; None where their spread decides."""
        points = mapping(self.definition.get("report")).get("margin")
        return None if points is None else float(points) / 100

    @property
    def max_utility_loss(self) -> float | None:
        """How much held-out accuracy a chosen configuration may lose, a fraction; None where all of it, or not recorded."""
        limit = mapping(self.definition.get("search")).get("max_utility_loss")
        return None if limit is None or limit >= 1 else float(limit)

    def once(self, key: Any, work: Callable[[], T]) -> T:
        """The result of `work`, which is done for a key but once."""
        if key not in self.memo:
            self.memo[key] = work()
        return self.memo[key]

    def request(self, name: str) -> RecordedRequest:
        return next(request for request in self.requests if request.name == name)

    def cell(self, phase: str, forget: str, method: str, source: str = "") -> Runs:
        return self.runs.get((phase, forget, method, source), Runs())

    def chosen(self, forget: str, method: str) -> Candidate | None:
        """The configuration that stands for a cell; None when none has finished."""
        return self.decisions.get((forget, method), Decision()).chosen

    @property
    def candidates(self) -> Mapping[tuple[str, str], Sequence[Candidate]]:
        """(request, method) to the configurations that finished on all search seeds."""
        return {cell: decision.tried for cell, decision in self.decisions.items()}

    def eligible(self, forget: str, method: str) -> Sequence[Candidate]:
        """The candidates of a cell that may be chosen; see ``mu.choice.Decision``."""
        return self.decisions.get((forget, method), Decision()).eligible

    def searched(self, forget: str, method: str) -> Sequence[TrialRecord]:
        """Every search trial of a cell."""
        return self.once("searched", self._searches).get((forget, method), ())

    def why_unchosen(self, forget: str, method: str) -> str:
        """Return why a cell has no chosen knobs; empty where its search has something to choose from."""
        tried = self.searched(forget, method)
        if not tried:
            return "not run"
        if self.candidates.get((forget, method)):
            return ""
        view = "test" if self.oracle else "val"
        values = [objective_value(r, self.objective, view) for r in tried if r.finished]
        unmeasured = any(not math.isfinite(value) for value in values)
        return "objective not measured" if unmeasured else "no finished search trial"

    def _searches(self) -> dict[tuple[str, str], list[TrialRecord]]:
        trials: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
        for r in self.records:
            if r.phase == "search":
                trials[r.forget, r.method].append(r)
        return trials

    def counts(self) -> dict[str, Counter[str]]:
        """Return phase to status to number of trials, in the order of the phases."""
        table: dict[str, Counter[str]] = {phase: Counter() for phase in self.phases}
        for r in self.records:
            table[r.phase][r.status] += 1
        if self.audits:
            table.setdefault("audit", Counter())["finished"] += self.audits
        return table

    def planned(self, phase: str) -> int | None:
        """Number of trials that a phase has when it is complete; None when that is not recorded."""
        count = mapping(mapping(self.line.get("planned")).get(phase)).get("trials")
        return None if count is None else int(count)
