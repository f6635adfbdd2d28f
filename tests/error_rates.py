"""Error rates and power of the equivalence test by simulation: ``python tests/error_rates.py`` prints the table of the docs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from reports.statistics.equivalence import ALPHA, compare, margin

DRAWS = 20_000
SIZES = ((3, 3), (3, 10), (5, 10), (10, 10))
"""Report seeds and retrained models."""
OFFSETS = (0, 1, 2, 3)
"""By how many standard deviations of the retrained models a method is off."""
LAWS = ("normal", "skewed", "tied")


def draw(law: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return numbers of mean 0 and standard deviation 1; tied ones are whole numbers, as accuracies of small sets."""
    if law == "skewed":
        return rng.exponential(size=shape) - 1
    numbers = rng.normal(size=shape)
    return np.round(numbers) if law == "tied" else numbers


@cache
def rates(law: str, n: int, m: int, offset: float) -> tuple[float, float]:
    """Return how often `n` runs are called the same as `m` retrained models, and how often different.

    A standard deviation is a point, so that the least margin is half of one.
    """
    rng = np.random.default_rng([n, m, LAWS.index(law)])
    runs, models = draw(law, (DRAWS, n), rng) + offset, draw(law, (DRAWS, m), rng)
    apart, equal = compare(runs, models, margin(models, 0.5))
    same = apart < ALPHA
    return float(same.mean()), float((~same & (equal < ALPHA)).mean())


def table() -> Iterator[str]:
    """Yield the lines of the table, in percent."""
    heads = [f"{offset} sd off" if offset else "perfect" for offset in OFFSETS]
    yield "| values | runs + retrained | " + " | ".join(heads) + " |"
    yield "|---|---|" + "---|" * len(heads)
    for law in LAWS:
        for n, m in SIZES:
            cells = [rates(law, n, m, offset) for offset in OFFSETS]
            texts = [f"{100 * same:.0f} / {100 * different:.0f}" for same, different in cells]
            yield f"| {law} | {n} + {m} | " + " | ".join(texts) + " |"


if __name__ == "__main__":
    print("\n".join(table()))
