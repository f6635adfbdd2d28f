"""What a study's trials are told apart by: folders, code, ranges, metrics; and that a study that grew is one that began so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import studies
import toy
from whole_study import Ran, run

from reports import load
from reports.page import words

METHOD = '''"""Own: {doc}.

Paper: none.
Reference: none.
Differs: nothing.
"""

from mu.knobs import Count, Positive
from mu.training import Hyperparameters, fit

NEEDS = ("retain",)


def unlearn(model, split, generator, *, lr: Positive = 0.01, epochs: Count = 1):
    """{doc}."""
    given = Hyperparameters(epochs=epochs, batch_size=64, lr={factor} * lr)
    yield from fit(model, split.retain, generator, given)
'''
SPACE = "lr: {low: 1.0e-4, high: 1.0e-1, log: true}\n"


def small(**changes: Any) -> dict[str, Any]:
    """One request, two methods, the narrow network of ``toy``, and nothing that is not needed."""
    assert "toy_cnn" in toy.MODELS
    raw = studies.tiny(
        model="toy_cnn",
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=[studies.JIT, {"name": "finetune", "fix": {"epochs": 1}}],
        experiments={"defaults": False},
        metrics={"costly": []},
        search__trials=2,
        search__finalists=2,
    )
    for name, value in changes.items():
        *path, last = name.split("__")
        target = raw
        for part in path:
            target = target.setdefault(part, {})
        target[last] = value
    return raw


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that all studies here share."""
    return tmp_path_factory.mktemp("storage")


def write_method(folder: Path, factor: str = "1.0", doc: str = "Train on D_r") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(METHOD.format(doc=doc, factor=factor), encoding="utf-8")
    (folder / "own.yaml").write_text(SPACE, encoding="utf-8")
    return folder


def cells(ran: Ran, phase: str) -> set[tuple[str, str]]:
    return {(job.forget, job.method) for job in ran.of(phase)}


def test_two_folders_on_one_optuna_database_inherit_nothing(tmp_path: Path, storage: Path) -> None:
    optuna = str(tmp_path / "optuna.journal")
    space = {"lr_per_sigma": {"low": 1e-6, "high": 2e-6}}
    one = run(small(methods=[studies.JIT]), tmp_path / "one", storage, optuna=optuna)
    narrow = small(methods=[{**studies.JIT, "space": space}])
    two = run(narrow, tmp_path / "two", storage, optuna=optuna)
    same = run(small(methods=[studies.JIT]), tmp_path / "three", storage, optuna=optuna)
    for ran in (one, two, same):
        assert [job.number for job in ran.of("search")] == [0, 1]
    assert all(1e-6 <= job.knobs["lr_per_sigma"] <= 2e-6 for job in two.of("search"))
    assert same.csv == one.csv
    assert run(
        small(methods=[studies.JIT]), tmp_path / "one", storage, optuna=optuna
    ).finished_before


def test_a_method_that_comes_back_with_another_space_mixes_nothing(
    tmp_path: Path, storage: Path
) -> None:
    both, narrow = small(), small()
    narrow["methods"][0] = {**studies.JIT, "space": {"lr_per_sigma": {"low": 1e-6, "high": 2e-6}}}
    run(both, tmp_path, storage)
    without = run(small(methods=both["methods"][1:]), tmp_path, storage)
    assert without.finished_before
    assert "jit" not in without.csv
    back = run(narrow, tmp_path, storage)
    assert cells(back, "search") == {("some", "jit")}
    fresh = run(narrow, tmp_path / "fresh", storage)
    assert back.csv == fresh.csv
    first = run(both, tmp_path, storage)
    assert first.finished_before, "its records are still there"
    text = "6 recorded trials are left out: jit (6 on some: what is searched or measured changed)"
    assert text in first.said


def test_an_edited_method_runs_anew_and_says_so(tmp_path: Path, storage: Path) -> None:
    methods = write_method(tmp_path / "methods")
    raw = small(methods=["own", studies.JIT])
    first = run(raw, tmp_path, storage, methods=methods)
    path = tmp_path / "tiny" / "trials.jsonl"
    before = path.read_bytes()
    write_method(methods, doc="Train on D_r, in other words")
    assert run(raw, tmp_path, storage, methods=methods).finished_before
    assert path.read_bytes() == before
    write_method(methods, factor="0.5")
    second = run(raw, tmp_path, storage, methods=methods)
    assert cells(second, "search") == cells(second, "confirm") == {("some", "own")}
    text = "8 recorded trials are left out: own (8 on some: the code changed; --accept-code-change"
    assert text in second.said
    assert second.csv != first.csv
    assert second.csv == run(raw, tmp_path / "fresh", storage, methods=methods).csv


def test_trials_of_earlier_code_are_kept_where_this_is_accepted(
    tmp_path: Path, storage: Path
) -> None:
    methods = write_method(tmp_path / "methods")
    raw = small(methods=["own", studies.JIT])
    first = run(raw, tmp_path, storage, methods=methods)
    write_method(methods, factor="0.5")
    kept = run(raw, tmp_path, storage, methods=methods, accept=True)
    assert kept.finished_before
    assert kept.csv == first.csv
    assert "trials of earlier code are kept: own" in kept.said
    assert run(raw, tmp_path, storage, methods=methods).finished_before, "it was accepted"
    more = run(
        {**raw, "seeds": {"search": [0], "report": [1, 2, 3], "retrain": 3}},
        tmp_path,
        storage,
        methods=methods,
    )
    assert [job.seed for job in more.of("confirm")] == [3, 3]
    setting = dict(words.setting(load.read(tmp_path / "tiny")))
    assert setting["Earlier code"] == "8 trials of own ran code that was edited since (accepted)"
    codes = {r.code for r in studies.records(tmp_path / "tiny").values() if r.method == "own"}
    assert len(codes) == 2
    write_method(methods, factor="0.25")
    third = run(raw, tmp_path, storage, methods=methods)
    assert cells(third, "search") == {("some", "own")}


GROWTH: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": {"search": [0], "report": [1, 2, 3], "retrain": 3}},
    "audits": {"audit": {"models": 2}},
    "metrics": {"metrics": {"costly": ["confirm"], "attacks": ["svc"]}},
    "trials": {"search__trials": 4},
    "methods": {"methods": ["ssd", studies.JIT, {"name": "finetune", "fix": {"epochs": 1}}]},
    "requests": {
        "forget": {
            "three": {"kind": "full_class", "class": 3},
            "some": {"kind": "random", "fraction": 0.1},
        },
        "experiments": {"defaults": True, "transfer": [["some", "three"]]},
    },
}


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory, storage: Path) -> tuple[Path, Ran]:
    """The study that grows, and its folder of results."""
    folder = tmp_path_factory.mktemp("small")
    return folder, run(small(), folder, storage)


@pytest.mark.filterwarnings("ignore:SSD selected no weight")
@pytest.mark.parametrize("kind", GROWTH)
def test_a_study_that_grew_is_one_that_began_so(
    kind: str, tmp_path: Path, storage: Path, small_study: tuple[Path, Ran]
) -> None:
    grown = small(**GROWTH[kind])
    folder, before = small_study
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    after = run(grown, tmp_path, storage)
    assert not after.finished_before
    fresh = run(grown, tmp_path / "fresh", storage)
    assert after.csv == fresh.csv
    assert after.csv != before.csv
    assert run(grown, tmp_path, storage).finished_before
    ran = [job.key for job in [*before.done, *after.done] if job.work == "trial"]
    assert len(ran) == len(set(ran)), "nothing runs twice"
    if kind != "audits":
        # What the study had before and still needs is not run again.
        needed = {job.key for job in fresh.done if job.work == "trial"}
        assert {key for key in ran if key in needed} == needed


def test_what_a_study_no_longer_asks_for_is_left_out_and_comes_back(
    tmp_path: Path, storage: Path
) -> None:
    large = small(
        seeds={"search": [0], "report": [1, 2, 3], "retrain": 3},
        audit={"models": 2},
        search__trials=4,
    )
    first = run(large, tmp_path, storage)
    less = run(small(), tmp_path, storage)
    assert "search" not in {job.phase for job in less.done}
    assert less.csv == run(small(), tmp_path / "fresh", storage).csv
    again = run(large, tmp_path, storage)
    assert again.finished_before
    assert again.csv == first.csv


def test_a_driver_that_was_lost_before_the_audits_makes_them(tmp_path: Path, storage: Path) -> None:
    raw = small(audit={"models": 2})
    first = run(raw, tmp_path, storage)
    path = tmp_path / "tiny" / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"phase":"audit"' not in line))
    again = run(raw, tmp_path, storage)
    assert not again.finished_before and not again.done
    assert again.csv == first.csv
