"""What reaches MLflow: nested runs, curves, statuses, each record once."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest

from mu.current import read_current
from mu.record import TrialRecord, to_line, trial_line, write
from sweeps.tracking.mlflow import Tracking, local_uri
from sweeps.tracking.mlflow_process import KEY, MAX_FAILED, PARENT, STUDY, Sender, Tracker


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module: creating its tables takes seconds."""
    return local_uri(tmp_path_factory.mktemp("mlflow"))


def record(key: str, status: str = "finished", **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "knobs": {"lr": 0.1, "clip_norm": None},
        "number": 3,
        "reason": "" if status == "finished" else "ValueError: no",
        "metrics": {"val": {"acc_forget": 0.5}} if status == "finished" else {},
        "curve": [
            {"epoch": epoch, "seconds": 1.0 * epoch, "acc_forget": 1 - 0.25 * epoch}
            for epoch in range(3)
        ],
        "time_unlearn": 2.0,
        "samples_seen": 64,
        "environment": {"host": "node", "device": "cpu"},
        "started": 1000.0,
        "ended": 1004.0,
    }
    names = {"phase": "search", "forget": "some", "method": "jit", "seed": 0}
    return TrialRecord(key, "tiny", status=status, **{**names, **fields, **changes})


def runs(tracker: Tracker) -> list[Any]:
    return list(tracker.client.search_runs([tracker.experiment], max_results=1000))


def test_a_record_becomes_a_nested_run_with_its_curve(uri: str) -> None:
    tracker = Tracker(uri, ("nested", "id"))
    tracker.facts = {"model": "small_cnn"}
    tracker.send(record("k1"))
    tracker.close()
    by_key = {run.data.tags.get(KEY): run for run in runs(tracker)}
    run, parent = by_key["k1"], by_key[None]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags[PARENT] == "search|some|jit"
    assert parent.data.tags["model"] == "small_cnn"
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert run.data.params == {"lr": "0.1", "clip_norm": "None"}
    assert run.data.metrics["val/acc_forget"] == 0.5
    assert run.data.metrics["time_unlearn"] == 2.0
    for name, value in {"study": "nested", "phase": "search", "forget": "some", "seed": "0",
                        "method": "jit", "status": "finished", "env.host": "node"}.items():  # fmt: skip
        assert run.data.tags[name] == value
    history = tracker.client.get_metric_history(run.info.run_id, "curve/acc_forget")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.75), (2, 0.5)]
    assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_004_000)


def test_ends_are_told_apart(uri: str) -> None:
    tracker = Tracker(uri, ("ends", "id"))
    for status in ("finished", "stopped", "diverged", "failed"):
        tracker.send(record(status, status))
    by_key = {run.data.tags.get(KEY): run for run in runs(tracker)}
    assert by_key["stopped"].info.status == "KILLED"
    for status in ("diverged", "failed"):
        assert by_key[status].info.status == "FAILED"
        assert by_key[status].data.tags["reason"] == "ValueError: no"
        assert "val/acc_forget" not in by_key[status].data.metrics


def test_sync_sends_what_is_missing_and_nothing_twice(uri: str) -> None:
    first = Tracker(uri, ("synced", "id"))
    first.send(record("a"))
    again = Tracker(uri, ("synced", "id"))
    assert again.sync([record("a"), record("b")]) == 1
    assert again.sync([record("a"), record("b")]) == 0
    keys = [run.data.tags.get(KEY) for run in runs(again)]
    assert sorted(k for k in keys if k) == ["a", "b"]
    assert keys.count(None) == 1


def test_studies_of_one_name_keep_apart_on_one_server(uri: str) -> None:
    ours, theirs = [record("a"), record("b")], [record("a"), record("c")]
    assert Tracker(uri, ("shared", "one")).sync(ours) == 2
    assert Tracker(uri, ("shared", "two")).sync(theirs) == 2
    again = Tracker(uri, ("shared", "one"))
    assert again.sync(ours) == 0
    kept = [(run.data.tags[STUDY], run.data.tags.get(KEY, "")) for run in runs(again)]
    assert sorted(kept) == [
        ("one", ""), ("one", "a"), ("one", "b"), ("two", ""), ("two", "a"), ("two", "c"),
    ]  # fmt: skip


def test_trials_of_a_cell_that_changed_have_a_parent_of_their_own(uri: str) -> None:
    tracker = Tracker(uri, ("changed", "id"))
    for key, cell in (("a", "before"), ("b", "before"), ("c", "after")):
        tracker.send(record(key, cell=cell))
    parents = {
        run.data.tags.get(KEY): run.data.tags.get("mlflow.parentRunId") for run in runs(tracker)
    }
    assert parents["a"] == parents["b"] != parents["c"]
    assert Tracker(uri, ("changed", "id")).sync([record(key) for key in "abc"]) == 0


def test_a_run_cut_short_is_sent_again(uri: str) -> None:
    tracker = Tracker(uri, ("cut", "id"))
    tracker.client.create_run(tracker.experiment, tags={KEY: "a", STUDY: "id"})
    assert tracker.sync([record("a")]) == 1
    (whole,) = [run for run in runs(tracker) if run.data.tags.get(KEY) == "a"]
    assert whole.info.status == "FINISHED"


def test_what_a_store_did_not_take_is_kept_and_sent_when_it_is_back(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(uri, ("away", "id"))
    sender, tried = Sender(tracker), []

    def gone(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(tracker, "send", gone)
        for key in "abcde":
            sender.put(record(key))
        assert len(tried) == 1, "while it is away nothing is tried"
        sender.send_late()
        assert len(tried) == 1 + MAX_FAILED
    assert len(sender.late) == 5
    assert caplog.text.count("MLflow does not answer") == 1
    sender.send_late()
    assert not sender.late
    assert sorted(run.data.tags.get(KEY, "") for run in runs(tracker)) == ["", *"abcde"]


def start(uri: str, folder: Path, study: str, *known: TrialRecord) -> Tracking:
    lines = [to_line("study", {"study": study, "uuid": "id"}), *map(trial_line, known)]
    write(folder / "trials.jsonl", lines)
    return Tracking(uri, (study, "id"), {"model": "m"}, folder / "trials.jsonl")


def test_records_go_through_a_process_of_their_own(uri: str, tmp_path: Path) -> None:
    tracking = start(uri, tmp_path, "process", record("a"))
    tracking.wait()
    tracking._process.send_signal(signal.SIGINT)  # Ctrl-C is not for this process
    for key in "bc":
        tracking.put(record(key, metrics={"val": {"acc_forget": math.nan}}))
    assert tracking.close() == 0
    found = runs(Tracker(uri, ("process", "id")))
    assert sorted(run.data.tags.get(KEY, "") for run in found) == ["", "a", "b", "c"]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_gaps_that_changed_in_a_run_are_sent_again_at_its_end(uri: str, tmp_path: Path) -> None:
    def model(seed: int, accuracy: float) -> TrialRecord:
        metrics = {"test": {"acc_forget": accuracy}}
        name = f"retrain {seed}"
        return record(
            name, phase="reference", method="retrain", role="report", seed=seed, metrics=metrics
        )

    trial = record("trial", phase="confirm", seed=1, metrics={"test": {"acc_forget": 0.5}})
    tracking = start(uri, tmp_path, "gaps", model(1, 0.7), trial)
    tracking.wait()
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write(trial_line(model(2, 0.9)) + "\n")
    assert tracking.close() == 0
    tracker = Tracker(uri, ("gaps", "id"))
    by_key = {run.data.tags.get(KEY): run.data.metrics for run in runs(tracker)}
    assert by_key["trial"]["test/delta_acc_forget"] == pytest.approx(0.3)
    assert by_key["retrain 1"]["test/delta_acc_forget"] == pytest.approx(0.1)
    assert tracker.sync(read_current(tmp_path / "trials.jsonl")[1]) == 0


def test_a_process_whose_driver_was_lost_sends_no_more(uri: str, tmp_path: Path) -> None:
    tracking = start(uri, tmp_path, "lost")
    tracking.wait()
    assert tracking._process.stdin is not None
    tracking._process.stdin.close()  # as the system does for a driver that was killed
    assert tracking._process.wait(30) == 0


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_stops_nothing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    monkeypatch.setattr("sweeps.tracking.mlflow.CLOSE_SECONDS", 1.0)
    tracking = start(uri, tmp_path, f"signal {signal_number}")
    tracking.wait()
    tracking._process.send_signal(signal_number)
    for number in range(2000):
        tracking.put(record(str(number)))
    assert tracking.close() is None


def test_a_store_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        start(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path, "x").wait()
