"""``musweep sync --models``: the models that a study kept, as artifacts of their trials in MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sweeps.errors import StudyError
from sweeps.tracking.mlflow_runs import Tracker
from sweeps.unlearned import export

FOLDER, FILE = "model", "model.pt"
"""Folder and file among the artifacts of a trial; the card lies beside it, as ``model.json``."""


def send(tracker: Tracker, folder: Path, storage: str) -> int:
    """Send the models that a study kept and MLflow lacks, each with its card; return how many those were.

    Args:
        tracker: MLflow, which has the trials.
        folder: The study's results.
        storage: Where the study keeps models.

    Raises:
        StudyError: The study keeps none, or one of them is not there; the message says what to do.
    """
    study = export.read_study(folder)
    models = study.definition.get("keep", {}).get("models", "none")
    if models == "none":
        raise StudyError(
            f"{study.name}: keeps no models; add `keep: {{models: all}}` and run it again"
        )
    sent = 0
    with tempfile.TemporaryDirectory() as place:
        for method in study.methods:
            if models != "all" and method.name not in models:
                continue
            for request in study.requests:
                for record in study.cell("confirm", request.name, method.name).finished:
                    if tracker.has_file(record.key, FOLDER, FILE):
                        continue
                    asked = (request.name, method.name, record.seed)
                    out = Path(place) / FILE
                    export.export(export.find_kept(study, *asked, storage), folder, out)
                    tracker.write_trial_files(record.key, FOLDER, (out, out.with_suffix(".json")))
                    sent += 1
    return sent
