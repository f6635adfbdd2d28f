"""Where the trials of a phase come from: the search asks Optuna, the phases after it have a fixed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from mu.record import TrialRecord
from sweeps.ledger import Ledger
from sweeps.plan import Job
from sweeps.search.cells import Cells
from sweeps.state.checkpoint_store import CheckpointStore
from sweeps.state.store import Store
from sweeps.workers.curve import CurvePoint

Arrays = dict[str, NDArray[Any]]


class TrialSource:
    """Jobs of one phase, as ``sweeps.workers`` draws them (see its ``JobSource``).

    Args:
        ledger: Where records go.
        store: Where outputs go that the audit needs.
        checkpoints: Where running trials are saved.
    """

    def __init__(self, ledger: Ledger, store: Store, checkpoints: CheckpointStore):
        self.study = ledger.study
        self.ledger = ledger
        self.store = store
        self.checkpoints = checkpoints

    def next(self) -> Job | None:
        """Return the next job; None when there are no more."""
        job = self._next()
        if job is not None:
            self.ledger.progress.started()
        return job

    def _next(self) -> Job | None:
        raise NotImplementedError

    def ended(self, record: TrialRecord) -> None:
        """Record a job that ended."""
        self.ledger.record_trial(record)
        self.checkpoints.drop(record.key)

    def load_checkpoint(self, job: Job) -> Arrays | None:
        """Return where an earlier run of the study left a job."""
        return self.checkpoints.get(job.key)

    def save_checkpoint(self, job: Job, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save where a running job is."""
        self.checkpoints.put(job.key, arrays)

    def save_outputs(self, job: Job, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save the outputs of a job that ended; called before ``ended``."""
        self.store.put(job.key, arrays)

    def behind(self, job: Job, point: CurvePoint) -> bool:
        """Return whether a running job should be stopped."""
        return False


class SearchSource(TrialSource):
    """The search of all cells, as long as the budget lasts; `early_stop` as the study says it."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        checkpoints: CheckpointStore,
        cells: Cells,
        early_stop: str,
    ):
        super().__init__(ledger, store, checkpoints)
        self.cells = cells
        self.early_stop = early_stop

    def _next(self) -> Job | None:
        return self.cells.next(self.ledger.may_search(self.cells.asked))

    def ended(self, record: TrialRecord) -> None:
        super().ended(record)
        self.cells.ended(record)

    def behind(self, job: Job, point: CurvePoint) -> bool:
        if self.early_stop != "asha":
            return False
        return self.cells.behind(job, int(point["epoch"]), point["avg_gap_natmu"])


class FinalSource(TrialSource):
    """A fixed list of jobs, in its order."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        checkpoints: CheckpointStore,
        jobs: Sequence[Job],
    ):
        super().__init__(ledger, store, checkpoints)
        self.waiting = list(reversed(jobs))

    def _next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None
