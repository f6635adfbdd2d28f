"""The card of an unlearned model: a JSON file beside its weights that says what it is, how it was made and how good it is.

Both files are whole or absent. The card holds the checksum of the weights, which a reader can check.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mu.data.index_files import MEANING
from mu.metrics import METRICS
from sweeps.errors import StudyError, SweepError
from sweeps.state import code
from sweeps.state.kept import KeptModel
from sweeps.state.store import write_atomically

CARD = 1
"""Version of the card's form."""
USE = (
    "torch.load(file, weights_only=True) is the state dict of the network alone. Its inputs are pixels in [0, 1], minus "
    "`mean`, divided by `std`, channel by channel."
)
USE_TOKENS = (
    "torch.load(file, weights_only=True) is the state dict of the network. Its inputs are tokens."
)


def check_out(out: Path) -> None:
    """Raise StudyError when a model cannot be written to `out`, and its card beside it."""
    if out.suffix == ".json":
        raise StudyError(f"--out {out}: must not end in .json, which is the end of the card's name")
    if out.is_dir():
        raise StudyError(f"--out {out}: is a folder; name a file in it, such as {out / 'model.pt'}")


def write_model(
    out: Path, weights: Mapping[str, NDArray[Any]], card: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a state dict with ``torch.save``, and the card beside it; return the card with what it says of the file.

    Raises:
        SweepError: The folder cannot be written to.
    """
    state = {name: torch.tensor(value) for name, value in weights.items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    file = {
        "name": out.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    whole = {"card": CARD, "file": file, **card, "written": time.time()}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        write_atomically(out, content)
        write_atomically(card_of(out), f"{text}\n".encode())
    except OSError as error:
        raise SweepError(f"--out {out}: cannot be written to: {error}") from error
    return whole


def card_of(out: Path) -> Path:
    """Return the path of the card of a model's file."""
    return out.with_suffix(".json")


def about_model(model: KeptModel, name: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a card says of a network.

    Args:
        name: Its name, or the mapping that a study has in its place.
    """
    inputs = {"mean": list(model.mean), "std": list(model.std)} if model.mean else {}
    return {
        "network": name,
        "classes": list(classes),
        "input_shape": list(model.shape),
        **inputs,
        "use": USE if inputs else USE_TOKENS,
    }


def about_forget(
    name: str, positions: NDArray[np.int64], training_samples: int, request: Any = None
) -> dict[str, Any]:
    """Return what a card says of D_f; `request` is what selected it, where that is known."""
    return {
        "name": name,
        "request": request,
        "count": len(positions),
        "training_samples": training_samples,
        "meaning": MEANING,
        "positions": positions.tolist(),
    }


def about_metrics(
    values: Mapping[str, float],
    original: Mapping[str, float],
    others: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return what a card says of the metrics of one view, by name.

    Args:
        values: Those of the model.
        original: Those of the model before unlearning.
        others: Metric to what else is known of it: `retrained`, `gap`, `verdict`.
    """
    return {
        name: {
            "label": METRICS[name].label if name in METRICS else name,
            "value": value,
            **({"original": original[name]} if _finite(original.get(name)) else {}),
            **others.get(name, {}),
        }
        for name, value in values.items()
        if _finite(value)
    }


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def about_code() -> str:
    """Return the version of this program and the digest of its source."""
    return str(code.running())
