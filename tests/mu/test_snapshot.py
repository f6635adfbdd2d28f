"""A training or a method that goes on from a snapshot ends with the numbers of one that was never interrupted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_settings import request_kind, short_knobs
from torch import nn
from toy import RECIPE, toy_problem, toy_reference

from mu.methods import Method, load, names
from mu.problem import Problem, weights_of
from mu.rng import generator, seed_process
from mu.snapshot import Snapshot, resumable
from mu.training import Recipe, count_samples

FEW = replace(RECIPE, epochs=4)
ONE_SHOT = {"fisher", "iu", "jit", "ssd"}
"""Methods without a loop over epochs: they yield once, when they are done."""


def final(problem: Problem, snapshot: Snapshot) -> dict[str, torch.Tensor]:
    model = problem.build()
    list(snapshot.follow(problem.train("retrain", model)))
    return {name: torch.from_numpy(array) for name, array in weights_of(model).items()}


@pytest.mark.parametrize(
    "recipe",
    [FEW, replace(FEW, optimizer="adamw", lr=1e-3), replace(FEW, schedule="step", augment="crop")],
    ids=["onecycle", "adamw", "augmented"],
)
@pytest.mark.parametrize("done", [1, 3])
def test_a_training_goes_on_with_the_same_numbers(recipe: Recipe, done: int) -> None:
    problem = replace(toy_problem("full_class"), recipe=recipe)
    undisturbed = final(problem, Snapshot())
    first = Snapshot()
    steps = first.follow(problem.train("retrain", problem.build()))
    for _ in range(done):
        next(steps)
    content = first.save()
    assert first.epochs == done
    torch.rand(7)  # another process has another past
    second = Snapshot(content)
    resumed = final(problem, second)
    assert second.epochs == recipe.epochs
    for name, weights in undisturbed.items():
        assert torch.equal(resumed[name], weights), name


def test_what_was_saved_is_where_it_goes_on(problem: Problem) -> None:
    """The weights in a snapshot are used, and its epochs are not run again."""
    few = replace(problem, recipe=FEW)
    first = Snapshot()
    model = few.build()
    for _ in first.follow(few.train("original", model)):
        content = first.save()
    assert first.save() == b"", "no loop runs any more"
    again = few.build()
    assert list(Snapshot(content).follow(few.train("original", again))) == []
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name


def start(method: Method, knobs: dict[str, Any]) -> tuple[nn.Module, Any, list[int]]:
    """Start a method on the toy problem as a trial of a fresh process does: model, steps, samples seen."""
    problem = toy_problem(request_kind(method))
    seed_process("trial", method.name)
    model = problem.load(toy_reference("original"))
    split = problem.split().only(method.data)
    counter = count_samples(model)
    split.memo.start(counter)
    return model, method.unlearn(model, split, generator("toy", method.name), **knobs), counter


@pytest.mark.parametrize("name", sorted(set(names()) - ONE_SHOT))
def test_every_method_with_epochs_goes_on_with_the_same_numbers(name: str) -> None:
    method = load(name)
    knobs = short_knobs(method, epochs=4)
    model, steps, _ = start(method, knobs)
    first = Snapshot()
    saved = [first.save() for _ in first.follow(steps)]
    assert len(saved) == 4
    for done, content in enumerate(saved[:-1], start=1):
        assert content, f"nothing can be saved after epoch {done}"
        torch.rand(done)
        again, steps, _ = start(method, knobs)
        assert len(list(Snapshot(content).follow(steps))) == 4 - done
        for key, weights in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], weights), f"{key}, after epoch {done}"


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_a_one_shot_method_has_nothing_to_save(name: str) -> None:
    method = load(name)
    _, steps, _ = start(method, short_knobs(method))
    snapshot = Snapshot()
    assert [snapshot.save() for _ in snapshot.follow(steps)] == [b""]


def two_loops(model: nn.Linear, draws: torch.Generator) -> Iterator[str]:
    """Run two loops over epochs, with a change between them that follows from what the first has done."""
    for epoch in resumable(2, draws, model):
        with torch.no_grad():
            model.weight += torch.rand(1, generator=draws)
        yield f"first {epoch}"
    with torch.no_grad():
        model.weight *= 2
    for epoch in resumable(2, draws, model):
        with torch.no_grad():
            model.weight += torch.rand(1, generator=draws)
        yield f"second {epoch}"


@pytest.mark.parametrize("done", [1, 2, 3])
def test_loops_before_the_saved_one_run_again_and_are_passed_over(done: int) -> None:
    def fresh() -> tuple[nn.Linear, Any]:
        model = nn.Linear(1, 1)
        nn.init.ones_(model.weight)
        return model, two_loops(model, generator("two loops"))

    model, steps = fresh()
    first = Snapshot()
    followed = first.follow(steps)
    whole = list(itertools.islice(followed, done))
    content = first.save()
    rest = list(followed)
    events: list[str] = []
    again, steps = fresh()
    second = Snapshot(content)
    second.resumed = lambda: events.append("resumed")
    assert second.pending
    assert list(second.follow(steps)) == rest
    assert whole + rest == ["first 0", "first 1", "second 0", "second 1"]
    assert again.weight.item() == model.weight.item()
    assert events == ["resumed"] and not second.pending


def test_a_loop_inside_another_is_refused() -> None:
    model, draws = nn.Linear(1, 1), generator("nested")

    def nested() -> Iterator[None]:
        for _ in resumable(2, draws, model):
            for _ in resumable(2, draws, model):
                yield

    with pytest.raises(AssertionError, match="holds no other"):
        list(Snapshot().follow(nested()))
