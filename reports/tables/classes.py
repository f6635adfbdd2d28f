"""Class by class: accuracies on test samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mu.record import REFERENCE_ROLES, TrialRecord
from reports.analysis.summaries import VIEW
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import spread
from reports.tables.cells import BLANK, Row, Table, TableCell, by_request, missing, percent

MOST = 20
"""Most classes that a table or a panel shows: of more those that differ most."""


def per_class(study: RecordedStudy) -> Table | None:
    """Accuracy on the test samples of every class, of the confirmed knobs and of both references."""
    groups = by_request(study, lambda request: _rows(study, request))
    if not groups:
        return None
    return Table(
        "classes",
        "Accuracy on each class",
        "On the test view with tuned knobs: mean ± standard deviation (gap to the retrained models), in percent. "
        f"Of more than {MOST} classes those on which some method is furthest from them.",
        "Forget request",
        ("Class", "Original", "Retrain", *(method.name for method in study.methods)),
        groups,
    )


def _rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    runs = runs_with_confusions(study, request)
    accuracies = {name: _accuracies(records) for name, records in runs.items()}
    if "retrain" not in accuracies:
        return []
    means = {
        name: {label: value.mean for label, seen in of.items() if (value := spread(seen))}
        for name, of in accuracies.items()
    }
    gold = means["retrain"]
    methods = [method.name for method in study.methods]
    gaps = {
        label: [
            abs(means[name][label] - value) if label in means.get(name, {}) else None
            for name in methods
        ]
        for label, value in gold.items()
    }
    furthest = sorted(gold, key=lambda label: -max(filter(None, gaps[label]), default=0.0))
    rows: list[Row] = []
    for label in sorted(furthest[:MOST]):
        first, itself, *cells = (
            _cell(study, accuracies.get(name, {}).get(label, ()), None if i == 1 else gold[label])
            for i, name in enumerate((*REFERENCE_ROLES, *methods))
        )
        rows.append((TableCell(class_name(study, label)), first, itself, *cells))
    return rows


def _cell(study: RecordedStudy, values: Sequence[float], gold: float | None) -> TableCell:
    found = spread(values)
    if found is None:
        return BLANK
    return TableCell(
        percent(found.mean),
        "" if found.std is None else percent(found.std),
        "" if gold is None else percent(abs(found.mean - gold)),
        runs=missing(found.n, len(study.report_seeds)),
    )


def _accuracies(records: Iterable[TrialRecord]) -> dict[int, list[float]]:
    """Class to its accuracy in each run, on the test view."""
    found: dict[int, list[float]] = defaultdict(list)
    for record in records:
        right: dict[int, int] = defaultdict(int)
        total: dict[int, int] = defaultdict(int)
        for true, predicted, samples in record.confusions.get(VIEW, []):
            total[true] += samples
            right[true] += samples * (true == predicted)
        for label, samples in total.items():
            found[label].append(right[label] / samples)
    return found


def runs_with_confusions(
    study: RecordedStudy, request: RecordedRequest
) -> dict[str, list[TrialRecord]]:
    """The runs with confusions of both references and of every method with its tuned knobs."""
    found = {}
    for name in (*REFERENCE_ROLES, *(method.name for method in study.methods)):
        phase = "reference" if name in REFERENCE_ROLES else "confirm"
        kept = [r for r in study.cell(phase, request.name, name).finished if r.confusions]
        if kept:
            found[name] = kept
    return found


def class_name(study: RecordedStudy, label: int) -> str:
    names = study.line.get("data", {}).get("class_names") or []
    return str(names[label]) if label < len(names) else f"class {label}"
