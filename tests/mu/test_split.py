"""What a method is handed: the parts it declares, and results kept between trials at their full price."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mu.data import Examples
from mu.split import DATA, Memo, Split
from mu.training import count_samples


def test_undeclared_data_is_a_lookup_error(split: Split) -> None:
    for needs in ((), ("forget",), ("retain", "twin")):
        narrow = split.only(needs)
        for part in DATA:
            if part in needs:
                examples, expected = getattr(narrow, part), split.parts[part]
                assert torch.equal(examples.inputs, expected.inputs)
                assert torch.equal(examples.labels, expected.labels)
            else:
                with pytest.raises(LookupError, match=f"NEEDS does not list '{part}'"):
                    getattr(narrow, part)


def test_a_zero_shot_method_cannot_even_point_at_retained_data(split: Split) -> None:
    forget = split.only(("forget",)).forget
    held = [value for value in vars(forget).values() if isinstance(value, torch.Tensor)]
    assert {len(tensor) for tensor in held} == {len(split.forget)}
    assert type(forget) is Examples


def test_facts_about_the_data_survive_narrowing(split: Split) -> None:
    narrow = split.only(("forget",))
    for field in ("num_classes", "forget_class", "input_mean", "input_std", "augment", "memo"):
        assert getattr(narrow, field) is getattr(split, field)
    assert narrow.input_shape == (3, 8, 8)
    assert narrow.device == torch.device("cpu")


def test_split_without_data_says_so(split: Split) -> None:
    empty = split.only(())
    for fact in ("device", "input_shape"):
        with pytest.raises(LookupError, match="NEEDS lists no part"):
            getattr(empty, fact)


def draw(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(3, generator=generator)


def test_results_are_computed_once_for_each_name(split: Split) -> None:
    calls: list[str] = []

    def compute(generator: torch.Generator) -> torch.Tensor:
        calls.append("call")
        return draw(generator)

    first = split.cached(("noise", 0.5), compute)
    assert split.cached(("noise", 0.5), compute) is first
    assert split.only(("forget",)).cached(("noise", 0.5), compute) is first
    assert len(calls) == 1
    assert not torch.equal(split.cached(("noise", 0.6), compute), first)
    assert len(calls) == 2


def test_randomness_of_a_result_depends_on_problem_and_name_alone(split: Split) -> None:
    results = [
        Memo(problem).cached(name, draw)
        for problem, name in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"))
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[3])


def test_kept_results_are_billed_as_if_computed_again() -> None:
    model = nn.Linear(2, 2)
    memo = Memo("problem")

    def compute(generator: torch.Generator) -> torch.Tensor:
        time.sleep(0.02)
        return model(torch.zeros(7, 2)).detach()

    bills = []
    for _ in range(3):
        model._forward_pre_hooks.clear()
        counter = count_samples(model)
        memo.start(counter)
        began = time.perf_counter()
        memo.cached("slow", compute)
        bills.append((time.perf_counter() - began + memo.seconds, counter[0] + memo.samples))
    assert [samples for _, samples in bills] == [7, 7, 7]
    assert all(seconds >= 0.02 for seconds, _ in bills)


def test_nothing_is_kept_beyond_the_limit() -> None:
    memo = Memo("problem", limit_bytes=4 * 3 + 4)
    kept = memo.cached("first", draw)
    dropped = memo.cached("second", draw)
    assert memo.cached("first", draw) is kept
    again = memo.cached("second", draw)
    assert again is not dropped
    assert torch.equal(again, dropped)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: [t],
        lambda t: {"a": (t,)},
        lambda t: nn.ParameterList([nn.Parameter(t)]),
        lambda t: Examples(t, t[:0]),
    ],
    ids=["tensor", "list", "mapping", "module", "dataclass"],
)
def test_size_of_a_result_is_that_of_the_tensors_inside(
    wrap: Callable[[torch.Tensor], Any],
) -> None:
    for limit, kept in ((11, False), (12, True)):
        memo = Memo("problem", limit_bytes=limit)
        first = memo.cached("result", lambda generator: wrap(draw(generator)))
        again = memo.cached("result", lambda generator: wrap(draw(generator)))
        assert (first is again) == kept
