"""Stratified choices: which samples are held out, kept or forgotten, each class in its share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mu.keys import derive_seed


def stratified_choice(
    classes: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose `count` positions so that each class has its share, to within one sample.

    Returns:
        Sorted positions into `classes`.
    """
    names, sizes = np.unique(classes, return_counts=True)
    exact = sizes * (count / max(1, len(classes)))
    quota = np.floor(exact).astype(int)
    # The samples that rounding left over go to the largest remainders; ties are drawn.
    order = np.lexsort((rng.random(len(names)), -(exact - quota)))
    quota[order[: count - quota.sum()]] += 1
    picks = [rng.permutation(np.flatnonzero(classes == name))[:n] for name, n in zip(names, quota)]
    return np.sort(np.concatenate(picks)) if picks else np.empty(0, np.int64)


def stratified_cut(
    classes: NDArray[np.int64], pool: NDArray[np.int64], count: int, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` of `pool` with every class in its share; return (chosen, rest), both sorted.

    Args:
        purpose: Names the draw; the same purpose, classes and pool give the same choice everywhere.
    """
    rng = np.random.default_rng(derive_seed("stratified", purpose))
    chosen = stratified_choice(classes[pool], count, rng)
    mask = np.zeros(len(pool), bool)
    mask[chosen] = True
    return pool[mask], pool[~mask]
