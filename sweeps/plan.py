"""What a study will run: problems, cells and jobs, each named by its content."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.data import PARTS, Dataset
from mu.forget import select
from mu.keys import content_key
from mu.problem import Problem
from mu.record import REFERENCE_ROLES
from sweeps.study.study import Study

EPOCHS = "epochs"
"""The knob that sufficient training extends; methods without it have nothing to extend."""


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Args:
        key: Content key of everything below, and of the problem.
        phase: `search`, `default`, `confirm`, `sufficient` or `transfer`.
        forget: Name of the forget request.
        method: Name of the method.
        seed: Seed of the problem.
        knobs: Every knob with its value.
        number: Number of the configuration within its cell; search only.
        source: Request whose knobs these are; transfer only.
        views: The views it is scored on: an honest search never sees `test`.
        attacks: Groups of costly attacks that are run as well; the diagnostics of the method's own work come
            with any.
        keep: Whether its outputs are kept for the audit.
    """

    key: str
    phase: str
    forget: str
    method: str
    seed: int
    knobs: Mapping[str, Any]
    number: int | None = None
    source: str | None = None
    views: tuple[str, ...] = ("val", "test")
    attacks: tuple[str, ...] = ()
    keep: bool = False

    @property
    def role(self) -> str:
        """Which seeds it runs on."""
        return "search" if self.phase == "search" else "report"


class Plan:
    """A study with its data: the problems and jobs that follow from both."""

    def __init__(self, study: Study, data: Dataset):
        self.study = study
        self.data = data
        self._problems: dict[tuple[str, int], Problem] = {}
        self._chosen: dict[str, NDArray[np.int64]] = {
            name: select(request, data)
            for name, request in study.forget.items()
            if request.kind == "indices"  # workers do not have the file
        }
        self.rankings = {
            name: (
                Problem(data, study.model, study.training, request, request.draw)
                if request.kind == "hardest"  # which trains a model of its own
                else study.problem(data, name, request.draw)
            )
            for name, request in study.forget.items()
            if request.ranked
        }
        """The problems that decide which samples ranked requests select; they know none before ``choose``."""

    def choose(self, forget: str, scores: NDArray[np.float64]) -> None:
        """Settle which samples a ranked request selects. Raises ValueError as ``mu.forget.select``."""
        self._chosen[forget] = select(self.study.forget[forget], self.data, scores)
        self._problems = {name: p for name, p in self._problems.items() if name[0] != forget}

    def chosen(self, forget: str) -> NDArray[np.int64]:
        """Sorted positions in the training part of the samples that a request selects."""
        return self.problem(forget, self.study.report_seeds[0]).forget_index

    def share(self, data: Dataset) -> None:
        """Use this copy of the data from now on, so that the memory of the one before can go."""
        self.data = data
        self._problems.clear()

    def problem(self, forget: str, seed: int) -> Problem:
        if (forget, seed) not in self._problems:
            chosen = self._chosen.get(forget)
            self._problems[forget, seed] = self.study.problem(self.data, forget, seed, chosen)
        return self._problems[forget, seed]

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every (forget request, method)."""
        return [
            (forget, tuned.name)
            for forget in self.study.forget
            for tuned in self.study.methods
            if forget in tuned.forget
        ]

    @property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        return {"search": self.study.search_seeds, "report": self.study.report_seeds}

    def reference_attacks(self, role: str) -> tuple[str, ...]:
        """Costly attacks on references of a role, which are those of any phase that runs on its seeds."""
        asked = self.study.metrics
        searches = "search" in asked.costly
        wanted = searches if role == "search" else set(asked.costly) - {"search"}
        return asked.attacks if wanted else ()

    def job(
        self,
        phase: str,
        forget: str,
        method: str,
        seed: int,
        knobs: Mapping[str, Any],
        number: int | None = None,
        source: str | None = None,
    ) -> Job:
        problem = self.problem(forget, seed).key
        key = content_key(problem, phase, forget, method, knobs, number, source)
        views = (self.study.search_view,) if phase == "search" else ("val", "test")
        attacks = self.study.metrics.attacks if phase in self.study.metrics.costly else ()
        keep = phase == "confirm" and self.study.audit.models > 0
        return Job(key, phase, forget, method, seed, knobs, number, source, views, attacks, keep)

    def final_jobs(self, best: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[Job]:
        """The fixed list after the search: default, confirm, sufficient and transfer, on every report seed.

        Args:
            best: The knobs chosen for each cell; cells without any keep their defaults only.
        """
        jobs = []
        experiments = self.study.experiments
        if experiments.defaults:
            jobs += [
                self.job("default", forget, method, seed, self.study.method(method).fixed)
                for forget, method in self.cells
                for seed in self.study.report_seeds
            ]
        for (forget, method), knobs in best.items():
            wanted: list[tuple[str, str, str | None, Mapping[str, Any]]]
            wanted = [("confirm", forget, None, knobs)]
            if experiments.sufficient and EPOCHS in knobs:
                longer = {**knobs, EPOCHS: experiments.sufficient}
                wanted.append(("sufficient", forget, None, longer))
            wanted += [
                ("transfer", target, source, knobs)
                for source, target in experiments.transfer
                if source == forget and (target, method) in best
            ]
            for phase, target, source, used in wanted:
                jobs += [
                    self.job(phase, target, method, seed, used, source=source)
                    for seed in self.study.report_seeds
                ]
        return sorted(jobs, key=lambda job: -job.knobs.get(EPOCHS, 1))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Records of each phase when nothing fails."""
        study, cells = self.study, len(self.cells)
        extended = sum(EPOCHS in study.method(method).fixed for _, method in self.cells)
        seeds = len(study.report_seeds)
        every_seed = len(study.search_seeds) + seeds
        return {
            "reference": every_seed * len(study.forget) * len(REFERENCE_ROLES),
            "search": sum(study.trials(method) for _, method in self.cells)
            * len(study.search_seeds),
            "default": cells * seeds if study.experiments.defaults else 0,
            "confirm": cells * seeds,
            "sufficient": extended * seeds if study.experiments.sufficient else 0,
            "transfer": seeds
            * sum(
                {source, target} <= set(tuned.forget)
                for source, target in study.experiments.transfer
                for tuned in study.methods
            ),
        }

    @cached_property
    def samples(self) -> dict[str, float]:
        """Rough number of samples trained on in each phase, an epoch of a method counted as one of D."""
        study, train = self.study, len(self.data.parts["train"])
        epochs = [float(tuned.fixed.get(EPOCHS, 1)) for tuned in study.methods]
        mean = sum(epochs) / len(epochs)
        weights = {
            "reference": float(study.training.epochs),
            "search": mean,
            "default": mean,
            "confirm": mean,
            "sufficient": float(study.experiments.sufficient or 0),
            "transfer": mean,
        }
        supplied = {
            (role, seed) if role == "original" else (role, forget, seed)
            for role, forget, seed in study.supplied
        }
        seeds = len({*study.search_seeds, *study.report_seeds})
        # Requests share the original models.
        trained = seeds * (1 + len(study.forget)) - len(supplied)
        counts = {**self.counts, "reference": trained}
        return {phase: count * weights[phase] * train for phase, count in counts.items()}

    @property
    def planned(self) -> dict[str, dict[str, float]]:
        """Phase to its number of `trials`, and roughly of `samples` they train on."""
        return {
            phase: {"trials": count, "samples": self.samples[phase]}
            for phase, count in self.counts.items()
        }

    def study_line(self, versions: Mapping[str, str], started: float) -> dict[str, Any]:
        """The `study` line of the results file: all the report needs to know beside the trials."""
        study = self.study
        requests = {}
        for name, request in study.forget.items():
            problem = self.problem(name, study.report_seeds[0])
            requests[name] = {
                "kind": request.kind,
                "forget": len(problem.forget_index),
                "retain": len(problem.retain_index),
                "whole_class": request.whole_class,
                "selected": content_key(problem.forget_index.tolist()),
            }
        return {
            "study": study.name,
            "definition": dict(study.definition),
            "data": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "parts": {part: len(self.data.parts[part]) for part in PARTS},
                "classes": len(self.data.classes),
                "class_names": list(self.data.classes),
                "input_shape": list(self.data.input_shape),
            },
            "model": study.model.key,
            "checkpoints": {
                " ".join(map(str, name)): found.digest for name, found in study.supplied.items()
            },
            "requests": requests,
            "methods": {
                tuned.name: {
                    "summary": tuned.method.summary,
                    "zero_shot": tuned.method.zero_shot,
                    "has_epochs": EPOCHS in tuned.fixed,
                    "knobs": dict(tuned.fixed),
                    "trials": study.trials(tuned.name),
                }
                for tuned in study.methods
            },
            "published": [asdict(number) for number in study.published],
            "planned": self.planned,
            "versions": dict(versions),
            "started": started,
        }


def versions() -> dict[str, str]:
    """Versions of this program, Python, and the libraries that decide results."""
    found = {"python": platform.python_version()}
    for name in ("musweep", "torch", "numpy", "ray", "optuna", "mlflow", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
