"""When running work is saved. Nothing here starts Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.workers import save_timer


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> save_timer.SaveTimer:
    """The timer of a worker on the node `mine`, which looks whenever it is asked."""
    context = SimpleNamespace(get_node_id=lambda: "mine")
    monkeypatch.setattr(save_timer.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(save_timer, "LOOK_SECONDS", 0.0)
    return save_timer.SaveTimer(every_seconds=1000)


def test_work_is_saved_at_once_on_a_node_that_is_drained(
    timer: save_timer.SaveTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    draining: dict[str, int] = {"another": 0}
    state = SimpleNamespace(get_draining_nodes=lambda: draining)
    monkeypatch.setattr(save_timer.ray._private.state, "state", state)
    assert not timer.due()
    draining["mine"] = 0
    assert timer.due()


@pytest.mark.parametrize(
    "state",
    [
        SimpleNamespace(),
        SimpleNamespace(get_draining_nodes=lambda address: {}),
        SimpleNamespace(get_draining_nodes=lambda: (_ for _ in ()).throw(ImportError("moved"))),
        SimpleNamespace(get_draining_nodes=lambda: None),
    ],
)
def test_another_ray_that_says_nothing_of_draining_costs_the_early_save_only(
    timer: save_timer.SaveTimer, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    monkeypatch.setattr(save_timer.ray._private.state, "state", state)
    assert not timer.due()
    timer.every_seconds = 0
    assert timer.due(), "from time to time it is saved all the same"
