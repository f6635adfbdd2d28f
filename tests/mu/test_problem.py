"""Problems: their split, the keys of their references, and what the references are trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import FINE_CLASSES, RECIPE, REQUESTS, toy_data, toy_problem, toy_reference

import mu.problem
from mu.data import Examples
from mu.evaluate import Outputs, predict, score
from mu.forget import ForgetRequest
from mu.metrics import METRICS, Metric
from mu.models.architectures import MODELS
from mu.problem import Problem, Role, weights_of
from mu.training import Recipe

ROLES: tuple[Role, ...] = ("original", "retrain")


def other_value(field: str) -> Any:
    """Return another value for a field of the toy problem's recipe."""
    names: dict[str, Any]
    names = {"optimizer": "adamw", "schedule": "step", "augment": "crop", "precision": "bf16"}
    names |= {"pad": 8, "milestones": (0.5,)}
    return names[field] if field in names else getattr(RECIPE, field) / 2 or 1.0


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("field", ["data", "model", "seed", *Recipe.__dataclass_fields__])
def test_key_of_a_reference_changes_with_all_that_affects_its_weights(
    problem: Problem, role: Role, field: str
) -> None:
    values = {"data": toy_data(seed=1), "model": "small_cnn", "seed": 1}
    if field not in values:
        field, values = "recipe", {"recipe": replace(RECIPE, **{field: other_value(field)})}
    other = replace(problem, **{field: values[field]})
    assert other.reference_key(role) != problem.reference_key(role)
    assert other.key != problem.key


def test_original_serves_every_request_and_retrain_only_its_own() -> None:
    problems = [toy_problem(kind) for kind in REQUESTS]
    assert len({problem.reference_key("original") for problem in problems}) == 1
    assert len({problem.reference_key("retrain") for problem in problems}) == len(problems)
    assert len({problem.key for problem in problems}) == len(problems)


def test_requests_that_select_the_same_samples_share_their_retrain(problem: Problem) -> None:
    other = replace(problem, request=replace(problem.request, draw=5))
    assert np.array_equal(other.forget_index, problem.forget_index)
    assert other.reference_key("retrain") == problem.reference_key("retrain")


def test_equal_problems_have_equal_keys(problem: Problem) -> None:
    again = Problem(toy_data.__wrapped__(), "toy_cnn", RECIPE, REQUESTS["full_class"], 0)
    assert again.data is not problem.data
    assert again.key == problem.key


def test_seed_changes_the_weights_and_not_what_is_forgotten(problem: Problem) -> None:
    other = replace(problem, seed=1)
    assert np.array_equal(other.forget_index, problem.forget_index)
    assert not _equal(weights_of(other.build()), weights_of(problem.build()))


def test_original_and_retrain_of_a_seed_start_from_the_same_weights(problem: Problem) -> None:
    assert _equal(weights_of(problem.build()), weights_of(problem.build()))


@pytest.mark.parametrize("role", ROLES)
def test_training_a_reference_again_gives_the_same_weights(problem: Problem, role: Role) -> None:
    torch.manual_seed(99)
    model = problem.build()
    assert sum(1 for _ in problem.train(role, model)) == RECIPE.epochs
    assert _equal(weights_of(model), dict(toy_reference(role)))


def test_training_with_dropout_gives_the_same_weights_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dropping(shape: Any, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, num_classes))

    monkeypatch.setitem(MODELS, "dropping", dropping)
    problem = replace(toy_problem(), model="dropping", recipe=replace(RECIPE, epochs=1))
    trained = []
    for disturbance in (1, 2):
        model = problem.build()
        torch.manual_seed(disturbance)
        for _ in problem.train("original", model):
            pass
        trained.append(weights_of(model))
    assert _equal(*trained)


def test_references_differ_from_each_other() -> None:
    assert not _equal(dict(toy_reference("original")), dict(toy_reference("retrain")))


@pytest.mark.parametrize("kind", REQUESTS)
def test_split_is_disjoint_and_complete(kind: str) -> None:
    problem = toy_problem(kind)
    train = problem.data.parts["train"]
    assert not set(problem.forget_index) & set(problem.retain_index)
    assert sorted([*problem.forget_index, *problem.retain_index]) == list(range(len(train)))
    split = problem.split()
    for part, index in (("forget", problem.forget_index), ("retain", problem.retain_index)):
        assert np.array_equal(split.parts[part].inputs, train.inputs[index])
        assert np.array_equal(split.parts[part].labels, train.labels[index])
    assert np.array_equal(split.twin.inputs, problem.data.parts["twin"].inputs)
    assert set(split.parts) == {"retain", "forget", "twin"}


def test_split_holds_no_held_out_sample(problem: Problem) -> None:
    held_out = {
        image.tobytes() for view in ("val", "test") for image in problem.data.parts[view].inputs
    }
    for part in problem.split().parts.values():
        assert not held_out & {image.numpy().tobytes() for image in part.inputs}


@pytest.mark.parametrize(
    ("kind", "forgotten"),
    [("full_class", 1), ("sub_class", 2), ("random", None), ("class_subset", None)],
)
def test_split_names_the_class_that_goes(kind: str, forgotten: int | None) -> None:
    split = toy_problem(kind).split()
    assert split.forget_class == forgotten
    assert split.num_classes == 4
    assert split.input_shape == (3, 8, 8)
    assert (split.input_mean, split.input_std) == toy_data().channel_stats
    assert split.augment.flip
    assert split.augment.pad == 4


@pytest.mark.parametrize("role", ROLES)
def test_retrain_never_sees_forgotten_samples_and_original_sees_all(
    problem: Problem, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Examples] = []

    def spy(model: nn.Module, examples: Examples, *args: Any) -> Iterator[None]:
        shown.append(examples)
        yield

    monkeypatch.setattr(mu.problem, "train", spy)
    list(problem.train(role, problem.build()))
    seen = {image.numpy().tobytes() for image in shown[0].inputs}
    split = problem.split()
    forgotten = {image.numpy().tobytes() for image in split.forget.inputs}
    retained = {image.numpy().tobytes() for image in split.retain.inputs}
    assert seen == (retained if role == "retrain" else retained | forgotten)


def test_retrained_model_does_not_know_the_forgotten_class(
    problem: Problem, model: nn.Module
) -> None:
    split = problem.split()
    retrained = problem.load(toy_reference("retrain"))
    scores = [problem.evaluate(m, split, ("val", "test")).scores for m in (model, retrained)]
    for view in ("val", "test"):
        assert scores[0][view]["acc_forget"] > 0.8
        assert scores[0][view]["acc_test_forget"] > 0.5
        assert scores[1][view]["acc_forget"] == 0
        assert scores[1][view]["acc_test_forget"] == 0
        assert scores[1][view]["acc_test_retain"] > 0.7


def test_evaluation_reads_each_view_and_returns_forget_outputs(
    problem: Problem, model: nn.Module
) -> None:
    split = problem.split()
    evaluation = problem.evaluate(model, split, ("test",))
    scores, forget = evaluation.scores, evaluation.forget
    assert set(scores) == {"test"}
    np.testing.assert_array_equal(forget.logits, predict(model, split.forget))
    np.testing.assert_array_equal(forget.labels, split.forget.labels)
    test, forgotten = problem.held_out("test")
    assert len(test) == len(problem.data.parts["test"])
    assert forgotten is not None
    assert np.array_equal(forgotten, test.labels.numpy() == 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_without_a_reason_of_its_own_is_recorded_as_not_finite(
    problem: Problem, model: nn.Module, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    made_up = Metric("Made up", "fraction", "target", "this test", {})
    monkeypatch.setitem(METRICS, "made_up", made_up)

    def with_made_up(*parts: Outputs) -> dict[str, float]:
        return {**score(*parts), "made_up": value}

    monkeypatch.setattr(mu.problem, "score", with_made_up)
    evaluation = problem.evaluate(model, problem.split(), ("val", "test"))
    for view in ("val", "test"):
        assert "made_up" not in evaluation.scores[view]
        assert evaluation.unavailable[f"{view}/made_up"] == "the value is not finite"


def test_held_out_samples_of_a_forgotten_sub_class_are_those_of_the_sub_class() -> None:
    problem = toy_problem("sub_class")
    _, forgotten = problem.held_out("val")
    assert forgotten is not None
    fine = problem.data.parts["val"].fine
    assert np.array_equal(forgotten, fine == FINE_CLASSES.index("blue-rows"))


def test_requests_without_a_class_split_no_test_accuracy() -> None:
    assert toy_problem("random").held_out("test")[1] is None


def test_weights_are_copies(problem: Problem, model: nn.Module) -> None:
    weights = weights_of(model)
    loaded = problem.load(weights)
    before = {name: value.copy() for name, value in weights.items()}
    with torch.no_grad():
        for edited in (model, loaded):
            for weight in edited.parameters():
                weight.zero_()
    assert _equal(weights, before)


def test_evaluation_does_not_change_modes_or_random_state(
    problem: Problem, model: nn.Module
) -> None:
    state = torch.get_rng_state()
    model.train()
    before = weights_of(model)
    problem.evaluate(model, problem.split(), ("val",))
    assert all(module.training for module in model.modules())
    assert _equal(weights_of(model), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_prediction_does_not_depend_on_the_batch_size(problem: Problem, model: nn.Module) -> None:
    retain = problem.split().retain
    whole, pieces = (predict(model, retain, size) for size in (1000, 7))
    np.testing.assert_allclose(whole, pieces, rtol=1e-4, atol=1e-5)
    assert whole.dtype == np.float32


def test_request_that_does_not_fit_is_refused_when_the_split_is_made(problem: Problem) -> None:
    wrong = replace(problem, request=ForgetRequest("full_class", target="pink"))
    with pytest.raises(ValueError, match="unknown class 'pink'"):
        wrong.split()


def _equal(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def test_whole_held_out_set_is_asked_for_by_a_request(model: nn.Module) -> None:
    """UGradSL forgets a sub-class and leaves the test set as it is: accuracies, attacks and gaps are over all of it."""
    usual = toy_problem("sub_class")
    whole = replace(usual, request=replace(usual.request, held_out="whole"))
    assert whole.key != usual.key, "scores of the same models differ"
    assert whole.reference_key("retrain") == usual.reference_key("retrain")
    same = replace(usual, request=replace(usual.request, held_out="without_forgotten"))
    assert same.key == usual.key
    assert whole.held_out("test")[1] is None
    split = usual.split()
    before, after = (
        problem.evaluate(model, split, ("test",), attacks=("svc",)) for problem in (usual, whole)
    )
    assert "acc_test_retain" in before.scores["test"]
    assert not {"acc_test_retain", "acc_test_forget"} & set(after.scores["test"])
    assert after.scores["test"]["acc_test"] == before.scores["test"]["acc_test"]
    left = before.held_out["test"].without_forgotten(), after.held_out["test"].without_forgotten()
    assert len(left[0].labels) < len(left[1].labels) == len(usual.data.parts["test"])
