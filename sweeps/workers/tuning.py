"""Tune runs over a stream of jobs, started anew when Tune itself ends on the loss of a worker."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from sweeps.plan import Plan
from sweeps.workers.actor import ProblemName, TrialInputs, UnlearningTrial
from sweeps.workers.cluster import Cluster
from sweeps.workers.hooks import EarlyStopScheduler, SourceErrorStopper, TrialCallback
from sweeps.workers.job_searcher import JobSearcher, JobSource
from sweeps.workers.scores import ReferenceScores
from sweeps.workers.tasks import RETRIES, WorkerSetup
from sweeps.workers.trainers import Trainers

SAVE_SECONDS = 180.0
"""How often a running trial is saved, at the end of an epoch; a shorter trial is saved only when its node is drained."""


class Workers:
    """References and trials of one plan, on a running cluster."""

    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan = plan
        self.cluster = cluster
        self.trainers = Trainers(plan)

    def run(
        self,
        jobs: JobSource,
        references: Mapping[ProblemName, ReferenceScores],
        early_stop: str,
    ) -> None:
        """Run jobs of the source until it has no more and all have ended.

        Raises:
            Exception: What the source raised; the trials that were running then are not recorded.
        """
        study = self.plan.study
        for configured in study.methods:
            module = sys.modules[configured.method.unlearn.__module__]
            if not module.__name__.startswith("mu.methods."):
                ray.cloudpickle.register_pickle_by_value(module)  # workers do not have its file
        slot = study.resources.trial
        resources = {name: amount for name, amount in slot.amounts.items() if amount}
        inputs = TrialInputs(
            study=study.name,
            data=self.trainers.data,
            model=self.trainers.model,
            problems={name: self.plan.problem(*name).spec for name in references},
            references=dict(references),
            originals=self.trainers.refs("original", references),
            retrained=self.trainers.refs("retrain", references),
            methods={configured.name: configured.method for configured in study.methods},
            setup=WorkerSetup(slot, study.resources.launch),
            resources=resources,
            early_stop=early_stop,
            mean_gap_metrics=study.search.mean_gap,
            save_seconds=SAVE_SECONDS,
        )
        trainable = tune.with_resources(
            tune.with_parameters(UnlearningTrial, inputs=inputs),
            {"cpu": slot.cpus, "gpu": slot.gpus, **slot.custom},
        )
        timeout = study.trial_timeout
        searcher = JobSearcher(jobs, self.cluster.wanted, resources, timeout)
        supervise(lambda: _fit(trainable, searcher), searcher)


def _fit(trainable: Any, searcher: JobSearcher) -> None:
    """Run Tune until the searcher has no more jobs."""
    # Threads of Tune may still write to the folder when Ctrl-C ends the run.
    with tempfile.TemporaryDirectory(prefix="musweep-", ignore_cleanup_errors=True) as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=EarlyStopScheduler(searcher),
                num_samples=-1,  # as many as the searcher has
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=folder,
                verbose=0,
                callbacks=[TrialCallback(searcher)],
                stop=SourceErrorStopper(searcher),
                failure_config=tune.FailureConfig(max_failures=0),  # the searcher retries
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def supervise(fit: Callable[[], Any], searcher: JobSearcher) -> None:
    """Call `fit` until it returns, and again whenever it ends on the loss of a worker.

    Tune survives the loss of a worker only where Ray reports it as the death of an actor. Some losses it reports in
    other words, such as that of a worker that Ray's memory monitor ended. Tune then stops every actor and raises, and
    what ran is queued again here. A job counts as running until its result has come to the searcher. So a result that
    Tune had received and not yet processed is worked out again, and no job is recorded twice or not at all.

    Args:
        fit: Runs Tune over the searcher.
        searcher: The searcher, which knows what has ended and what runs.

    Raises:
        Exception: What the source raised, or what `fit` raised for another reason.
    """
    idle_crashes = 0
    while searcher.error is None:
        try:
            fit()
            break
        except Exception as error:
            if searcher.error is not None:
                break
            if idle_crashes > RETRIES or not _is_worker_loss(error):
                raise
            # Every loss brings a job nearer to its end. Crashes that cost no job are counted here, to end as well.
            idle_crashes = 0 if _requeue(error, searcher) else idle_crashes + 1
        gc.collect()  # what is left of the Tune that ended may still hold placement groups
    if searcher.error is not None:
        raise searcher.error


def _is_worker_loss(error: Exception) -> bool:
    """Return whether Tune ended because a worker was lost: its error is one of Ray's, or was raised from one."""
    cause = error.__cause__ or error
    return isinstance(cause, RayError) and not isinstance(cause, RayTaskError)


def _requeue(error: Exception, searcher: JobSearcher) -> int:
    """Queue again what ran; returns the number of losses that were counted."""
    cause = error.__cause__ or error
    report = str(cause).strip()
    words = f"{type(cause).__name__}: {(report.splitlines() or [''])[0]}"
    return searcher.requeue(words, _lost_trials(report, searcher))


def _lost_trials(report: str, searcher: JobSearcher) -> set[str]:
    """Return the trials whose actors a report of Ray names as ended.

    A report of the memory monitor names all actors that it considered, and says on which lines those are that it ended.
    """
    lines = report.splitlines()
    selected = "\n".join([line for line in lines if "Selected to kill" in line] or lines)
    return {
        trial_id
        for trial_id, running in searcher.running.items()
        if running.actor and running.actor in selected
    }
