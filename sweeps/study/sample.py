"""``--sample``: a study in small, to see that all of it works before it takes days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.errors import StudyError
from sweeps.phases import EPOCHS
from sweeps.study.study_file import SMALLEST_MENU

EPOCHS_AT_MOST = TRIALS_AT_MOST = REPORT_SEEDS = 2


def sampled(definition: Mapping[str, Any], share: float, where: str) -> dict[str, Any]:
    """Return a study that uses a share of the training images, two epochs, two trials a cell, and two report seeds.

    Methods keep their own epochs. No trial is ended early, as models that have learnt little look as if
    destroyed; a grid is left for random draws. The study has a name of its own, so that its results stay apart.

    Args:
        definition: The study as plain data, with every default; see ``sweeps.study.study.Study``.
        share: In (0, 1).

    Raises:
        StudyError: The share is out of range, or the study names single samples, which a share does not hold.
    """
    if not 0 < share < 1:
        raise StudyError(f"--sample: must be in (0, 1), but got {share:g}")
    requests = definition["forget"]
    listed = [name for name, request in requests.items() if request["kind"] == "indices"]
    if listed or definition["data"].get("reserve"):
        key = f"forget: {listed[0]}" if listed else "data: reserve"
        raise StudyError(f"{where}: {key}: names single samples, of which --sample leaves most out")
    data, training = definition["data"], definition["training"]
    seeds, search = definition["seeds"], definition["search"]
    report = seeds["report"][:REPORT_SEEDS]
    few_trials = {
        "trials": min(search["trials"], TRIALS_AT_MOST),
        "sampler": "random" if search["sampler"] == "grid" else search["sampler"],
        "finalists": 1,
        "early_stop": "none",
    }
    retrained = len(report) if definition["retrain"] is None else None
    epochs = definition["experiments"]["sufficient"]
    few = epochs and {EPOCHS: min(epochs[EPOCHS], EPOCHS_AT_MOST)}
    subset = data.get("subset")
    return {
        **definition,
        "study": f"{definition['study']}_sample",
        "data": {**data, "subset": share if subset is None else _part(subset, share)},
        "training": {**training, "epochs": min(training["epochs"], EPOCHS_AT_MOST)},
        "forget": {
            name: {**request, "count": _part(request["count"], share)}
            if "count" in request
            else request
            for name, request in requests.items()
        },
        "seeds": {"search": seeds["search"][:1], "report": report, "retrain": retrained},
        "search": {**search, **few_trials},
        "experiments": {**definition["experiments"], "sufficient": few},
        "audit": {"models": 0},
        "choose": definition["choose"] and {**definition["choose"], "menu": SMALLEST_MENU},
    }


def _part(amount: float, share: float) -> float:
    """Return a share of a number of samples, or of a share of them."""
    return max(1, round(amount * share)) if amount >= 1 else amount * share
