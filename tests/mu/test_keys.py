"""Content keys and seeds: stable, sensitive to every part, and indifferent to the order of mappings."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mu.keys import content_key, derive_seed
from mu.rng import generator, seed_process


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5


def test_keys_and_seeds_never_change_between_versions() -> None:
    """Stored references and finished trials are looked up by these keys: a change here orphans them all."""
    assert content_key("a", 1, 0.5, None, [True, {"b": 2}]) == "9db21faa7dfeb146b97de23d693656fb"
    assert derive_seed("order", "key", 3) == 7991865390414512707


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1,), (2,)),
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((1,), ("1",)),
        ((None,), ("None",)),
        (("ab",), ("a", "b")),
        (([1, 2],), ([2, 1],)),
        (([1], 2), ([1, 2],)),
        (({"a": 1},), ({"a": 2},)),
        (({"a": 1},), ({"b": 1},)),
        ((Point(1),), (Point(2),)),
        ((1e-5,), (1.0000001e-5,)),
    ],
)
def test_different_content_has_different_keys(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert content_key(*one) != content_key(*other)
    assert derive_seed(*one) != derive_seed(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (({"a": 1, "b": 2},), ({"b": 2, "a": 1},)),
        (((1, 2),), ([1, 2],)),
        ((Point(1),), ({"x": 1, "y": 0.5},)),
    ],
)
def test_equal_content_has_equal_keys(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert content_key(*one) == content_key(*other)


@pytest.mark.parametrize("value", [np.zeros(2), np.int64(1), torch.zeros(1), {1}, Point, b"bytes"])
def test_content_without_a_canonical_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a content key"):
        content_key("name", [value])


def test_keys_are_32_hex_digits_and_seeds_fit_in_63_bits() -> None:
    keys = {content_key("key", i) for i in range(200)}
    assert len(keys) == 200
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    seeds = {derive_seed("seed", i) for i in range(200)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60


def test_generators_are_seeded_by_name() -> None:
    one, same, other = (
        torch.rand(3, generator=generator("noise", part)) for part in ("a", "a", "b")
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_seeding_the_process_reaches_every_global_generator() -> None:
    drawn = []
    for _ in range(2):
        seed_process("trial", 1)
        drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    seed_process("trial", 2)
    assert all(
        a != b
        for a, b in zip(drawn[0], (random.random(), np.random.random(), torch.rand(1).item()))
    )
