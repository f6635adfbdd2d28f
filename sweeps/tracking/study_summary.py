"""What the runs of a study and of its cells show in MLflow, worked out from its records. Does not need MLflow."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mu.record import TrialRecord
from reports import frames
from reports.analysis.summaries import VIEW, cell_summary
from reports.load import RecordedStudy
from reports.text import knob_value
from sweeps.state.costs import used
from sweeps.tracking.description import cell_description, study_description
from sweeps.tracking.run_content import Cell, Points, RunContent

UNTUNED = {"transferred": "transfer", "defaults": "default", "longer": "sufficient"}
"""What a metric of such runs ends in, to their phase."""
CURVES = ("acc_retain", "acc_forget", "acc_test")


def cell_contents(study: RecordedStudy) -> dict[Cell, RunContent]:
    """Return what each cell comes to, those of the original and the retrained models included."""
    groups: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for record in study.records:
        groups[record.forget, record.method].append(record)
    rows = frames.methods(study).to_dict("records")
    cells = {(str(row["forget"]), str(row["method"])): row for row in rows}
    return {
        cell: _cell_content(study, cell, row, groups[cell])
        for cell, row in cells.items()
        if groups[cell]
    }


def study_content(study: RecordedStudy) -> RunContent:
    """Return what a study comes to: its main table as a description, how its trials ended, and what they cost."""
    ended: dict[str, float] = defaultdict(float)
    for record in study.records:
        ended["trials"] += 1
        ended[f"trials_{record.status}"] += 1
    costs = {f"{name}_hours": seconds / 3600 for name, seconds in used(study.records).items()}
    run = {name: study.summary.get(name) for name in ("wall_seconds", "efficiency")}
    return RunContent(
        study.name,
        tags={"mlflow.note.content": study_description(study)},
        metrics=_finite({**ended, **costs, **run}),
        started=min((r.started for r in study.records), default=time.time()),
        ended=max((r.ended for r in study.records), default=time.time()),
    )


def _cell_content(
    study: RecordedStudy, cell: Cell, row: Mapping[str, Any], records: Sequence[TrialRecord]
) -> RunContent:
    forget, method = cell
    chosen = study.chosen(*cell)
    knobs = dict(chosen.knobs) if chosen else {}
    note = cell_description(row, _searched(study, method, knobs), chosen.number if chosen else None)
    tags = {
        "mlflow.note.content": note,
        "verdict": row["verdict"],
        "reason": row["reason"],
        "alias_of": records[0].alias_of,
    }
    return RunContent(
        f"{forget} {method}",
        tags={name: str(text) for name, text in tags.items() if text},
        params={
            **({"knobs": text} if (text := _searched(study, method, knobs)) else {}),
            **{name: str(value) for name, value in knobs.items()},
        },
        metrics=_finite({**_recoveries(study, cell, row), **_counts(records)}),
        series={**_search(study, cell), **_epochs(study, cell)},
        started=min(record.started for record in records),
        ended=max(record.ended for record in records),
    )


def _recoveries(study: RecordedStudy, cell: Cell, row: Mapping[str, Any]) -> dict[str, Any]:
    """Recovery and AvgGap of each phase, times, and the metrics of AvgGap, fractions in [0, 1]."""
    forget, method = cell
    request = study.request(forget)
    phase = "confirm" if row["role"] == "method" else "reference"
    metrics: dict[str, Any] = {
        "recovery": row["recovery_tuned"],
        "avg_gap": row["avg_gap"],
        "seconds": row["seconds"],
        "time_ratio": row["time_ratio"],
    }
    for name, spread in cell_summary(study, request, method, phase).spreads.items():
        if name in request.metrics:
            metrics[f"{VIEW}/{name}"] = spread.mean
    for name, untuned in UNTUNED.items():
        metrics[f"recovery_{name}"] = row[f"recovery_{name}"]
        sources = [source for source, target in study.transfers if target == forget]
        averages = [
            cell_summary(study, request, method, untuned, source).average
            for source in (sources if untuned == "transfer" else [""])
        ]
        there = [average for average in averages if average is not None]
        metrics[f"avg_gap_{name}"] = sum(there) / len(there) if there else None
    return metrics


def _counts(records: Sequence[TrialRecord]) -> dict[str, float]:
    """How many trials of a cell ended, how many of them not well, and how long they kept their slots."""
    unfinished = sum(record.status in ("failed", "diverged") for record in records)
    return {
        "trials": float(len(records)),
        **({"trials_failed": float(unfinished)} if unfinished else {}),
        "slot_seconds": math.fsum(record.time_total for record in records),
    }


def _search(study: RecordedStudy, cell: Cell) -> dict[str, Points]:
    """The objective of each configuration that finished, by its number, and the best so far."""
    tried = sorted(study.candidates.get(cell, ()), key=lambda one: one.number)
    values = [(one.number, _round(one.value)) for one in tried if math.isfinite(one.value)]
    best = [
        (number, min(value for _, value in values[: position + 1]))
        for position, (number, _) in enumerate(values)
    ]
    return {"search/objective": values, "search/best_objective": best} if values else {}


def _epochs(study: RecordedStudy, cell: Cell) -> dict[str, Points]:
    """Accuracies by epoch of the runs with chosen knobs, their mean over the report seeds; epoch 0 is the original."""
    by_epoch: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in study.cell("confirm", *cell).finished:
        for point in record.curve:
            for name in CURVES:
                if (epoch := int(point["epoch"])) >= 0 and math.isfinite(
                    value := point.get(name, math.nan)
                ):
                    by_epoch[name, epoch].append(value)
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for (name, epoch), values in sorted(by_epoch.items()):
        # Held-out accuracy in a curve is always on the `val` view, and is called so.
        series[f"curve/{name.replace('acc_test', 'acc_val')}"].append(
            (epoch, _round(math.fsum(values) / len(values)))
        )
    return dict(series)


def _searched(study: RecordedStudy, method: str, knobs: Mapping[str, Any]) -> str:
    """The searched knobs in one line, such as ``lr=0.0026 delta=-0.24``."""
    listed = next((one for one in study.methods if one.name == method), None)
    names = [name for name in knobs if listed is not None and name in listed.space]
    return " ".join(f"{name}={knob_value(knobs[name], 3)}" for name in names)


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: _round(value)
        for name, value in metrics.items()
        if value is not None and math.isfinite(value)
    }


def _round(value: float) -> float:
    """Round to four digits, since the UI shows every digit that there is; trials have the others."""
    return float(f"{value:.4g}") if abs(value) < 10_000 else float(round(value))
