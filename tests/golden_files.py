"""Golden vectors: inputs and expected outputs of the published formulas and code, one .npz per topic."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def golden(name: str) -> np.lib.npyio.NpzFile:
    """The arrays of one topic; ``$MU_GOLDEN_DIR`` names a folder of the same files with other inputs."""
    folder = Path(os.environ.get("MU_GOLDEN_DIR", Path(__file__).parent / "golden"))
    return np.load(folder / f"{name}.npz", allow_pickle=False)
