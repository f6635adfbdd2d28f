"""The parts of the page that are words: what was run, how to read it, what did not finish, the glossary."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mu.metrics import METRICS
from mu.record import REFERENCE_ROLES, STATUSES, TrialRecord
from reports import markup
from reports.analysis import choosing
from reports.analysis.summaries import retrained
from reports.load import RecordedStudy
from reports.text import ORACLE, knob_text, label, objective
from reports.text import count as counted

BEST = {"target": "as retrained", "lower": "low", "higher": "high"}
CONCORDANCE = (
    "What the papers call these. The same letters do not mean the same: NatMU's RA is an accuracy on test "
    "images, UGradSL's and Akbari's one on retained training images; UA is an error in UGradSL and an accuracy "
    "in Akbari; of the attacks, NatMU, JiT and TMU print the share called member, UGradSL and Akbari the share "
    "called non-member."
)


def byline(study: RecordedStudy, written: str) -> str:
    """The study on one line."""
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
    return f"{what + '; ' if what else ''}{scale}; written {written}."


def how_to_read(study: RecordedStudy) -> list[tuple[str, str]]:
    """What the words and marks of the tables mean."""
    if study.oracle:
        views = (
            "As in the papers, knobs were chosen on the reported seeds by what is reported: the numbers are "
            "better than those of a user, and of a study that keeps seeds and views apart."
        )
    else:
        views = (
            "Knobs were chosen on the validation view with the search seeds; tables show the test view on other "
            "seeds. Choosing by the distance to retrained models needs such models: what becomes of a method "
            "without them is in the tables on sufficient training, transfer and rules of choice."
        )
    return [
        (
            "Gap",
            "A method is good when it ends where retraining without the forgotten data ends, so every number is "
            "compared with that of the retrained models: gap = |mean − mean of the retrained models|, formed "
            "before rounding. An accuracy above that of retraining is not better.",
        ),
        (
            "Recovery",
            "1 − AvgGap / AvgGap of doing nothing: 0 % is the original model, 100 % is retraining, and below 0 a method is "
            "further off than the model it was given. Chance keeps it below 100 %: the column of the retrained models has "
            "what one of them gets against the others. Where doing nothing is less than three noise floors from "
            "retraining, there is nothing to measure.",
        ),
        (
            "Noise floor",
            "The mean distance of a retrained model from the mean of the others; a single one has none.",
        ),
        (
            "= ≠ ?",
            "Same, different or undecided, by two one-sided t tests (pooled variance, 5 %) of the runs against the "
            f"retrained models. The same is what is within {_margin(study)}. Different is what differs by the two-sided "
            "test and is not the same. Of AvgGap, all its metrics at once.",
        ),
        (
            "AvgGap",
            "The mean of the gaps over NatMU's list of metrics: three where single samples are forgotten, four "
            "where a whole class is. Of means: gaps of the means over seeds. Per run: each run's own gaps, "
            "averaged; never smaller.",
        ),
        (
            "Intervals",
            "95 %, in brackets or shown when one points at a cell, and in every CSV file: Student's over the seeds, wide "
            "for three, very wide for two, none for one. Of a gap with pooled variance, without its sign; where a number "
            "is no mean (AvgGap of means, recovery, regret) from resampled seeds. They say how far another draw of "
            "seeds may move a number, not how another data set would.",
        ),
        ("Views and seeds", views),
        (
            "No number",
            "A cell without a number says why: the runs failed, diverged or were stopped, no search trial "
            "finished, or nothing was run. Where seeds are missing, n says how many there are.",
        ),
    ]


def _margin(study: RecordedStudy) -> str:
    if study.margin is not None:
        return f"{100 * study.margin:g} points"
    return "two standard deviations of the retrained models, and half a point at least"


def what_was_run(study: RecordedStudy) -> str:
    """Return the setting (data, model, budget, machines), the requests, the methods and how trials ended."""
    return "\n".join(
        [
            markup.facts(_setting(study)),
            "<h3>Forget requests</h3>",
            markup.listing(
                ("Request", "Kind", "Forgotten", "Retained", "Details"),
                [
                    (
                        request.name,
                        request.kind.replace("_", " "),
                        _count(request.forget),
                        _count(request.retain),
                        _pairs({k: v for k, v in request.details.items() if k != "kind"}),
                    )
                    for request in study.requests
                ],
                numbers=(2, 3),
                wrap=(4,),
            ),
            "<h3>Methods</h3>",
            _methods(study),
            "<h3>Trials</h3>",
            markup.listing(
                ("Phase", "Planned", *(status.capitalize() for status in STATUSES)),
                [
                    (
                        study.phases[phase],
                        _count(study.planned(phase)),
                        *(str(ended[status]) for status in STATUSES),
                    )
                    for phase, ended in study.counts().items()
                    if ended or study.planned(phase)
                ],
                numbers=range(1, 2 + len(STATUSES)),
            ),
            warnings(study),
        ]
    )


def warnings(study: RecordedStudy) -> str:
    """Return what methods warned of, by method and request, with the number of trials; empty where none did."""
    counts = Counter(
        (record.method, record.forget, text) for record in study.records for text in record.warnings
    )
    lines = [
        f"{method} on {forget}: {text} ({counted(count, 'trial')})"
        for (method, forget, text), count in sorted(counts.items())
    ]
    if not lines:
        return ""
    items = "".join(f"<li>{markup.escape(line)}</li>" for line in lines)
    return f"<h3>Warnings ({len(lines)})</h3><ul>{items}</ul>"


def unfinished(study: RecordedStudy) -> str:
    """Return every trial without a result, grouped by cells and by reasons that differ in numbers only."""
    groups: dict[tuple[str, ...], list[TrialRecord]] = defaultdict(list)
    for record in sorted((r for r in study.records if not r.finished), key=_place(study)):
        place = f"{record.source} → {record.forget}" if record.source else record.forget
        reason = re.sub(r"[0-9.]+", "#", _last_line(record))
        phase = study.phases[record.phase]
        groups[record.status, phase, place, record.method, reason].append(record)
    if not groups:
        return markup.paragraph("Every trial that has ended has finished.")
    parts, status = [], ""
    for key, records in groups.items():
        if key[0] != status:
            status = key[0]
            total = sum(len(group) for other, group in groups.items() if other[0] == status)
            parts.append(f"<h3>{markup.escape(status.capitalize())} ({total})</h3>")
        cell = " · ".join(key[1:4]) + (f" ×{len(records)}" if len(records) > 1 else "")
        lines = [_last_line(record) for record in records]
        such_as = "such as " if len(set(lines)) > 1 else ""
        body = "".join(_detail(record) for record in records)
        parts.append(markup.details(f"{cell}: {such_as}{lines[0]}", body))
    return "\n".join(parts)


def glossary() -> str:
    """Every metric: label, key, definition, unit and direction; then what each paper calls it."""
    definitions = markup.listing(
        ("Metric", "Key", "Unit", "Best", "Definition"),
        [
            (metric.label, name, metric.unit or "–", BEST[metric.better], metric.source)
            for name, metric in METRICS.items()
        ],
        wrap=(4,),
    )
    return definitions + markup.paragraph(CONCORDANCE) + concordance()


def concordance() -> str:
    """What each paper calls a metric; the same letters mean different things in different papers."""
    names = {name: metric.names for name, metric in METRICS.items() if metric.names}
    papers = dict.fromkeys(key.split(" (")[0] for found in names.values() for key in found)
    rows = []
    for name, found in names.items():
        called: dict[str, list[str]] = {paper: [] for paper in papers}
        for key, theirs in found.items():
            paper, _, setting = key.partition(" (")
            called[paper].append(f"{theirs} ({setting}" if setting else theirs)
        rows.append((METRICS[name].label, *("; ".join(c) or "–" for c in called.values())))
    return markup.listing(("Metric", *papers), rows, wrap=tuple(range(1, len(papers) + 1)))


def duration(value: float) -> str:
    """Seconds as people say them."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _setting(study: RecordedStudy) -> list[tuple[str, str]]:
    line, definition = study.line, study.definition
    data, search = _mapping(line.get("data")), _mapping(definition.get("search"))
    versions = _mapping(line.get("versions"))
    parts = _mapping(data.get("parts"))
    objectives = search.get("objective") or [study.objective]
    shape = "×".join(str(size) for size in data.get("input_shape") or [])
    classes = f"{data['classes']} classes" if "classes" in data else ""
    objectives = [objectives] if isinstance(objectives, str) else list(objectives)
    sufficient = f"{study.sufficient_epochs} epochs" if study.sufficient_epochs else ""
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
        ("Finalists", _finalists(study)),
        ("Selection", ORACLE if study.oracle else ""),
        ("Earlier code", _earlier_code(study)),
        ("Seeds", f"search {_join(study.search_seeds)}; report {_join(study.report_seeds)}"),
        ("Retrained models", _join(f"{r.name}: {retrained(study, r).n}" for r in study.requests)),
        ("Sufficient training", sufficient),
        ("Transfer", _join(f"{source} → {target}" for source, target in study.transfers)),
        *_resources(_mapping(definition.get("resources"))),
        ("Limits", _limits(study)),
        ("Cost", _cost(study)),
        *_machines(study, versions),
        ("Versions", _join(f"{name} {version}" for name, version in versions.items())),
        *_clock(study),
    ]


def _finalists(study: RecordedStudy) -> str:
    seeds = study.further_seeds
    return f"the best {study.finalists} again on search seeds {_join(seeds)}" if seeds else ""


def _earlier_code(study: RecordedStudy) -> str:
    """Say how many trials ran a code of their method that has changed since, and were kept all the same."""
    now = {name: facts.get("code") for name, facts in _mapping(study.line.get("methods")).items()}
    kept = Counter(r.method for r in study.records if r.code and r.code != now.get(r.method))
    texts = (f"{counted(count, 'trial')} of {method}" for method, count in kept.items())
    return f"{_join(texts)} ran code that was edited since (accepted)" if kept else ""


def _resources(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a trial occupies, and a training where that is something else."""

    def text(share: Mapping[str, Any]) -> str:
        return _pairs(
            {**share, **_mapping(share.get("custom")), "custom": None, "references": None}
        )

    training = {**given, **_mapping(given.get("references"))}
    rows = [("Resources of a trial", text(given))]
    return rows if text(training) == text(given) else [*rows, ("of a training", text(training))]


def _limits(study: RecordedStudy) -> str:
    """Time and cost that trials and the study may take, and whether that ended the search."""
    budget = _mapping(study.definition.get("budget"))
    limits = _pairs({"trial_timeout": study.definition.get("trial_timeout"), **budget})
    ended = _mapping(study.line.get("search_ended"))
    early = f"the search ended after {ended['trials']} trials a cell" if ended else ""
    return _join([limits, early])


def _cost(study: RecordedStudy) -> str:
    """Hours of CPUs and GPUs that all trials and trainings kept."""
    hours = {
        unit: sum(record.cost(name) for record in study.records) / 3600
        for name, unit in (("gpus", "GPU-hours"), ("cpus", "CPU-hours"))
    }
    return _join(f"{value:.3g} {unit}" for unit, value in hours.items() if value)


def _machines(study: RecordedStudy, versions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What trials say of where they ran, without what the study's versions say already."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in study.records:
        for name, value in record.environment.items():
            found[name].add(str(value))
    return [
        (name.capitalize(), _join(sorted(values)))
        for name, values in sorted(found.items())
        if values != {versions.get(name)}
    ]


def _clock(study: RecordedStudy) -> list[tuple[str, str]]:
    """When it started, and from the summary how long it took and how busy the slots were."""
    summary = {key: value for key, value in study.summary.items() if _is_number(value)}
    started = study.line.get("started", math.nan)
    texts = {
        "wall_seconds": lambda value: f"{duration(value)} wall",
        "compute_seconds": lambda value: f"{duration(value)} compute",
        "slots": lambda value: f"{value:g} slots",
        "efficiency": lambda value: f"efficiency {100 * value:.1f} % (compute / (wall × slots))",
    }
    return [
        (
            "Last start",
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))
            if _is_number(started)
            else "",
        ),
        ("Last run", _join(text(summary[key]) for key, text in texts.items() if key in summary)),
    ]


def _methods(study: RecordedStudy) -> str:
    rows = []
    for method in study.methods:
        spans = [f"{knob} {_span(span)}" for knob, span in method.space.items()]
        fixed = knob_text(method.fixed)
        rows.append(
            (
                f"{method.name} ({method.alias_of})" if method.alias_of else method.name,
                method.summary,
                "zero-shot" if method.zero_shot else "retained data",
                "; ".join([*spans, *([f"fixed: {fixed}"] if fixed else [])]) or "–",
            )
        )
    return markup.listing(("Method", "What it does", "Uses", "Knobs searched"), rows, wrap=(1, 3))


def _span(span: Any) -> str:
    """A range of a knob as text."""
    content = _mapping(span)
    if "choices" in content:
        return "{" + _join(content["choices"]) + "}"
    if "low" not in content or "high" not in content:
        return str(span)
    ends = (
        f"{value:.4g}" if isinstance(value, float) else str(value)
        for value in (content["low"], content["high"])
    )
    return f"[{_join(ends)}]" + (" log" if content.get("log") else "")


def _detail(record: TrialRecord) -> str:
    number = "" if record.number is None else f", trial {record.number}"
    knobs = f": {knob_text(record.knobs)}" if record.knobs else ""
    text = f"seed {record.seed}{number}{knobs}\n{record.reason.strip()}"
    return f"<pre>{markup.escape(text)}</pre>"


def _last_line(record: TrialRecord) -> str:
    lines = [line.strip() for line in record.reason.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason recorded"


def _place(study: RecordedStudy) -> Callable[[TrialRecord], tuple[int, ...]]:
    """Return the sort key of trials without a result: failures first, then phases, requests and methods in order."""
    methods = [*REFERENCE_ROLES, *(method.name for method in study.methods)]
    orders = (
        ("status", ["failed", "diverged", "stopped"]),
        ("phase", list(study.phases)),
        ("forget", [request.name for request in study.requests]),
        ("method", methods),
    )

    def place(record: TrialRecord) -> tuple[int, ...]:
        values = ((getattr(record, name), known) for name, known in orders)
        return tuple(known.index(v) if v in known else len(known) for v, known in values)

    return place


def _pairs(values: Mapping[str, Any]) -> str:
    return knob_text({name: value for name, value in values.items() if value is not None})


def _join(items: Iterable[Any]) -> str:
    return ", ".join(str(item) for item in items if item not in (None, ""))


def _count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
