"""A whole study in this process: everything that a run does, without Ray and MLflow."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import toy as toy  # its network `toy_cnn`, which takes a third of the time of `small_cnn`
from rich.console import Console

from mu.data import Dataset
from mu.problem import Problem
from reports import frames, load
from sweeps.flow.changes import open_results, run_unkept_again
from sweeps.flow.sweep import Locations, Sweep
from sweeps.plan import Job, Plan
from sweeps.state.store import Store
from sweeps.study import study
from sweeps.workers.reference_work import reference_steps
from sweeps.workers.result import RunningTrial, environment, new_record
from sweeps.workers.trial import TrialContext, noting_failure, trial_steps


class OneSlot:
    """Workers that do every job in this process, one after the other."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.done: list[Job] = []
        slots = SimpleNamespace(now=1, most=1, seconds=1.0, lack="")
        self.cluster = SimpleNamespace(slots=slots)

    def put(self, content: Any) -> Any:
        return content

    def run(self, source: Any, problems: Mapping[tuple[str, int], Problem]) -> None:
        """Run jobs until the source has no more."""
        try:
            self._run(source, problems)
        finally:
            source.unbilled.note({}, now=True)

    def _run(self, source: Any, problems: Mapping[tuple[str, int], Problem]) -> None:
        while (job := source.next()) is not None:
            self.done.append(job)
            running, get = RunningTrial(), source.objects(job).get
            problem, started = problems[job.forget, job.seed], time.time()
            steps = self._steps(job, problem, get, running)
            for _ in noting_failure(steps, running, "cpu"):
                pass
            result = running.result
            known = {each.name: getattr(result, each.name) for each in fields(result)}
            outputs = known.pop("outputs")
            record = new_record(
                job,
                self.plan.study.name,
                {"cpus": 1.0},
                **known,
                environment=environment("cpu"),
                started=started,
                ended=time.time(),
                time_total=time.time() - started + source.unbilled.bill(job.key),
            )
            source.ended(job, record, outputs)

    def _steps(self, job: Job, problem: Problem, get: Any, running: RunningTrial) -> Any:
        if job.work != "trial":
            return reference_steps(job, problem, get, running, "cpu")
        context = TrialContext(
            problem,
            problem.split(),
            self.plan.study.method(job.method).method,
            get("scores"),
            self.plan.study.search.early_stop,
            retrained=partial(get, "retrain"),
        )
        return trial_steps(context, job, get("original"), running)


@cache
def _digits(subset: int, twin: float) -> Dataset:
    from mu.data import DataSpec
    from mu.data import load as read

    return read(DataSpec("digits", subset=subset, twin=twin))


@dataclass(frozen=True)
class Ran:
    """What a run did.

    Args:
        folder: The study's results folder.
        done: The jobs that ran.
        said: What was printed.
        finished_before: Whether there was nothing to do.
        csv: The report's ``results.csv`` at its end.
    """

    folder: Path
    done: list[Job]
    said: str
    finished_before: bool
    csv: str

    def of(self, phase: str) -> list[Job]:
        """The jobs of a phase that ran."""
        return [job for job in self.done if job.phase == phase]


def run(
    raw: dict[str, Any],
    results: Path,
    storage: Path,
    *,
    methods: Path | None = None,
    accept: bool = False,
    optuna: str | None = None,
) -> Ran:
    """Run a study, or what is left of it.

    Args:
        results: Folder of results.
        storage: Folder of trained models.
        methods: Folder with methods of one's own.
        accept: As ``--accept-code-change``.
        optuna: Optuna's storage.
    """
    wanted = study.parse(raw, "study.yaml", [methods] if methods else [])
    plan = Plan(wanted, _digits(wanted.data.subset or 300, wanted.data.twin))
    folder = results / wanted.name
    printed = io.StringIO()
    opened, said = open_results(plan, folder, accept)
    try:
        said += run_unkept_again(plan, opened, Store(str(storage)))
        locations = Locations(folder, str(storage), optuna=optuna)
        sweep = Sweep(plan, opened, locations, Console(file=printed, width=200))
        workers, over = OneSlot(plan), sweep.done
        if not over:
            sweep.run(workers, Store(str(storage)))  # type: ignore[arg-type]
            assert sweep.done
    finally:
        opened.close()
    csv = frames.runs(load.read(folder)).to_csv(index=False)
    return Ran(folder, workers.done, "\n".join([*said, printed.getvalue()]), over, csv)
