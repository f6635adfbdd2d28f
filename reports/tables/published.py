"""What papers printed beside what this study found: one row for each method and metric of each printed table."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mu.metrics import MEAN_GAPS, METRICS, mean_gap
from mu.record import REFERENCE_ROLES
from reports.analysis.summaries import VIEW, CellSummary, cell_summary, changes, retrained
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Spread, spread
from reports.tables import cells
from reports.tables.cells import BLANK, Table, TableCell, Values
from reports.text import Form, form_of, label, percent, searched_view, signed, title

EVERY, AVG_CHANGE = "*", "avg_change"
"""The mean over all requests; NatMU's mean change, which no single trial has."""
Entry = Mapping[str, Any]


def published(study: RecordedStudy) -> Table | None:
    """Return the printed tables that the study repeats; None when it names none."""
    entries: Sequence[Entry] = study.line.get("published") or []
    tables: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        names = ("paper", "table", "phase", "source", "forget")
        tables[tuple(str(entry[name] or "") for name in names)].append(entry)
    caption = (
        "Mean ± standard deviation over runs, as printed and as found here on the test view, in percent (times "
        "in seconds, distances as they are); difference is ours minus theirs. Within ± says whose standard "
        "deviation is at least as large as the difference: both, theirs, ours or neither; ours is of the sample, or of "
        "the population where that is what the paper prints. Names are ours, "
        "with the paper's in parentheses. A mean gap is that of the means, as in the papers' main tables; where a "
        f"row names knobs, ours are the search trials with those knobs on the {searched_view(study)}, and it is that of each run."
    )
    head = ("published", "Beside the published numbers", caption, "Published table")
    groups = [_group(study, key, listed) for key, listed in tables.items()]
    table = cells.table_of(head, groups, texts=2)
    return table and replace(table, remarks=_remarks(entries))


def _group(
    study: RecordedStudy, key: tuple[str, ...], entries: Sequence[Entry]
) -> tuple[str, str, Iterable[Values]]:
    paper, table, phase, source, forget = key
    names = [request.name for request in study.requests]
    where = f"mean over {', '.join(names)}" if forget == EVERY else forget
    if forget in names:
        where = title(study.request(forget))
    run = {
        "confirm": "",
        "sufficient": f"{study.sufficient_epochs} epochs",
        "transfer": f"knobs of {source}",
        "search": "every searched configuration",
    }.get(phase, study.phases.get(phase, phase))
    rows = [_row(study, entry) for entry in [*entries, *_only_ours(study, entries)]]
    name, heading = f"{paper} {table} {forget}", f"{paper} Table {table}: {where}"
    return (f"{name} {phase}", f"{heading}, {run}", rows) if run else (name, heading, rows)


def _only_ours(study: RecordedStudy, entries: Sequence[Entry]) -> list[Entry]:
    """Return our methods that the paper's table does not have, with its metrics."""
    printed, first = {entry["ours"] for entry in entries}, entries[0]
    metrics = dict.fromkeys((entry["metric"], entry["name"]) for entry in entries)
    if first["phase"] == "search" or printed <= set(REFERENCE_ROLES):
        return []
    bare: Entry = {**first, "knobs": {}, "mean": None, "std": None, "note": ""}
    return [
        {**bare, "method": method.name, "ours": method.name, "metric": metric, "name": name}
        for method in study.methods
        if method.name not in printed
        and (first["forget"] == EVERY or method.used_on(first["forget"]))
        for metric, name in metrics
    ]


def _row(study: RecordedStudy, entry: Entry) -> Values:
    name, ours = entry["name"], beside(study, entry)
    theirs = Spread(entry["mean"], entry["std"], 0) if entry["mean"] is not None else None
    knobs = "".join(f", {knob} {value}" for knob, value in entry["knobs"].items())
    known = entry["ours"] or entry["method"]
    method = known if _same(known, entry["method"]) else f"{known} ({entry['method']})"
    row: dict[str, TableCell | str | None] = {
        "Method": method + knobs,
        "Metric": _metric_label(name, entry["metric"]),
        "Published": replace(_cell(name, theirs), marks=cells.DOUBTFUL * bool(entry["note"])),
        "Ours": TableCell(ours, words=True) if isinstance(ours, str) else None,
        **dict.fromkeys(("Difference", "Within ±")),
    }
    if isinstance(ours, Spread):
        if entry.get("deviation") == "population" and ours.std is not None:
            ours = replace(ours, std=ours.std * math.sqrt((ours.n - 1) / ours.n))
        row["Ours"] = _cell(name, ours)
        if theirs is not None:
            row["Difference"], row["Within ±"] = _difference(name, ours, theirs)
    return row


def beside(study: RecordedStudy, entry: Entry) -> Spread | str | None:
    """Return what the study has beside a printed number: runs, why there are none, or None where it has no such thing."""
    method, name = entry["ours"], entry["name"]
    known = method in REFERENCE_ROLES or any(method == listed.name for listed in study.methods)
    if not known or name is None:
        return None
    requests = study.requests
    if entry["forget"] != EVERY:
        requests = tuple(r for r in requests if r.name == entry["forget"])
    if entry["knobs"]:
        return _searched(study, requests, entry)
    phase = "reference" if method in REFERENCE_ROLES else entry["phase"]
    source = (entry["source"] or "") if phase == "transfer" else ""
    summaries = [cell_summary(study, r, method, phase, source) for r in requests]
    if reason := next((each.reason for each in summaries if each.reason), ""):
        return reason
    if len(requests) > 1:
        return _mean_over(study, requests, method, phase, name)
    return _value(study, requests[0], entry, summaries[0]) if requests else None


def _value(
    study: RecordedStudy, request: RecordedRequest, entry: Entry, result: CellSummary
) -> Spread | None:
    """Return one number of a cell; mean gaps are those of the means."""
    name, method, lists = entry["name"], entry["ours"], MEAN_GAPS[request.whole_class]
    runs = max((value.n for value in result.spreads.values()), default=0)
    single: float | None = None
    if name == "time_unlearn":
        single = result.seconds
    elif name == AVG_CHANGE and entry["phase"] == "transfer":
        single = changes(result, cell_summary(study, request, method), request.metrics)[1]
    elif name in lists and method != "retrain":
        means = {metric: value.mean for metric, value in result.spreads.items()}
        single = mean_gap(means, retrained(study, request).means, lists[name])
    elif name not in lists:
        return result.spreads.get(name)
    return Spread(single, None, runs) if single is not None and math.isfinite(single) else None


def _mean_over(
    study: RecordedStudy, requests: Sequence[RecordedRequest], method: str, phase: str, name: str
) -> Spread | None:
    """The mean over requests, formed for each seed that has run on all of them."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for request in requests:
        for record in study.cell(phase, request.name, method).finished:
            by_seed[record.seed].append(record.metrics.get(VIEW, {}).get(name, math.nan))
    complete = [v for v in by_seed.values() if len(v) == len(requests)]
    return spread(math.fsum(values) / len(values) for values in complete)


def _searched(
    study: RecordedStudy, requests: Sequence[RecordedRequest], entry: Entry
) -> Spread | str | None:
    """The search trials with the knobs of the row, over the search seeds."""
    view, name = "test" if study.oracle else "val", entry["name"]
    trials = [
        record
        for request in requests
        for record in study.searched(request.name, entry["ours"])
        if all(_equal(record.knobs.get(knob), value) for knob, value in entry["knobs"].items())
    ]
    finished = [record for record in trials if record.finished]
    if not finished:
        return trials[0].status if trials else "not run"
    if name == "time_unlearn":
        return spread(record.time_unlearn for record in finished)
    return spread(record.metrics.get(view, {}).get(name, math.nan) for record in finished)


def _difference(name: str, ours: Spread, theirs: Spread) -> list[TableCell]:
    difference, form = ours.mean - theirs.mean, _form(name)
    holds = [
        whose
        for whose, std in (("theirs", theirs.std), ("ours", ours.std))
        if std is not None and abs(difference) <= std + 1e-9
    ]
    known = theirs.std is not None and ours.std is not None
    within = TableCell("both" if len(holds) == 2 else "".join(holds) or "neither")

    def with_sign(value: float) -> str:
        return signed(value) if form is percent else ("−" if value < 0 else "+") + form(abs(value))

    return [TableCell(number=difference, form=with_sign), within if known else BLANK]


def _cell(name: str | None, value: Spread | None) -> TableCell:
    if value is None:
        return BLANK
    runs = f"n={value.n}" if value.n else ""
    return TableCell(number=value.mean, form=_form(name), std=value.std, runs=runs)


def _form(name: str | None) -> Form:
    if name is None:
        return "{:g}".format
    return percent if name == AVG_CHANGE else form_of(name)


def _metric_label(name: str | None, printed: str) -> str:
    if name is None:
        return printed
    ours = "AvgChange" if name == AVG_CHANGE else label(name)
    return ours if _same(ours, printed) or name not in METRICS else f"{ours} ({printed})"


def _remarks(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Every doubt with the cells it is about, or their number where they are many."""
    doubts: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        place = " ".join(str(entry[part]) for part in ("table", "forget", "method", "metric"))
        doubts[entry["note"]].append(place)
    return tuple(
        f"{cells.DOUBTFUL} {', '.join(names) if len(names) <= 3 else f'{len(names)} cells'}: {note}"
        for note, names in doubts.items()
        if note
    )


def _same(*names: str) -> bool:
    """Whether names differ in letter case and punctuation only."""
    return len({re.sub(r"[\W_]", "", name.casefold()) for name in names}) == 1


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, (int, float)) and isinstance(wanted, (int, float)):
        return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-12)
    return bool(value == wanted)
