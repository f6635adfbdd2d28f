"""Where the workers of a study get their jobs from: each job as soon as it can start, and no phase waits for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mu.choice import Decision
from mu.failing import FirstTrials, say_failing
from mu.record import TrialRecord
from sweeps.flow.ledger import Ledger
from sweeps.flow.references import References
from sweeps.phases import Cell, Knobs
from sweeps.plan import Job, Plan
from sweeps.search.cells import Cells
from sweeps.state import kept
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.store import Store
from sweeps.state.unbilled import Unbilled

if TYPE_CHECKING:
    from sweeps.workers.curve import CurvePoint

Arrays = dict[str, NDArray[Any]]
UNBILLED = "unbilled.json"
"""File of a study's results for the time on slots that no record bills yet."""


class StudySource:
    """All jobs of a study, as ``sweeps.workers`` draws them (see its ``JobSource``).

    References come first, then the search of every cell whose references are there, then the finalists of every cell
    whose search has ended, the menus, and what follows the choice of every cell that is made. So a slot waits only when
    nothing that is left can start.

    Args:
        plan: What the study runs.
        ledger: Where records go.
        store: Where models go that are kept, and outputs that the audit needs.
        checkpoints: Where running jobs are saved.
        cells: The searches.
        references: The references.

    Attributes:
        chosen: The knobs of every cell whose search and finalists have ended, if a configuration has finished.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        store: Store,
        checkpoints: CheckpointStore,
        cells: Cells,
        references: References,
    ):
        self.study = plan.study.name
        self.unbilled = Unbilled(ledger.results.folder / UNBILLED)
        self.plan = plan
        self.ledger = ledger
        self.store = store
        self.checkpoints = checkpoints
        self.cells = cells
        self.references = references
        self.chosen: dict[Cell, Knobs] = {}
        self._searched: set[Cell] = set()
        self._settled: set[Cell] = set()
        self._running: Counter[Cell] = Counter()  # of the search
        self._finalists: Counter[Cell] = Counter()  # that wait or run
        self._finals: dict[str, Job] = {}
        self._handed_out: set[str] = set()
        self._first = FirstTrials(plan.study.max_failures, ledger.results.records.values())
        self._failing: set[Cell] = set(self._first.failing)
        self._finals |= {
            job.key: job
            for job in plan.menu_jobs
            if job.key not in ledger.results.records
            and (job.forget, job.method) not in self._failing
        }
        self._queue_finals()

    def next(self) -> Job | None:
        """Return the next job that can start; None when there is none before a running one has ended."""
        job = self.references.next() or self._next_of_search() or self._next_final()
        if job is not None:
            self.ledger.progress.started()
        return job

    def _next_of_search(self) -> Job | None:
        forgets = [f for f in self.plan.study.forget if self.references.ready("search", f)]
        if self.plan.study.budget and len(forgets) < len(self.plan.study.forget):
            return None  # a budget ends the search of all cells after the same number of trials
        running = sum(self._running.values())
        job = self.cells.next(self.ledger.may_search(self.cells.asked, running), forgets)
        if job is not None:
            self._running[job.forget, job.method] += 1
        return job

    def _next_final(self) -> Job | None:
        self._queue_finals()
        for key, job in self._finals.items():
            if self.references.ready(job.role, job.forget):
                self._handed_out.add(key)
                return self._finals.pop(key)
        return None

    def _queue_finals(self) -> None:
        """Queue the finalists of the cells whose search has ended since, and what follows the choice of others."""
        more = not self.ledger.search_ended
        searched = {
            cell
            for cell in self.plan.cells
            if cell not in self._searched
            and not self._running[cell]
            and not self.cells.left(cell, more)
        }
        self._searched |= searched
        recorded = self.ledger.results.records
        for job in self.plan.finalist_jobs(
            decide(self.plan, recorded.values(), searched - self._failing)
        ):
            if job.key not in recorded:
                self._finals = {job.key: job, **self._finals}  # the choice waits for them
                self._finalists[job.forget, job.method] += 1
        settled = {cell for cell in self._searched - self._settled if not self._finalists[cell]}
        if self._settled and not settled:
            return
        self._settled |= settled
        for cell, decision in decide(self.plan, recorded.values(), settled - self._failing).items():
            if decision.chosen is not None:
                self.chosen[cell] = decision.chosen.knobs
        for job in self.plan.final_jobs(self.chosen):
            left = job.key not in recorded and job.key not in self._handed_out
            if left and (job.forget, job.method) not in self._failing:
                self._finals[job.key] = job
        if len(self._settled) == len(self.plan.cells):
            running = self._handed_out - recorded.keys()
            self.ledger.progress.expect("final", len(self._finals) + len(running))

    def left(self) -> int:
        """Return how many jobs are to be handed out, as far as this is known."""
        searches = self.cells.remaining(not self.ledger.search_ended)
        return self.references.left() + searches + len(self._finals)

    def objects(self, job: Job) -> Mapping[str, Any]:
        """Return where workers find what a job needs, by name."""
        return self.references.objects(job)

    def ended(self, job: Job, record: TrialRecord, outputs: Arrays) -> None:
        """Record a job that ended."""
        if job.phase == "reference":
            self.references.ended(job, record, outputs)
        else:
            answers = kept.put(
                self.store, job.key, outputs
            )  # before the record, which says that it is there
            if answers:
                self.store.put(job.key, answers)
            if job.key not in self.ledger.results.records:
                self._first.add(record)
            self.ledger.record_trial(record)
        if job.phase == "search":
            self.cells.ended(self.ledger.results.records[record.key])
            self._running[job.forget, job.method] -= 1
        elif job.phase == "finalist":
            self._finalists[job.forget, job.method] -= 1
        self.checkpoints.drop(job.checkpoint_key)
        if record.status == "failed" and job.phase != "reference":
            self._end_failing()

    def _end_failing(self) -> None:
        """End the cells whose first trials have all failed by now; what runs of them may end."""
        fresh = {c: last for c, last in self._first.failing.items() if c not in self._failing}
        if not fresh:
            return
        self._failing |= fresh.keys()
        for cell in fresh:
            if cell in self.plan.cells:  # not that of a twin
                self.cells.end(cell)
        self._finals = {
            key: job
            for key, job in self._finals.items()
            if (job.forget, job.method) not in self._failing
        }
        progress, searching = self.ledger.progress, sum(self._running.values())
        progress.say(say_failing(fresh, self.plan.study.max_failures))
        left = self.cells.remaining(not self.ledger.search_ended)
        progress.expect("search", searching + left)

    def load_checkpoint(self, job: Job) -> Arrays | None:
        """Return where an earlier run of the study left a job."""
        return self.checkpoints.get(job.checkpoint_key)

    def save_checkpoint(self, job: Job, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save where a running job is."""
        self.checkpoints.put(job.checkpoint_key, arrays)

    def behind(self, job: Job, curve: Sequence[CurvePoint]) -> bool:
        """Return whether a running job should be stopped, now that it has this curve."""
        return bool(job.rungs) and self.cells.behind(job, curve)


def decide(
    plan: Plan, records: Iterable[TrialRecord], cells: Collection[Cell]
) -> dict[Cell, Decision]:
    """Return what is known of the choice of each of these cells, in the order of the plan."""
    records = list(records) if cells else []
    return {cell: plan.study.choice.decide(records, *cell) for cell in plan.cells if cell in cells}
