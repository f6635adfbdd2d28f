"""Finalists through a whole study: the best of each search run again before one is chosen, and a later study starts there."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import studies
from rich.console import Console
from studies import counts, records

from mu.choice import choice_of
from mu.current import read_current
from mu.record import TrialRecord
from reports import load
from sweeps import preflight
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.study import study
from sweeps.tracking import status


def test_a_plan_counts_the_finalists_of_cells_that_have_a_choice() -> None:
    nothing = {"name": "jit", "fix": {"form": "equation", "lr": 0.01, "sigma": 0.5}}
    wanted = study.parse(
        studies.tiny(search__finalists=2, methods=["finetune", nothing]), "study.yaml"
    )
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    further = wanted.choice.further_seeds
    assert plan.seeds == {"search": (0,), "finalist": further, "report": (1, 2)}
    seeds = 1 + 2 + 2
    assert plan.counts["reference"] == 2 * 2 * seeds
    assert plan.counts["finalist"] == 2 * 2 * 2  # of finetune on two requests: two, on two seeds
    assert plan.samples["finalist"] > 0
    without = study.parse(studies.tiny(methods=[nothing], search__finalists=2), "study.yaml")
    alone = Plan(without, preflight.load_data(without, "study.yaml"))
    assert "finalist" not in alone.seeds and alone.counts["finalist"] == 0


def test_status_shows_the_value_of_the_finalist_that_was_chosen(tmp_path: Path) -> None:
    wanted = study.parse(studies.tiny(search__finalists=2, methods=[studies.JIT]), "study.yaml")
    line = study_line(Plan(wanted, preflight.load_data(wanted, "study.yaml")))

    def ended(number: int, gap: float, seed: int, phase: str) -> TrialRecord:
        return TrialRecord(
            f"{phase}{number}-{seed}", "tiny", phase, "some", "jit", seed, "finished", {}, number,
            metrics={"val": {"avg_gap_natmu": gap}}, ended=1.0,
        )  # fmt: skip

    def shown(trials: list[TrialRecord]) -> str:
        text = io.StringIO()
        status.show(tmp_path, line, trials, Console(file=text, width=120))
        return text.getvalue()

    trials = [ended(number, gap, 0, "search") for number, gap in enumerate((0.3, 0.1, 0.2))]
    assert "0.1000 (3/3)" in shown(trials)
    nothing = TrialRecord(
        "o", "tiny", "reference", "some", "original", 0, "finished", role="search",
        metrics={"val": {"avg_gap_natmu": 0.4}},
    )  # fmt: skip
    assert "0.1000, 75 % (3/3)" in shown([*trials, nothing])
    further = wanted.choice.further_seeds
    trials += [
        ended(n, gap, seed, "finalist") for n, gap in ((1, 0.7), (2, 0.2)) for seed in further
    ]
    assert "0.2000 (3/3)" in shown(trials)


@pytest.mark.slow
@pytest.mark.fault
def test_finalists_run_before_knobs_are_chosen_and_another_study_starts_from_them(
    tmp_path: Path,
) -> None:
    changes = {
        "forget": {"some": studies.TINY["forget"]["some"]},
        "methods": [studies.JIT],
        "experiments": {"defaults": False},
        "metrics": {"costly": []},
    }
    file = studies.write(tmp_path, studies.tiny(**changes, search__finalists=2))
    assert studies.here(tmp_path, "run", str(file)).returncode == 0
    folder = tmp_path / "results/tiny"
    ended = records(folder)
    assert counts(ended) == {"reference": 10, "search": 3, "finalist": 4, "confirm": 2}
    line, trials = read_current(folder / "trials.jsonl")
    choice = choice_of(line["definition"])
    decision = choice.decide(trials, "some", "jit")
    assert decision.settled and decision.chosen is not None
    again = [r for r in trials if r.phase == "finalist"]
    assert {(r.number, r.seed) for r in again} == {
        (one.number, seed) for one in decision.finalists for seed in choice.further_seeds
    }
    assert all(set(r.metrics) == {"val"} for r in again)
    for r in trials:
        if r.phase == "confirm":
            assert r.knobs == decision.chosen.knobs
            assert r.started >= max(each.ended for each in again)
    made = load.read(folder)
    assert made.chosen("some", "jit") == decision.chosen
    assert "nothing to do" in studies.here(tmp_path, "run", str(file)).stdout

    later = studies.tiny(**changes, study="later", search__start_from=["results/tiny"])
    file = studies.write(tmp_path, later)
    assert studies.here(tmp_path, "run", str(file)).returncode == 0
    tried = {
        r.number: r for r in records(tmp_path / "results/later").values() if r.phase == "search"
    }
    default = decision.chosen.number == 0
    assert [tried[n].origin for n in range(3)] == [
        "defaults",
        "" if default else "results/tiny",
        "",
    ]
    assert tried[0 if default else 1].knobs == decision.chosen.knobs
    page = (tmp_path / "results/later/report/index.html").read_text()
    assert default or "1 trial with knobs of results/tiny" in page
