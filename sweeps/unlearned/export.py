"""``musweep export``: the unlearned model of a confirmed trial as a file, with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu.record import TrialRecord
from reports import load
from reports.analysis.summaries import cell_summary, compares, recovered, retrained
from reports.load import RecordedRequest, RecordedStudy, Runs
from reports.statistics.intervals import spread
from sweeps.errors import StudyError, errors_at
from sweeps.state import kept
from sweeps.state.kept import KeptModel
from sweeps.state.store import Store
from sweeps.unlearned import card


@dataclass(frozen=True)
class Unlearned:
    """A model that a study kept.

    Args:
        study: The study.
        record: Its trial.
        model: The model.
    """

    study: RecordedStudy
    record: TrialRecord
    model: KeptModel


def read_study(folder: Path) -> RecordedStudy:
    """Read the results of a study. Raises StudyError when there are none."""
    with errors_at():
        return load.read(folder)


def find_kept(
    study: RecordedStudy, forget: str, method: str, seed: int | None, storage: str
) -> Unlearned:
    """Return the model of a method on a request that the study kept.

    Args:
        seed: One of the report seeds; None is the first whose run has finished.
        storage: Where the study keeps models.

    Raises:
        StudyError: There is no such run, it has not finished, or its model was not kept; the message says what to do.
    """
    record = _confirmed(study, forget, method, seed)
    name = f"{study.name}: the model of {method} on {forget}, seed {record.seed},"
    models = study.definition.get("keep", {}).get("models", "none")
    if models != "all" and method not in models:
        listed = [*(models if isinstance(models, list) else ()), method]
        raise StudyError(
            f"{name} was not kept; add `keep: {{models: [{', '.join(listed)}]}}` to the study file and run the study "
            "again, which then runs the confirmed trials of that method alone"
        )
    try:
        store = Store(storage)
        model = kept.get(store, record.key)
        if model is None and store.has(key := kept.kept_key(record.key)):
            store.delete(key)  # so that the next run of the study misses it
            raise StudyError(f"{name} is damaged; run the study again, which makes it anew")
    except OSError as error:
        raise StudyError(f"--storage {storage}: cannot be read: {error}") from error
    if model is None:
        raise StudyError(
            f"{name} is not in {storage}; give the study's --storage, or run the study again, which makes it anew"
        )
    return Unlearned(study, record, model)


def _confirmed(study: RecordedStudy, forget: str, method: str, seed: int | None) -> TrialRecord:
    """Return the record of a confirmed run that has finished."""
    requests, methods = ([each.name for each in many] for many in (study.requests, study.methods))
    for what, name, known in (("request", forget, requests), ("method", method, methods)):
        if name not in known:
            raise StudyError(f"{study.name}: unknown {what} {name!r}; there are {', '.join(known)}")
    runs = study.cell("confirm", forget, method)
    if not runs.records:
        reason = cell_summary(study, study.request(forget), method).reason
        raise StudyError(f"{study.name}: {method} on {forget} has no confirmed run: {reason}")
    return _on_seed(study, runs, f"{study.name}: {method} on {forget}", seed)


def _on_seed(study: RecordedStudy, runs: Runs, name: str, seed: int | None) -> TrialRecord:
    by_seed = {record.seed: record for record in runs.records}
    if seed is not None and seed not in by_seed:
        there = ", ".join(map(str, sorted(by_seed)))
        raise StudyError(f"{name}: no confirmed run has the seed {seed}; there are {there}")
    record = by_seed[seed] if seed is not None else (*runs.finished, *runs.records)[0]
    if not record.finished:
        reason = (record.reason.strip().splitlines() or [""])[-1]
        raise StudyError(f"{name}, seed {record.seed}: has no model, it {record.status}: {reason}")
    return record


def export(unlearned: Unlearned, folder: Path, out: Path) -> dict[str, Any]:
    """Write a model and its card; return the card.

    Args:
        folder: The study's results.
        out: Where the model goes; the card goes beside it.

    Raises:
        StudyError: The file cannot be written so, or the results lack the positions of D_f.
        SweepError: The disk cannot be written to.
    """
    card.check_out(out)
    return card.write_model(out, unlearned.model.weights, _card(unlearned, folder))


def _card(unlearned: Unlearned, folder: Path) -> dict[str, Any]:
    study, record = unlearned.study, unlearned.record
    request, definition = study.request(record.forget), study.definition
    data = study.line["data"]
    summary = cell_summary(study, request, record.method)
    recovery = recovered(study, request, summary)
    reference = retrained(study, request)
    return {
        "model": card.about_model(unlearned.model, definition["model"], data["class_names"]),
        "method": record.method,
        **({"alias_of": record.alias_of} if record.alias_of else {}),
        "code": record.code,
        "knobs": record.knobs,
        "knobs_from": knobs_from(study, record.forget, record.method),
        "seed": record.seed,
        "data": {
            "definition": definition["data"],
            "fingerprint": data["fingerprint"],
            "parts": data["parts"],
        },
        "forget": _forget(study, request, folder),
        "metrics": {view: _metrics(study, record, request, view) for view in record.metrics},
        "evidence": {
            "runs": len(study.cell("confirm", record.forget, record.method).finished),
            "retrained_models": reference.n,
            "recovery": None if recovery is None else recovery.value,
            "verdict": summary.verdict or None,
            "outdated": summary.outdated,
            "warnings": record.warnings,
        },
        "seconds": {"unlearning": record.time_unlearn, "retraining": reference.seconds},
        "study": {"name": study.name, "uuid": study.line.get("uuid", ""), "trial": record.key},
        "training": definition["training"],
        "environment": record.environment,
        "versions": {**study.line["versions"], "exported by": card.about_code()},
        "trial_started": record.started,
        "trial_ended": record.ended,
    }


def knobs_from(study: RecordedStudy, forget: str, method: str) -> dict[str, Any]:
    """Return where the knobs of a cell come from: how, on which study and request, and whether by an oracle.

    An oracle is a retrained model that candidates were compared with: who has one needs no unlearning.
    """
    listed = next(each for each in study.methods if each.name == method)
    where = {"study": study.name, "uuid": study.line.get("uuid", ""), "request": forget}
    if not listed.space:
        return {"how": "fixed by the study", "oracle": False, **where}
    return {
        "how": "tuned",
        "oracle": study.oracle or compares(study.objective),
        "objective": study.objective,
        "configurations": len(study.decisions[forget, method].tried),
        "seeds": list(study.search_seeds),
        **where,
    }


def _forget(study: RecordedStudy, request: RecordedRequest, folder: Path) -> dict[str, Any]:
    path = folder / "splits" / f"{request.name}.npy"
    try:
        positions = np.load(path, allow_pickle=False)
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path}: cannot be read: {error}; run the study again, which writes it"
        ) from error
    total = facts["training_samples"]
    return card.about_forget(request.name, positions, total, request.details)


def _metrics(
    study: RecordedStudy, record: TrialRecord, request: RecordedRequest, view: str
) -> dict[str, Any]:
    """Return the metrics of the run in one view, with those of the original and of the retrained models."""
    reference = retrained(study, request, view)
    summary = cell_summary(study, request, record.method, view=view)
    others: dict[str, dict[str, Any]] = {}
    for name, value in record.metrics[view].items():
        about = spread(reference.values.get(name, ()))
        if about is not None and name in summary.gaps:
            others[name] = {"retrained": about.mean, "retrained_sd": about.std}
            others[name] |= {"gap": abs(value - about.mean)}
            others[name] |= _word(summary.verdicts, name)
    originals = [
        r
        for r in study.cell("reference", request.name, "original").finished
        if r.seed == record.seed
    ]
    original = originals[0].metrics.get(view, {}) if originals else {}
    return card.about_metrics(record.metrics[view], original, others)


def _word(verdicts: Mapping[str, str], name: str) -> dict[str, str]:
    return {"verdict": verdicts[name]} if name in verdicts else {}
