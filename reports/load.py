"""``RecordedStudy``: everything a report is made from, read from ``trials.jsonl`` and the summary beside it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mu import selection
from mu.choice import Decision, choice_of, retrain_seeds
from mu.current import name_in_study, read_current
from mu.menu import MENU
from mu.metrics import AVG_GAP_NATMU
from mu.record import REFERENCE_ROLES, TrialRecord
from mu.selection import Candidate, References

T = TypeVar("T")
EPOCHS = "epochs"
"""The knob that sufficient training extends."""


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
        return _mapping(self.line.get("definition"))

    @property
    def oracle(self) -> bool:
        """Whether knobs were chosen on the reported seeds and view, as the papers do."""
        return self.definition.get("selection") == "paper"

    @property
    def own_list(self) -> tuple[str, ...]:
        """Metrics of the objective `mean_gap`; empty when the study has no list of its own."""
        search = _mapping(self.definition.get("search"))
        return tuple({**search, **_mapping(search.get("objective"))}.get("mean_gap") or ())

    @property
    def margin(self) -> float | None:
        """How far off the retrained models a fraction may be to be the same; None where their spread decides."""
        points = _mapping(self.definition.get("report")).get("margin")
        return None if points is None else float(points) / 100

    @property
    def max_utility_loss(self) -> float | None:
        """How much held-out accuracy a chosen configuration may lose, a fraction; None where all of it, or not recorded."""
        limit = _mapping(self.definition.get("search")).get("max_utility_loss")
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

    def _searches(self) -> dict[tuple[str, str], list[TrialRecord]]:
        found: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
        for r in self.records:
            if r.phase == "search":
                found[r.forget, r.method].append(r)
        return found

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
        count = _mapping(_mapping(self.line.get("planned")).get(phase)).get("trials")
        return None if count is None else int(count)


def read(study_dir: Path) -> RecordedStudy:
    """Read a study's folder.

    Raises:
        ValueError: ``trials.jsonl`` is missing, empty or not readable; the message names the file.
    """
    path = study_dir / "trials.jsonl"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; a study's folder must hold one")
    line, records = read_current(path)
    if not line and not records:
        raise ValueError(f"{path}: is empty; it must hold at least the line of a started study")
    return assemble(line, records, _summary(study_dir / "summary.json"), study_dir.resolve().name)


def with_audits(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """All records but audits, whose metrics join those of the confirmed trial they attacked."""

    def name(record: TrialRecord) -> tuple[object, ...]:
        return record.forget, record.method, record.seed, sorted(record.knobs.items())

    audits = {str(name(r)): r.metrics.get("test", {}) for r in records if r.phase == "audit"}
    joined = []
    for trial in records:
        if trial.phase == "confirm" and str(name(trial)) in audits:
            test = {**trial.metrics.get("test", {}), **audits[str(name(trial))]}
            trial = replace(trial, metrics={**trial.metrics, "test": test})
        if trial.phase != "audit":
            joined.append(trial)
    return joined


def assemble(
    line: Mapping[str, Any],
    records: Sequence[TrialRecord],
    summary: Mapping[str, Any],
    fallback_name: str = "study",
) -> RecordedStudy:
    """Return a ``RecordedStudy`` from parsed lines; the records tell what a study line does not say."""
    audits = sum(record.phase == "audit" for record in records)
    records = with_audits(records)
    definition = _mapping(line.get("definition"))
    seeds, search = _mapping(definition.get("seeds")), _mapping(definition.get("search"))
    search_seeds = seeds.get("search") or _seeds(r for r in records if r.phase == "search")
    report_seeds = seeds.get("report") or _seeds(
        r
        for r in records
        if r.phase not in ("search", "finalist", "reference") or r.role == "report"
    )
    objective = _first(search.get("objective")) or "avg_gap_natmu"
    requests, methods = _requests(line, records), _methods(line, records)
    view = "test" if definition.get("selection") == "paper" else "val"
    epochs, transfers = _experiments(definition, records, [request.name for request in requests])
    all_seeds = {"search": search_seeds, "report": report_seeds}
    choice = choice_of(
        {**definition, "search": {**search, "objective": [objective]}, "seeds": all_seeds}
    )
    decisions = {
        (request.name, method.name): choice.decide(records, request.name, method.name)
        for request in requests
        for method in methods
    }
    phases = _phases(line, records)
    further = retrain_seeds({**seeds, **all_seeds})
    runs = _runs(records, (report_seeds, further), decisions, epochs)
    return RecordedStudy(
        name=str(line.get("study") or (records[0].study if records else fallback_name)),
        line=line,
        requests=requests,
        methods=methods,
        phases=phases,
        search_seeds=tuple(search_seeds),
        report_seeds=tuple(report_seeds),
        further_seeds=choice.further_seeds,
        finalists=choice.finalists,
        objective=objective,
        trials=search.get("trials"),
        sufficient_epochs=epochs,
        transfers=transfers,
        records=_without_superseded(records, runs),
        audits=audits,
        decisions=decisions,
        references={
            request.name: selection.references(records, request.name, search_seeds, view)
            for request in requests
        },
        runs=_in_order(runs, phases, list(decisions)),
        summary=summary,
    )


def _runs(
    records: Iterable[TrialRecord],
    seeds: tuple[Sequence[int], Sequence[int]],
    decisions: Mapping[tuple[str, str], Decision],
    epochs: int | None,
) -> dict[tuple[str, str, str, str], Runs]:
    """The runs that count: a search that goes on may choose other knobs, and leave runs with the old ones.

    Args:
        seeds: The report seeds, and the seeds of further retrained models.
        decisions: Of every cell of the study; runs of other cells are left out.
        epochs: Epochs of sufficient training.
    """
    requests = {forget for forget, _ in decisions}
    cells: dict[tuple[str, str, str, str], list[TrialRecord]] = defaultdict(list)
    for r in records:
        if r.phase == "reference":
            known = r.forget in requests and r.role == "report"
        else:
            known = (r.forget, r.method) in decisions and r.phase not in ("search", MENU)
        if known and (r.seed in seeds[0] or (r.method == "retrain" and r.seed in seeds[1])):
            cells[r.phase, r.forget, r.method, r.source or ""].append(r)
    return {
        (phase, forget, method, source): _latest(
            ended,
            None
            if phase in ("reference", "default")
            else decisions.get((source or forget, method), Decision()).chosen,
            {EPOCHS: epochs} if phase == "sufficient" else {},
        )
        for (phase, forget, method, source), ended in cells.items()
    }


def _without_superseded(
    records: Iterable[TrialRecord], runs: Mapping[tuple[str, str, str, str], Runs]
) -> tuple[TrialRecord, ...]:
    """Leave out the runs with knobs of an earlier choice, in place of which others count."""
    counting = {r.key for each in runs.values() for r in each.records}
    return tuple(
        r
        for r in records
        if r.key in counting
        or r.phase == "reference"
        or (r.phase, r.forget, r.method, r.source or "") not in runs
    )


def _in_order(
    runs: dict[tuple[str, str, str, str], Runs],
    phases: Iterable[str],
    cells: Sequence[tuple[str, str]],
) -> dict[tuple[str, str, str, str], Runs]:
    """Sort runs as the study lists their phases, requests and methods, whichever ended first."""
    requests = ["", *dict.fromkeys(forget for forget, _ in cells)]
    methods = [*REFERENCE_ROLES, *dict.fromkeys(method for _, method in cells)]
    places = [{name: at for at, name in enumerate(names)} for names in (phases, requests, methods)]

    def place(cell: tuple[str, str, str, str]) -> tuple[int, ...]:
        phase, forget, method, source = cell
        return places[0][phase], places[1][forget], places[2][method], places[1].get(source, 0)

    return {cell: runs[cell] for cell in sorted(runs, key=place)}


def _latest(
    ended: Sequence[TrialRecord], chosen: Candidate | None, changed: Mapping[str, Any]
) -> Runs:
    """The runs of a cell with the chosen knobs, or while there are none those with the latest knobs."""
    knobs = max(ended, key=lambda r: r.ended).knobs
    wanted = {**chosen.knobs, **changed} if chosen else knobs
    outdated = not any(r.knobs == wanted for r in ended)
    by_seed: dict[int, TrialRecord] = {}
    for r in sorted(ended, key=lambda r: (r.finished, r.ended)):
        if r.knobs == (knobs if outdated else wanted):
            by_seed[r.seed] = r
    return Runs(tuple(by_seed[seed] for seed in sorted(by_seed)), outdated)


def _requests(
    line: Mapping[str, Any], records: Sequence[TrialRecord]
) -> tuple[RecordedRequest, ...]:
    facts, definition = _mapping(line.get("requests")), _mapping(line.get("definition"))
    details = _mapping(definition.get("forget"))
    found: list[RecordedRequest] = []
    for name in [*details, *facts] if details or facts else [r.forget for r in records]:
        if name in [request.name for request in found]:
            continue
        fact, detail = _mapping(facts.get(name)), _mapping(details.get(name))
        split = any(
            "acc_test_retain" in view
            for r in records
            if r.forget == name
            for view in r.metrics.values()
        )
        found.append(
            RecordedRequest(
                name,
                str(fact.get("kind", detail.get("kind", ""))),
                fact.get("forget"),
                fact.get("retain"),
                bool(fact.get("whole_class", split)),
                detail,
            )
        )
    return tuple(found)


def _methods(line: Mapping[str, Any], records: Sequence[TrialRecord]) -> tuple[RecordedMethod, ...]:
    facts, definition = _mapping(line.get("methods")), _mapping(line.get("definition"))
    listed = {
        name_in_study(entry) if isinstance(entry, dict) else str(entry): _mapping(entry)
        for entry in definition.get("methods") or []
    }
    names = [*listed, *facts] or [r.method for r in records if r.phase != "reference"]
    found: list[RecordedMethod] = []
    for position, name in enumerate(dict.fromkeys(names)):
        fact, entry = _mapping(facts.get(name)), listed.get(name, {})
        requests = entry.get("forget")
        extends = any(EPOCHS in r.knobs for r in records if r.method == name)
        found.append(
            RecordedMethod(
                name,
                position,
                str(fact.get("summary", "")),
                bool(fact.get("zero_shot", False)),
                bool(fact.get("has_epochs", extends)),
                None if requests is None else tuple(requests),
                {knob: _mapping(span) for knob, span in _mapping(entry.get("space")).items()},
                str(fact.get("alias_of", "")),
                _mapping(entry.get("fix")),
            )
        )
    return tuple(found)


def _phases(line: Mapping[str, Any], records: Iterable[TrialRecord]) -> dict[str, str]:
    """Return name to title of the phases, in the order of the study line, else in that of the records."""
    titles: dict[str, str] = {}
    for phase in map(_mapping, line.get("phases") or []):
        if "name" in phase:
            titles[str(phase["name"])] = str(phase.get("title") or phase["name"])
    for name in [*(r.phase for r in records), *_mapping(line.get("planned"))]:
        titles.setdefault(name, name)
    return titles


def _experiments(
    definition: Mapping[str, Any], records: Iterable[TrialRecord], requests: Sequence[str]
) -> tuple[int | None, tuple[tuple[str, str], ...]]:
    """Epochs of sufficient training, and the pairs of the transfer; from the records without a definition."""
    if definition:
        experiments = _mapping(definition.get("experiments"))
        asked, listed = experiments.get("sufficient"), experiments.get("transfer")
        epochs = asked.get(EPOCHS) if isinstance(asked, dict) else asked
        pairs = [(str(pair[0]), str(pair[1])) for pair in listed or [] if len(pair) == 2]
    else:
        ran = [r.knobs.get(EPOCHS, 0) for r in records if r.phase == "sufficient"]
        epochs = max(ran, default=None)
        pairs = [(r.source, r.forget) for r in records if r.phase == "transfer" and r.source]
    return epochs, tuple(pair for pair in dict.fromkeys(pairs) if pair[1] in requests)


def _first(objective: Any) -> str:
    """The name of the objective that decides, of a name, several, or a mapping of a name to its definition."""
    while isinstance(objective, (list, tuple, dict)) and objective:
        objective = next(iter(objective))
    return objective if isinstance(objective, str) else ""


def _seeds(records: Iterable[TrialRecord]) -> list[int]:
    return sorted({r.seed for r in records})


def _summary(path: Path) -> dict[str, Any]:
    """The summary, which only adds to a report: one that cannot be read is as good as none."""
    try:
        return dict(_mapping(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
