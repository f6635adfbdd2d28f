"""The `study` line of a results file: all that the report needs to know beside the trials."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from importlib import metadata
from typing import Any

from mu.data import PARTS
from mu.keys import content_key
from sweeps.phases import EPOCHS, PHASES, trial_phases
from sweeps.plan.jobs import Plan

LIBRARIES = ("musweep", "torch", "numpy", "ray", "optuna", "mlflow", "scikit-learn")
"""Those whose versions decide results."""


def study_line(plan: Plan) -> dict[str, Any]:
    """Describe what a plan runs, and on what, as plain data."""
    study, data, names = plan.study, plan.data, plan.problem_names
    return {
        "study": study.name,
        "definition": dict(study.definition),
        "phases": [
            {
                "name": p.name,
                "title": p.title,
                "follows_search": p.follows_search,
                "role": p.role,
            }
            for p in PHASES.values()
        ],
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "parts": {part: len(data.parts[part]) for part in PARTS},
            "classes": len(data.classes),
            "class_names": list(data.classes),
            "input_shape": list(data.input_shape),
        },
        "model": study.model.key,
        "checkpoints": {
            " ".join(map(str, name)): supplied.digest for name, supplied in study.supplied.items()
        },
        "requests": {name: _request(plan, name) for name in study.forget},
        "methods": {
            config.name: {
                "alias_of": config.alias_of,
                "summary": config.method.summary,
                "zero_shot": config.method.zero_shot,
                "has_epochs": EPOCHS in config.fixed,
                "knobs": dict(config.fixed),
                "trials": study.trials(config.name),
                "menu": max((len(plan.menu((f, config.name))) for f in config.forget), default=0),
                "forget": list(config.forget),
                "code": plan.code[config.name],
                "counts_as": plan.counts_as[config.name],
                "cells": {phase: plan.cell_key(phase, config.name) for phase in trial_phases()},
            }
            for config in study.methods
        },
        "problems": {
            name: {str(seed): plan.problem(name, seed).key for of, seed in names if of == name}
            for name in (*study.forget, *study.stand_ins)
        },
        "references": {
            role: {str(seed): plan.reference_cell(role, seed) for seed in seeds}
            for role, seeds in {**plan.seeds, "report": plan.reported}.items()
        },
        "published": [asdict(number) for number in study.published],
        "planned": plan.planned,
        "versions": versions(),
        "started": time.time(),
    }


def _request(plan: Plan, name: str) -> dict[str, Any]:
    request = plan.study.forget[name]
    problem = plan.problem(name, plan.study.seeds.report[0])
    return {
        "kind": request.kind,
        "forget": len(problem.forget_index),
        "retain": len(problem.retain_index),
        "whole_class": request.splits_held_out,
        "selected": content_key(problem.forget_index.tolist()),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of this program, and of the libraries that decide results."""
    known = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            known[name] = "not installed"
    return known
