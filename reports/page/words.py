"""The parts of the page that are words: what was run, how to read it, what did not finish, the glossary."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mu.metrics import METRICS
from mu.record import REFERENCE_ROLES, STATUSES, TrialRecord
from reports.analysis import choosing
from reports.analysis.spaces import spans
from reports.analysis.summaries import retrained
from reports.load import RecordedStudy
from reports.load import mapping as _mapping
from reports.text import ORACLE, knob_text, label, objective
from reports.text import count as counted

BEST = {"target": "as retrained", "lower": "low", "higher": "high"}
Pairs = list[tuple[str, str]]


class Listing(NamedTuple):
    """A plain table of words, under a heading."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Reason(NamedTuple):
    """Trials of one cell that ended without a result for one reason, but for the numbers in it."""

    status: str
    cell: str
    reason: str
    forget: str
    method: str


def byline(study: RecordedStudy, written: str) -> str:
    """Return the study on one line; of one that had not ended when it was read, how far it was."""
    data = _mapping(study.line.get("data")).get("name")
    what = _join([data, _mapping(study.definition.get("model")).get("name")])
    scale = _join(
        [
            counted(len(study.methods), "method"),
            counted(len(study.requests), "forget request"),
            counted(len(study.report_seeds), "report seed"),
            counted(len(study.records), "trial"),
        ]
    )
    text = f"{what + '; ' if what else ''}{scale}; written {written}"
    if study.summary.get("state") == "running":
        planned = sum(study.planned(phase) or 0 for phase in study.phases)
        of = f" of {planned:,}" if planned else ""
        text += f", before the study had ended: {len(study.records) + study.audits:,}{of} trials"
    return f"{text}."


def margin(study: RecordedStudy) -> str:
    """Return within what a metric is the same as for retrained models."""
    if study.margin is not None:
        return f"{100 * study.margin:g} points"
    return "two standard deviations of the retrained models, and half a point at least"


def listings(study: RecordedStudy) -> list[Listing]:
    """Return the requests, the methods, how trials ended, and what methods warned of."""
    requests = [
        (
            r.name,
            r.kind.replace("_", " "),
            _count(r.forget),
            _count(r.retain),
            _pairs({**r.details, "kind": None}),
        )
        for r in study.requests
    ]
    phases = [
        (study.phases[phase], _count(study.planned(phase)), *(str(ended[s]) for s in STATUSES))
        for phase, ended in study.counts().items()
        if ended or study.planned(phase)
    ]
    warnings = Counter((r.method, r.forget, text) for r in study.records for text in r.warnings)
    warned = [(*cell, str(number)) for cell, number in sorted(warnings.items())]
    statuses = [status.capitalize() for status in STATUSES]
    heads = {
        "Forget requests": ("Request", "Kind", "Forgotten", "Retained", "Details"),
        "Methods": ("Method", "What it does", "Uses", "Knobs searched"),
        "Trials by phase": ("Phase", "Planned", *statuses),
        f"Warnings ({len(warned)})": ("Method", "Request", "Warning", "Trials"),
    }
    rows: list[Sequence[tuple[str, ...]]] = [requests, _methods(study), phases, warned]
    made = [Listing(title, head, of) for (title, head), of in zip(heads.items(), rows)]
    return made if warned else made[:-1]


def unfinished(study: RecordedStudy) -> list[Reason]:
    """Return every trial without a result, grouped by cells and by reasons that differ in numbers only."""
    groups: dict[tuple[str, ...], list[TrialRecord]] = defaultdict(list)
    for r in sorted((r for r in study.records if not r.finished), key=lambda r: _place(study, r)):
        place = f"{r.source} → {r.forget}" if r.source else r.forget
        reason = re.sub(r"[0-9.]+", "#", _last_line(r))
        groups[r.status, study.phases[r.phase], place, r.method, reason].append(r)
    reasons = []
    for (status, *cell, _), records in groups.items():
        lines = list(dict.fromkeys(map(_last_line, records)))
        number = f" ×{len(records)}" if len(records) > 1 else ""
        text = ("such as " if len(lines) > 1 else "") + lines[0]
        last = records[0]
        reasons.append(Reason(status, " · ".join(cell) + number, text, last.forget, last.method))
    return reasons


def _place(study: RecordedStudy, record: TrialRecord) -> tuple[int, ...]:
    """Return the place of a trial without a result: failures first, then phases, requests and methods in order."""
    orders = (
        (record.status, ["failed", "diverged", "stopped"]),
        (record.phase, list(study.phases)),
        (record.forget, [request.name for request in study.requests]),
        (record.method, [*REFERENCE_ROLES, *(method.name for method in study.methods)]),
    )
    return tuple(known.index(v) if v in known else len(known) for v, known in orders)


def _last_line(record: TrialRecord) -> str:
    lines = [line.strip() for line in record.reason.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason recorded"


def glossary() -> Listing:
    """Return every metric: label, key, unit, direction and definition."""
    rows = [
        (metric.label, name, metric.unit or "–", BEST[metric.better], metric.source)
        for name, metric in METRICS.items()
    ]
    return Listing("Metrics", ("Metric", "Key", "Unit", "Best", "Definition"), rows)


def concordance() -> Listing:
    """Return what each paper calls a metric; the same letters mean different things in different papers."""
    names = {name: metric.names for name, metric in METRICS.items() if metric.names}
    papers = dict.fromkeys(key.split(" (")[0] for theirs in names.values() for key in theirs)
    rows = []
    for name, theirs in names.items():
        called: dict[str, list[str]] = {paper: [] for paper in papers}
        for key, word in theirs.items():
            paper, _, setting = key.partition(" (")
            called[paper].append(f"{word} ({setting}" if setting else word)
        rows.append((METRICS[name].label, *("; ".join(c) or "–" for c in called.values())))
    return Listing("Names in the papers", ("Metric", *papers), rows)


def duration(value: float) -> str:
    """Return seconds as people say them."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def setting(study: RecordedStudy) -> Pairs:
    """Return data, model, budget, machines and times; empty where nothing is recorded."""
    line, definition = study.line, study.definition
    data, search = _mapping(line.get("data")), _mapping(definition.get("search"))
    objectives = search.get("objective") or [study.objective]
    objectives = [objectives] if isinstance(objectives, str) else list(objectives)
    seeds = study.further_seeds
    again = f"the best {study.finalists} again on search seeds {_join(seeds)}" if seeds else ""
    longer = f"{study.sufficient_epochs} epochs" if study.sufficient_epochs else ""
    shape = "×".join(str(size) for size in data.get("input_shape") or [])
    classes = f"{data['classes']} classes" if "classes" in data else ""
    parts, versions = _mapping(data.get("parts")), _mapping(line.get("versions"))
    return [
        ("Data", _join([data.get("name"), shape, classes])),
        ("Samples", _join(f"{part} {n:,}" for part, n in parts.items() if n)),
        ("Fingerprint", str(data.get("fingerprint", ""))),
        ("Model", _join(_mapping(definition.get("model")).values())),
        ("Training", _pairs(_mapping(definition.get("training")))),
        ("Budget", f"{study.trials} configurations per method and request" if study.trials else ""),
        ("Search", _pairs({k: search[k] for k in ("sampler", "early_stop") if k in search})),
        ("Started from", choosing.started_from(study)),
        ("Objective", objective(study)),
        ("Further objectives", _join(label(name) for name in objectives[1:])),
        ("Choice", choosing.rule(study)),
        ("Utility floor", choosing.floor(study)),
        ("Finalists", again),
        ("Selection", ORACLE if study.oracle else ""),
        ("Earlier code", _earlier_code(study)),
        ("Seeds", f"search {_join(study.search_seeds)}; report {_join(study.report_seeds)}"),
        ("Retrained models", _join(f"{r.name}: {retrained(study, r).n}" for r in study.requests)),
        ("Sufficient training", longer),
        ("Transfer", _join(f"{source} → {target}" for source, target in study.transfers)),
        *_resources(_mapping(definition.get("resources"))),
        ("Limits", _limits(study)),
        ("Cost", _cost(study)),
        *_machines(study, versions),
        ("Versions", _join(f"{name} {version}" for name, version in versions.items())),
        *_clock(study),
    ]


def _earlier_code(study: RecordedStudy) -> str:
    """Return how many trials ran a code of their method that has changed since, and were kept all the same."""
    now = {name: facts.get("code") for name, facts in _mapping(study.line.get("methods")).items()}
    kept = Counter(r.method for r in study.records if r.code and r.code != now.get(r.method))
    texts = (f"{counted(count, 'trial')} of {method}" for method, count in kept.items())
    return f"{_join(texts)} ran code that was edited since (accepted)" if kept else ""


def _resources(given: Mapping[str, Any]) -> Pairs:
    """Return what a trial occupies, and a training where that is something else."""

    def text(share: Mapping[str, Any]) -> str:
        return _pairs(
            {**share, **_mapping(share.get("custom")), "custom": None, "references": None}
        )

    training = {**given, **_mapping(given.get("references"))}
    rows = [("Resources of a trial", text(given))]
    return rows if text(training) == text(given) else [*rows, ("of a training", text(training))]


def _limits(study: RecordedStudy) -> str:
    """Return time and cost that trials and the study may take, and whether that ended the search."""
    budget = _mapping(study.definition.get("budget"))
    limits = _pairs({"trial_timeout": study.definition.get("trial_timeout"), **budget})
    ended = _mapping(study.line.get("search_ended"))
    early = f"the search ended after {ended['trials']} trials a cell" if ended else ""
    return _join([limits, early])


def _cost(study: RecordedStudy) -> str:
    """Return hours of CPUs and GPUs that all trials and trainings kept."""
    hours = {
        unit: sum(record.cost(name) for record in study.records) / 3600
        for name, unit in (("gpus", "GPU-hours"), ("cpus", "CPU-hours"))
    }
    return _join(f"{value:.3g} {unit}" for unit, value in hours.items() if value)


def _machines(study: RecordedStudy, versions: Mapping[str, Any]) -> Pairs:
    """Return what trials say of where they ran, without what the study's versions say already."""
    hosts: dict[str, set[str]] = defaultdict(set)
    for record in study.records:
        for name, value in record.environment.items():
            hosts[name].add(str(value))
    return [
        (name.capitalize(), _join(sorted(values)))
        for name, values in sorted(hosts.items())
        if values != {versions.get(name)}
    ]


def _clock(study: RecordedStudy) -> Pairs:
    """Return when it started, and from the summary how long it took and how busy the slots were."""
    started = study.line.get("started")
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)) if _is_number(started) else ""
    texts = {
        "wall_seconds": lambda value: f"{duration(value)} wall",
        "compute_seconds": lambda value: f"{duration(value)} compute",
        "slots": lambda value: f"{value:g} slots",
        "efficiency": lambda value: f"efficiency {100 * value:.1f} % (compute / (wall × slots))",
    }
    known = {key: study.summary.get(key) for key in texts}
    last = _join(texts[key](value) for key, value in known.items() if _is_number(value))
    return [("Last start", day), ("Last run", last)]


def _methods(study: RecordedStudy) -> Sequence[tuple[str, ...]]:
    rows = []
    for method in study.methods:
        fixed = knob_text(method.fixed)
        ranges = [f"{span.knob} {span.text}" for span in spans(study, method)]
        ranges += [f"fixed: {fixed}"] if fixed else []
        name = f"{method.name} ({method.alias_of})" if method.alias_of else method.name
        uses = "zero-shot" if method.zero_shot else "retained data"
        rows.append((name, method.summary, uses, "; ".join(ranges) or "–"))
    return rows


def _pairs(values: Mapping[str, Any]) -> str:
    return knob_text({name: value for name, value in values.items() if value is not None})


def _join(items: Iterable[Any]) -> str:
    return ", ".join(str(item) for item in items if item not in (None, ""))


def _count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
