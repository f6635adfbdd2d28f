"""Further retrained models: they are trained without originals, join those of the report seeds, and disturb no trial."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import studies
from rich.console import Console
from whole_study import run

from mu.choice import further_seeds, retrain_seeds
from mu.current import read_current
from reports import load
from reports.analysis.summaries import DISTANCE, retrained
from sweeps import estimate, preflight
from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.study import study


def small(retrain: int | None, **changes: Any) -> dict[str, Any]:
    """A study of one request and two report seeds."""
    return studies.tiny(
        model="toy_cnn",
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=[{"name": "finetune", "fix": {"epochs": 1}}],
        seeds={"search": [0], "report": [1, 2], "retrain": retrain},
        experiments={},
        search__trials=1,
        **changes,
    )


def test_seeds_of_further_models_are_new_and_begin_alike() -> None:
    seeds = {"search": [0], "report": [1, 2]}
    assert retrain_seeds(seeds) == retrain_seeds({**seeds, "retrain": 2}) == ()
    more = retrain_seeds({**seeds, "retrain": 5})
    assert len({*more, 0, 1, 2, *further_seeds(seeds)}) == 3 + 3 + 2
    assert retrain_seeds({**seeds, "retrain": 4}) == more[:2]
    taken = {"search": [more[0]], "report": [1, 2], "retrain": 5}
    assert more[0] not in retrain_seeds(taken)
    assert further_seeds({**seeds, "retrain": 5}) == further_seeds(seeds)


@pytest.mark.parametrize(
    ("report", "asked", "models"), [([1, 2], None, 5), ([1, 2], 3, 3), ([*range(1, 8)], None, 7)]
)
def test_five_models_are_retrained_or_as_many_as_report_seeds(
    report: list[int], asked: int | None, models: int
) -> None:
    wanted = study.parse(
        studies.tiny(seeds={"search": [0], "report": report, "retrain": asked}), "study.yaml"
    )
    assert wanted.seeds.retrain == wanted.definition["seeds"]["retrain"] == models
    assert len(wanted.further_retrains) == models - len(report)


def test_fewer_models_than_report_seeds_are_refused() -> None:
    with pytest.raises(
        StudyError, match="seeds: retrain: must be at least 2, the number of report"
    ):
        study.parse(small(1), "study.yaml")


def test_a_plan_counts_them_and_a_dry_run_says_what_they_cost() -> None:
    wanted = study.parse(small(5), "study.yaml")
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    assert plan.counts["reference"] == 2 * 3 + 3
    assert plan.trained == 3 + 6
    assert [plan.roles("some", seed) for seed in (1, wanted.further_retrains[0])] == [
        ("original", "retrain"),
        ("retrain",),
    ]
    text = io.StringIO()
    estimate.print_plan(plan, Console(file=text, width=200))
    assert "3 of the 9 trainings are of retrained models beyond the report seeds" in text.getvalue()
    text = io.StringIO()
    estimate.print_outline(plan, Console(file=text, width=200))
    assert "(seeds.retrain)\n" in text.getvalue()


def test_further_models_join_those_of_the_report_seeds(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    first = run(small(2), tmp_path / "few", storage)
    ran = run(small(4), tmp_path / "more", storage)
    assert Counter(job.work for job in ran.done if job.phase == "reference") == {
        "train": 2,
        "score": 2,
    }
    assert {job.method for job in ran.of("reference")} == {"retrain"}
    _, records = read_current(ran.folder / "trials.jsonl")
    models = [
        r for r in records if (r.phase, r.role, r.method) == ("reference", "report", "retrain")
    ]
    assert len(models) == 4
    assert len({r.metrics["test"]["acc_test"] for r in models}) > 1
    views = {frozenset(r.metrics) for r in models}
    assert views == {frozenset({"val", "test"})}
    assert all(DISTANCE in r.metrics["test"] for r in models)
    assert len({frozenset(r.metrics["test"]) for r in models}) == 1, (
        "the same metrics as the others"
    )
    made = load.read(ran.folder)
    assert retrained(made, made.requests[0]).n == 4
    # The trials are those of the study with fewer models; only what they are compared with has changed.
    _, before = read_current(first.folder / "trials.jsonl")
    accuracies = [
        {(r.phase, r.seed): r.metrics["test"]["acc_test"] for r in found if r.phase == "confirm"}
        for found in (before, records)
    ]
    assert accuracies[0] == accuracies[1]
    assert run(small(4), tmp_path / "more", storage).finished_before


def test_a_study_may_ask_for_more_models_later_and_for_fewer_again(tmp_path: Path) -> None:
    run(small(2), tmp_path, tmp_path / "storage")
    more = run(small(3), tmp_path, tmp_path / "storage")
    assert [(job.phase, job.work) for job in more.done] == [
        ("reference", "train"),
        ("reference", "score"),
    ]
    read = load.read(more.folder)
    assert retrained(read, read.requests[0]).n == 3
    again = run(small(2), tmp_path, tmp_path / "storage")
    assert again.finished_before
    read = load.read(again.folder)
    assert retrained(read, read.requests[0]).n == 2
