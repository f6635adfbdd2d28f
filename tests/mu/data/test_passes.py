"""Endless passes over shuffled examples."""

from __future__ import annotations

import pytest
import torch

from mu.data import batches
from mu.data.passes import Cycle, Stream
from mu.rng import generator


def test_a_stream_shuffles_every_pass_and_gives_what_it_is_asked_for() -> None:
    stream = Stream(5, generator("stream"))
    taken = torch.cat([stream.take(size) for size in (3, 4, 8)]).tolist()
    assert [sorted(taken[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3
    assert taken[:5] != taken[5:10]


@pytest.mark.parametrize(("count", "size"), [(6, 3), (7, 3), (8, 3), (3, 1), (1, 4), (4, 4)])
def test_a_cycle_cuts_every_pass_as_batches_does(count: int, size: int) -> None:
    cycle, draws = Cycle(count, size, generator("cycle")), generator("cycle")
    for _ in range(3):
        for expected in batches(count, size, draws):
            assert torch.equal(next(cycle), expected)


@pytest.mark.parametrize("taken", [0, 1, 3, 5])
def test_endless_passes_go_on(taken: int) -> None:
    def make(seed: str) -> tuple[torch.Generator, Stream, Cycle]:
        draws = generator(seed)
        return draws, Stream(5, draws), Cycle(7, 3, draws)

    draws, stream, cycle = make("passes")
    for _ in range(taken):
        stream.take(4), next(cycle)
    state = draws.get_state(), stream.state_dict(), cycle.state_dict()
    expected = [(stream.take(4).tolist(), next(cycle).tolist()) for _ in range(6)]
    draws, stream, cycle = make("elsewhere")
    draws.set_state(state[0])
    stream.load_state_dict(state[1])
    cycle.load_state_dict(state[2])
    assert [(stream.take(4).tolist(), next(cycle).tolist()) for _ in range(6)] == expected
