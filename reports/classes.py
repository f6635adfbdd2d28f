"""Class by class: accuracies on test samples, and what forgotten samples are taken for (UGradSL Fig. 5)."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from reports.canvas import INK, Drawing, panels_of
from reports.load import RecordedRequest, RecordedStudy
from reports.tables.classes import MOST, class_name, runs_with_confusions

SHADES = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#56B4E9", "#0072B2"])


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
        names = [class_name(study, int(label)) for label in shown]
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


def _shares(study: RecordedStudy, request: RecordedRequest) -> dict[str, np.ndarray]:
    """Name to the share of D_f predicted as each class [K], averaged over runs; retrained models first."""
    runs = runs_with_confusions(study, request)
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
