"""The view of a study in MLflow's UI: which columns of the runs table, in which order, and which charts.

The UI keeps a view that somebody shares as a tag of the experiment, and opens it with the tag's key in the address. Its
form follows from what the UI of MLflow 3.10 to 3.17 writes and reads: the state of search and page, which 3.17 compresses
inside an envelope with a name. Here both are in one value: each release reads what it knows.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

TAG = "mlflow.sharedViewState."
"""What the tag's name begins with; the key follows."""
CREATED = 1_700_000_000_000
"""Milliseconds since the epoch. The views of studies are equal however often they are written."""
LIMIT = 5000
"""Characters that every release of MLflow takes in a tag of an experiment."""
COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("metrics", "recovery", 96),
    ("metrics", "avg_gap", 86),
    ("metrics", "seconds", 82),
    ("metrics", "time_ratio", 90),
    ("params", "knobs", 380),
    ("tags", "verdict", 110),
    ("metrics", "recovery_transferred", 170),
    ("metrics", "recovery_defaults", 150),
    ("metrics", "recovery_longer", 140),
)
"""Kind and name of each column, and its width in pixels."""
SECTIONS = ("Results", "Search", "Unlearning")
"""Groups of charts, from the top."""


def view_key(study_id: str) -> str:
    """Return the key of a study's view: studies of one name share an experiment."""
    return f"musweep-{study_id[:12]}"


def view_tag(name: str, study_id: str) -> tuple[str, str]:
    """Return the tag of an experiment that holds the view of a study."""
    state = view_state(study_id)
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    envelope = {
        "name": f"musweep: {name}",
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "state": f"deflate;{packed}",
    }
    both = json.dumps({**state, **envelope}, separators=(",", ":"))
    return TAG + view_key(study_id), both if len(both) <= LIMIT else json.dumps(envelope)


def runs_page(experiment: str, study_id: str, charts: bool = False) -> str:
    """Return the address of a study's runs in the UI, after that of the server: as a table, or as charts."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return (
        f"#/experiments/{experiment}/runs?workflowType=machine_learning"
        f"&viewStateShareKey={view_key(study_id)}{mode}"
    )


def run_page(experiment: str, run: str) -> str:
    """Return the address of a run in the UI, after that of the server."""
    return f"#/experiments/{experiment}/runs/{run}?workflowType=machine_learning"


def view_state(study_id: str) -> dict[str, Any]:
    """Return the state of the runs page: the cells of a study, the best recovery first."""
    columns = [f"{kind}.`{name}`" for kind, name, _ in COLUMNS]
    widths = {column: width for column, (_, _, width) in zip(columns, COLUMNS)}
    return {
        "searchFilter": f"tags.`musweep.level` = 'cell' and tags.`musweep.study` = '{study_id}'",
        "orderByKey": "metrics.`recovery`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": _charts(),
        "compareRunSections": [_section(name) for name in SECTIONS],
        "isAccordionReordered": True,
    }


def _charts() -> list[dict[str, Any]]:
    return [
        _bar("recovery", "Recovery: 0 is doing nothing, 1 is retraining"),
        _scatter("time_ratio", "recovery", "Recovery against time, as a share of retraining"),
        _bar("avg_gap", "AvgGap to the retrained models"),
        _line("Search", "search/best_objective", "Best objective, by trial"),
        _line("Search", "search/objective", "Objective, by trial"),
        _line("Unlearning", "curve/acc_forget", "Accuracy on forgotten data, by epoch"),
        _line("Unlearning", "curve/acc_retain", "Accuracy on retained data, by epoch"),
        _line("Unlearning", "curve/acc_val", "Accuracy on held-out data, by epoch"),
    ]


def _section(name: str) -> dict[str, Any]:
    shown = {"display": True, "isReordered": True}
    return {"uuid": f"musweep-{name}", "name": name, "columns": 2, **shown}


def _chart(section: str, kind: str, uuid: str, title: str, **content: Any) -> dict[str, Any]:
    return {
        "uuid": f"musweep-{uuid}",
        "type": kind,
        "metricSectionId": f"musweep-{section}",
        "displayName": title,
        "deleted": False,
        "runsCountToCompare": 20,
        **content,
    }


def _bar(metric: str, title: str) -> dict[str, Any]:
    return _chart("Results", "BAR", metric, title, metricKey=metric)


def _scatter(horizontal: str, vertical: str, title: str) -> dict[str, Any]:
    axes = {
        "xaxis": {"key": horizontal, "type": "METRIC"},
        "yaxis": {"key": vertical, "type": "METRIC"},
    }
    return _chart("Results", "SCATTER", f"{horizontal}-{vertical}", title, **axes)


def _line(section: str, metric: str, title: str) -> dict[str, Any]:
    drawn = {
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "range": {},
    }
    return _chart(section, "LINE", metric, title, **drawn)
