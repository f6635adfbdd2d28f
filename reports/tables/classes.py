"""Class by class: accuracies on test samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from mu.record import REFERENCE_ROLES, TrialRecord
from reports.analysis.summaries import VIEW
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import Spread, spread
from reports.tables import cells
from reports.tables.cells import BLANK, Row, Table, TableCell
from reports.text import missing

MOST = 20
"""Most classes that a table or a panel shows: of more those that differ most."""


def per_class(study: RecordedStudy) -> Table | None:
    """Return accuracy on the test samples of every class, of the confirmed knobs and of both references."""
    groups = cells.by_request(study, lambda request: list(_rows(study, request)))
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
        compared=True,
    )


def runs_with_confusions(
    study: RecordedStudy, request: RecordedRequest
) -> dict[str, list[TrialRecord]]:
    """Return the runs with confusions of both references and of every method with its tuned knobs."""
    runs = {}
    for name in (*REFERENCE_ROLES, *(method.name for method in study.methods)):
        phase = "reference" if name in REFERENCE_ROLES else "confirm"
        kept = [r for r in study.cell(phase, request.name, name).finished if r.confusions]
        if kept:
            runs[name] = kept
    return runs


def class_name(study: RecordedStudy, label: int) -> str:
    """Return what a class is called."""
    names = study.line.get("data", {}).get("class_names") or []
    return str(names[label]) if label < len(names) else f"class {label}"


def _rows(study: RecordedStudy, request: RecordedRequest) -> Iterator[Row]:
    known = {name: _accuracies(runs) for name, runs in runs_with_confusions(study, request).items()}
    gold = known.get("retrain", {})
    methods = [method.name for method in study.methods]

    def furthest(label: int) -> float:
        others = (known[name].get(label) for name in methods if name in known)
        return max((abs(o.mean - gold[label].mean) for o in others if o), default=0.0)

    for label in sorted(sorted(gold, key=lambda label: -furthest(label))[:MOST]):
        row = [TableCell(class_name(study, label))]
        for name in (*REFERENCE_ROLES, *methods):
            value = known.get(name, {}).get(label)
            distance = (
                None if name == "retrain" or not value else abs(value.mean - gold[label].mean)
            )
            row.append(_cell(study, value, distance))
        yield tuple(row)


def _cell(study: RecordedStudy, value: Spread | None, distance: float | None) -> TableCell:
    if value is None:
        return BLANK
    runs = missing(value.n, len(study.report_seeds))
    return TableCell(number=value.mean, std=value.std, distance=distance, runs=runs)


def _accuracies(records: Iterable[TrialRecord]) -> dict[int, Spread]:
    """Return class to its accuracy over the runs, on the test view."""
    shares: dict[int, list[float]] = defaultdict(list)
    for record in records:
        right: dict[int, int] = defaultdict(int)
        total: dict[int, int] = defaultdict(int)
        for true, predicted, samples in record.confusions.get(VIEW, []):
            total[true] += samples
            right[true] += samples * (true == predicted)
        for label, samples in total.items():
            shares[label].append(right[label] / samples)
    return {label: value for label, each in shares.items() if (value := spread(each))}
