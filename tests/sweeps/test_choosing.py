"""``musweep choose --no-oracle``: from a study to the command that unlearns, without a retrained model."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import whole_study
import yaml
from rich.console import Console

from mu.menu import menu_records
from mu.record import TrialRecord
from mu.rules import RULE
from sweeps import choosing, launch, preflight
from sweeps.errors import StudyError
from sweeps.flow import splits
from sweeps.plan import Plan
from sweeps.state.store import Store
from sweeps.study import study, yaml_file


def raw(**changes: Any) -> dict[str, Any]:
    """A study as people write it, with a search, retrained models and experiments."""
    return studies.tiny(
        **{
            "forget": {"some": {"kind": "random", "fraction": 0.1}},
            "methods": [{"name": "finetune", "fix": {"epochs": 1}}, studies.JIT],
            "choose": {"menu": 5},
            **changes,
        }
    )


def plan_of(content: dict[str, Any]) -> Plan:
    wanted = study.parse(choosing.without_oracle(content), "study.yaml")
    return Plan(wanted, preflight.load_data(wanted, "study.yaml"))


def test_a_study_is_read_without_all_that_takes_a_retrained_model() -> None:
    plan = plan_of(raw())
    assert plan.study.name == "tiny-choice"
    assert plan.study.seeds.report == (0,)
    assert plan.study.choose is not None
    chosen_by = [RULE[name] for name in plan.study.choose.rules]
    assert not [rule.name for rule in chosen_by if rule.oracle or rule.retrainings]
    counts = {phase: count for phase, count in plan.counts.items() if count}
    assert counts == {"reference": 1, "menu": 2 * 6}
    assert plan.reference_records == [("some", 0, "original", "report")]
    assert plan.trained == 1


def test_a_study_without_a_menu_of_its_own_gets_one() -> None:
    content = raw()
    del content["choose"]
    assert (
        plan_of(content).study.choose
        == study.parse(choosing.without_oracle(raw(choose={})), "study.yaml").choose
    )


def test_supplied_retrained_models_are_refused() -> None:
    content = raw(retrain="models/{request}-{seed}.pt")
    with pytest.raises(StudyError, match="there is no retrained model, but `retrain` supplies one"):
        study.parse(choosing.without_oracle(content), "study.yaml")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, str]:
    """Folder of results, plan, and what the command has printed."""
    folder = tmp_path_factory.mktemp("choice")
    content = choosing.without_oracle(raw())
    whole_study.run(content, folder / "results", folder / "storage")
    plan = plan_of(raw())
    results = folder / "results" / "tiny-choice"
    recorded = studies.records(results).values()
    splits.write(plan, results / "splits")
    printed = io.StringIO()
    store = Store(str(folder / "storage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "measured", dict)
        choosing.conclude(plan, recorded, store, results, Console(file=printed, width=200))
    return results, plan, printed.getvalue()


def test_the_conclusion_ranks_methods_and_says_what_is_known_of_the_rule(
    ran: tuple[Path, Plan, str],
) -> None:
    _, _, text = ran
    assert "some: " in text and "configurations of 2 methods, by ranks" in text
    assert "how reliable it is has not been measured yet" in text
    assert "No retrained model was trained or read." in text


def test_it_ends_with_the_command_that_unlearns_whose_files_are_there(
    ran: tuple[Path, Plan, str],
) -> None:
    folder, plan, text = ran
    command = text.strip().splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:2] == ["musweep", "unlearn"]
    given = dict(zip(words[2::2], words[3::2]))
    assert given["--model"] == "small_cnn"
    assert yaml.safe_load(given["--data"])["name"] == "digits"
    knobs = yaml.safe_load(Path(given["--knobs"]).read_text(encoding="utf-8"))
    name = given["--method"]
    assert set(knobs) == set(plan.study.method(name).fixed)
    positions = np.load(given["--forget-indices"])
    assert np.array_equal(positions, plan.data.all_positions(plan.chosen("some")))
    problem = plan.problem("some", 0)
    weights = problem.read(Path(given["--weights"]))
    store = Store(str(folder.parent.parent / "storage"))
    trained = store.get(problem.reference_key("original"))
    assert trained is not None
    assert all(np.array_equal(trained[name], value) for name, value in weights.items())


def test_no_job_of_the_command_makes_or_reads_a_retrained_model(
    ran: tuple[Path, Plan, str],
) -> None:
    folder, plan, _ = ran
    recorded = studies.records(folder).values()
    assert not [r for r in recorded if r.method == "retrain"]
    store = Store(str(folder.parent.parent / "storage"))
    assert store.get(plan.problem("some", 0).reference_key("retrain")) is None


def test_measured_rules_decide_before_others() -> None:
    rules = [RULE[name] for name in ("held_out", "losses", "ranks")]
    assert choosing.deciding(rules, False, {}).name == "ranks"
    numbers = {"cells": 24, "regret": 0.4, "share": 0.1}
    evidence = {
        "from": "a study",
        "rules": {"losses": {"samples": numbers}, "ranks": {"samples": {**numbers, "regret": 0.5}}},
    }
    best = choosing.deciding(rules, False, evidence)
    assert best.name == "losses"
    assert choosing.say_reliability(best, False, evidence) == (
        "measured on 24 cells (a study): it gave up 0.40 points of AvgGap in the mean, and in the median cell 10% of (median - best)"
    )
    with pytest.raises(StudyError, match="none puts configurations in an order for classes"):
        choosing.deciding([RULE["random"]], True, evidence)


def test_what_ships_of_the_reliability_is_of_rules_that_there_are() -> None:
    evidence = choosing.measured()
    assert evidence["from"]
    for name, kinds in evidence["rules"].items():
        assert RULE[name].ranks and not RULE[name].oracle
        for kind, numbers in kinds.items():
            assert RULE[name].applies(kind == "classes") and numbers["cells"] >= 20
    least = min(evidence["rules"], key=lambda name: evidence["rules"][name]["samples"]["regret"])
    assert (
        choosing.deciding([RULE[name] for name in evidence["rules"]], False, evidence).name == least
    )


def test_configurations_of_all_methods_are_ranked_together_on_means_over_seeds() -> None:
    def trial(method: str, number: int, seed: int, distance: float) -> TrialRecord:
        views = {"val": {"loss_ks": distance, "acc_test": 0.8}}
        return TrialRecord(
            f"{method}{number}{seed}", "toy", "menu", "some", method, seed, "finished",
            {"lr": number}, number, metrics=views,
        )  # fmt: skip

    original = [
        TrialRecord(f"o{seed}", "toy", "reference", "some", "original", seed, "finished",
                    role="report", metrics={"val": {"acc_test": 0.8}})
        for seed in (1, 2)
    ]  # fmt: skip
    trials = [
        trial("a", 0, 1, 0.1), trial("a", 0, 2, 0.5),
        trial("a", 1, 1, 0.2), trial("a", 1, 2, 0.2),
        trial("b", 0, 1, 0.25), trial("b", 0, 2, 0.25),
        trial("b", 1, 1, 0.0),  # which has not finished on the other seed
    ]  # fmt: skip
    recorded = menu_records([*original, *trials], {"some": False})
    found = choosing.ranked(recorded, "some", ["a", "b"], [RULE["losses"]], 0.1)
    places = {(one.method, one.candidate.knobs["lr"]): one.places["losses"] for one in found}
    assert places == {("a", 1): 1, ("b", 0): 2, ("a", 0): 3}


def test_the_command_line_needs_to_be_told_that_there_is_no_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.__main__ import main

    path = studies.write(tmp_path, raw())
    with pytest.raises(SystemExit):
        main(["choose", str(path)])
    assert "--no-oracle" in capsys.readouterr().err
    assert main(["choose", str(path), "--no-oracle", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "tiny-choice" in printed and "menu" in printed


def test_options_of_the_command_reach_the_study(tmp_path: Path) -> None:
    path = studies.write(tmp_path, raw())
    options = launch.Options(oracle=False, overrides=["choose.menu=6"])
    plan = launch.make_plan(str(path), options)
    assert plan.study.choose is not None and plan.study.choose.menu == 6
    assert not plan.study.oracle
    assert yaml_file.read_study(path)["study"] == "tiny"
