"""Class by class: accuracies on test samples, and what forgotten samples are taken for (UGradSL Fig. 5)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from mu.record import REFERENCE_ROLES, TrialRecord
from reports.canvas import INK, Drawing, panels_of
from reports.load import RecordedRequest, RecordedStudy
from reports.statistics.intervals import spread
from reports.summaries import VIEW
from reports.table_cells import (
    BLANK,
    Row,
    Table,
    TableCell,
    by_request,
    missing,
    percent,
)

MOST = 20
"""Most classes that a table or a panel shows: of more those that differ most."""
SHADES = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#56B4E9", "#0072B2"])


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


def taken_for(study: RecordedStudy) -> Drawing | None:
    """Share of forgotten samples predicted as each class, a panel for each request."""
    found = {request.name: _shares(study, request) for request in study.requests}
    found = {name: shares for name, shares in found.items() if shares}
    if not found:
        return None
    most = max(map(len, found.values()))
    figure, panels = panels_of([study.request(n).name for n in found], 0.7 + 0.26 * most)
    for axes, shares in zip(panels, found.values()):
        table = np.array(list(shares.values()))
        shown = np.sort(np.argsort(-table.max(axis=0), kind="stable")[:MOST])
        axes.imshow(table[:, shown], cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        axes.grid(False)
        small = len(shown) > 10
        for (row, column), share in np.ndenumerate(table[:, shown]):
            if share >= 0.005 and not small:
                colour = "white" if share > 0.6 else INK
                text = f"{100 * share:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        names = [_class_name(study, int(label)) for label in shown]
        turned = 90 if small or max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(shown)), names, fontsize=8, rotation=turned)
        axes.set_yticks(range(len(table)), list(shares))
        axes.tick_params(length=0)
    figure.supxlabel("Predicted class", fontsize=11)
    return Drawing(
        "taken_for",
        "What forgotten samples are taken for",
        "Share of the forgotten samples that is predicted as each class, in percent, averaged over the report "
        "seeds, with tuned knobs. A row should look like that of the retrained models: forgotten samples that "
        "all go to one other class stand out as much as remembered ones (the Streisand effect).",
        figure,
    )


def _rows(study: RecordedStudy, request: RecordedRequest) -> list[Row]:
    runs = _runs(study, request)
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
        rows.append((TableCell(_class_name(study, label)), first, itself, *cells))
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


def _runs(study: RecordedStudy, request: RecordedRequest) -> dict[str, list[TrialRecord]]:
    """The runs with confusions of both references and of every method with its tuned knobs."""
    found = {}
    for name in (*REFERENCE_ROLES, *(method.name for method in study.methods)):
        phase = "reference" if name in REFERENCE_ROLES else "confirm"
        kept = [r for r in study.cell(phase, request.name, name).finished if r.confusions]
        if kept:
            found[name] = kept
    return found


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


def _shares(study: RecordedStudy, request: RecordedRequest) -> dict[str, np.ndarray]:
    """Name to the share of D_f predicted as each class [K], averaged over runs; retrained models first."""
    runs = _runs(study, request)
    cells = [cell for records in runs.values() for r in records for cell in r.confusions["forget"]]
    known = study.line.get("data", {}).get("classes") or 0
    classes = max([int(known), *(1 + max(cell[:2]) for cell in cells)], default=0)
    names = ("retrain", "original", *(method.name for method in study.methods))
    shares = {}
    for name in names:
        if name in runs:
            counts = np.zeros((len(runs[name]), classes))
            for row, record in zip(counts, runs[name]):
                for _, predicted, samples in record.confusions["forget"]:
                    row[predicted] += samples
            shares[name] = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares if math.isfinite(sum(v.sum() for v in shares.values())) else {}


def _class_name(study: RecordedStudy, label: int) -> str:
    names = study.line.get("data", {}).get("class_names") or []
    return str(names[label]) if label < len(names) else f"class {label}"
