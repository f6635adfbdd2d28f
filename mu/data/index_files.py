"""Files of sample positions: forget sets to use elsewhere, and those that others published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEANING = "positions among the data set's training samples, before val, twin and subset are cut"


def read_positions(
    path: str, total: int, where: str, fingerprint: str | None = None
) -> NDArray[np.int64]:
    """Return the sorted positions of a .npy file; ``MEANING`` says what they mean.

    Args:
        total: Number of training samples they point into.
        where: Key of the study, for messages.
        fingerprint: Of the data; compared with that of the .json beside the file, where there is one.

    Raises:
        ValueError: There is no such file, it holds no positions, one is out of range or there twice, or the
            file was written for other data.
    """
    file = Path(path).expanduser()
    try:
        content = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{where}: {file} cannot be read as a .npy file: {error}") from error
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "iu" or content.ndim != 1:
        kind = (
            f"{content.dtype} {list(content.shape)}"
            if isinstance(content, np.ndarray)
            else "an archive"
        )
        raise ValueError(f"{where}: {file} must hold one list of whole numbers, but holds {kind}")
    beside = file.with_suffix(".json")
    if fingerprint is not None and beside.is_file():
        try:
            theirs = json.loads(beside.read_text(encoding="utf-8"))["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where}: {beside} does not say its data's fingerprint") from error
        if theirs != fingerprint:
            raise ValueError(
                f"{where}: {file} was written for data with fingerprint {theirs}, but this study's has "
                f"{fingerprint}; without {beside.name} the positions are taken as they are"
            )
    index = content.astype(np.int64)
    outside = index[(index < 0) | (index >= total)]
    if len(outside):
        raise ValueError(
            f"{where}: {file}: position {outside[0]} is not among the {total} training samples"
        )
    unique, counts = np.unique(index, return_counts=True)
    if len(unique) < len(index):
        raise ValueError(f"{where}: {file}: position {unique[counts > 1][0]} is there twice")
    return unique
