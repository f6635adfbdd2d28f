"""Recovery: which share of the way from doing nothing to retraining a method goes.

Gaps are distances to the retrained models. A method that changes nothing has recovery 0, one that ends where retraining
ends has 1, and one that is further off than the model it was given is below 0.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ENOUGH_NOISE = 3.0
"""Doing nothing must be so many times as far from retraining as one retrained model is from the others."""
Gap = TypeVar("Gap", float, NDArray[np.float64])


def recovery(gap: Gap, original: Gap) -> Gap:
    """Return 1 - gap / original: 0 for doing nothing, 1 for retraining. NaN where doing nothing has no gap."""
    known = np.where(np.asarray(original) > 0, original, np.nan)
    shares = 1 - np.asarray(gap) / known
    return shares if shares.ndim else float(shares)  # type: ignore[return-value]


def ceiling(noise: float | None, original: float) -> float | None:
    """Return the recovery of a retrained model against the others; None where their noise is unknown.

    Args:
        noise: Mean gap of a retrained model to the mean of the others.
        original: Gap of doing nothing.
    """
    return None if noise is None or original <= 0 else 1 - noise / original


def measurable(original: float | None, noise: float | None) -> bool:
    """Return whether there is something to recover: doing nothing is ``ENOUGH_NOISE`` noises from retraining, or more.

    Where the noise is unknown, as with a single retrained model, any gap counts.
    """
    return original is not None and original > 0 and original >= ENOUGH_NOISE * (noise or 0.0)
