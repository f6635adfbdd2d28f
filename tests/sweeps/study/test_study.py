"""Study files: what is valid, and the one clear line for what is not."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import studies
import torch
import yaml
from torch import nn
from toy import toy_problem

from mu import methods
from mu.methods.jit import BATCH_NORM
from mu.models.architectures import MODELS, Shape
from mu.problem import weights_of
from sweeps import estimate, preflight
from sweeps.__main__ import main
from sweeps.errors import StudyError
from sweeps.phases import Run
from sweeps.plan import Plan
from sweeps.study import space, study, yaml_file

FINETUNE = {"name": "finetune"}
JIT_GRID = {
    "name": "jit",
    "space": {"lr": {"choices": [0.1, 1.0]}, "sigma": {"low": 0.1, "high": 0.3, "step": 0.2}},
}
GA_GRID = {"name": "ga", "fix": {"mode": "eval"}, "space": {"lr": {"choices": [0.1, 0.2, 0.3]}}}
FIXED = {"name": "finetune", "fix": {"lr": 0.1, "weight_decay": 0.0}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"metods": []}, "unknown key `metods`"),
    "unknown nested key": ({"training__lrr": 1}, "training: unknown key `lrr`; allowed are epochs"),
    "no name": ({"study": None}, "study: must be text, but got None"),
    "name with a path": ({"study": "../x"}, "study: must be a name"),
    "unknown data": ({"data": "cifar11"}, "data: name: must be one of digits"),
    "data without a name": ({"data": {"subset": 3}}, "data: `name` is required"),
    "unknown model": ({"model": "resnet19"}, "model must be one of small_cnn"),
    "unknown key of a model": ({"model": {"nam": "resnet18"}}, "model: unknown key `nam`; allowed"),
    "unknown key before what else is wrong": (
        {"training": {"epochs": "3", "lrr": 1}},
        "training: unknown key `lrr`; allowed are epochs, optimizer, lr",
    ),
    "unknown key of a request": (
        {"forget__three": {"kind": "full_class", "target": 3}},
        "forget: three: unknown key `target`; allowed are kind, class, fraction",
    ),
    "unknown key of a normalization": (
        {"model": {"name": "allcnn", "normalize": {"mean": [0.5], "sd": [1]}}},
        "model: normalize: unknown key `sd`; allowed are mean, std",
    ),
    "truth for a name": (
        {"forget__three": {"kind": "full_class", "class": True}},
        "forget: three: class: must be text, but got True",
    ),
    "text in place of numbers": (
        {"training": {"milestones": ["0.5"]}},
        "training: milestones: must be a number, but got '0.5'",
    ),
    "unknown stem": (
        {"model": {"name": "resnet18", "stem": "tiny"}},
        "model: stem: must be one of small, imagenet, but got 'tiny'",
    ),
    "stem of a model with one form": (
        {"model": {"name": "allcnn", "stem": "imagenet"}},
        "but allcnn has one form",
    ),
    "normalization without spread": (
        {"model": {"name": "allcnn", "normalize": {"mean": [0.5], "std": [0.0]}}},
        "model: normalize: std must be > 0, but got 0.0",
    ),
    "normalization of other lengths": (
        {"model": {"name": "allcnn", "normalize": {"mean": [0.5], "std": [0.2, 0.2]}}},
        "model: normalize: mean and std must hold a number for each channel",
    ),
    "no requests": ({"forget": {}}, "forget: must not be empty, but got {}"),
    "unknown kind": (
        {"forget": {"a": {"kind": "some"}}},
        "forget: a: kind: must be one of full_class, sub_class, random",
    ),
    "a grid of a continuous knob": (
        {
            "methods": [JIT_GRID | {"space": {"lr": {"choices": [0.1]}}}],
            "search": {"sampler": "grid"},
        },
        "search: sampler grid: jit: `sigma` needs `choices`, or a `step`, to be a grid",
    ),
    "a grid of other trials": (
        {"methods": [JIT_GRID], "search": {"sampler": "grid", "trials": 5}},
        "search: sampler grid needs a grid of `trials` points for every method, but got jit 4",
    ),
    "grids of different sizes": (
        {
            "methods": [JIT_GRID, GA_GRID, FIXED],
            "search": {"sampler": "grid"},
        },
        "for every method, but got jit 4, ga 3",
    ),
    "missing fraction": (
        {"forget": {"a": {"kind": "random"}}},
        "forget: a: random needs `fraction`",
    ),
    "fraction of one": (
        {"forget__some": {"kind": "random", "fraction": 1}},
        "forget: some: `fraction` must be in (0, 1), but got 1",
    ),
    "fraction as text": (
        {"forget__some": {"kind": "random", "fraction": "much"}},
        "forget: some: fraction: must be a number, but got 'much'",
    ),
    "unknown class": (
        {"forget__three": {"kind": "full_class", "class": 30}},
        "forget: three: unknown class '30'; digits has 0, 1",
    ),
    "sub-class of flat data": (
        {"forget__three": {"kind": "sub_class", "class": 3}},
        "sub_class needs data with superclasses",
    ),
    "selects nothing": (
        {"forget__some": {"kind": "random", "fraction": 0.0001}},
        "forget: some: the request selects nothing",
    ),
    "selects too much": (
        {"forget__some": {"kind": "class_subset", "class": 3, "count": 4000}},
        "forget: some: `count` must be at most",
    ),
    "no methods": ({"methods": []}, "methods: must not be empty, but got []"),
    "unknown method": (
        {"methods": ["forgetnet"]},
        "methods: unknown method 'forgetnet'; there are",
    ),
    "method twice": ({"methods": ["jit", "jit"]}, "methods: jit: is listed twice; `as` gives it"),
    "alias twice": (
        {"methods": [{"name": "jit", "as": "x"}, {**FINETUNE, "as": "x"}]},
        "methods: x: is listed twice; `as` gives it a name of its own",
    ),
    "alias of another method's name": (
        {"methods": [{"name": "jit", "as": "ssd"}]},
        "methods: jit: as: must be a name of the study's own, but 'ssd' is that of a method",
    ),
    "alias of its own name": (
        {"methods": [{"name": "jit", "as": "jit"}]},
        "methods: jit: as: must be a name of the study's own, but 'jit' is that of a method",
    ),
    "alias of a reference": (
        {"methods": [{"name": "jit", "as": "retrain"}]},
        "methods: jit: as: must be a name of the study's own, but 'retrain' is that of a model",
    ),
    "alias with a path": (
        {"methods": [{"name": "jit", "as": "../x"}]},
        "methods: ../x: as: must be a name of letters, digits, `.`, `_`, `-`, but got '../x'",
    ),
    "alias of an unknown method": (
        {"methods": [{"name": "forgetnet", "as": "x"}]},
        "methods: unknown method 'forgetnet'; there are",
    ),
    "a mistake under an alias": (
        {"methods": [FINETUNE, {**FINETUNE, "as": "x", "space": {"lr": {"lo": 1}}}]},
        "methods: x: space: lr: unknown key `lo`",
    ),
    "request that a method under an alias does not support": (
        {"methods": [{"name": "unsir", "as": "x"}]},
        "methods: x: does not support the random request `some`; it supports full_class",
    ),
    "floor above one": (
        {"search__max_utility_loss": 10},
        "search: max_utility_loss: must be at most 1, but got 10",
    ),
    "floor below zero": (
        {"search__max_utility_loss": -0.1},
        "search: max_utility_loss: must be at least 0, but got -0.1",
    ),
    "unknown knob": (
        {"methods": [{**FINETUNE, "fix": {"lrr": 1}}]},
        "methods: finetune: fix: unknown knob `lrr`; finetune has augment, batch_size",
    ),
    "knob of the wrong type": (
        {"methods": [{**FINETUNE, "fix": {"epochs": 2.5}}]},
        "fix: knob `epochs` must be an int >= 1, but got 2.5",
    ),
    "unknown knob in space": (
        {"methods": [{**FINETUNE, "space": {"x": {"low": 0, "high": 1}}}]},
        "methods: finetune: space: unknown knob `x`",
    ),
    "reversed range": (
        {"methods": [{**FINETUNE, "space": {"lr": {"low": 1, "high": 0.1}}}]},
        "space: lr: `low` must be less than `high`, but got 1.0 and 0.1",
    ),
    "range outside the knob": (
        {"methods": [{**FINETUNE, "space": {"momentum": {"low": 0.5, "high": 1.5}}}]},
        "space: momentum: knob `momentum` must be a float in [0, 1), but got 1.5",
    ),
    "log range from zero": (
        {"methods": [{**FINETUNE, "space": {"weight_decay": {"low": 0, "high": 1, "log": True}}}]},
        "a log range needs `low` > 0",
    ),
    "choice outside the knob": (
        {"methods": [{**FINETUNE, "space": {"optimizer": {"choices": ["sgd", "lion"]}}}]},
        "knob `optimizer` must be one of sgd, adam, adamw, but got 'lion'",
    ),
    "knob fixed and searched": (
        {"methods": [{**FINETUNE, "fix": {"lr": 0.1}, "space": {"lr": {"low": 0.1, "high": 1}}}]},
        "`lr` is in both `fix` and `space`",
    ),
    "request a method does not support": (
        {"methods": ["unsir"]},
        "methods: unsir: does not support the random request `some`; it supports full_class",
    ),
    "method on an unknown request": (
        {"methods": [{"name": "jit", "forget": ["four"]}]},
        "methods: jit: forget: unknown request 'four'; there are some, three",
    ),
    "too little of that data": (
        {"methods": [{"name": "tmu", "forget": ["some"]}], "data__twin": 0.02},
        "methods: tmu: some: tmu needs at least 20 held-out `twin` samples, but there are 6",
    ),
    "held-out data a method needs": (
        {"methods": [{"name": "tmu", "forget": ["some"]}]},
        "tmu needs held-out data of its own",
    ),
    "shared seed": ({"seeds": {"search": [1], "report": [1]}}, "seeds: seed 1 is in both"),
    "no report seeds": ({"seeds": {"report": []}}, "seeds: report: must not be empty, but got []"),
    "zero trials": (
        {"search__trials": 0},
        "search: trials: must be at least 1, unless `choose` has a menu",
    ),
    "unknown sampler": (
        {"search__sampler": "hyperband"},
        "search: sampler: must be one of tpe, gp, cmaes, random, qmc, grid, nsga2, but got 'hyperband'",
    ),
    "unknown objective": (
        {"search__objective": "acc"},
        "search: objective: must be one of activation_distance",
    ),
    "objective without its list": ({"search__objective": "mean_gap"}, "mean_gap needs its list"),
    "objective over a cost": (
        {"search__objective": {"mean_gap": ["time_unlearn"]}},
        "search: mean_gap: must be one of acc_test",
    ),
    "objective of another mapping": (
        {"search__objective": {"mean_gap": ["acc_test"], "weights": [1]}},
        "search: objective: must be {mean_gap: [...]}, but got {'mean_gap': ['acc_test'], 'weights'",
    ),
    "a constraint on an unknown metric": (
        {"search__choose": "acc_tst >= original - 0.01"},
        "search: choose: constraint: unknown metric 'acc_tst'; there are acc_forget, acc_retain",
    ),
    "no constraint": (
        {"search__choose": ["acc_test > 0.5"]},
        "must be a constraint such as `acc_test >= original - 0.01`, but got 'acc_test > 0.5'",
    ),
    "a bound that no reference has": (
        {"search__choose": "time_unlearn <= original"},
        "search: choose: constraint: original has no time_unlearn",
    ),
    "weights of what is not searched": (
        {"search__choose": {"weights": {"time_unlearn": 1}}},
        "search: choose: weights: 'time_unlearn' is no objective of the search, which has avg_gap_natmu",
    ),
    "weights and turns": (
        {
            "search__choose": {
                "weights": {"avg_gap_natmu": 1},
                "lexicographic": {"avg_gap_natmu": 0},
            }
        },
        "search: choose: must have either `weights` or `lexicographic`",
    ),
    "more finalists than trials": (
        {"search__finalists": 4},
        "search: finalists: must be at most the number of trials, 3, but got 4",
    ),
    "a grid that starts elsewhere": (
        {"search": {"sampler": "grid", "start_from": ["results/earlier"]}},
        "search: sampler grid tries its own points, so that `start_from` has no trials",
    ),
    "an earlier study that is missing": (
        {"search__start_from": ["results/earlier"]},
        "search: start_from: results/earlier: is no folder with the results of a study",
    ),
    "unknown selection": (
        {"selection": "oracle"},
        "selection: must be one of honest, paper, but got 'oracle'",
    ),
    "costly metrics of references": (
        {"metrics": {"costly": ["reference"]}},
        "metrics: costly: must be one of search, finalist, menu, default, confirm",
    ),
    "an unknown attack": (
        {"metrics": {"attacks": ["lira"]}},
        "metrics: attacks: must be one of svc, starting_kit, svc_chunked, svc_columns, but got 'lira'",
    ),
    "audit of more models than seeds": (
        {"audit": {"models": 9}},
        "audit: models: must be 0, or in",
    ),
    "unknown early stop": (
        {"search": {"early_stop": "soon"}},
        "early_stop: must be one of collapse, none, asha, but got 'soon'",
    ),
    "asha on a cost": (
        {"search__early_stop": "asha", "search__objective": "samples_seen"},
        "search: early_stop asha compares models after an epoch, by one of activation_distance, delta_acc_forget, avg_gap_natmu, "
        "rf_jsd, mean_gap, but the objective is samples_seen",
    ),
    "asha on the test view": (
        {"search__early_stop": "asha", "selection": "paper"},
        "search: early_stop: asha compares on the `val` view, but `selection: paper` searches on `test`",
    ),
    "unknown target": (
        {"experiments__transfer": [["some", "four"]]},
        "transfer: unknown request 'four'; there are some, three",
    ),
    "transfer to itself": ({"experiments__transfer": [["some", "some"]]}, "are both 'some'"),
    "epochs of another name": (
        {"experiments__sufficient": {"epoch": 3}},
        "experiments: sufficient: must be one of epochs, but got 'epoch'",
    ),
    "text for truth": (
        {"experiments__defaults": "no"},
        "experiments: defaults: must be true or false, but got 'no'",
    ),
    "text for a number": (
        {"training__epochs": "3"},
        "training: epochs: must be a whole number, but got '3'",
    ),
    "half an epoch": (
        {"training__epochs": 2.5},
        "training: epochs: must be a whole number, but got 2.5",
    ),
    "truth for a number": (
        {"search__trials": True},
        "search: trials: must be a whole number, but got True",
    ),
    "a wrong recipe": ({"training__lr": -1}, "training: lr must be > 0, but got -1.0"),
    "a name for a list": (
        {"metrics": {"costly": "confirm"}},
        "metrics: costly: must be a list, but got 'confirm'",
    ),
    "a list for a mapping": ({"search": ["tpe"]}, "search: must be a mapping, but got ['tpe']"),
    "a number for a method": (
        {"methods": [3]},
        "methods: must be a name, or a mapping with a `name`, but got 3",
    ),
    "an unknown key of a method": (
        {"methods": [{"name": "jit", "fixed": {}}]},
        "methods: jit: unknown key `fixed`; allowed are name, as, fix, space, forget",
    ),
    "an unknown key of a range": (
        {"methods": [{"name": "jit", "space": {"lr": {"lo": 1}}}]},
        "methods: jit: space: lr: unknown key `lo`; allowed are low, high, log, step, choices, when",
    ),
    "a request with a wrong name": (
        {"forget": {"a b": {"kind": "random", "fraction": 0.1}}},
        "forget: must be a name of letters, digits, `.`, `_`, `-`, but got 'a b'",
    ),
    "a transfer of three": (
        {"experiments__transfer": [["some", "three", "some"]]},
        "transfer: must be `all` or a list of [source, target], but got [['some', 'three', 'some']]",
    ),
    "a pair that is no list": (
        {"experiments__transfer": "some"},
        "experiments: transfer: must be `all` or a list of [source, target], but got 'some'",
    ),
    "references that occupy nothing": (
        {"resources": {"references": {"cpus": 0}}},
        "resources: references: one of cpus, gpus and custom must be above 0",
    ),
    "one seed twice": (
        {"seeds": {"report": [1, 1]}},
        "seeds: report: must be a list of different whole numbers, but got [1, 1]",
    ),
    "zero epochs": (
        {"experiments__sufficient": {"epochs": 0}},
        "experiments: sufficient: epochs: must be at least 1, but got 0",
    ),
    "more GPUs than there are": ({"resources": {"gpus": 64}}, "gpus: 64 are asked for each trial"),
    "more cores than there are": ({"resources": {"cpus": 4096}}, "cpus: 4096 are asked for each"),
    "unknown launch": (
        {"resources": {"launch": "fast"}},
        "resources: launch: must be one of eager, graph, compile, but got 'fast'",
    ),
    "unknown precision": (
        {"training": {"precision": "fp8"}},
        "training: precision: must be one of float32, bf16, but got 'fp8'",
    ),
    "a GPU and a half": (
        {"resources": {"gpus": 1.5}},
        "resources: gpus: must be in [0, 1] or a whole number",
    ),
    "a custom resource and a half": (
        {"resources": {"custom": {"place": 1.5}}},
        "resources: custom: place: must be in [0, 1] or a whole number",
    ),
    "nothing occupied": (
        {"resources": {"cpus": 0}},
        "resources: one of cpus, gpus and custom must be above 0",
    ),
    "unknown resource": (
        {"resources": {"gpu": 1}},
        "resources: unknown key `gpu`; allowed are cpus",
    ),
    "references that are no mapping": (
        {"resources": {"references": 3}},
        "resources: references: must be a mapping, but got 3",
    ),
    "unknown resource of references": (
        {"resources": {"references": {"gpu": 1}}},
        "resources: references: unknown key `gpu`; allowed are cpus, gpus, custom",
    ),
    "wrong resources of references": (
        {"resources": {"references": {"gpus": -1}}},
        "resources: references: gpus: must be in [0, 1] or a whole number, but got -1",
    ),
    "more cores for trainings than there are": (
        {"resources": {"references": {"cpus": 4096}}},
        "cpus: 4096 are asked for each training",
    ),
    "half a trial at once": (
        {"resources": {"concurrent": 0.5}},
        "resources: concurrent: must be a whole number, but got 0.5",
    ),
    "a timeout of nothing": (
        {"trial_timeout": 0},
        "trial_timeout: must be above 0, but got 0",
    ),
    "a timeout in words": (
        {"trial_timeout": "1 h"},
        "trial_timeout: must be a number, but got '1 h'",
    ),
    "unknown budget": (
        {"budget": {"hours": 2}},
        "budget: unknown key `hours`; allowed are gpu_hours, cpu_hours, wall_minutes",
    ),
    "no budget": (
        {"budget": {"wall_minutes": 0}},
        "budget: wall_minutes: must be above 0, but got 0",
    ),
    "an address that is none": ({"notify": "me@home"}, "notify: must be an URL with http:// or"),
    "missing image folder": (
        {"data": {"name": "image_folder", "root": "no/such/place"}},
        "data.root: no/such/place does not exist",
    ),
    "nothing to train on": (
        {"data": {"name": "digits", "val": 0.999}},
        "no training image is left",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_study_ends_with_one_clear_line_and_nothing_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = WRONG[name]
    path = studies.write(tmp_path, studies.tiny(**changes))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path)]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.startswith("musweep: ")
    assert len(message.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


INFINITE: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"data__val": math.inf}, "data: val:"),
    "a count of data": ({"data__subset": math.inf}, "data: subset:"),
    "model": (
        {"model": {"name": "small_cnn", "normalize": {"mean": [math.inf], "std": [1]}}},
        "model: normalize: mean:",
    ),
    "training": ({"training__lr": math.inf}, "training: lr:"),
    "a list of training": ({"training__milestones": [0.5, math.nan]}, "training: milestones:"),
    "forget": ({"forget__some__fraction": math.nan}, "forget: some: fraction:"),
    "a fixed knob": (
        {"methods": [{"name": "finetune", "fix": {"lr": math.inf}}]},
        "methods: finetune: fix: lr:",
    ),
    "a range": (
        {"methods": [{"name": "finetune", "space": {"lr": {"low": 0.1, "high": math.inf}}}]},
        "methods: finetune: space: lr: high:",
    ),
    "a step": (
        {"methods": [{"name": "jit", "space": {"lr": {"low": 0, "high": 1, "step": math.inf}}}]},
        "methods: jit: space: lr: step:",
    ),
    "a choice": (
        {"methods": [{"name": "jit", "space": {"lr": {"choices": [0.1, math.nan]}}}]},
        "methods: jit: space: lr: choices:",
    ),
    "a condition": (
        {"methods": [{"name": "jit", "space": {"lr": {"choices": [1], "when": {"x": math.inf}}}}]},
        "methods: jit: space: lr: when: x:",
    ),
    "seeds": ({"seeds": {"search": [math.inf]}}, "seeds: search:"),
    "trials": ({"search__trials": math.inf}, "search: trials:"),
    "epochs": (
        {"experiments__sufficient": {"epochs": math.inf}},
        "experiments: sufficient: epochs:",
    ),
    "audit": ({"audit": {"models": math.nan}}, "audit: models:"),
    "resources": ({"resources": {"cpus": math.inf}}, "resources: cpus:"),
    "custom resources": ({"resources": {"custom": {"a": math.nan}}}, "resources: custom: a:"),
    "resources of references": (
        {"resources": {"references": {"gpus": math.nan}}},
        "resources: references: gpus:",
    ),
    "trials at once": ({"resources": {"concurrent": math.inf}}, "resources: concurrent:"),
    "timeout": ({"trial_timeout": math.inf}, "trial_timeout:"),
    "a timeout of nan": ({"trial_timeout": math.nan}, "trial_timeout:"),
    "budget": ({"budget": {"gpu_hours": math.inf}}, "budget: gpu_hours:"),
}


@pytest.mark.parametrize("name", INFINITE)
def test_every_number_must_be_finite(name: str, tmp_path: Path) -> None:
    changes, where = INFINITE[name]
    path = studies.write(tmp_path, studies.tiny(**changes))
    assert re.search(r"\.(inf|nan)", path.read_text())
    with pytest.raises(StudyError) as error:
        study.read(path)
    assert re.fullmatch(
        rf"{re.escape(str(path))}: {where} must be a finite number, but got (inf|nan)",
        str(error.value),
    )


def test_a_range_of_ones_own_must_be_finite(tmp_path: Path) -> None:
    (tmp_path / "jit.yaml").write_text("lr: {low: 0.1, high: .inf}\n")
    with pytest.raises(StudyError, match=r"jit\.yaml: lr: high: must be a finite number"):
        study.parse(studies.tiny(methods=["jit"]), "study.yaml", [tmp_path])


def test_tiny_study_is_valid_and_its_definition_reads_back_the_same(tmp_path: Path) -> None:
    first = study.read(studies.write(tmp_path, studies.tiny()))
    again = study.parse(first.definition, "again")
    assert again.definition == first.definition
    assert again.method("jit") == first.method("jit")


def test_overrides_replace_parts_and_are_checked(tmp_path: Path) -> None:
    path = studies.write(tmp_path, studies.tiny())
    changed = study.read(path, ["search.trials=7", "training.lr=1e-2", "seeds.report=[5]"])
    assert (changed.search.trials, changed.training.lr) == (7, 0.01)
    assert changed.seeds.report == (5,)
    for text, expected in (
        ("search.trials", "must be key=value"),
        ("search.trails=3", "unknown key `trails`"),
        ("model.x=3", "`model` is not a mapping"),
    ):
        with pytest.raises(StudyError, match=expected):
            study.read(path, [text])


def test_whole_numbers_and_names_are_read_as_people_write_them() -> None:
    raw = studies.tiny(training__epochs=2.0, search__trials=1e1)
    raw["forget"]["people"] = {"kind": "identities", "identities": [3, "5"]}
    raw["data"]["classes"] = [1, 2.5, "three"]
    read = study.parse(raw, "study.yaml")
    assert (read.training.epochs, read.search.trials) == (2, 10)
    assert read.forget["three"].target == "3"
    assert read.forget["people"].identities == ("3", "5")
    assert read.data.classes == ("1", "2.5", "three")


def test_what_may_be_left_out_may_also_be_null() -> None:
    keys = ("budget", "trial_timeout", "notify", "published", "original", "retrain")
    raw = studies.tiny(experiments={"sufficient": None, "transfer": None})
    raw |= dict.fromkeys(keys) | {"resources": {"references": None, "concurrent": None}}
    raw["methods"] = [{"name": "jit", "fix": None, "space": None}]
    assert study.parse(raw, "study.yaml").experiments.transfer == ()


def test_numbers_as_people_write_them() -> None:
    assert yaml_file.parse("[1e-5, 1E3, -2e2, 1.5e-3, 12, 0.5]", "x") == [
        1e-5,
        1e3,
        -200,
        1.5e-3,
        12,
        0.5,
    ]
    assert yaml_file.parse("e5", "x") == "e5"


def test_yaml_that_is_not_plain_data_is_refused() -> None:
    with pytest.raises(StudyError, match="x: line 2: not valid YAML: key 'a' is given twice"):
        yaml_file.parse("a: 1\na: 2\n", "x")
    with pytest.raises(StudyError, match="not valid YAML"):
        yaml_file.parse("!!python/object/apply:os.system [ls]", "x")
    with pytest.raises(StudyError, match="x: line"):
        yaml_file.parse("a: [1", "x")


def test_missing_study_file_names_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing.yaml"]) == 2
    assert "no such study file; musweep ships" in capsys.readouterr().err
    assert yaml_file.find_study("demo").name == "demo.yaml"


def test_a_study_lies_over_its_base(tmp_path: Path) -> None:
    below = studies.tiny()
    above = {"study": "above", "base": "_below.yaml", "seeds": {"search": [5], "report": [6]}}
    (tmp_path / "_below.yaml").write_text(yaml.safe_dump(below))
    wanted = study.read(studies.write(tmp_path, above), ["search.trials=2"])
    assert (wanted.name, wanted.search.trials) == ("above", 2)
    assert (wanted.seeds.search, wanted.seeds.report) == ((5,), (6,))
    assert list(wanted.forget) == list(below["forget"])
    assert "base" not in wanted.definition


@pytest.mark.parametrize(
    ("base", "content", "expected"),
    [
        (3, "", "base: must be a file beside this one, but got 3"),
        ("_lost.yaml", "", "_lost.yaml: cannot be read"),
        ("_below.yaml", "[1]", "base: _below.yaml must be a mapping without a `base` of its own"),
        ("_below.yaml", "base: _other.yaml", "without a `base` of its own"),
    ],
)
def test_a_wrong_base_is_told(tmp_path: Path, base: object, content: str, expected: str) -> None:
    (tmp_path / "_below.yaml").write_text(content)
    with pytest.raises(StudyError, match=re.escape(expected)):
        study.read(studies.write(tmp_path, {"study": "above", "base": base}))


def test_a_transfer_of_all_pairs_every_two_requests(tmp_path: Path) -> None:
    path = studies.write(tmp_path, studies.tiny(experiments={"transfer": "all"}))
    assert study.read(path).experiments.transfer == (("some", "three"), ("three", "some"))


def test_a_method_can_be_limited_to_requests_it_supports(tmp_path: Path) -> None:
    methods = ["jit", {"name": "unsir", "forget": ["three"]}]
    wanted = study.read(studies.write(tmp_path, studies.tiny(methods=methods)))
    plan = Plan(wanted, preflight.load_data(wanted, "x"))
    assert plan.cells == [("some", "jit"), ("three", "jit"), ("three", "unsir")]
    assert (plan.counts["confirm"], plan.counts["transfer"]) == (6, 2)
    best = {cell: wanted.method(cell[1]).fixed for cell in plan.cells}
    moved = [job for job in plan.final_jobs(best) if job.phase == "transfer"]
    assert {job.method for job in moved} == {"jit"}


def test_the_papers_selection_may_look_where_the_report_does(tmp_path: Path) -> None:
    seeds = {"search": [1, 2], "report": [1, 2]}
    wanted = study.read(studies.write(tmp_path, studies.tiny(selection="paper", seeds=seeds)))
    plan = Plan(wanted, preflight.load_data(wanted, "x"))
    job = plan.job("search", Run("some", "jit", {}), 1, 0)
    assert (wanted.search_view, job.views) == ("test", ("test",))
    honest = study.read(studies.write(tmp_path, studies.tiny()))
    assert Plan(honest, plan.data).job("search", Run("some", "jit", {}), 0, 0).views == ("val",)


def test_an_objective_may_be_the_mean_gap_over_ones_own_list(tmp_path: Path) -> None:
    own = {"mean_gap": ["acc_test", "acc_forget"]}
    wanted = study.read(studies.write(tmp_path, studies.tiny(search__objective=own)))
    assert wanted.search.objective == ("mean_gap",)
    assert wanted.search.mean_gap == ("acc_test", "acc_forget")
    assert study.parse(wanted.definition, "again").search == wanted.search


def test_costly_attacks_run_where_the_study_says(tmp_path: Path) -> None:
    wanted = study.read(studies.write(tmp_path, studies.tiny(metrics={"costly": ["transfer"]})))
    plan = Plan(wanted, preflight.load_data(wanted, "x"))
    searched = study.read(studies.write(tmp_path, studies.tiny(metrics={"costly": ["search"]})))
    assert Plan(searched, plan.data).job("search", Run("some", "jit", {}), 0, 0).attacks
    both = ("svc", "starting_kit")
    for asked, seed, groups in (
        (searched, 0, both),
        (searched, 1, ()),
        (wanted, 0, ()),
        (wanted, 1, both),
    ):
        assert Plan(asked, plan.data).attacks_on(seed) == groups
    for phase, groups in {"search": (), "confirm": (), "transfer": ("svc", "starting_kit")}.items():
        assert plan.job(phase, Run("some", "jit", {}), 1).attacks == groups
    own = studies.tiny(metrics={"attacks": ["svc_chunked"]})
    wanted = study.read(studies.write(tmp_path, own))
    assert Plan(wanted, plan.data).job("confirm", Run("some", "jit", {}), 1).attacks == (
        "svc_chunked",
    )


@pytest.mark.parametrize("name", [m for m in methods.names() if methods.load(m).check_problem])
def test_a_check_leaves_the_model_as_it_is(name: str) -> None:
    method = methods.load(name)
    problem = toy_problem(method.requests[0])
    model = problem.build()
    before, text = weights_of(model), repr(model)
    assert method.check_problem is not None
    method.check_problem(model, problem.split().only(method.data))
    after = weights_of(model)
    assert repr(model) == text
    assert all((after[key] == before[key]).all() for key in before)


def test_a_method_is_refused_on_a_model_it_cannot_work_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linear(shape: Shape, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), num_classes))

    monkeypatch.setitem(MODELS, "linear", linear)
    changes = {"model": "linear", "methods": ["activation_prune"]}
    wanted = study.read(studies.write(tmp_path, studies.tiny(**changes)))
    with pytest.raises(StudyError, match=r"activation_prune: some: .* but Sequential has none"):
        preflight.load_data(wanted, "study.yaml")


NO_BATCH_NORM = '''"""Own: what batch norm would spoil."""

NEEDS = ("retain",)
NO_BATCH_NORM = "its statistics would forget nothing"


def unlearn(model, split, generator, *, lr: float = 0.1):
    """Do nothing."""
    yield
'''


def test_a_model_with_batch_norm_is_refused_where_a_method_cannot_work_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def linear(shape: Shape, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), num_classes))

    (tmp_path / "own").mkdir()
    (tmp_path / "own/plain.py").write_text(NO_BATCH_NORM, encoding="utf-8")
    named = {"name": "plain", "as": "plainly", "fix": {"lr": 0.2}}
    path = studies.write(tmp_path, studies.tiny(methods=[named]))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path), "--methods-path", "own"]) == 2
    said = capsys.readouterr().err
    assert (
        len(said.splitlines()) == 1 and "methods: plainly: needs a model without batch norm" in said
    )
    assert said.endswith("is one: its statistics would forget nothing (see docs/methods.md)\n")
    monkeypatch.setitem(MODELS, "linear", linear)
    wanted = study.parse(studies.tiny(methods=[named], model="linear"), "x", [tmp_path / "own"])
    assert preflight.load_data(wanted, "x")


def test_what_a_method_warns_of_is_said_before_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = study.parse(studies.tiny(methods=["jit", "finetune"]), "study.yaml")
    preflight.load_data(wanted, "study.yaml")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"study.yaml: methods: jit: some, three: {BATCH_NORM}"]


def test_a_range_matters_only_under_its_condition() -> None:
    method = methods.load("ugradsl_plus")
    ranges = space.parse(
        {
            "adaptive": {"choices": [True, False]},
            "beta": {"low": 0.1, "high": 0.6, "when": {"adaptive": True}},
        },
        method,
        "here",
    )
    assert ranges[1].applies({"adaptive": True})
    assert not ranges[1].applies({"adaptive": False})
    with pytest.raises(
        StudyError, match="`when` names `adaptive`, which is no knob searched before"
    ):
        space.parse({"beta": {"low": 0.1, "high": 0.6, "when": {"adaptive": True}}}, method, "here")


def test_a_range_that_needs_a_default_goes_where_the_study_gives_another_value() -> None:
    rate = {"lr_per_sigma": {"low": 1e-4, "high": 1.0, "when": {"lr": None}}}
    assert len(space.parse(rate, methods.load("jit"), "here")) == 1
    for given, expected in (
        ({}, ["lr_per_sigma", "sigma"]),
        ({"fix": {"lr": 3e-4}}, ["sigma"]),
        ({"fix": {"lr": None}}, ["lr_per_sigma", "sigma"]),
        ({"space": {"lr": {"low": 1e-4, "high": 1e-3}}}, ["sigma", "lr"]),
    ):
        methods_of = study.parse(
            studies.tiny(methods=[{"name": "jit", **given}]), "study.yaml"
        ).methods
        assert [range_.knob for range_ in methods_of[0].ranges] == expected, given


def test_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = studies.write(tmp_path, studies.tiny())
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 4 cells" in shown
    for phase, count in {"reference": 12, "search": 12, "confirm": 8, "transfer": 4}.items():
        assert any(line.split()[:2] == [phase, str(count)] for line in shown.splitlines())
    assert " on one slot, " in shown and " slots of 1 CPU of this machine." in " ".join(
        shown.split()
    )
    assert list(tmp_path.iterdir()) == [path]


def test_dry_run_for_gpus_that_are_not_here_gives_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    path = studies.write(tmp_path, studies.tiny(resources={"gpus": 0.25}))
    assert main(["run", str(path), "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "search 12 finalist 0 " in shown, "the numbers of trials stand alone"
    assert "No estimate: a trial needs 0.25 gpus, and this machine has 0." in shown
    assert " min" not in shown and " h " not in shown


def test_dry_run_without_the_data_prints_the_study_s_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path / "cache"))
    study = studies.tiny(data={"name": "cifar10", "root": str(tmp_path / "absent")})
    path = studies.write(tmp_path, study)
    assert main(["run", str(path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for phase, count in {"reference": 12, "search": 12, "confirm": 8, "transfer": 4}.items():
        assert any(line.split() == [phase, str(count)] for line in shown.splitlines())
    assert "Without its data nothing is checked against it, and nothing estimated: " in shown
    assert "absent" in shown
    assert main(["run", str(path)]) == 2, "only a dry run does without"
    damaged = studies.tiny(data={"name": "digits", "subset": 10**6})
    assert main(["run", str(studies.write(tmp_path, damaged)), "--dry-run"]) == 2


@pytest.mark.parametrize(
    ("resources", "gpus", "words"),
    [
        ({"cpus": 2}, 0, (4, "4 slots of 2 CPU")),
        ({"cpus": 2, "concurrent": 3}, 0, (3, "3 of 4 slots of 2 CPU (resources.concurrent)")),
        ({"gpus": 0.25}, 2, (2, "2 x 1 GPU (H100)")),
        ({"gpus": 2}, 5, (2, "2 x 2 GPU (H100)")),
    ],
)
def test_the_time_is_for_what_this_machine_has_by_name(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], gpus: int, words: tuple[int, str]
) -> None:
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    wanted = study.parse(studies.tiny(resources=resources), "study.yaml")
    assert estimate.slots_here(wanted) == words
    assert estimate.not_here(wanted) == ""


@pytest.mark.parametrize(
    ("gpus", "training", "expected"),
    [
        (0, {}, "float32"),
        (0.5, {}, "bf16"),
        (0.5, {"precision": "float32"}, "float32"),
        (0, {"precision": "bf16"}, "bf16"),
    ],
)
def test_precision_is_bf16_on_gpus_unless_the_study_says_otherwise(
    gpus: float, training: dict[str, str], expected: str
) -> None:
    read = study.parse(studies.tiny(training=training, resources={"gpus": gpus}), "study.yaml")
    assert read.training.precision == expected
    assert read.definition["training"]["precision"] == expected


def test_trainings_occupy_what_trials_do_but_for_what_they_say() -> None:
    resources = {"cpus": 2, "gpus": 0.25, "custom": {"a100": 1}, "references": {"gpus": 1}}
    read = study.parse({**studies.tiny(), "resources": resources}, "study.yaml")
    assert read.resources.trial.amounts == {"cpus": 2, "gpus": 0.25, "a100": 1}
    assert read.resources.references.amounts == {"cpus": 2, "gpus": 1, "a100": 1}


def test_how_a_study_is_run_is_written_down_without_secrets() -> None:
    url = "https://me:hush@hooks.example.com:8443/services/hidden?token=hush"
    running = {"notify": url, "trial_timeout": 60, "budget": {"gpu_hours": 20}}
    read = study.parse({**studies.tiny(), **running}, "study.yaml")
    assert read.notify == url
    assert read.definition["notify"] == "https://hooks.example.com:8443/..."
    assert read.definition["trial_timeout"] == 60
    assert read.definition["budget"]["gpu_hours"] == 20


def test_ctrl_c_is_seen_behind_what_a_library_raises_on_its_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sweep(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            (tmp_path / "lock").unlink()

    monkeypatch.setattr("sweeps.launch._sweep", sweep)
    monkeypatch.setattr("sweeps.launch.stop_on_sigterm", lambda: None)
    path = studies.write(tmp_path, studies.tiny())
    assert main(["run", str(path), "--results", str(tmp_path / "results")]) == 130
    assert "tiny: stopped; 0 trials are kept" in capsys.readouterr().out
