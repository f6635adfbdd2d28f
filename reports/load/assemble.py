"""From the lines of ``trials.jsonl`` to a ``RecordedStudy``; the records tell what a study line does not say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mu import selection
from mu.choice import choice_of, decisions, retrain_seeds
from mu.current import name_in_study, read_current
from mu.record import TrialRecord
from reports.load.counting import counting_runs, without_superseded
from reports.load.study import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy, mapping


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


def assemble(
    line: Mapping[str, Any],
    records: Sequence[TrialRecord],
    summary: Mapping[str, Any],
    fallback_name: str = "study",
) -> RecordedStudy:
    """Return a ``RecordedStudy`` from parsed lines."""
    audits = sum(record.phase == "audit" for record in records)
    records = with_audits(records)
    definition = mapping(line.get("definition"))
    seeds, search = mapping(definition.get("seeds")), mapping(definition.get("search"))
    apart = ("search", "finalist", "reference")  # whose seeds are no report seeds
    reported = (r for r in records if r.phase not in apart or r.role == "report")
    all_seeds = {
        "search": seeds.get("search") or _seeds(r for r in records if r.phase == "search"),
        "report": seeds.get("report") or _seeds(reported),
    }
    objective = _first(search.get("objective")) or "avg_gap_natmu"
    requests, methods = _requests(line, records), _methods(line, records)
    epochs, transfers = _experiments(definition, records, [request.name for request in requests])
    choice = choice_of(
        {**definition, "search": {**search, "objective": [objective]}, "seeds": all_seeds}
    )
    cells = [(request.name, method.name) for request in requests for method in methods]
    chosen, phases = decisions(choice, records, cells), _phases(line, records)
    further = retrain_seeds({**seeds, **all_seeds})
    runs = counting_runs(records, (all_seeds["report"], further), chosen, epochs, phases)
    return RecordedStudy(
        name=str(line.get("study") or (records[0].study if records else fallback_name)),
        line=line,
        requests=requests,
        methods=methods,
        phases=phases,
        search_seeds=tuple(all_seeds["search"]),
        report_seeds=tuple(all_seeds["report"]),
        further_seeds=choice.further_seeds,
        finalists=choice.finalists,
        objective=objective,
        trials=search.get("trials"),
        sufficient_epochs=epochs,
        transfers=transfers,
        records=without_superseded(records, runs),
        audits=audits,
        decisions=chosen,
        references={
            each.name: selection.references(records, each.name, choice.seeds, choice.view)
            for each in requests
        },
        runs=runs,
        summary=summary,
    )


def with_audits(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return all records but audits, whose metrics join those of the confirmed trial they attacked."""

    def name(record: TrialRecord) -> str:
        return str((record.forget, record.method, record.seed, sorted(record.knobs.items())))

    audits = {name(r): r.metrics.get("test", {}) for r in records if r.phase == "audit"}
    if not audits:
        return list(records)
    joined = []
    for trial in records:
        if trial.phase == "confirm" and (attacked := audits.get(name(trial))) is not None:
            test = {**trial.metrics.get("test", {}), **attacked}
            trial = replace(trial, metrics={**trial.metrics, "test": test})
        if trial.phase != "audit":
            joined.append(trial)
    return joined


def _requests(
    line: Mapping[str, Any], records: Sequence[TrialRecord]
) -> tuple[RecordedRequest, ...]:
    facts, definition = mapping(line.get("requests")), mapping(line.get("definition"))
    details = mapping(definition.get("forget"))
    split = {r.forget for r in records for view in r.metrics.values() if "acc_test_retain" in view}
    requests = []
    for name in dict.fromkeys([*details, *facts] or [r.forget for r in records]):
        fact, detail = mapping(facts.get(name)), mapping(details.get(name))
        kind = str(fact.get("kind", detail.get("kind", "")))
        whole_class = bool(fact.get("whole_class", name in split))
        sizes = fact.get("forget"), fact.get("retain")
        requests.append(RecordedRequest(name, kind, *sizes, whole_class, detail))
    return tuple(requests)


def _methods(line: Mapping[str, Any], records: Sequence[TrialRecord]) -> tuple[RecordedMethod, ...]:
    facts, definition = mapping(line.get("methods")), mapping(line.get("definition"))
    listed = {
        name_in_study(entry) if isinstance(entry, dict) else str(entry): mapping(entry)
        for entry in definition.get("methods") or []
    }
    extended = {r.method for r in records if EPOCHS in r.knobs}
    names = [*listed, *facts] or [r.method for r in records if r.phase != "reference"]
    methods = []
    for position, name in enumerate(dict.fromkeys(names)):
        fact, entry = mapping(facts.get(name)), listed.get(name, {})
        requests = entry.get("forget")
        methods.append(
            RecordedMethod(
                name,
                position,
                str(fact.get("summary", "")),
                bool(fact.get("zero_shot", False)),
                bool(fact.get("has_epochs", name in extended)),
                None if requests is None else tuple(requests),
                {knob: mapping(span) for knob, span in mapping(entry.get("space")).items()},
                str(fact.get("alias_of", "")),
                mapping(entry.get("fix")),
            )
        )
    return tuple(methods)


def _phases(line: Mapping[str, Any], records: Iterable[TrialRecord]) -> dict[str, str]:
    """Return name to title of the phases, in the order of the study line, else in that of the records."""
    titles: dict[str, str] = {}
    for phase in map(mapping, line.get("phases") or []):
        if "name" in phase:
            titles[str(phase["name"])] = str(phase.get("title") or phase["name"])
    for name in [*(r.phase for r in records), *mapping(line.get("planned"))]:
        titles.setdefault(name, name)
    return titles


def _experiments(
    definition: Mapping[str, Any], records: Iterable[TrialRecord], requests: Sequence[str]
) -> tuple[int | None, tuple[tuple[str, str], ...]]:
    """Return epochs of sufficient training, and the pairs of the transfer; from the records without a definition."""
    if definition:
        experiments = mapping(definition.get("experiments"))
        asked, listed = experiments.get("sufficient"), experiments.get("transfer")
        epochs = asked.get(EPOCHS) if isinstance(asked, dict) else asked
        pairs = [(str(pair[0]), str(pair[1])) for pair in listed or [] if len(pair) == 2]
    else:
        ran = [r.knobs.get(EPOCHS, 0) for r in records if r.phase == "sufficient"]
        epochs = max(ran, default=None)
        pairs = [(r.source, r.forget) for r in records if r.phase == "transfer" and r.source]
    return epochs, tuple(pair for pair in dict.fromkeys(pairs) if pair[1] in requests)


def _first(objective: Any) -> str:
    """Return the name of the objective that decides, of a name, several, or a mapping of a name to its definition."""
    while isinstance(objective, (list, tuple, dict)) and objective:
        objective = next(iter(objective))
    return objective if isinstance(objective, str) else ""


def _seeds(records: Iterable[TrialRecord]) -> list[int]:
    return sorted({r.seed for r in records})


def _summary(path: Path) -> dict[str, Any]:
    """Return the summary, which only adds to a report: one that cannot be read is as good as none."""
    try:
        return dict(mapping(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return {}
