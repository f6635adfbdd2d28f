"""Tune runs over a stream of jobs, started anew when Tune itself ends on the loss of a worker."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import trial as tune_trial

from mu.problem import Problem
from sweeps.plan import Plan
from sweeps.state import code
from sweeps.workers.actor import ProblemName, StudyActor, WorkerSetup, WorkInputs
from sweeps.workers.cluster import Cluster
from sweeps.workers.curve import objective_of
from sweeps.workers.hooks import EarlyStopScheduler, SourceErrorStopper, TrialCallback
from sweeps.workers.job_searcher import RETRIES, JobSearcher, JobSource
from sweeps.workers.slots import ray_resources

SAVE_SECONDS = {"trial": 180.0, "reference": 60.0}
"""How often running work is saved, at the end of an epoch: the most that is lost with a worker that gets no notice. Shorter
work is saved only when its node is drained."""


class Workers:
    """The workers of one plan on a running cluster.

    Args:
        plan: The plan. It uses its data's copy in the object store from now on, so that the driver's own can go.
        cluster: The cluster.
    """

    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan = plan
        self.cluster = cluster
        data = ray.put(plan.data)
        plan.use_data(ray.get(data))
        for name in plan.study.model.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # workers do not have them
        model = ray.put(plan.study.model)
        study = plan.study
        for configured in study.methods:
            module = sys.modules[configured.method.unlearn.__module__]
            if module.__name__.startswith("musweep_method_"):
                ray.cloudpickle.register_pickle_by_value(module)  # workers do not have its file
        resources = study.resources
        self.inputs = WorkInputs(
            study=study.name,
            data=data,
            model=model,
            problems={},
            methods={configured.name: configured.method for configured in study.methods},
            trial=WorkerSetup(resources.trial, resources.launch, SAVE_SECONDS["trial"]),
            reference=WorkerSetup(
                resources.references, resources.launch, SAVE_SECONDS["reference"]
            ),
            early_stop=study.search.early_stop,
            code=code.running(),
            objective=objective_of(study.search),
        )

    def put(self, content: Any) -> ray.ObjectRef:
        """Put something into the object store; arrays are shared by the workers of a node."""
        return ray.put(content)

    def run(self, jobs: JobSource, problems: Mapping[ProblemName, Problem]) -> None:
        """Run jobs of the source until it has no more and all have ended.

        Args:
            problems: Those that jobs may be of.

        Raises:
            Exception: What the source raised; the jobs that were running then are not recorded.
        """
        specs = {name: problem.spec for name, problem in problems.items()}
        inputs = replace(self.inputs, problems=specs)

        trainable = tune.with_resources(
            tune.with_parameters(StudyActor, inputs=inputs), resources_of(inputs)
        )
        timeout = self.plan.study.trial_timeout
        searcher = JobSearcher(jobs, self.cluster, timeout)
        try:
            supervise(lambda: _fit(trainable, searcher), searcher)
        finally:
            searcher.note_running(now=True)


def resources_of(inputs: WorkInputs) -> Callable[[Mapping[str, Any]], tune.PlacementGroupFactory]:
    """Return what gives the resources of a trial from its configuration, by Ray's names.

    Equal ones are one object: Tune finds its trials and actors by them, and compares two objects slowly.
    """
    factories: dict[str, tune.PlacementGroupFactory] = {}

    def resources(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        bundle, options = ray_resources(inputs.setup(config["job"]).slot), config["placement"]
        name = repr((bundle, options))
        if name not in factories:
            factories[name] = tune.PlacementGroupFactory([bundle], **options)
        return factories[name]

    return resources


@contextmanager
def _trainable_kept() -> Iterator[None]:
    """Have Tune keep the trainable of its trials, which it would fetch from Ray and unpickle twice for each of them.

    That is three milliseconds a trial, or a tenth of what Tune takes. Without the names below it still works.
    """
    fetch = getattr(tune_trial, "get_trainable_cls", None)
    if fetch is not None:
        tune_trial.get_trainable_cls = cache(fetch)
    try:
        yield
    finally:
        if fetch is not None:
            tune_trial.get_trainable_cls = fetch


def _fit(trainable: Any, searcher: JobSearcher) -> None:
    """Run Tune until the searcher has no more jobs."""
    # Threads of Tune may still write to the folder when Ctrl-C ends the run.
    with (
        _trainable_kept(),
        tempfile.TemporaryDirectory(prefix="musweep-", ignore_cleanup_errors=True) as folder,
    ):
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
