"""Work that no node can hold is said at once, and again while nothing can start."""

from __future__ import annotations

import io
import logging
import threading
from typing import Any

import pytest
from rich.console import Console

from sweeps.study.resources import Slot
from sweeps.tracking import progress as progress_module
from sweeps.tracking.progress import Progress
from sweeps.workers import slots as slots_module
from sweeps.workers.slots import Slots, lack

BIG = {"CPU": 16.0, "GPU": 1.0}
SMALL = {"CPU": 4.0}


def test_lack_names_what_is_needed_against_what_each_kind_of_node_has() -> None:
    wanted = Slot(cpus=8, gpus=2)
    assert lack("trial", wanted, [BIG, SMALL, BIG]) == (
        "no node can hold a trial: it needs 8 CPU, 2 GPU, the nodes have 2 x 16 CPU, 1 GPU; 1 x 4 CPU, 0 GPU"
    )
    assert lack("trial", wanted, []).endswith("it needs 8 CPU, 2 GPU, there is no node")
    assert lack("trial", Slot(cpus=8), [SMALL, BIG]) == ""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The nodes of a cluster, which a test may change."""
    there: list[dict[str, float]] = [SMALL]

    def listed() -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "n", "Resources": node} for node in there]

    monkeypatch.setattr(slots_module.ray, "nodes", listed)
    return there


@pytest.mark.parametrize(
    ("trial", "training", "work"),
    [(Slot(cpus=8), Slot(cpus=1), "trial"), (Slot(cpus=1), Slot(cpus=1, gpus=1), "training")],
)
def test_work_without_a_place_is_warned_of_once_until_the_cluster_grows(
    nodes: list[dict[str, float]],
    caplog: pytest.LogCaptureFixture,
    trial: Slot,
    training: Slot,
    work: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        slots = Slots(trial, None, training)
        slots._count()
        slots.close()
    (warning,) = caplog.messages
    assert warning.startswith(f"no node can hold a {work}: ") and "cluster grows" in warning
    assert slots.lack and slots.lack in warning
    nodes.append(BIG)
    slots._count()
    assert slots.lack == "" and len(caplog.messages) == 1


def test_the_line_of_progress_says_it_again_while_nothing_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.StringIO()
    progress = Progress("tiny", "avg_gap_natmu", "val", Console(file=shown, width=200))
    clock = 1000.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock)
    progress.looked()
    assert shown.getvalue() == ""  # all has a place
    progress.lack = lambda: "no node can hold a trial"
    progress.expect("search", 3)
    progress.looked()
    progress.looked()
    assert shown.getvalue() == "tiny: search 0/3; no node can hold a trial\n"
    clock += progress_module.LACK_SECONDS
    progress.looked()
    assert shown.getvalue().count("\n") == 2


def test_slots_tell_who_wants_to_know_each_time_they_look(
    nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 0.01)
    looked = threading.Event()
    slots = Slots(Slot(), None)
    slots.looked = looked.set
    assert looked.wait(30)
    slots.close()
