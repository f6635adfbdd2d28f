"""Torch randomness from named parts. Methods draw from the generator they are given."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mu.keys import derive_seed


def generator(*parts: Any) -> torch.Generator:
    """Return a CPU generator seeded by ``derive_seed(*parts)``; draws are moved to the device by the caller."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_process(*parts: Any) -> None:
    """Seed every global generator of this process: dropout and foreign code draw from them."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*parts: Any) -> Iterator[None]:
    """Seed every global generator of this process meanwhile, and put their states back afterwards."""
    own, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            seed_process(*parts)
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)
