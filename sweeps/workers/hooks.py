"""What a Tune run calls while it goes: a scheduler, a callback and a stopper, all on behalf of the ``JobSearcher``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from mu.record import from_line
from sweeps.workers.job_searcher import JobSearcher, out_of_memory

ENDED_TRIALS = ("_stopped_trials", "_failed_trials", "_trials_to_cache")
"""Where Tune's controller holds trials that have ended; the last are those whose state it has still to save."""


class EarlyStopScheduler(FIFOScheduler):
    """A scheduler that stops the trials that their source calls behind, and decides nothing else."""

    def __init__(self, searcher: JobSearcher):
        super().__init__()
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tell the source all epochs so far, and ask it."""
        if not result.get("done") and "record" in result:
            curve = from_line(result["record"]).curve
            if curve and self.searcher.jobs.behind(trial.config["job"], curve):
                return self.STOP
        return self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Have Tune forget the trials that ended before this one."""
        forget_ended(tune_controller)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none, so that Tune takes the oldest that waits: FIFO's own choice looks at every trial there ever was."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note why a worker was lost, before the searcher hears that it was."""
        path = trial.error_file and Path(trial.error_file)
        lines = path.read_text(errors="replace").strip().splitlines() if path else []
        running = self.searcher.running.get(trial.trial_id)
        if running is not None and not running.actor:  # it was lost before it had started
            running.actor = lost_actor(lines)
        cause = next(filter(out_of_memory, reversed(lines)), None)
        self.searcher.last_words[trial.trial_id] = cause or (lines[-1] if lines else "")

    def __getstate__(self) -> dict[str, Any]:
        return {}


def forget_ended(tune_controller: Any) -> None:
    """Take the trials that have ended from Tune, which keeps each with its result to the end of the run.

    They are of no use here: records hold the results, and a run is never restored. Without this, ten thousand trials take half
    a gigabyte, and Tune looks at all of them whenever none runs. A version of Ray without the private sets keeps them.
    """
    trials = tune_controller.get_trials()
    trials[:] = [trial for trial in trials if not trial.is_finished()]
    for name in ENDED_TRIALS:
        getattr(tune_controller, name, set()).clear()


def lost_actor(lines: Sequence[str]) -> str:
    """Return Ray's identifier of the actor that an error of Ray is about; empty when it names none."""
    named = (line.strip().partition("actor_id: ") for line in lines)
    return next((identifier for before, key, identifier in named if key and not before), "")


class TrialCallback(tune.Callback):
    """A callback that follows the workers of trials: it takes their checkpoints, and kills one that takes too long."""

    def __init__(self, searcher: JobSearcher):
        self.searcher = searcher
        self.trials: dict[str, tuple[float, Any]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note when the trial starts, and on which actor."""
        actor = trial.temporary_state.ray_actor
        running = self.searcher.running[trial.trial_id]
        running.started = time.time()
        running.actor = actor._actor_id.hex() if hasattr(actor, "_actor_id") else ""
        if running.job.work == "trial":
            self.trials[trial.trial_id] = time.monotonic(), trial

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Note how long jobs run, and kill the workers of overdue trials; references may take their time.

        Tune sees lost workers then, and a trial that hangs cannot prevent it.
        """
        self.searcher.note_running()
        limit = self.searcher.timeout_seconds
        if limit is None:
            return
        for name, (started, trial) in list(self.trials.items()):
            if time.monotonic() - started < limit:
                break  # they are in the order in which they started
            del self.trials[name]
            self.searcher.overdue.add(name)
            ray.kill(trial.temporary_state.ray_actor)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Take out of a result what is large, since Tune keeps the last result of every trial."""
        self.searcher.running[trial.trial_id].outputs = result.pop("outputs", b"")
        checkpoint = result.pop("checkpoint", b"")
        if checkpoint:
            self.searcher.save_checkpoint(trial.trial_id, checkpoint)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Forget the trial."""
        self.trials.pop(trial.trial_id, None)
        # Tune keeps the configuration, and with it all it refers to.
        trial.config.update(checkpoint=None, objects={})

    on_trial_error = on_trial_complete


class SourceErrorStopper(tune.Stopper):
    """A stopper that ends the run when its source has raised an error."""

    def __init__(self, searcher: JobSearcher):
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Return whether the run is to end."""
        return self.searcher.error is not None
