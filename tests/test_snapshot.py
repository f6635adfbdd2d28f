"""A training that goes on from a snapshot ends with the numbers of one that was never interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy import RECIPE, toy_problem

from mu.problem import Problem, weights_of
from mu.snapshot import Snapshot
from mu.training import Recipe

FEW = replace(RECIPE, epochs=4)


def final(problem: Problem, snapshot: Snapshot | None = None) -> dict[str, torch.Tensor]:
    model = problem.build()
    list(problem.train("retrain", model, snapshot=snapshot))
    return {name: torch.from_numpy(array) for name, array in weights_of(model).items()}


@pytest.mark.parametrize(
    "recipe",
    [FEW, replace(FEW, optimizer="adamw", lr=1e-3), replace(FEW, schedule="step", augment="crop")],
    ids=["onecycle", "adamw", "augmented"],
)
@pytest.mark.parametrize("done", [1, 3])
def test_a_training_goes_on_with_the_same_numbers(recipe: Recipe, done: int) -> None:
    problem = replace(toy_problem("full_class"), recipe=recipe)
    undisturbed = final(problem)
    first = Snapshot()
    steps = problem.train("retrain", problem.build(), snapshot=first)
    for _ in range(done):
        next(steps)
    content = first.save()
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
    for _ in few.train("original", model, snapshot=first):
        pass
    done = Snapshot(first.save())
    again = few.build()
    assert list(few.train("original", again, snapshot=done)) == []
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
