"""Pickles of published data sets, read as data: arrays, numbers, texts and containers of them, and nothing that runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

ALLOWED = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}
"""Module and name of all that a pickle of NumPy arrays needs; a pickle that names anything else could run it."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that refuses every name outside ``ALLOWED``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(f"it names {module}.{name}, which a file of plain data does not")
        return super().find_class(module, name)


def load(path: Path) -> Any:
    """Read a pickle, with texts of Python 2 as latin-1.

    Raises:
        ValueError: It names a function or a class other than NumPy's arrays, or it is not a pickle.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle raises almost anything
            raise ValueError(f"{path}: cannot be read as plain data: {error}") from error
