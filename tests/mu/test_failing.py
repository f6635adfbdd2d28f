"""Which cells count as failing."""

from __future__ import annotations

import pytest

from mu.failing import FirstTrials, failing_cells, say_failing
from mu.record import TrialRecord


def trial(method: str, status: str = "failed", **more: str) -> TrialRecord:
    return TrialRecord(
        "key", "tiny", more.pop("phase", "search"), "some", method, 0, status, **more
    )


def test_a_cell_whose_first_trials_all_failed_is_failing_whatever_comes_later() -> None:
    records = [trial("bad", reason=f"ValueError: {n}") for n in range(3)] + [
        trial("bad", "finished")
    ]
    failing = failing_cells(records, 3)
    assert list(failing) == [("some", "bad")]
    assert failing["some", "bad"].reason == "ValueError: 2"
    assert failing_cells(records, 4) == {}, "its fourth finished"
    assert failing_cells(records[:2], 3) == {}, "there are only two"
    assert failing_cells(records, None) == {}


@pytest.mark.parametrize("status", ["finished", "diverged", "stopped"])
def test_a_trial_that_ran_keeps_its_cell(status: str) -> None:
    assert failing_cells([trial("bad"), trial("bad", status), trial("bad")], 2) == {}


def test_trials_of_all_phases_count_and_references_do_not() -> None:
    assert failing_cells([trial("bad"), trial("bad", phase="default")], 2)
    assert failing_cells([trial("retrain", phase="reference")] * 2, 2) == {}


def test_cells_are_known_as_their_trials_arrive() -> None:
    """What is known after each record is what all records so far say."""
    statuses = [("bad", "failed"), ("good", "finished"), ("bad", "failed"), ("good", "failed")]
    records = [trial(*each) for each in [*statuses, ("good", "failed"), ("bad", "finished")]]
    first = FirstTrials(2, records[:1])
    for count, record in enumerate(records[1:], start=2):
        first.add(record)
        assert first.failing == failing_cells(records[:count], 2)
    assert first.failing == {("some", "bad"): records[2]}
    assert FirstTrials(None, records).failing == {}


def test_the_words_name_each_cell_and_its_last_reason() -> None:
    failing = failing_cells(
        [trial("bad", reason="Traceback\nValueError: no"), trial("worse", cause="memory")], 1
    )
    assert say_failing(failing, 1) == (
        "ended because the first trial failed: bad on some (ValueError: no); worse on some (memory)"
    )
    assert say_failing(failing, 5).startswith("ended because the first 5 trials all failed: ")
    assert say_failing({}, 5) == ""
