"""A phase is one entry of the table: plan, costs, results, status, study files and report follow."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import studies
from rich.console import Console

from mu.record import TrialRecord, to_line, trial_line, write
from reports import page
from sweeps import preflight
from sweeps.phases import PHASES, Cell, Experiments, Knobs, Phase, Run, final_phases, trial_phases
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.state import costs, results
from sweeps.study import study
from sweeps.study.study_file import json_schema
from sweeps.tracking import status

RATE = {"finetune": "lr", "jit": "lr_per_sigma"}


def halved(
    asked: Experiments, defaults: Mapping[Cell, Knobs], chosen: Mapping[Cell, Knobs]
) -> list[Run]:
    """Every chosen method again with half its learning rate."""
    return [
        Run(*cell, {**knobs, RATE[cell[1]]: float(knobs[RATE[cell[1]]]) / 2})
        for cell, knobs in chosen.items()
        if RATE[cell[1]] in knobs
    ]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Phase:
    phase = Phase("halved", "half the learning rate", runs=halved)
    monkeypatch.setitem(PHASES, phase.name, phase)
    return phase


@pytest.fixture
def plan() -> Plan:
    wanted = study.parse(studies.tiny(metrics={"costly": ["confirm"]}), "study.yaml")
    return Plan(wanted, preflight.load_data(wanted, "study.yaml"))


def test_the_phases_and_their_order() -> None:
    assert list(PHASES) == [
        "reference", "search", "finalist", "menu", "default", "confirm", "sufficient", "transfer", "audit",
    ]  # fmt: skip
    finals = ("finalist", "menu", "default", "confirm", "sufficient", "transfer")
    assert trial_phases() == ("search", *finals)
    assert final_phases() == finals


def test_the_plan_has_the_jobs_of_a_made_up_phase(made_up: Phase, plan: Plan) -> None:
    cells, seeds = len(plan.cells), len(plan.study.seeds.report)
    assert plan.counts["halved"] == cells * seeds
    assert plan.samples["halved"] > 0
    best = {cell: plan.study.method(cell[1]).fixed for cell in plan.cells}
    jobs = [job for job in plan.final_jobs(best) if job.phase == "halved"]
    assert len(jobs) == cells * seeds == len({job.key for job in jobs})
    for job in jobs:
        rate = RATE[job.method]
        assert job.knobs[rate] == best[job.forget, job.method][rate] / 2
        assert job.views == ("val", "test") and not job.attacks and not job.keep


def test_costs_count_a_made_up_phase_as_work_that_remains(made_up: Phase, plan: Plan) -> None:
    ended = TrialRecord(
        "k", "tiny", "search", "some", "jit", 0, "finished", time_total=2.0, started=1.0, ended=3.0
    )
    left = costs.remaining_seconds([ended], plan.planned, False)
    without = {**plan.planned, "halved": {"trials": 0.0, "samples": 0.0}}
    less = costs.remaining_seconds([ended], without, False)
    assert left is not None and less is not None and left > less
    one = replace(ended, key="h", phase="halved")
    assert results.counts({"k": ended, "h": one}) == {
        "search": {"finished": 1},
        "halved": {"finished": 1},
    }


def test_status_and_report_show_a_made_up_phase(made_up: Phase, plan: Plan, tmp_path: Path) -> None:
    records = [
        TrialRecord("a", "tiny", "search", "some", "jit", 0, "finished", ended=2.0),
        TrialRecord("b", "tiny", "halved", "some", "jit", 1, "finished", ended=3.0),
    ]
    line = study_line(plan)
    shown = io.StringIO()
    status.show(tmp_path, line, records, Console(file=shown, width=120))
    (row,) = [text.split() for text in shown.getvalue().splitlines() if text.startswith("halved")]
    assert row[:3] == ["halved", str(plan.counts["halved"]), "1"]
    write(tmp_path / "trials.jsonl", [to_line("study", line), *map(trial_line, records)])
    text = page.build(tmp_path).read_text(encoding="utf-8")
    assert "half the learning rate" in text


def test_study_files_name_the_phases_of_the_table() -> None:
    definitions = json_schema()["$defs"]
    for section, key in (("Metrics", "costly"), ("Published", "phase")):
        schema = definitions[section]["properties"][key]
        assert schema.get("items", schema)["enum"] == list(trial_phases())
