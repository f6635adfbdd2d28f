"""Menus through whole studies: the same knobs everywhere, twins whose reference is the original, and no retrained model."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
import whole_study
from rich.console import Console

from mu.problem import Problem
from mu.record import TrialRecord
from mu.rules import RULE
from mu.stand_ins import rewind_key
from reports import load
from reports.analysis import regret
from reports.tables import choice
from sweeps import estimate, preflight
from sweeps.errors import StudyError
from sweeps.plan import Job, Plan
from sweeps.state import costs
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.study.menu import menu

RULES = ["random", "defaults", "losses", "expected", "expected_epochs", "expected_data", "twin"]
RULES += ["oracle_one", "oracle_all"]


def asked(**changes: Any) -> dict[str, Any]:
    """A study of one request whose knobs are chosen from a menu of five configurations and the defaults."""
    return studies.tiny(
        **{
            "data": {"name": "digits", "subset": 300, "twin": 0.3},
            "forget": {"some": {"kind": "random", "fraction": 0.1}},
            "methods": [{"name": "finetune", "fix": {"epochs": 1}}],
            "seeds": {"search": [0], "report": [1, 2], "retrain": 2},
            "search": {"trials": 0},
            "experiments": {"defaults": False},
            "metrics": {"costly": []},
            "choose": {"rules": RULES, "menu": 5},
            **changes,
        }
    )


def parsed(**changes: Any) -> study.Study:
    return study.parse(asked(**changes), "study.yaml")


def plan_of(wanted: study.Study) -> Plan:
    return Plan(wanted, preflight.load_data(wanted, "study.yaml"))


def numbers(folder: Path) -> dict[str, Any]:
    return studies.numbers(studies.records(folder))


class Stopping(whole_study.OneSlot):
    """Workers that are stopped when so many jobs have ended."""

    most = 0

    def run(self, source: Any, problems: Mapping[tuple[str, int], Problem]) -> None:
        following = source.next

        def next_or_stop() -> Job | None:
            if len(self.done) == self.most:
                raise KeyboardInterrupt
            return following()

        source.next = next_or_stop
        super().run(source, problems)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> whole_study.Ran:
    folder = tmp_path_factory.mktemp("menus")
    return whole_study.run(asked(), folder / "results", folder / "storage")


def test_the_menu_has_the_defaults_and_evenly_spread_points() -> None:
    config = parsed().method("finetune")
    items = menu(config, 16)
    assert [item.number for item in items] == [*range(17)]
    assert items[0].knobs == config.fixed and items[0].origin == "defaults"
    assert menu(config, 8) == items[:9]
    span = next(range_ for range_ in config.ranges if range_.log)
    places = np.log([item.knobs[span.knob] / span.low for item in items[1:]])
    places /= np.log(span.high / span.low)
    # One point in each sixteenth of the range, which no random draw would have.
    assert sorted((places * 16).astype(int)) == [*range(16)]


def test_every_request_and_method_of_the_same_name_has_the_same_menu() -> None:
    two = parsed(forget={name: {"kind": "random", "fraction": 0.1, "draw": n}
                         for n, name in enumerate(("a", "b"))})  # fmt: skip
    plan = plan_of(two)
    assert plan.menu(("a", "finetune")) == plan.menu(("b", "finetune"))
    other = plan_of(parsed(study="other"))
    assert other.menu(("some", "finetune")) == plan.menu(("a", "finetune"))


def test_a_plan_counts_menus_on_requests_and_twins_and_the_stand_ins_references() -> None:
    plan = plan_of(parsed())
    assert plan.menu_cells == [("some", "finetune"), ("some/twin", "finetune")]
    assert plan.counts["menu"] == len(plan.menu_jobs) == 2 * 6 * 2
    assert plan.counts["search"] == plan.counts["confirm"] == 0
    # Both models on two seeds, of the request and its twin, and one cheap retrained model each.
    assert plan.counts["reference"] == len(plan.reference_records) == 4 + 4 + 2 + 2
    assert plan.seeds == {"report": (1, 2)}
    printed = io.StringIO()
    estimate.print_plan(plan, Console(file=printed, width=200))
    assert "menu" in printed.getvalue()
    full = parsed(forget={"three": {"kind": "full_class", "class": 3}}, choose={"rules": "all"})
    assert full.stand_ins == {"three/epochs": ("three", "epochs"), "three/data": ("three", "data")}
    assert "losses" not in full.choose.rules and "class_gone" in full.choose.rules  # type: ignore[union-attr]


def test_what_is_left_of_a_menu_is_estimated_without_a_search() -> None:
    plan = plan_of(parsed())
    ended = TrialRecord("k", "tiny", "menu", "some", "finetune", 1, "finished", time_total=2.0)
    assert costs.remaining_seconds([], plan.planned, False) is None
    left = costs.remaining_seconds([ended], plan.planned, False)
    assert left == pytest.approx(2.0 * (plan.counts["menu"] - 1))


def test_a_study_runs_its_menu_on_the_request_and_on_the_twin(ran: whole_study.Ran) -> None:
    recorded = studies.records(ran.folder)
    found: dict[str, list[TrialRecord]] = {}
    for record in recorded.values():
        found.setdefault(record.phase, []).append(record)
    assert {phase: len(each) for phase, each in found.items()} == {"reference": 12, "menu": 24}
    knobs: dict[str, set[str]] = {}
    for record in found["menu"]:
        views = {"val"} if record.forget == "some/twin" else {"val", "test"}
        assert record.finished and set(record.metrics) == views
        knobs.setdefault(record.forget, set()).add(str(sorted(record.knobs.items())))
        assert {"mia_lr_entropy_held_out", "rf_jsd"} <= set(record.metrics["val"])
    assert knobs["some"] == knobs["some/twin"] and len(knobs["some"]) == 6


def test_the_reference_of_a_twin_is_the_original_to_the_bit(ran: whole_study.Ran) -> None:
    plan = plan_of(parsed())
    store = Store(str(ran.folder.parent.parent / "storage"))
    for seed in (1, 2):
        twin, real = plan.problem("some/twin", seed), plan.problem("some", seed)
        assert twin.reference_key("retrain") == real.reference_key("original")
        assert not [job for job in ran.done if job.work == "train" and job.forget == "some/twin"
                    and job.method == "retrain"]  # fmt: skip
        original = store.get(real.reference_key("original"))
        assert original is not None and "rewind" not in original
        assert store.get(rewind_key(real)) is not None
    records = studies.records(ran.folder).values()
    of = {(r.forget, r.method, r.seed): r.metrics["val"] for r in records if r.phase == "reference"}
    for seed in (1, 2):
        # On data that both problems share, the twin's reference is the original.
        assert (
            of["some/twin", "retrain", seed]["acc_test"] == of["some", "original", seed]["acc_test"]
        )
        assert (
            of["some/twin", "original", seed]["acc_test"]
            != of["some", "original", seed]["acc_test"]
        )


def test_a_twin_that_has_no_kept_state_is_the_same(ran: whole_study.Ran, tmp_path: Path) -> None:
    """An earlier study trained the originals and kept no state of their training."""
    storage = str(tmp_path / "storage")
    whole_study.run(asked(choose=None, search={"trials": 1}), tmp_path / "first", Path(storage))
    plan = plan_of(parsed())
    assert Store(storage).get(rewind_key(plan.problem("some", 1))) is None
    again = whole_study.run(asked(), tmp_path / "results", Path(storage))
    assert numbers(again.folder) == numbers(ran.folder)
    trained = [(job.forget, job.method) for job in again.done if job.work == "train"]
    assert ("some/twin", "original") in trained and ("some", "original") not in trained
    assert Store(storage).get(rewind_key(plan.problem("some", 1))) is not None


def test_a_study_that_is_stopped_in_each_part_goes_on(
    ran: whole_study.Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first training, among the cheap retrained models, before the twin is scored, and between the two menus."""
    stops = (1, 6, 11, 17, 30)
    monkeypatch.setattr(whole_study, "OneSlot", Stopping)
    for earlier, stop in zip((0, *stops), stops):
        monkeypatch.setattr(Stopping, "most", stop - earlier)
        with pytest.raises(KeyboardInterrupt):
            whole_study.run(asked(), tmp_path / "results", tmp_path / "storage")
    monkeypatch.undo()
    rest = whole_study.run(asked(), tmp_path / "results", tmp_path / "storage")
    assert len(rest.done) == len(ran.done) - stops[-1]
    assert numbers(rest.folder) == numbers(ran.folder)
    assert whole_study.run(asked(), tmp_path / "results", tmp_path / "storage").finished_before


def test_a_larger_menu_keeps_what_has_run_and_other_ranges_do_not(
    ran: whole_study.Ran, tmp_path: Path
) -> None:
    results, storage = tmp_path / "results", tmp_path / "storage"
    rules = {"rules": ["losses", "oracle_all"]}
    first = whole_study.run(asked(choose={**rules, "menu": 5}), results, storage)
    assert Counter(job.phase for job in first.done)["menu"] == 6 * 2
    more = whole_study.run(asked(choose={**rules, "menu": 7}), results, storage)
    assert [job.number for job in more.done] == [6, 6, 7, 7]
    fewer = whole_study.run(asked(choose={**rules, "menu": 5}), results, storage)
    assert fewer.finished_before
    assert {r.number for r in studies.records(fewer.folder).values()} == {None, *range(6)}


def test_the_report_has_the_regret_of_every_rule(ran: whole_study.Ran) -> None:
    recorded = load.read(ran.folder)
    found = regret.regrets(recorded)
    assert set(found["rule"]) == set(RULES)
    assert set(found["seed"]) == {1, 2}
    assert found["points"].min() >= 0
    table = choice.choice(recorded)
    assert table is not None and len(table.groups[0].rows) == len(RULES)
    assert choice.sentence(recorded).startswith("Without a retrained model, choose knobs by ")


def test_without_an_oracle_no_model_is_retrained(tmp_path: Path) -> None:
    rules = ["losses", "expected", "twin", "ranks"]
    raw = asked(choose={"rules": rules, "menu": 5, "oracle": False})
    plan = plan_of(study.parse(raw, "study.yaml"))
    forbidden = {plan.problem("some", seed).reference_key("retrain") for seed in (1, 2)}
    assert not [
        named for named in plan.reference_records if named[0] == "some" and named[2] == "retrain"
    ]
    done = whole_study.run(raw, tmp_path / "results", tmp_path / "storage").done
    assert not forbidden & {job.key for job in done}
    assert not [job for job in done if job.work == "train" and job.method == "retrain"]
    store = Store(str(tmp_path / "storage"))
    assert not [key for key in forbidden if store.get(key) is not None]
    recorded = studies.records(tmp_path / "results" / "tiny").values()
    assert {(r.forget, r.method) for r in recorded if r.phase == "reference"} == {
        ("some", "original"), ("some/twin", "original"), ("some/twin", "retrain"),
    }  # fmt: skip
    compared = {"avg_gap_natmu", "activation_distance", "delta_acc_forget"}
    for record in recorded:
        if record.phase == "menu" and record.forget == "some":
            assert not compared & set(record.metrics["val"])


def test_a_smaller_network_is_retrained_and_what_it_costs_is_measured(tmp_path: Path) -> None:
    rules = ["defaults", "expected_model", "proxy_model", "oracle_all"]
    raw = asked(choose={"rules": rules, "menu": 5, "proxy_model": "slim_vgg"})
    plan = plan_of(study.parse(raw, "study.yaml"))
    assert plan.study.stand_ins == {"some/model": ("some", "model")}
    assert plan.problem("some/model", 1).model == "slim_vgg"
    whole_study.run(raw, tmp_path / "results", tmp_path / "storage")
    recorded = load.read(tmp_path / "results" / "tiny")
    assert set(regret.regrets(recorded)["rule"]) == set(rules)
    of = {(r.forget, r.method, r.seed): r.time_unlearn for r in recorded.records}
    small = sum(of["some/model", "retrain", seed] for seed in (1, 2))
    large = sum(of["some", "retrain", seed] for seed in (1, 2))
    cost = regret.retrainings(recorded, RULE["proxy_model"])
    assert cost == pytest.approx(small / large)
    assert "proxy_model" not in parsed(choose={"rules": "all"}).choose.rules  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def supplied(ran: whole_study.Ran, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study without an oracle whose originals are supplied: those that another study trained."""
    folder = tmp_path_factory.mktemp("originals")
    store = Store(str(ran.folder.parent.parent / "storage"))
    for seed in (1, 2):
        problem = plan_of(parsed()).problem("some", seed)
        arrays = dict(store.get(problem.reference_key("original")) or {})
        del arrays["seconds"]
        torch.save(problem.load(arrays)[-1].state_dict(), folder / f"{seed}.pt")  # type: ignore[index]
    choose = {"rules": ["losses", "twin"], "menu": 5, "oracle": False}
    return asked(choose=choose, original=str(folder / "{seed}.pt"))


def test_the_twin_of_a_supplied_original_is_tuned_and_its_reference_is_that_original(
    supplied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_study.run(supplied, tmp_path / "results", tmp_path / "storage")
    trained = [(job.forget, job.method, job.seed) for job in whole.done if job.work == "train"]
    assert trained == [("some/twin", "original", 1), ("some/twin", "original", 2)]
    recorded = studies.records(whole.folder).values()
    of = {(r.forget, r.method, r.seed): r for r in recorded if r.phase == "reference"}
    for seed in (1, 2):
        twin = of["some/twin", "original", seed]
        assert twin.origin == "fine-tuned" and twin.samples_seen > 0 and twin.time_unlearn > 0
        assert (
            twin.samples_seen % (2 * len(plan_of(parsed()).problem("some", seed).forget_index)) == 0
        )
        reference = of["some/twin", "retrain", seed].metrics["val"]
        original = of["some", "original", seed].metrics["val"]
        assert reference["acc_test"] == original["acc_test"]
        assert reference["acc_retain"] != twin.metrics["val"]["acc_forget"]
    assert Counter(r.forget for r in recorded if r.phase == "menu") == {"some": 12, "some/twin": 12}
    monkeypatch.setattr(whole_study, "OneSlot", Stopping)
    for most in (3, 4):  # before the first twin, and after it
        monkeypatch.setattr(Stopping, "most", most)
        results, storage = tmp_path / f"results{most}", tmp_path / f"storage{most}"
        with pytest.raises(KeyboardInterrupt):
            whole_study.run(supplied, results, storage)
        monkeypatch.setattr(Stopping, "most", -1)
        whole_study.run(supplied, results, storage)
        assert numbers(results / "tiny") == numbers(whole.folder)


def test_a_twin_made_by_training_says_so_too(ran: whole_study.Ran) -> None:
    recorded = studies.records(ran.folder).values()
    origins = {(r.forget, r.method): r.origin for r in recorded if r.phase == "reference"}
    assert origins["some/twin", "original"] == "rewound"
    assert {origin for name, origin in origins.items() if name != ("some/twin", "original")} == {""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose": {"menu": 4}}, "choose: menu: must be at least 5, but got 4"),
        ({"choose": {"rules": ["guess"]}}, "choose: rules: must be one of random, defaults"),
        (
            {"choose": {"rules": ["class_gone"]}},
            "choose: rules: class_gone is for requests that forget whole classes, and there is none",
        ),
        (
            {"choose": {"rules": ["losses"]},
             "forget": {"three": {"kind": "full_class", "class": 3}}},
            "choose: rules: losses is for requests that forget samples of classes that stay",
        ),
        ({"choose": {"rules": ["transfer"]}}, "rules: transfer takes knobs from another request"),
        (
            {"choose": {"rules": ["proxy_model"]}},
            "rules: proxy_model reads a smaller network, and choose.proxy_model names none",
        ),
        (
            {"choose": {"proxy_model": "mypkg:net"}},
            "choose: proxy_model: must be one of small_cnn, ",
        ),
        (
            {"choose": {"rules": ["expected_model"], "proxy_model": "small_cnn", "oracle": False}},
            "rules: expected_model reads a model that is retrained, if in part",
        ),
        ({"choose": {"rules": ["start_from"]}}, "rules: start_from takes knobs from an earlier"),
        (
            {"choose": {"rules": ["oracle_one"], "oracle": False}},
            "rules: oracle_one reads retrained models, and without an oracle there are none",
        ),
        (
            {"choose": {"rules": ["proxy_epochs"], "oracle": False}},
            "rules: proxy_epochs reads a model that is retrained, if in part",
        ),
        (
            {"choose": {"oracle": False}, "search": {"trials": 3}},
            "without an oracle there is no search, so search.trials must be 0, but is 3",
        ),
        (
            {"choose": {"oracle": False}, "retrain": "models/{request}-{seed}.pt",
             "seeds": {"search": [0], "report": [1, 2]}},
            "without an oracle there is no retrained model, but `retrain` supplies one",
        ),
        ({"choose": None}, "search: trials: must be at least 1, unless `choose` has a menu"),
        (
            {"seeds": {"search": [0], "report": [1]}},
            "there must be two or more in seeds.report, but there are 1",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as refused:
        parsed(**changes)
    assert message in str(refused.value)


def test_a_twin_larger_than_what_is_held_out_is_refused() -> None:
    wanted = parsed(data={"name": "digits", "subset": 300, "twin": 0.02})
    with pytest.raises(
        StudyError, match=r"forget: some: the twin needs 2 held-out .* raise data.twin"
    ):
        preflight.load_data(wanted, "study.yaml")
