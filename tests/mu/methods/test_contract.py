"""The contract that every method keeps, over ``names()``: a new method is tested by being there."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from method_settings import (
    DEAD,
    DRIFTING,
    FORGETTING,
    REBUILDS,
    conditions,
    request_for,
    request_kind,
    search_space,
    short_knobs,
    values_to_tell_apart,
)
from numpy.typing import NDArray
from torch import nn
from toy import REQUESTS, toy_problem, toy_reference

from mu.data import Examples
from mu.device import place
from mu.evaluate import predict
from mu.knobs import Knob
from mu.methods import Method, load, names
from mu.metrics import activation_distance, log_softmax
from mu.models.precision import PRECISIONS
from mu.problem import weights_of
from mu.rng import generator, seed_process
from mu.split import Split
from mu.training import count_samples

pytestmark = pytest.mark.filterwarnings("ignore:SSD selected no weight")
# Module scope keeps a method's tests together, so that one process does its runs and shares them.
each_method = pytest.mark.parametrize("name", names(), scope="module")
Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """What one run of a method on the toy problem leaves behind."""

    model: nn.Module
    weights: Weights
    yields: int
    billed_samples: int


def run(
    method: Method,
    kind: str,
    knobs: dict[str, Any],
    *,
    split: Split | None = None,
    model: nn.Module | None = None,
    seed: str = "usual",
    at_yield: Callable[[nn.Module], object] = lambda model: None,
) -> Run:
    """Run a method as a trial does: with the data it declares, on `model` or a copy of the original in train mode."""
    problem = toy_problem(kind)
    if model is None:
        model = place(problem.load(toy_reference("original")).train(), "cpu")
    split = (split or problem.split()).only(method.data)
    counter = count_samples(model)
    split.memo.start(counter)
    yields = 0
    for _ in method.unlearn(model, split, generator("toy trial", seed), **knobs):
        yields += 1
        at_yield(model)
    return Run(model, weights_of(model), yields, counter[0] + split.memo.samples)


@cache
def _known(name: str, kind: str, knobs: tuple[tuple[str, Any], ...]) -> Run:
    return run(load(name), kind, dict(knobs))


def usual(method: Method, kind: str | None = None, **given: Any) -> Run:
    """Return the run from a cold start with short knobs and those given; it is computed once a session."""
    knobs = short_knobs(method, **given)
    return _known(method.name, kind or request_kind(method), tuple(knobs.items()))


def same(one: Weights, other: Weights) -> bool:
    """Return whether two sets of weights and buffers are equal to the bit."""
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def forget_loss(method: Method, model: nn.Module) -> float:
    """Return the mean cross-entropy of the forgotten samples with their true labels, in nats."""
    forget = toy_problem(request_kind(method)).split().forget
    logp = log_softmax(predict(model, forget))
    return float(-logp[np.arange(len(forget)), forget.labels.numpy()].mean())


@each_method
def test_header_says_where_the_method_comes_from(name: str) -> None:
    doc = load(name).doc
    assert len(doc.strip().splitlines()[0]) > 20
    for word in ("Paper:", "Reference:", "Differs:"):
        assert f"\n{word}" in doc, f"{name}: no {word!r} at the start of a line of its docstring"


@each_method
def test_knobs_accept_their_own_defaults(name: str) -> None:
    for knob in load(name).knobs.values():
        assert knob.check(knob.default) == knob.default, knob
        number = {"float": float, "int": int, "bool": bool}.get(knob.kind)
        if number is not None and knob.default is not None:
            assert type(knob.default) is number, knob


@each_method
def test_runs_on_every_request_it_supports(name: str) -> None:
    method = load(name)
    for kind in (kind for kind in REQUESTS if kind in method.requests):
        result = usual(method, kind)
        assert result.yields >= 1
        for key, value in result.weights.items():
            assert np.isfinite(value).all(), f"{kind}: {key}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no accelerator")
@pytest.mark.parametrize("precision", PRECISIONS)
@each_method
def test_runs_on_an_accelerator(name: str, precision: str) -> None:
    method = load(name)
    for kind in (kind for kind in REQUESTS if kind in method.requests):
        problem = toy_problem(kind)
        problem = replace(problem, recipe=replace(problem.recipe, precision=precision))
        model = place(problem.load(toy_reference("original")).train(), "cuda")
        result = run(method, kind, short_knobs(method), split=problem.split("cuda"), model=model)
        assert all(np.isfinite(value).all() for value in result.weights.values())


@each_method
def test_edits_the_model_it_was_given(name: str) -> None:
    assert not same(usual(load(name)).weights, dict(toy_reference("original")))


@each_method
def test_yields_after_each_epoch(name: str) -> None:
    method = load(name)
    if "epochs" not in method.knobs:
        assert usual(method).yields >= 1
        return
    # Early stopping knows from the knob which epoch is the last.
    assert [usual(method, epochs=epochs).yields for epochs in (1, 2)] == [1, 2]


@each_method
def test_result_depends_on_the_generator_alone(name: str, undisturbed: None) -> None:
    method = load(name)
    flags = {n: not knob.default for n, knob in method.knobs.items() if knob.kind == "bool"}
    for given in ({}, flags):
        expected = usual(method, **given).weights
        seed_process("something else", name)
        torch.rand(7)
        again = run(method, request_kind(method), short_knobs(method, **given))
        assert same(again.weights, expected), given


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Put the global generators back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@each_method
def test_the_mode_a_model_arrives_in_does_not_matter(name: str) -> None:
    method = load(name)
    kind = request_kind(method)
    model = toy_problem(kind).load(toy_reference("original")).eval()
    arrived = run(method, kind, short_knobs(method), model=model)
    assert same(arrived.weights, usual(method).weights)


@each_method
def test_evaluation_between_yields_changes_neither_the_result_nor_the_data(name: str) -> None:
    method = load(name)
    kind = request_kind(method)
    problem = toy_problem(kind)
    split = problem.split()
    own = {
        part: Examples(examples.inputs.clone(), examples.labels.clone())
        for part, examples in split.parts.items()
    }
    watched = run(
        method,
        kind,
        short_knobs(method),
        split=replace(problem.split(), parts=own),
        at_yield=lambda model: problem.evaluate(model, split, ("val",)),
    )
    assert same(watched.weights, usual(method).weights)
    for part, examples in split.parts.items():
        assert torch.equal(own[part].inputs, examples.inputs), part
        assert torch.equal(own[part].labels, examples.labels), part


@each_method
def test_may_be_stopped_at_its_first_yield(name: str) -> None:
    method = load(name)
    problem = toy_problem(request_kind(method))
    model = problem.load(toy_reference("original"))
    steps = method.unlearn(
        model, problem.split().only(method.data), generator(name), **short_knobs(method)
    )
    next(steps)
    steps.close()
    assert np.isfinite(predict(model, problem.split().forget)).all()


@each_method
def test_leaves_nothing_behind_but_weights(name: str) -> None:
    result = usual(load(name))
    for module in result.model.modules():
        counting = 1 if module is result.model else 0
        assert len(module._forward_pre_hooks) == counting, module
        assert not module._forward_hooks, module
        assert not module._backward_hooks, module
    problem = toy_problem(request_kind(load(name)))
    forget = problem.split().forget
    copied = copy.deepcopy(result.model)
    assert np.array_equal(predict(copied, forget), predict(result.model, forget))
    if name not in REBUILDS:
        loaded = problem.load(result.weights)
        assert np.array_equal(predict(loaded, forget), predict(result.model, forget))


@each_method
def test_reads_the_data_it_declares_and_no_other(name: str) -> None:
    method = load(name)
    assert method.data, f"{name} declares no data at all"
    for part in method.data:
        split = toy_problem(request_kind(method)).split()
        rest = {other: split.parts[other] for other in split.parts if other != part}
        with pytest.raises(LookupError, match="NEEDS"):
            run(method, request_kind(method), short_knobs(method), split=replace(split, parts=rest))


@pytest.mark.parametrize("name", [name for name in names() if load(name).zero_shot])
def test_zero_shot_methods_are_handed_no_retained_data(name: str) -> None:
    method = load(name)
    split = toy_problem(request_kind(method)).split().only(method.data)
    assert "retain" not in split.parts
    with pytest.raises(LookupError, match="retain"):
        _ = split.retain
    assert usual(method).yields >= 1


def with_statistics_of(source: nn.Module, model: nn.Module) -> nn.Module:
    """Return a copy of a model's weights beside another's batch-norm statistics."""
    mixed = copy.deepcopy(model)
    running = {name: value for name, value in source.named_buffers() if "running" in name}
    for name, value in mixed.named_buffers():
        if name in running:
            value.copy_(running[name])
    return mixed


@each_method
def test_forgets(name: str) -> None:
    """Training on forgotten data drags batch norm along, which raises the loss of itself: that does not count."""
    method, given = load(name), FORGETTING.get(name, {})
    for knob, ends in search_space(name).items():
        if knob in given and "low" in ends and method.knobs[knob].kind == "float":
            assert ends["low"] <= given[knob] <= ends["high"], f"{knob} is out of its range"
    original = toy_problem().load(toy_reference("original"))
    unlearned = usual(method, **given).model
    if name in DRIFTING:
        forget = toy_problem(request_kind(method)).split().forget
        outputs = [predict(model, forget) for model in (original, unlearned)]
        assert activation_distance(*outputs) > 0.1
        return
    before, after = (forget_loss(method, model) for model in (original, unlearned))
    assert after > before + 0.2, f"forget loss {before:.3f} before, {after:.3f} after"
    weights_alone = forget_loss(method, with_statistics_of(original, unlearned))
    drift_alone = forget_loss(method, with_statistics_of(unlearned, original))
    assert weights_alone > before + 0.1 or after > drift_alone + 0.2, (
        f"{after:.3f} is batch norm drifting ({drift_alone:.3f}), not weights ({weights_alone:.3f})"
    )


def knob_runs(method: Method) -> Iterator[tuple[Knob, str, dict[str, Any]]]:
    """Yield each knob, a request on which it matters, and the knobs of the runs that must differ."""
    for name, knob in method.knobs.items():
        kind = request_for(method, name)
        context = conditions(method, name)
        for value in values_to_tell_apart(method, name):
            yield knob, kind, {**context, name: value}


@each_method
def test_every_knob_is_alive(name: str) -> None:
    method = load(name)
    dead = []
    for knob, group in itertools.groupby(knob_runs(method), key=lambda item: item[0]):
        if f"{name}.{knob.name}" in DEAD:
            continue
        settings = [(kind, given) for _, kind, given in group]
        weights = [usual(method, kind, **given).weights for kind, given in settings]
        for one, other in itertools.combinations(range(len(weights)), 2):
            if same(weights[one], weights[other]):
                dead.append(f"{settings[one][1]} = {settings[other][1]}")
    assert not dead, f"{name}: no difference between\n" + "\n".join(dead)


@each_method
def test_kept_results_change_nothing(name: str) -> None:
    """Trials that share a memo give what each gives alone: the names of `cached` hold every knob that matters."""
    method = load(name)
    kind = request_kind(method)
    split = toy_problem(kind).split()
    first = run(method, kind, short_knobs(method), split=split, seed="of an earlier trial")
    if not split.memo._results:
        return
    again = run(method, kind, short_knobs(method), split=split)
    assert same(again.weights, usual(method).weights)
    assert again.billed_samples == first.billed_samples == usual(method).billed_samples
    for knob, kind_for_knob, given in knob_runs(method):
        if kind_for_knob != kind or given[knob.name] == short_knobs(method)[knob.name]:
            continue  # what a knob's usual value gives has been compared above
        kept = run(method, kind, short_knobs(method, **given), split=split)
        alone = usual(method, **given)
        assert same(kept.weights, alone.weights), f"{knob.name}: {given}"
        assert kept.billed_samples == alone.billed_samples, f"{knob.name}: {given}"
