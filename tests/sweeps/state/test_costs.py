"""What a study costs: sums over records, what is to go, and where a budget ends the search. No Ray."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import studies
from rich.console import Console

from mu.record import TrialRecord
from sweeps import preflight
from sweeps.plan import Plan
from sweeps.search.cells import Cells
from sweeps.state import costs
from sweeps.study import study
from sweeps.study.resources import Budget
from sweeps.tracking import notify, status

PLANNED = {
    "reference": {"trials": 3, "samples": 300},
    "search": {"trials": 10, "samples": 100},
    "default": {"trials": 0, "samples": 0},
    "confirm": {"trials": 4, "samples": 40},
    "sufficient": {"trials": 2, "samples": 60},
    "transfer": {"trials": 0, "samples": 0},
}
SHARE = {"cpus": 2.0, "gpus": 0.5}


def record(number: int, phase: str = "search", **changes: Any) -> TrialRecord:
    """A trial that kept its slot for 10 seconds, one after the other."""
    fields: dict[str, Any] = {
        "status": "finished",
        "knobs": {"lr": 0.1},
        "number": number,
        "resources": SHARE,
        "time_total": 10.0,
        "started": 10.0 * number,
        "ended": 10.0 * number + 10,
    }
    return TrialRecord(f"{phase}{number}", "tiny", phase, "some", "jit", 0, **{**fields, **changes})


def test_costs_are_time_in_the_slot_times_what_the_slot_holds() -> None:
    found = [record(0), record(1), replace(record(2), method="natmu")]
    assert costs.used(found) == {"slots": 30, "cpus": 60, "gpus": 15}
    assert found[0].cost("gpus") == 5
    assert found[0].cost("tpus") == 0
    assert costs.by_method(found)["jit"] == {"slots": 20, "cpus": 40, "gpus": 10}


def test_busy_time_counts_what_overlaps_once_and_gaps_not_at_all() -> None:
    at = [(0, 10), (5, 12), (6, 7), (100, 101)]
    found = [record(n, started=a, ended=b) for n, (a, b) in enumerate(at)]
    assert costs.busy_seconds(found) == 13
    assert costs.busy_seconds([]) == 0


def test_what_is_to_go_follows_the_search_until_a_phase_has_trials_of_its_own() -> None:
    assert costs.remaining_seconds([], PLANNED, False) is None
    found = [record(n) for n in range(4)]
    rate = 10 * 10 / 100  # seconds a sample: 10 seconds a trial, 10 samples each
    assert costs.remaining_seconds(found, PLANNED, False) == 6 * 10 + rate * 40 + rate * 60
    assert costs.remaining_seconds(found, PLANNED, True) == rate * 40 + rate * 60
    found += [record(n, "confirm", time_total=2.0) for n in range(3)]
    assert costs.remaining_seconds(found, PLANNED, True) == 1 * 2 + rate * 60


@pytest.mark.parametrize(
    ("budget", "ended"),
    [
        (Budget(), ""),
        # 4 trials used 20 GPU-seconds; the next one and what follows need 5 + 50 more.
        (Budget(gpu_hours=76 / 3600), ""),
        (Budget(gpu_hours=74 / 3600), "gpu_hours"),
        (Budget(cpu_hours=299 / 3600), "cpu_hours"),
        (Budget(cpu_hours=301 / 3600), ""),
        # 40 seconds have passed; 110 seconds of slots on two of them are to come.
        (Budget(wall_minutes=94 / 60), "wall_minutes"),
        (Budget(wall_minutes=120 / 60), ""),
    ],
)
def test_a_budget_leaves_room_for_what_follows_the_search(budget: Budget, ended: str) -> None:
    meter = costs.Meter(budget, PLANNED, SHARE, [record(n) for n in range(3)])
    meter.add(record(3))
    meter._began -= 10  # the fourth trial's time has passed, too
    assert meter.exceeded(running=0, slots=2) == ended


def test_what_runs_counts_and_the_last_phases_do_not() -> None:
    meter = costs.Meter(Budget(gpu_hours=76 / 3600), PLANNED, SHARE, map(record, range(4)))
    assert meter.exceeded(0, 2) == ""
    meter.add(record(0, "confirm", time_total=1e6))
    assert meter.exceeded(0, 2) == ""
    assert meter.exceeded(1, 2) == "gpu_hours"


def test_a_search_that_ends_early_is_even_over_its_cells(tmp_path: Path) -> None:
    wanted = study.parse(studies.tiny(search__trials=50), "study.yaml")
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    cells = Cells(plan, str(tmp_path / "journal"))
    jobs = [cells.next() for _ in range(18)]
    assert cells.next(more=False) is None
    counts = [sum((j.forget, j.method) == cell for j in jobs if j) for cell in plan.cells]
    assert max(counts) - min(counts) <= 1
    assert cells.asked == min(counts) == 4
    assert cells.remaining(more=False) == 0
    again = Cells(plan, str(tmp_path / "journal"))  # the driver died with all of them running
    assert again.remaining(more=False) == 18


def test_status_groups_failures_and_tells_of_costs(tmp_path: Path, capsys: Any) -> None:
    line = {
        "study": "tiny",
        "definition": {
            "search": {"objective": ["avg_gap_natmu"], "trials": 10},
            "seeds": {"search": [0]},
            "resources": SHARE,
        },
        "requests": {"some": {}},
        "methods": {"jit": {}},
        "planned": PLANNED,
        "search_ended": {"by": "gpu_hours", "limit": 2, "trials": 4},
    }
    late = {"status": "failed", "cause": "timeout"}
    found = [
        record(0, metrics={"val": {"avg_gap_natmu": 0.25}}),
        record(1, reason="timeout: it had not ended after 10 s", **late),
        record(2, reason="timeout: it had not ended after 20 s", **late),
        record(3, reason="Traceback\nValueError: no", status="failed", cause="exception"),
    ]
    status.show(tmp_path, line, found, Console(width=200))
    shown = capsys.readouterr().out
    for text in (
        "tiny: 4 trials recorded, not running",
        "0.2500 (1/10)",
        "the budget of 2 gpu_hours ended the search after 4 trials a cell",
        "6 trials/min",
        "used: 40 s of slots, 0.00556 GPU-hours, 0.0222 CPU-hours; to go, about: 1 min 40 s of slots",
        "2 failed (timeout): search some jit: timeout: it had not ended after 10 s",
        "1 failed (exception): search some jit: ValueError: no",
    ):
        assert text in shown


def test_status_shows_each_cell_whole_on_a_narrow_terminal(tmp_path: Path, capsys: Any) -> None:
    requests = [f"request{n}" for n in range(7)]
    line = {
        "study": "wide",
        "definition": {
            "search": {"objective": ["avg_gap_natmu"], "trials": 10},
            "seeds": {"search": [0]},
            "methods": [{"name": "jit"}, {"name": "unsir", "forget": requests[:1]}],
        },
        "requests": {name: {} for name in requests},
        "methods": {"jit": {}, "unsir": {"trials": 1}},
    }
    found = [replace(record(0, metrics={"val": {"avg_gap_natmu": 0.25}}), forget="request6")]
    status.show(tmp_path, line, found, Console(width=80))
    shown = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [name for row in shown if "avg_gap_natmu" in row for name in row[3:]] == requests
    cells = {
        name: [cell for row in shown if row[0] == name for cell in row[1:]]
        for name in ("jit", "unsir")
    }
    assert cells["jit"] == ["0/10"] * 6 + ["0.2500", "(1/10)"]
    assert cells["unsir"] == ["0/1"] + ["-"] * 6


class _Receiver(http.server.BaseHTTPRequestHandler):
    told: list[tuple[str | None, dict[str, Any]]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append((self.headers["Authorization"], json.loads(body)))
        self.send_response(204 if self.path == "/hook" else 500)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Receiver.told.clear()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address_is_told_and_its_secrets_travel_in_a_header(receiver: str) -> None:
    assert notify.tell(f"http://me:hush%21@{receiver}/hook", {"study": "tiny"})
    assert _Receiver.told == [("Basic bWU6aHVzaCE=", {"study": "tiny"})]


def test_an_address_that_does_not_answer_is_a_warning_without_secrets(
    receiver: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not notify.tell(f"http://me:hush@{receiver}/secret?token=hush", {})
        assert not notify.tell("http://me:hush@127.0.0.1:1/secret", {})
    assert "was not told" in caplog.text
    assert "hush" not in caplog.text
    assert "secret" not in caplog.text
