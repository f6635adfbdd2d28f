"""The samples that each request selects: workers rank them once ever, and files hold them for use elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mu.data.index_files import MEANING
from mu.problem import Problem, Role
from mu.ranking import ranking_key
from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.references import load_reference
from sweeps.state.store import Store, write_atomically

if TYPE_CHECKING:
    from sweeps.workers.trainers import Trainers


def resolve_ranked_requests(
    plan: Plan, store: Store, workers: Callable[[], AbstractContextManager[Trainers]]
) -> None:
    """Find the samples of every ranked request of a plan.

    Args:
        workers: Opens a cluster; called only when scores are missing.

    Raises:
        StudyError: A request leaves a class without samples.
        SweepError: A model cannot be trained.
    """
    wanted = {ranking_key(problem): problem for problem in plan.rankings.values()}
    scores = {key: kept["scores"] for key in wanted if (kept := store.get(key)) is not None}
    missing = {key: problem for key, problem in wanted.items() if key not in scores}
    if missing:
        with workers() as open_workers:
            _originals(plan, missing, store, open_workers)
            for key, ranked in open_workers.rank(missing):
                store.put(key, {"scores": ranked})
                scores[key] = ranked
    for name, problem in plan.rankings.items():
        try:
            plan.choose(name, scores[ranking_key(problem)])
        except ValueError as error:
            raise StudyError(
                f"forget: {name}: {error}; or rank after other `epochs` or with another `draw`"
            ) from error


def _originals(plan: Plan, missing: dict[str, Problem], store: Store, workers: Trainers) -> None:
    """Publish the original models that rankings attack; new ones serve as references as well."""
    lacking: dict[str, tuple[Problem, Role]] = {}
    for problem in missing.values():
        if problem.request.kind == "hardest":
            continue
        key = problem.reference_key("original")
        arrays = load_reference(problem, "original", plan.study.supplied, store)
        if arrays is None:
            lacking[key] = (problem, "original")
        else:
            workers.publish(key, arrays)
    for key, arrays in workers.train(lacking):
        store.put(key, arrays)
        workers.publish(key, arrays)


def write(plan: Plan, folder: Path) -> None:
    """Write what every request selects as `folder`/<request>.npy (int64 [N], sorted), with a .json that explains it.

    Such a file is a request of kind `indices` of another study on the same data.
    """
    definition = plan.study.definition
    for name in plan.study.forget:
        positions = plan.data.all_positions(plan.chosen(name))
        buffer = io.BytesIO()
        np.save(buffer, positions)
        facts = {
            "study": plan.study.name,
            "request": {"name": name, **definition["forget"][name]},
            "positions": MEANING,
            "count": len(positions),
            "training_samples": plan.data.total,
            "data": definition["data"],
            "fingerprint": plan.data.fingerprint,
        }
        write_atomically(folder / f"{name}.json", json.dumps(facts, indent=2).encode())
        write_atomically(folder / f"{name}.npy", buffer.getvalue())
