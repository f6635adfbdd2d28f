"""The view of a study in MLflow's UI, as its releases read it."""

from __future__ import annotations

import base64
import json
import zlib

from sweeps.tracking.mlflow_view import LIMIT, runs_page, view_key, view_state, view_tag

STUDY = "0123456789abcdef" * 2


def test_each_release_finds_the_state_in_the_tag() -> None:
    name, value = view_tag("demo", STUDY)
    assert name == f"mlflow.sharedViewState.{view_key(STUDY)}"
    assert len(value) <= LIMIT
    read, state = json.loads(value), view_state(STUDY)
    assert {key: read[key] for key in state} == state, "3.10 reads the state itself"
    assert read["name"] == "musweep: demo"
    assert isinstance(read["createdAt"], int)
    scheme, _, packed = read["state"].partition(";")
    assert scheme == "deflate"
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == state, (
        "3.17 reads the packed one"
    )
    assert view_tag("demo", STUDY) == (name, value)


def test_a_long_name_leaves_the_view_of_later_releases() -> None:
    _, value = view_tag("x" * 1000, STUDY)
    assert len(value) <= LIMIT
    assert "state" in json.loads(value) and "orderByKey" not in json.loads(value)


def test_the_view_is_a_sorted_table_of_cells_with_charts_in_their_sections() -> None:
    state = view_state(STUDY)
    assert (
        state["searchFilter"]
        == f"tags.`musweep.level` = 'cell' and tags.`musweep.study` = '{STUDY}'"
    )
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`recovery`", False)
    assert state["selectedColumns"][:5] == [
        "metrics.`recovery`", "metrics.`avg_gap`", "metrics.`seconds`", "metrics.`time_ratio`",
        "params.`knobs`",
    ]  # fmt: skip
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(
        state["compareRunCharts"]
    )


def test_a_page_has_no_search_of_its_own() -> None:
    """With one, MLflow's UI leaves the view aside."""
    for charts in (False, True):
        page = runs_page("7", STUDY, charts)
        assert page.startswith("#/experiments/7/runs?workflowType=machine_learning&")
        assert f"viewStateShareKey={view_key(STUDY)}" in page
        assert not any(name in page for name in ("searchFilter", "orderBy", "startTime"))
        assert ("compareRunsMode=CHART" in page) == charts
