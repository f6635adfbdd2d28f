"""Stand-ins: the twin's reference is the original to the bit, and cheap retrained models cost what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy
from numpy.typing import NDArray
from torch import nn

from mu import stand_ins
from mu.data import Examples
from mu.evaluate import outputs
from mu.forget import ForgetRequest
from mu.problem import Problem, weights_of
from mu.snapshot import Snapshot
from mu.stand_ins import (
    TunedTwin,
    Twin,
    check_twin,
    rewind_epoch,
    samples_trained_on,
    stand_in,
    state_after,
)

REQUEST = ForgetRequest("random", fraction=0.1)


def problem(request: ForgetRequest = REQUEST, epochs: int = 3, seed: int = 1) -> Problem:
    recipe = replace(toy.RECIPE, epochs=epochs)
    return Problem(toy.toy_data(), "toy_cnn", recipe, request, seed)


def twin_of(real: Problem) -> Twin:
    twin = stand_in(real, "twin")
    assert isinstance(twin, Twin)
    return twin


def test_the_twin_is_as_large_as_what_is_forgotten_and_has_its_classes() -> None:
    real = problem()
    twin = twin_of(real)
    parts = real.data.parts
    wanted = np.bincount(parts["train"].labels[real.forget_index], minlength=4)
    assert np.array_equal(np.bincount(parts["twin"].labels[twin.forget_index], minlength=4), wanted)
    assert len(set(twin.forget_index.tolist())) == len(real.forget_index)
    again = twin_of(problem(seed=2))
    assert np.array_equal(again.forget_index, twin.forget_index)  # seeds share what is forgotten


def test_the_reference_of_the_twin_is_the_original() -> None:
    real = problem()
    twin = twin_of(real)
    assert twin.reference_key("retrain") == real.reference_key("original")
    assert twin.reference_key("original") != real.reference_key("original")
    assert twin.key != real.key
    split = twin.split()
    assert len(split.retain) == len(real.data.parts["train"])
    held_out = real.data.parts["twin"].inputs
    assert np.array_equal(split.forget.inputs.numpy(), held_out[twin.forget_index])
    assert len(split.twin) + len(split.forget) == len(held_out)
    assert split.memo is not real.split().memo


def test_the_twin_shares_the_first_two_thirds_of_the_original_and_differs_after() -> None:
    real = problem()
    twin = twin_of(real)
    assert rewind_epoch(real) == 2
    state = state_after(real)
    # From that state the original goes on to what it was trained to without a stop, to the bit.
    whole = real.build()
    list(real.train("original", whole))
    ends = {}
    for name, each in (("original", real), ("twin", twin)):
        snapshot, model = Snapshot(state), each.build()
        assert len(list(snapshot.follow(each.train("original", model)))) == 1
        ends[name] = weights_of(model)
    for name, value in weights_of(whole).items():
        assert np.array_equal(ends["original"][name], value), name
    assert any(not np.array_equal(ends["twin"][n], v) for n, v in ends["original"].items())


def test_a_twin_costs_the_last_third_of_a_training() -> None:
    real = problem(epochs=30)
    train, gone = len(real.data.parts["train"]), len(real.forget_index)
    assert samples_trained_on(real) == 30 * (train - gone)
    assert samples_trained_on(twin_of(real)) == 10 * (train + gone)
    assert samples_trained_on(stand_in(real, "epochs")) == 3 * (train - gone)


def tuned_of(digest: str = "abc", **changes: Any) -> TunedTwin:
    twin = stand_in(replace(problem(**changes), supplied={"original": digest}), "twin")
    assert isinstance(twin, TunedTwin)
    return twin


@pytest.fixture(scope="module")
def given() -> dict[str, NDArray[Any]]:
    """The weights of an original that somebody trained."""
    model = problem(epochs=8).build()
    list(problem(epochs=8).train("original", model))
    return weights_of(model)


def mean_loss(model: nn.Module, examples: Examples) -> float:
    return float(outputs(model, examples).losses.mean())


def test_the_reference_of_the_twin_of_a_supplied_original_is_that_original() -> None:
    twin = tuned_of()
    assert twin.reference_key("retrain") == twin.real.reference_key("original")
    assert twin.made == "fine-tuned" and twin_of(problem()).made == "rewound"
    assert np.array_equal(twin.forget_index, twin_of(problem()).forget_index)
    keys = [tuned_of(), tuned_of("abd"), tuned_of(seed=2), tuned_of(epochs=4)]
    keys += [tuned_of(request=replace(REQUEST, draw=1))]
    assert len({each.reference_key("original") for each in keys}) == 5
    here = twin.spec.on(toy.toy_data(), "toy_cnn")
    assert isinstance(here, TunedTwin) and here.key == twin.key


def test_the_original_is_tuned_until_it_knows_the_twin_as_well_as_what_it_is_to_forget(
    given: dict[str, NDArray[Any]],
) -> None:
    twin = tuned_of()
    model, split = twin.load(given), twin.split()
    target = mean_loss(model, twin.real.split().forget)
    before = mean_loss(model, split.forget)
    losses = []
    for _ in twin.train("original", model):
        losses.append(mean_loss(model, split.forget))
    assert before > target
    assert losses[-1] <= target
    assert all(loss > target for loss in losses[:-1])


def test_a_tuned_twin_goes_on_after_any_epoch_to_the_same_weights(
    given: dict[str, NDArray[Any]],
) -> None:
    twin = tuned_of()
    model, snapshot = twin.load(given), Snapshot()
    saved = [snapshot.save() for _ in snapshot.follow(twin.train("original", model))]
    assert snapshot.epochs == len(saved) + 1
    for state in (saved[0], saved[-1]):
        again, resumed = twin.load(given), Snapshot(state)
        list(resumed.follow(twin.train("original", again)))
        assert resumed.epochs == len(saved) + 1
        for name, value in weights_of(again).items():
            assert np.array_equal(value, weights_of(model)[name]), name


def test_a_twin_that_does_not_learn_its_samples_fails_and_says_so(
    given: dict[str, NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_ins, "MOST_EPOCHS", 1)
    monkeypatch.setattr(stand_ins, "SLOWER", 1e9)
    twin = tuned_of()
    with pytest.raises(
        ValueError, match=r"does not learn its samples in 1 epochs: .* leave out the rules"
    ):
        list(twin.train("original", twin.load(given)))


def test_another_request_recipe_or_draw_makes_another_twin() -> None:
    keys = {
        twin_of(each).reference_key("original")
        for each in (
            problem(),
            problem(seed=2),
            problem(epochs=4),
            problem(replace(REQUEST, draw=1)),
            problem(replace(REQUEST, fraction=0.2)),
        )
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("real", "message"),
    [
        (problem(toy.REQUESTS["full_class"]), "a whole class has no twin"),
        (problem(toy.REQUESTS["sub_class"]), "a whole class has no twin"),
        (problem(replace(REQUEST, fraction=0.6)), "the twin needs .* but data.twin holds out 8"),
        (
            replace(problem(toy.REQUESTS["full_class"]), supplied={"original": "abc"}),
            "a whole class has no twin",
        ),
        (problem(epochs=1), "has one epoch"),
    ],
)
def test_what_has_no_twin_is_refused(real: Problem, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_twin(real)


def test_a_short_retraining_has_a_tenth_of_the_epochs_and_the_same_split() -> None:
    real = problem(epochs=40)
    short = stand_in(real, "epochs")
    assert short.recipe.epochs == 4
    assert np.array_equal(short.retain_index, real.retain_index)
    assert short.reference_key("retrain") != real.reference_key("retrain")
    assert stand_in(problem(epochs=3), "epochs").recipe.epochs == 1


def test_a_small_retraining_has_a_quarter_of_what_is_retained_of_each_class() -> None:
    real = problem()
    small = stand_in(real, "data")
    assert len(small.retain_index) == round(len(real.retain_index) / 4)
    assert set(small.retain_index) < set(real.retain_index)
    assert np.array_equal(small.forget_index, real.forget_index)
    labels = real.data.parts["train"].labels
    few, all_ = (np.bincount(labels[p.retain_index], minlength=4) / 4 for p in (small, real))
    assert np.abs(few * 4 - all_).max() <= 1


def test_a_smaller_network_is_retrained_on_the_same_split() -> None:
    real = replace(problem(), model="small_cnn")
    small = stand_in(real, "model", "toy_cnn")
    assert np.array_equal(small.retain_index, real.retain_index)
    assert small.reference_key("retrain") == problem().reference_key("retrain")
    assert small.key != real.key


@pytest.mark.parametrize("kind", ["twin", "epochs", "data", "model"])
def test_a_worker_builds_the_same_stand_in(kind: str) -> None:
    there = stand_in(problem(), kind, "small_cnn")
    here = there.spec.on(toy.toy_data(), "toy_cnn")
    assert type(here) is type(there)
    assert here.key == there.key
    assert [here.reference_key(r) for r in ("original", "retrain")] == [
        there.reference_key(r) for r in ("original", "retrain")
    ]
