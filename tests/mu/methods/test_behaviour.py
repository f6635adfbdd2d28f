"""What methods do with their defaults to models that remember: 600 digits, two networks, a class and a random fifth."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

import pytest
from studies import ROOT
from torch import nn

from mu.data import DataSpec
from mu.data import load as read
from mu.device import place
from mu.forget import ForgetRequest
from mu.methods import load, names
from mu.problem import Problem, Weights, weights_of
from mu.relative import gaps, mean_of
from mu.rng import generator
from mu.training import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.soak]
SEEDS = (0, 1)
RECIPES = {
    "small_cnn": Recipe(epochs=15, lr=0.1, batch_size=64, schedule="onecycle"),
    "slim_vgg": Recipe(epochs=30, lr=0.05, batch_size=64, schedule="onecycle"),
}
REQUESTS = {
    "class": ForgetRequest("full_class", target="3"),
    "random": ForgetRequest("random", fraction=0.2),
}
LEAST_RECOVERY, MOST_UTILITY_LOSS = 1 / 3, 0.15


@dataclass(frozen=True)
class Effect:
    """What a method does.

    Args:
        recovery: 1 - its gap to retraining / that of the original: 0 is doing nothing, 1 is retraining.
        utility_loss: The accuracy that it loses on held-out samples of what is kept, in [-1, 1].
    """

    recovery: float
    utility_loss: float


@cache
def problem(network: str, request: str, seed: int) -> Problem:
    data = read(DataSpec("digits", subset=600, twin=0.1))
    return Problem(data, network, RECIPES[network], REQUESTS[request], seed)


@cache
def reference(network: str, request: str, seed: int, role: str) -> Weights:
    one = problem(network, request, seed)
    model = one.build()
    for _ in one.train(role, model):  # type: ignore[arg-type]
        pass
    return weights_of(model)


def scores(network: str, request: str, seed: int, model: nn.Module) -> dict[str, float]:
    one = problem(network, request, seed)
    return one.evaluate(model, one.split(), ("test",)).scores["test"]


@cache
def reference_scores(network: str, request: str, seed: int, role: str) -> dict[str, float]:
    weights = reference(network, "class" if role == "original" else request, seed, role)
    return scores(network, request, seed, problem(network, request, seed).load(weights))


def unlearned(name: str, network: str, request: str, seed: int) -> dict[str, float]:
    one, method = problem(network, request, seed), load(name)
    model = place(one.load(reference(network, "class", seed, "original")).train(), "cpu")
    split = one.split().only(method.data)
    for _ in method.unlearn(model, split, generator("behaviour", str(seed)), **method.defaults()):
        pass
    return scores(network, request, seed, model)


def effect(name: str, network: str, request: str) -> Effect:
    """Run a method with its defaults on every seed."""
    retrained = mean_of([reference_scores(network, request, s, "retrain") for s in SEEDS])
    kept = "acc_test_retain" if request == "class" else "acc_test"

    def gap(runs: list[dict[str, float]]) -> float:
        values = [gaps(run, retrained, request == "class")["avg_gap_natmu"] for run in runs]
        return sum(values) / len(values)

    before = [reference_scores(network, request, seed, "original") for seed in SEEDS]
    after = [unlearned(name, network, request, seed) for seed in SEEDS]
    return Effect(1 - gap(after) / gap(before), mean_of(before)[kept] - mean_of(after)[kept])


def listed() -> set[tuple[str, str, str]]:
    """Return what docs/methods.md says does not work well: method, network and request."""
    with (ROOT / "docs" / "results" / "defaults-digits.csv").open(newline="") as file:
        return {(r["method"], r["network"], r["request"]) for r in csv.DictReader(file) if r["why"]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in names() if name != "gkt"])
def test_defaults_forget_and_keep_what_they_should_or_the_page_says_why_not(name: str) -> None:
    """`gkt` takes hours with its defaults."""
    supported = [key for key, request in REQUESTS.items() if request.kind in load(name).requests]
    for network in RECIPES:
        for request in supported:
            if (name, network, request) not in listed():
                found = effect(name, network, request)
                assert found.recovery >= LEAST_RECOVERY, (network, request, found)
                assert found.utility_loss <= MOST_UTILITY_LOSS, (network, request, found)
