"""What reaches MLflow: nested runs, curves, statuses, each record once."""

from __future__ import annotations

import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mu.current import read_current
from mu.record import TrialRecord, to_line, trial_line, write
from sweeps.tracking.mlflow import Tracking, local_uri, server_address
from sweeps.tracking.mlflow_process import MAX_FAILED, Sender
from sweeps.tracking.mlflow_runs import GROUP, KEY, LEVEL, PARENT, STUDY, Tracker


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


def keys(tracker: Tracker) -> list[str]:
    """The keys of the trials that MLflow has."""
    return sorted(run.data.tags[KEY] for run in runs(tracker) if KEY in run.data.tags)


def levels(tracker: Tracker) -> Counter[str]:
    """How many runs there are of each level."""
    return Counter(run.data.tags[LEVEL] for run in runs(tracker))


def test_a_record_becomes_a_nested_run_with_its_curve(uri: str) -> None:
    tracker = Tracker(uri, ("nested", "id"))
    tracker.facts = {"model": "small_cnn"}
    tracker.send(record("k1"))
    tracker.close()
    by_level = {run.data.tags[LEVEL]: run for run in runs(tracker)}
    run, parent, study = (by_level[level] for level in ("trial", "cell", "study"))
    assert run.data.tags[KEY] == "k1"
    assert run.data.tags[PARENT] == parent.info.run_id
    assert parent.data.tags[PARENT] == study.info.run_id
    assert parent.data.tags[GROUP] == "cell|some|jit"
    assert (parent.data.tags["forget"], parent.data.tags["method"]) == ("some", "jit")
    assert PARENT not in study.data.tags
    assert [each.info.run_name for each in (run, parent, study)] == [
        "search #3 seed 0", "some jit", "nested",
    ]  # fmt: skip
    for each in (run, parent, study):
        assert each.data.tags["model"] == "small_cnn"
        assert each.info.status == "FINISHED"
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
    assert keys(again) == ["a", "b"]
    assert levels(again) == {"trial": 2, "cell": 1, "study": 1}


def test_studies_of_one_name_keep_apart_on_one_server(uri: str) -> None:
    ours, theirs = [record("a"), record("b")], [record("a"), record("c")]
    assert Tracker(uri, ("shared", "one")).sync(ours) == 2
    assert Tracker(uri, ("shared", "two")).sync(theirs) == 2
    again = Tracker(uri, ("shared", "one"))
    assert again.sync(ours) == 0
    kept = [(run.data.tags[STUDY], run.data.tags.get(KEY, "")) for run in runs(again)]
    assert sorted(kept) == [
        ("one", ""), ("one", ""), ("one", "a"), ("one", "b"),
        ("two", ""), ("two", ""), ("two", "a"), ("two", "c"),
    ]  # fmt: skip


def test_trials_that_no_longer_belong_are_not_beside_the_others(uri: str) -> None:
    """The ranges of a cell change and change back: its trials leave their cell, and return."""
    tracker = Tracker(uri, ("changed", "id"))

    def parents() -> dict[str, str]:
        names = {run.info.run_id: run.info.run_name for run in runs(tracker)}
        tags = [run.data.tags for run in runs(tracker) if KEY in run.data.tags]
        return {each[KEY]: names[each[PARENT]] for each in tags}

    before = [record(key, cell="before") for key in "ab"]
    after = [record(key, cell="after") for key in "cd"]
    assert tracker.sync(before) == 2
    assert parents() == {"a": "some jit", "b": "some jit"}
    again = Tracker(uri, ("changed", "id"))
    assert again.sync(after) == 2
    assert parents() == {
        "a": "earlier trials",
        "b": "earlier trials",
        "c": "some jit",
        "d": "some jit",
    }
    again = Tracker(uri, ("changed", "id"))
    assert again.sync(before) == 0
    assert parents() == {
        "a": "some jit",
        "b": "some jit",
        "c": "earlier trials",
        "d": "earlier trials",
    }
    assert levels(again) == {"trial": 4, "cell": 1, "study": 1, "earlier": 1}


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
    assert keys(tracker) == list("abcde")


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
    assert sorted(run.data.tags[KEY] for run in found if KEY in run.data.tags) == ["a", "b", "c"]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_run_that_did_not_wait_for_mlflow_still_ends_with_all_of_it(
    uri: str, tmp_path: Path
) -> None:
    tracking = start(uri, tmp_path, "unawaited", record("a"))
    tracking.put(record("b"))
    assert tracking.close() == 0
    found = runs(Tracker(uri, ("unawaited", "id")))
    assert sorted(run.data.tags[KEY] for run in found if KEY in run.data.tags) == ["a", "b"]


def test_what_was_wrong_with_mlflow_is_said_at_the_end_where_nobody_waited_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    tracking = start(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path, "nowhere", record("a"))
    assert tracking.close() is None
    assert "MLflow cannot be written to: " in caplog.text


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


@pytest.mark.parametrize(
    ("tracking_uri", "address"),
    [
        ("https://me:hush@host:5000/base/", "https://host:5000/base"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:///mlflow.db", ""),
        ("postgresql://me:hush@host/mlflow", ""),
    ],
)
def test_the_address_of_a_server_has_no_password(tracking_uri: str, address: str) -> None:
    assert server_address(tracking_uri) == address
