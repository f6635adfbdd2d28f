"""The jobs of a source, done one after the other in this process by the code that workers run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mu.problem import Problem
from sweeps.plan import Job
from sweeps.workers.reference_work import reference_steps
from sweeps.workers.result import RunningTrial, new_record
from sweeps.workers.trial import noting_failure


class InProcess:
    """Workers that do jobs for references in this process, and note which."""

    def __init__(self) -> None:
        self.done: list[Job] = []

    def put(self, content: Any) -> Any:
        return content

    def run(self, source: Any, problems: Mapping[tuple[str, int], Problem]) -> None:
        """Run jobs until the source has no more for references."""
        while (job := source.next()) is not None:
            self.done.append(job)
            running, objects = RunningTrial(), source.objects(job)
            problem = problems[job.forget, job.seed]
            steps = reference_steps(job, problem, objects.get, running, "cpu")
            for _ in noting_failure(steps, running, "cpu"):
                pass
            record = new_record(
                job,
                "tiny",
                {"cpus": 1.0},
                status=running.result.status,
                reason=running.result.reason,
                time_total=1.0 if job.work == "train" else 0.0,
            )
            source.ended(job, record, running.result.outputs)

    def of(self, work: str) -> list[tuple[str, int]]:
        """What was done of one kind of work: method and seed."""
        return [(job.method, job.seed) for job in self.done if job.work == work]
