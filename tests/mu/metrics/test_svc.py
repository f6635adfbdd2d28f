"""The attacks' support vector machine: what libsvm says, on large sets too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.svm import SVC

from mu.metrics import svc

Array = NDArray[np.float64]


def sets(features: int, apart: float, counts: tuple[int, int] = (1200, 900)) -> list[Array]:
    """Members, non-members and queries in [0, 1], whose means lie `apart`."""
    rng = np.random.default_rng(0)
    means = (0.5 + apart / 2, 0.5 - apart / 2, 0.5)
    return [
        rng.normal(mean, 0.2, (count, features)).clip(0, 1)
        for mean, count in zip(means, (*counts, 200))
    ]


def libsvm(inside: Array, outside: Array) -> SVC:
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    return machine.fit(np.concatenate([inside, outside]), labels)


def by_rank(inside: Array, outside: Array, queries: Array) -> Array | None:
    values = np.concatenate([inside, outside])
    labels = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    return svc.members_by_rank(values, labels, np.full(len(values), svc.COST), queries)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize(
    ("apart", "counts"), [(0.1, (900, 900)), (0.6, (1200, 900)), (0.0, (300, 1500))]
)
def test_calls_members_what_libsvm_does(
    features: int, apart: float, counts: tuple[int, int]
) -> None:
    inside, outside, queries = sets(features, apart, counts)
    expected = libsvm(inside, outside).predict(queries)
    assert np.array_equal(svc.members(inside, outside, queries), expected)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("apart", [0.0, 0.2, 0.6])
def test_interior_point_finds_the_decision_function_of_libsvm(features: int, apart: float) -> None:
    inside, outside, queries = sets(features, apart)
    values = np.concatenate([inside, outside])
    labels = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    found = svc.low_rank(values, 1 / features)
    assert found is not None
    assert np.allclose((found**2).sum(1), 1, rtol=0, atol=1e-6)
    machine = svc.solve(found, labels, np.full(len(values), svc.COST))
    assert machine is not None
    assert abs(machine.weights @ labels) < 0.01
    assert machine.bias[0] <= machine.bias[1] <= machine.bias[0] + 0.01
    scores = svc.kernel_sum(queries, values, machine.weights * labels, 1 / features)
    expected = libsvm(inside, outside).decision_function(queries)
    assert np.allclose(scores + np.mean(machine.bias), expected, rtol=0, atol=svc.CERTAIN / 2)


def test_queries_far_from_the_boundary_are_called_without_libsvm_and_near_ones_are_not() -> None:
    inside, outside, _ = sets(1, 0.6)
    grid = np.linspace(0, 1, 10_001)[:, None]
    decisions = libsvm(inside, outside).decision_function(grid)
    far, near = grid[np.abs(decisions) > 2 * svc.CERTAIN], grid[[np.abs(decisions).argmin()]]
    called = by_rank(inside, outside, far)
    assert called is not None
    assert np.array_equal(called, decisions[np.abs(decisions) > 2 * svc.CERTAIN] > 0)
    assert by_rank(inside, outside, np.concatenate([far, near])) is None


def test_a_kernel_of_high_rank_is_left_to_libsvm() -> None:
    rng = np.random.default_rng(0)
    inside, outside, queries = (rng.normal(0, 3, (count, 20)) for count in (900, 900, 50))
    assert svc.low_rank(np.concatenate([inside, outside]), 1 / 20) is None
    expected = libsvm(inside, outside).predict(queries)
    assert np.array_equal(svc.members(inside, outside, queries), expected)


def test_costs_of_samples_are_those_of_repeated_ones() -> None:
    inside, outside, queries = (np.round(each, 2) for each in sets(1, 0.4))
    expected = libsvm(inside, outside).predict(queries)
    assert len(np.unique(np.concatenate([inside, outside]))) < svc.LARGE
    assert np.array_equal(svc.members(inside, outside, queries), expected)
    merged = [np.unique(side, axis=0, return_counts=True) for side in (inside, outside)]
    values, counts = (np.concatenate(parts) for parts in zip(*merged))
    labels = np.repeat([1.0, -1.0], [len(part) for part, _ in merged])
    found = svc.low_rank(values, 1.0)
    assert found is not None
    machine = svc.solve(found, labels, svc.COST * counts)
    assert machine is not None
    scores = svc.kernel_sum(queries, values, machine.weights * labels, 1.0)
    decisions = libsvm(inside, outside).decision_function(queries)
    assert np.allclose(scores + np.mean(machine.bias), decisions, rtol=0, atol=svc.CERTAIN / 2)
