"""The attacks' support vector machine calls members what the papers' call of scikit-learn does, on large sets too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.svm import SVC

from mu.metrics.attacks import svc_members

Array = NDArray[np.float64]


def sets(features: int, apart: float, counts: tuple[int, int] = (1200, 900)) -> list[Array]:
    """Return members, non-members and queries in [0, 1], whose means lie `apart`."""
    rng = np.random.default_rng(0)
    means = (0.5 + apart / 2, 0.5 - apart / 2, 0.5)
    return [
        rng.normal(mean, 0.2, (count, features)).clip(0, 1)
        for mean, count in zip(means, (*counts, 200))
    ]


def called_by_scikit_learn(inside: Array, outside: Array, queries: Array) -> Array:
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    return machine.fit(np.concatenate([inside, outside]), labels).predict(queries)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize(
    ("apart", "counts"), [(0.1, (900, 900)), (0.6, (1200, 900)), (0.0, (300, 1500))]
)
def test_large_sets_are_called_as_by_scikit_learn(
    features: int, apart: float, counts: tuple[int, int]
) -> None:
    inside, outside, queries = sets(features, apart, counts)
    expected = called_by_scikit_learn(inside, outside, queries)
    assert np.array_equal(svc_members(inside, outside, queries), expected)


def test_samples_of_many_features_are_called_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inside, outside, queries = (rng.normal(0, 3, (count, 20)) for count in (900, 900, 50))
    expected = called_by_scikit_learn(inside, outside, queries)
    assert np.array_equal(svc_members(inside, outside, queries), expected)


def test_equal_samples_weigh_as_much_as_repeated_ones() -> None:
    inside, outside, queries = (np.round(each, 2) for each in sets(1, 0.4))
    distinct = [np.unique(side, axis=0) for side in (inside, outside)]
    assert sum(map(len, distinct)) < (len(inside) + len(outside)) / 2
    expected = called_by_scikit_learn(inside, outside, queries)
    assert np.array_equal(svc_members(inside, outside, queries), expected)
    assert not np.array_equal(svc_members(*distinct, queries), expected)
