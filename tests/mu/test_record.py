"""Records: one JSON line a trial, read back as written, also after a crash."""

from __future__ import annotations

import gc
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mu.record import SCHEMA, TrialRecord, from_line, read, to_line, trial_line, write

RECORD = TrialRecord(
    key="k1",
    study="toy",
    phase="search",
    forget="random",
    method="natmu",
    seed=3,
    status="finished",
    knobs={"lr": 1e-5, "epochs": 5, "optimizer": "adamw", "clip_norm": None, "augment": False},
    number=7,
    role="search",
    source="class3",
    reason="line one\nline two: \u00e9\u4e2d",
    metrics={"val": {"acc_test": 0.5, "mia_lr_entropy": math.nan}, "test": {"acc_test": 0.25}},
    curve=[{"epoch": 0, "seconds": 0.0, "acc_test": math.inf}, {"epoch": 1, "acc_test": 0.125}],
    time_unlearn=1.25,
    time_total=2.5,
    samples_seen=12345,
    environment={"host": "a", "torch": "2"},
    started=1.5e9,
    ended=1.5e9 + 3,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.jsonl"


def as_text(value: Any) -> str:
    """Return text in which NaN equals NaN."""
    return json.dumps(asdict(value), sort_keys=True)


def test_record_survives_the_round_trip_but_for_infinities(path: Path) -> None:
    write(path, [trial_line(RECORD)])
    _, (record,) = read(path)
    curve = [{**RECORD.curve[0], "acc_test": math.nan}, RECORD.curve[1]]
    assert as_text(record) == as_text(replace(RECORD, curve=curve))


def test_default_record_survives_the_round_trip(path: Path) -> None:
    plain = TrialRecord("k", "s", "reference", "f", "original", 0, "failed")
    write(path, [trial_line(plain)])
    assert read(path) == ({}, [plain])
    assert not plain.finished
    assert RECORD.finished


def test_line_is_strict_json_on_one_line_with_null_for_nan() -> None:
    line = trial_line(RECORD)
    assert "\n" not in line

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(line, parse_constant=refuse)
    assert content["kind"] == "trial"
    assert content["schema"] == SCHEMA
    assert content["metrics"]["val"]["mia_lr_entropy"] is None
    assert content["curve"][0]["acc_test"] is None
    assert content["knobs"]["clip_norm"] is None


def test_records_share_the_strings_that_they_have_in_common(path: Path) -> None:
    write(path, [trial_line(RECORD), trial_line(replace(RECORD, key="another"))])
    one, other = read(path)[1]
    for of in (lambda r: r.forget, lambda r: min(r.metrics["val"]), lambda r: min(r.curve[0])):
        assert of(one) is of(other)


def test_reason_with_half_of_a_surrogate_pair_is_read_as_it_was_written(path: Path) -> None:
    reason = b"no such file: caf\xe9.pt".decode(errors="surrogateescape")
    write(path, [trial_line(replace(RECORD, reason=reason)), trial_line(replace(RECORD, key="b"))])
    one, other = read(path)[1]
    assert one.reason == reason
    assert other.metrics.keys() == RECORD.metrics.keys()


def test_null_metric_is_nan_and_null_knob_is_none(path: Path) -> None:
    record = from_line(trial_line(RECORD))
    assert math.isnan(record.metrics["val"]["mia_lr_entropy"])
    assert math.isnan(record.curve[0]["acc_test"])
    assert record.knobs["clip_norm"] is None


def test_last_study_line_counts_and_trials_keep_their_order(path: Path) -> None:
    others = [replace(RECORD, key=key) for key in ("b", "a", "c")]
    lines = [to_line("study", {"name": "old"}), *map(trial_line, others)]
    write(path, [*lines, to_line("study", {"name": "new"})])
    study, trials = read(path)
    assert study["name"] == "new"
    assert [trial.key for trial in trials] == ["b", "a", "c"]


def test_first_record_of_a_key_is_kept(path: Path) -> None:
    write(path, [trial_line(RECORD), trial_line(replace(RECORD, status="failed"))])
    _, trials = read(path)
    assert [trial.status for trial in trials] == ["finished"]


def test_a_failed_trial_gives_way_to_its_repetition(path: Path) -> None:
    lost = replace(RECORD, status="failed", cause="infrastructure")
    write(path, [trial_line(lost), trial_line(RECORD)])
    _, trials = read(path)
    assert [trial.status for trial in trials] == ["finished"]
    assert lost.lost and not RECORD.lost


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_last_line_cut_short_by_a_crash_is_left_out(path: Path, kept: int) -> None:
    whole = trial_line(RECORD)
    path.write_text(whole + "\n" + trial_line(replace(RECORD, key="k2"))[:kept])
    _, trials = read(path)
    assert [trial.key for trial in trials] == ["k1"]


def test_last_line_without_a_newline_is_read_when_whole(path: Path) -> None:
    path.write_text(trial_line(RECORD))
    assert len(read(path)[1]) == 1


def test_empty_file_and_empty_lines_hold_nothing(path: Path) -> None:
    path.write_text("")
    assert read(path) == ({}, [])
    path.write_text("\n\n")
    assert read(path) == ({}, [])


def test_broken_line_before_the_last_is_refused_by_file_and_line(path: Path) -> None:
    path.write_text("\n".join([trial_line(RECORD), '{"kind": "tri', trial_line(RECORD), ""]))
    with pytest.raises(ValueError, match=r"trials\.jsonl:2: not a JSON line"):
        read(path)


@pytest.mark.parametrize("collects", [True, False])
def test_reading_leaves_garbage_collection_as_it_was(path: Path, collects: bool) -> None:
    path.write_text("{\n{\n", encoding="utf-8")
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ValueError, match="not a JSON line"):
            read(path)
        assert gc.isenabled() is collects
    finally:
        gc.enable()


def test_results_of_version_0_1_are_refused_by_name(path: Path) -> None:
    path.write_text(json.dumps({"kind": "study", "schema": 1, "study": "old"}) + "\n")
    with pytest.raises(ValueError, match=r"trials\.jsonl:1: was written by musweep 0\.1, whose"):
        read(path)


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"kind": "trial", "schema": SCHEMA + 1, "key": "k"}),
        json.dumps({"kind": "trial", "key": "k"}),
        json.dumps([1, 2]),
        "3",
    ],
)
def test_unknown_schema_is_refused_by_file_and_line(path: Path, line: str) -> None:
    path.write_text(trial_line(RECORD) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"trials\.jsonl:2: schema is not {SCHEMA}"):
        read(path)


@pytest.mark.parametrize("kind", [None, "tracial"])
def test_line_of_no_known_kind_is_refused_by_file_and_line(path: Path, kind: str | None) -> None:
    content = {**json.loads(trial_line(RECORD)), "kind": kind}
    if kind is None:
        del content["kind"]
    path.write_text(trial_line(RECORD) + "\n\n" + json.dumps(content) + "\n")
    with pytest.raises(ValueError, match=rf"trials\.jsonl:3: kind must be .* got {kind!r}"):
        read(path)


@pytest.mark.parametrize("name", ["key", "study", "phase", "forget", "method", "seed", "status"])
def test_trial_that_lacks_a_field_is_refused_by_file_and_line(path: Path, name: str) -> None:
    content = json.loads(trial_line(RECORD))
    del content[name]
    path.write_text(json.dumps(content) + "\n" + trial_line(RECORD))
    with pytest.raises(ValueError, match=rf"trials\.jsonl:1: a trial without `{name}`"):
        read(path)


def test_other_fields_may_be_missing(path: Path) -> None:
    line = {"kind": "trial", "schema": SCHEMA, "key": "k", "study": "s", "phase": "default"}
    line |= {"forget": "f", "method": "m", "seed": 0, "status": "failed"}
    path.write_text(json.dumps(line))
    assert read(path)[1] == [TrialRecord("k", "s", "default", "f", "m", 0, "failed")]


def test_field_of_another_form_is_refused_by_file_and_line(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(trial_line(RECORD)), "metrics": [1]}) + "\n\n")
    with pytest.raises(ValueError, match=r"trials\.jsonl:1: not a trial: "):
        read(path)


def test_fields_of_a_later_version_of_the_schema_are_ignored() -> None:
    content = {**json.loads(trial_line(RECORD)), "new_field": 1}
    assert from_line(json.dumps(content)).key == "k1"
