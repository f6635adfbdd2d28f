"""What a study came to, in MLflow: cells, study, files and view; sent once, replaced when it changes, equal from anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import studies

from mu.current import read_current
from mu.record import to_line, trial_line, write
from sweeps.tracking.mlflow import artifact_location, local_uri
from sweeps.tracking.mlflow_process import write_files
from sweeps.tracking.mlflow_runs import GROUP, KEY, LEVEL, PARENT, VERSION, Tracker, find_pages
from sweeps.tracking.mlflow_view import view_tag
from sweeps.tracking.run_content import RunContent
from tests.sweeps.tracking.test_mlflow import levels, record, runs, uri  # noqa: F401 (a fixture)

UUID = "0123456789abcdef" * 2


def of_level(tracker: Tracker, level: str) -> dict[str, Any]:
    """The runs of a level by name."""
    found = [run for run in runs(tracker) if run.data.tags[LEVEL] == level]
    return {run.info.run_name: run for run in found}


def shown(tracker: Tracker) -> dict[str, Any]:
    """Everything that a store shows of a study, without what differs between two stores."""
    names = {run.info.run_id: run.data.tags.get(KEY) or run.info.run_name for run in runs(tracker)}
    content = {}
    for run in runs(tracker):
        tags = dict(sorted(run.data.tags.items()))
        tags[PARENT] = names.get(tags.get(PARENT, ""), "")
        series = {
            name: [
                (m.step, m.value) for m in tracker.client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
            if name.startswith(("search/", "curve/"))
        }
        content[names[run.info.run_id]] = repr((
            tags, sorted(run.data.params.items()), sorted(run.data.metrics.items()),
            sorted(series.items()), run.info.status,
            run.info.start_time, run.info.end_time, sorted(artifacts(tracker, run.info.run_id)),
        ))  # fmt: skip
    return content


def artifacts(tracker: Tracker, run: str, folder: str = "") -> Iterator[str]:
    for each in tracker.client.list_artifacts(run, folder or None):
        if each.is_dir:
            yield from artifacts(tracker, run, each.path)
        else:
            yield each.path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with a report, and a database that has all of it."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    folder.mkdir()
    line, records = read_current(studies.ROOT / "tests/data/trials.jsonl")
    more = {"uuid": UUID, "model": "small_cnn", "versions": {"python": "3"}}
    data = {**line["data"], "fingerprint": "f"}
    timed = [
        replace(each, started=1000.0 + second, ended=1001.0 + second)
        for second, each in enumerate(records)
    ]
    lines = [to_line("study", {**line, **more, "data": data}), *map(trial_line, timed)]
    write(folder / "trials.jsonl", lines)
    for name in (
        "study.yaml",
        "report/index.html",
        "report/figures/cost.svg",
        "splits/random10.npy",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    done = studies.here(folder.parent, "sync", "tiny")
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == f"tiny: sent {len(records)} of {len(records)} records, the others were there\n"
    )
    return folder


def tracker_of(folder: Path) -> Tracker:
    store = local_uri(folder)
    return Tracker(store, ("tiny", UUID), artifact_location(store, folder))


def test_study_and_cells_show_results_curves_and_files(results: Path) -> None:
    tracker = tracker_of(results)
    (study,) = of_level(tracker, "study").values()
    assert study.data.tags["mlflow.note.content"].startswith(
        "**tiny** (digits, small_cnn): 55 trials"
    )
    assert study.data.metrics["trials"] == 55
    assert sorted(artifacts(tracker, study.info.run_id)) == [
        "report/figures/cost.svg", "report/index.html", "splits/random10.npy", "study.yaml",
    ]  # fmt: skip
    cells = of_level(tracker, "cell")
    assert len(cells) == 2 * (2 + 4)
    assert {run.data.tags[PARENT] for run in cells.values()} == {study.info.run_id}
    alpha = cells["random10 alpha"]
    assert alpha.data.params["lr"] == "0.01"
    assert alpha.data.metrics["recovery"] == pytest.approx(0.7946)
    history = tracker.client.get_metric_history(alpha.info.run_id, "search/best_objective")
    assert [(m.step, m.value) for m in history] == [(0, 0.05), (1, 0.03)]
    assert list(artifacts(tracker, alpha.info.run_id)) == ["response_alpha.svg"]
    assert alpha.info.status == study.info.status == "FINISHED"
    assert (results / "mlartifacts").is_dir()


def test_the_experiment_has_the_view_and_the_pages_are_found(results: Path) -> None:
    tracker = tracker_of(results)
    tags = tracker.client.get_experiment(tracker.experiment).tags
    name, state = view_tag("tiny", UUID)
    assert tags[name] == state
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    pages = find_pages(local_uri(results), "tiny", UUID)
    (study,) = of_level(tracker, "study").values()
    assert f"/runs/{study.info.run_id}" in pages["study"]
    assert view_tag("tiny", UUID)[0].rpartition(".")[2] in pages["runs"]
    assert find_pages(local_uri(results), "tiny", "another") == {}
    assert find_pages(local_uri(results), "unknown", UUID) == {}


def test_a_second_sync_changes_nothing_and_another_store_gets_the_same(
    results: Path, tmp_path: Path
) -> None:
    before = shown(tracker_of(results))
    ids = {run.info.run_id for run in runs(tracker_of(results))}
    assert "sent 0 of" in studies.here(results.parent, "sync", "tiny").stdout
    assert shown(tracker_of(results)) == before
    assert {run.info.run_id for run in runs(tracker_of(results))} == ids
    other = shutil.copytree(results, tmp_path / "tiny", ignore=shutil.ignore_patterns("ml*"))
    assert studies.here(tmp_path, "sync", "tiny").returncode == 0
    assert shown(tracker_of(other)) == before


def test_a_copy_of_the_folder_has_its_own_files(results: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(results, tmp_path / "moved" / "tiny")
    (moved / "report/index.html").write_text("again")
    # In a process of its own: MLflow remembers by run where its artifacts are.
    assert studies.musweep(moved.parent, "sync", "tiny").returncode == 0
    tracker = tracker_of(moved)
    (study,) = of_level(tracker, "study").values()
    assert study.info.artifact_uri.startswith(moved.as_uri())
    kept = "mlartifacts/{}/artifacts/report/index.html"
    assert (moved / kept.format(study.info.run_id)).read_text() == "again"
    assert (results / kept.format(study.info.run_id)).read_text() == "report/index.html"


def test_a_cell_that_changes_is_replaced_with_its_trials(uri: str) -> None:  # noqa: F811
    tracker = Tracker(uri, ("replaced", "id"))
    tracker.sync([record("a"), record("b")])

    def content(lr: str, best: float) -> dict[tuple[str, str], RunContent]:
        series = {"search/best_objective": [(0, 0.9), (1, best)]}
        made = RunContent(
            "some jit", {"verdict": "same"}, {"lr": lr}, {"recovery": best}, series, 1.0, 9.0
        )
        return {("some", "jit"): made}

    tracker.write_cells(content("0.1", 0.5))
    (first,) = of_level(tracker, "cell").values()
    tracker.write_cells(content("0.1", 0.5))
    again = Tracker(uri, ("replaced", "id"))
    again.sync([record("a"), record("b")])
    again.write_cells(content("0.1", 0.5))
    (same,) = of_level(again, "cell").values()
    assert same.info.run_id == first.info.run_id
    again.write_cells(content("0.2", 0.4))
    (second,) = of_level(again, "cell").values()
    assert second.info.run_id != first.info.run_id
    assert second.data.params == {"lr": "0.2"}
    assert second.data.tags[GROUP] == "cell|some|jit"
    history = again.client.get_metric_history(second.info.run_id, "search/best_objective")
    assert [(m.step, m.value) for m in history] == [(0, 0.9), (1, 0.4)]
    assert (second.info.start_time, second.info.end_time) == (1000, 9000)
    trials = of_level(again, "trial").values()
    assert {run.data.tags[PARENT] for run in trials} == {second.info.run_id}
    assert levels(again) == {"study": 1, "cell": 1, "trial": 2}


def test_a_replacement_that_was_cut_short_leaves_one_run(uri: str) -> None:  # noqa: F811
    tracker = Tracker(uri, ("cut twice", "id"))
    tracker.sync([record("a"), record("b")])
    content = RunContent("some jit", metrics={"recovery": 0.5}, started=1.0, ended=9.0)
    tracker.write_cells({("some", "jit"): content})
    (whole,) = of_level(tracker, "cell").values()
    shared = {name: text for name, text in whole.data.tags.items() if name != VERSION}
    for started in (0, 10**13):  # MLflow lists the latest start first
        tracker.client.create_run(tracker.experiment, started, shared)
    again = Tracker(uri, ("cut twice", "id"))
    assert again.sync([record("a"), record("b")]) == 0
    (kept,) = of_level(again, "cell").values()
    assert kept.info.run_id == whole.info.run_id
    assert levels(again) == {"study": 1, "cell": 1, "trial": 2}
    trials = of_level(again, "trial").values()
    assert {run.data.tags[PARENT] for run in trials} == {whole.info.run_id}


def test_a_cell_that_the_study_has_no_more_is_gone(uri: str) -> None:  # noqa: F811
    tracker = Tracker(uri, ("fewer", "id"))
    tracker.sync([record("a"), record("b", method="ssd")])
    assert sorted(of_level(tracker, "cell")) == ["some jit", "some ssd"]
    tracker.sync([record("b", method="ssd")])
    assert sorted(of_level(tracker, "cell")) == ["some ssd"]
    assert levels(tracker) == {"study": 1, "cell": 1, "trial": 2, "earlier": 1}
    tracker.sync([record("a"), record("b", method="ssd")])
    assert sorted(of_level(tracker, "cell")) == ["some jit", "some ssd"]


def test_a_summary_that_cannot_be_written_is_said_and_ends_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(results, tmp_path / "tiny")
    tracker = tracker_of(folder)
    tracker.sync(read_current(folder / "trials.jsonl")[1])

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no room\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(tracker.client, "log_artifact", refuse)
        assert write_files(tracker, folder) == "ConnectionError: no room"
    monkeypatch.setattr("sweeps.tracking.mlflow_runs.Tracker.write_files", refuse)
    done = studies.here(tmp_path, "sync", "tiny")
    assert done.returncode == 1
    assert "did not take all of the results: ConnectionError: no room" in done.stderr
    assert "sent 0 of" in done.stdout
