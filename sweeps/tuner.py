"""Ray: reference tasks, and Tune runs over a stream of jobs. The only module that imports Ray.

Data and original weights travel once per node through the object store, as numpy arrays; actors are re-used
between trials and keep the data of recent problems on their device. Only the driver talks to Optuna, to
MLflow and to the disk.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Tune reads these when it is imported or started: no files per trial, no Ctrl-C handler of its own, no
# change of the working directory, and no rewriting of an experiment state that is never restored.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from mu.data import Dataset
from mu.device import place, prepare
from mu.evaluate import predict
from mu.launch import set_launch
from mu.methods import Method
from mu.models import Model
from mu.problem import Evaluation, Problem, Role, weights_of
from mu.ranking import rank
from mu.record import TrialRecord
from mu.split import Split
from sweeps import loopback
from sweeps.files import SweepError
from sweeps.plan import Job, Plan
from sweeps.store import pack, unpack
from sweeps.study import Resources
from sweeps.trial import Curve, Outcome, Reference, environment, run_trial

Weights = dict[str, NDArray[Any]]
REPORT_SECONDS = 2.0
"""How often at most a running trial reports; shorter epochs are reported together."""
KEPT_PROBLEMS = 4
"""Problems whose data an actor keeps on its device."""
RETRIES = 3
"""How often a trial is started again after its worker or node was lost."""


@dataclass(frozen=True)
class Cluster:
    """A running Ray.

    Args:
        local: Whether this process started it, on this machine alone.
        slots: Trials that fit at once, as the cluster is now.
        cpus, gpus: What it has in all.
    """

    local: bool
    slots: int
    cpus: float
    gpus: float


@contextmanager
def cluster(address: str | None, resources: Resources) -> Iterator[Cluster]:
    """Start Ray on this machine, on loopback alone, or join a running cluster at `address`; leaves it at the end."""
    with loopback.only() if address is None else nullcontext():
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="musweep",
        )
    try:
        for name in ("ray", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        total = ray.cluster_resources()
        cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
        fits = [
            int(have / need + 1e-9)
            for have, need in ((cpus, resources.cpus), (gpus, resources.gpus))
            if need
        ]
        slots = max(1, min([*fits, *([resources.concurrent] if resources.concurrent else [])]))
        yield Cluster(address is None, slots, cpus, gpus)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Scored:
    """A reference on one problem.

    Args:
        found: Its outputs, and the metrics that need no retrained model.
        untrained: Logits on D_f of the network with initial weights, float32 [N, K].
        environment: Where it was scored.
    """

    found: Evaluation
    untrained: NDArray[np.float32]
    environment: dict[str, str]


def _parts(problem: Problem) -> tuple[Any, ...]:
    """A problem without its data and its network, which travel once."""
    return problem.recipe, problem.request, problem.seed, problem.chosen, problem.brought


def _prepare(resources: Resources) -> str:
    """Fit this worker to its share of the machine; returns its device."""
    set_launch(resources.launch)
    return prepare(resources.cpus, resources.gpus)


@ray.remote(max_retries=RETRIES)
def _train(
    data: Dataset, network: Model, parts: tuple[Any, ...], role: Role, resources: Resources
) -> Weights:
    """Train one reference; its weights, and under `seconds` what that took."""
    device = _prepare(resources)
    problem = Problem(data, network, *parts)
    model = place(problem.build(), device)
    began = time.perf_counter()
    for _ in problem.train(role, model, device):
        pass
    return {**weights_of(model), "seconds": np.array(time.perf_counter() - began)}


@ray.remote(max_retries=RETRIES)
def _score(
    data: Dataset,
    network: Model,
    parts: tuple[Any, ...],
    weights: Sequence[ray.ObjectRef],
    views: tuple[str, ...],
    attacks: tuple[str, ...],
    resources: Resources,
) -> list[Scored]:
    """Score references on one problem, each view once."""
    device = _prepare(resources)
    problem = Problem(data, network, *parts)
    split = problem.split(device)
    untrained = predict(place(problem.build(), device), split.forget)
    scored = []
    for arrays in ray.get(list(weights)):
        model = place(problem.load(arrays), device)
        found = problem.evaluate(model, split, views, device, attacks)
        scored.append(Scored(found, untrained, environment(device)))
    return scored


@ray.remote(max_retries=RETRIES)
def _rank(
    data: Dataset,
    network: Model,
    parts: tuple[Any, ...],
    original: Weights | None,
    resources: Resources,
) -> NDArray[np.float64]:
    """Score the training samples of a problem with a ranked request."""
    device = _prepare(resources)
    return rank(Problem(data, network, *parts), original, device)


class Workers:
    """References and trials of one plan, on a running cluster."""

    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan = plan
        self.cluster = cluster
        self.resources = plan.study.resources
        self._data = ray.put(plan.data)
        plan.share(ray.get(self._data))  # the arrays of the object store
        for name in plan.study.model.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # workers do not have them
        self._model = ray.put(plan.study.model)
        self._weights: dict[str, ray.ObjectRef] = {}
        options = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus}
        self._train = _train.options(**options)
        self._score = _score.options(**options)
        self._rank = _rank.options(**options)

    def share(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put the weights of a reference into the object store."""
        self._weights[key] = ray.put({k: v for k, v in arrays.items() if k != "seconds"})

    def train(
        self, wanted: Mapping[str, tuple[Problem, Role]]
    ) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        """Train references in parallel; yields (key, arrays) as each ends.

        Raises:
            SweepError: One cannot be trained; the message names its role, seed and the reason.
        """
        running = {
            self._train.remote(self._data, self._model, _parts(problem), role, self.resources): key
            for key, (problem, role) in wanted.items()
        }
        while running:
            done, _ = ray.wait(list(running))
            for future in done:
                key = running.pop(future)
                try:
                    arrays = ray.get(future)
                except ray.exceptions.RayError as error:
                    problem, role = wanted[key]
                    raise SweepError(
                        f"the {role} model of seed {problem.seed} cannot be trained: "
                        f"{str(error).strip().splitlines()[-1]}"
                    ) from error
                yield key, arrays

    def rank(self, wanted: Mapping[str, Problem]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Score training samples in parallel; yields (key, scores). Originals are taken as far as they are shared.

        Raises:
            SweepError: A model cannot be trained; the message says why.
        """
        running = {
            self._rank.remote(
                self._data,
                self._model,
                _parts(problem),
                self._weights.get(problem.reference_key("original")),
                self.resources,
            ): key
            for key, problem in wanted.items()
        }
        while running:
            done, _ = ray.wait(list(running))
            for future in done:
                key = running.pop(future)
                try:
                    scores = ray.get(future)
                except ray.exceptions.RayError as error:
                    raise SweepError(
                        f"the {wanted[key].request.kind} samples cannot be found: "
                        f"{str(error).strip().splitlines()[-1]}"
                    ) from error
                yield key, scores

    def score(
        self,
        wanted: Mapping[tuple[str, int], tuple[Problem, tuple[str, ...], tuple[str, ...]]],
        roles: Sequence[Role] = ("original", "retrain"),
    ) -> dict[tuple[str, int], dict[Role, Scored]]:
        """Score references on every wanted problem; their weights must be shared.

        Args:
            wanted: Problem, views, and the costly attacks to run, by name.
        """
        futures = {
            name: self._score.remote(
                self._data,
                self._model,
                _parts(problem),
                [self._weights[problem.reference_key(role)] for role in roles],
                views,
                attacks,
                self.resources,
            )
            for name, (problem, views, attacks) in wanted.items()
        }
        return {
            name: dict(zip(roles, scored))
            for name, scored in zip(futures, ray.get(list(futures.values())))
        }

    def _refs(
        self, role: Role, names: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], ray.ObjectRef]:
        return {name: self._weights[self.plan.problem(*name).reference_key(role)] for name in names}

    def run(
        self,
        jobs: JobSource,
        count: int,
        references: Mapping[tuple[str, int], Reference],
        early_stop: str,
    ) -> None:
        """One Tune run: draws `count` jobs from the source and returns when all have ended."""
        for tuned in self.plan.study.methods:
            module = sys.modules[tuned.method.unlearn.__module__]
            if not module.__name__.startswith("mu.methods."):
                ray.cloudpickle.register_pickle_by_value(module)  # workers do not have its file
        shared = Shared(
            data=self._data,
            model=self._model,
            problems={name: _parts(self.plan.problem(*name)) for name in references},
            originals=self._refs("original", references),
            retrained=self._refs("retrain", references),
            references=dict(references),
            methods={tuned.name: tuned.method for tuned in self.plan.study.methods},
            resources=self.resources,
            early_stop=early_stop,
            own_list=self.plan.study.search.mean_gap,
        )
        trainable = tune.with_resources(
            tune.with_parameters(UnlearningTrial, shared=shared),
            {"cpu": self.resources.cpus, "gpu": self.resources.gpus},
        )
        concurrent = self.cluster.slots
        if not self.cluster.local and self.resources.concurrent is None:
            concurrent = max(64, 2 * concurrent)  # waiting trials are what an autoscaler grows for
        with tempfile.TemporaryDirectory(prefix="musweep-") as folder:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=_Feed(jobs),
                    scheduler=_Behind(jobs),
                    num_samples=count,
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()


class JobSource(Protocol):
    """Where a Tune run gets its jobs, and where their records go."""

    study: str

    def next(self) -> Job | None:
        """The next job; None when there are no more."""

    def ended(self, record: TrialRecord) -> None:
        """Take the record of a job that ended."""

    def keep(self, job: Job, arrays: Weights) -> None:
        """Take the outputs of a job that ended, before its record."""

    def behind(self, job: Job, point: Curve) -> bool:
        """Whether a running job should be stopped."""


@dataclass(frozen=True)
class Shared:
    """What every trial of a Tune run needs; sent to each actor once."""

    data: ray.ObjectRef
    model: ray.ObjectRef
    problems: dict[tuple[str, int], tuple[Any, ...]]
    originals: dict[tuple[str, int], ray.ObjectRef]
    retrained: dict[tuple[str, int], ray.ObjectRef]
    references: dict[tuple[str, int], Reference]
    methods: dict[str, Method]
    resources: Resources
    early_stop: str
    own_list: tuple[str, ...]


class UnlearningTrial(tune.Trainable):
    """A job as a Tune trainable. Its actor lives on and takes the next job."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        assert shared is not None
        self.shared = shared
        self.device = _prepare(shared.resources)
        self.data: Dataset = ray.get(shared.data)
        self.model: Model = ray.get(shared.model)
        self.problems: OrderedDict[tuple[str, int], tuple[Problem, Split]] = OrderedDict()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.job: Job = new_config["job"]
        self.started = time.time()
        self.running: Any = None
        self.curve: list[Curve] = []
        return True

    def _problem(self, name: tuple[str, int]) -> tuple[Problem, Split]:
        if name not in self.problems:
            problem = Problem(self.data, self.model, *self.shared.problems[name])
            self.problems[name] = problem, problem.split(self.device)
            while len(self.problems) > KEPT_PROBLEMS:
                self.problems.popitem(last=False)
        self.problems.move_to_end(name)
        return self.problems[name]

    def step(self) -> dict[str, Any]:
        name = (self.job.forget, self.job.seed)
        if self.running is None:
            problem, split = self._problem(name)
            self.running = run_trial(
                problem,
                split,
                self.shared.methods[self.job.method],
                self.job,
                ray.get(self.shared.originals[name]),
                self.shared.references[name],
                self.shared.early_stop,
                self.device,
                self.shared.own_list,
                lambda: ray.get(self.shared.retrained[name]),
            )
        until = time.monotonic() + REPORT_SECONDS
        try:
            while True:
                self.curve.append(next(self.running))
                if time.monotonic() >= until:
                    return self._result(
                        Outcome("stopped", "behind others", curve=self.curve), False
                    )
        except StopIteration as end:
            return self._result(end.value, True)

    def _result(self, outcome: Outcome, done: bool) -> dict[str, Any]:
        if not done:
            outcome.time_unlearn = self.curve[-1]["seconds"]
        ended = time.time()
        kept, outcome.kept = outcome.kept, {}
        ending = {
            **asdict(outcome),
            "time_total": ended - self.started,
            "environment": environment(self.device),
            "started": self.started,
            "ended": ended,
        }
        del ending["kept"]
        # Tune flattens nested results: both parts travel as one value each.
        return {"done": done, "ending": json.dumps(ending), "kept": pack(kept) if kept else b""}


class _Feed(Searcher):
    """Hands jobs to Tune as if they were suggestions, and turns their results into records."""

    def __init__(self, jobs: JobSource):
        super().__init__()
        self.jobs = jobs
        self.running: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> Any:
        job = self.jobs.next()
        if job is None:
            return Searcher.FINISHED
        self.running[trial_id] = job
        return {"job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        job = self.running.pop(trial_id)
        if error or not result or "ending" not in result:
            reason = f"infrastructure: its worker was lost {RETRIES + 1} times"
            ending: dict[str, Any] = {"status": "failed", "reason": reason, "ended": time.time()}
        else:
            ending = json.loads(result["ending"])
            if result.get("kept"):
                self.jobs.keep(job, unpack(result["kept"]))
        self.jobs.ended(to_record(self.jobs.study, job, ending))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state of a search lives in the records and in Optuna's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see ``save``."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing; see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Behind(FIFOScheduler):
    """Stops the trials that their source calls behind; decides nothing itself."""

    def __init__(self, jobs: JobSource):
        super().__init__()
        self.jobs = jobs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if not result.get("done") and "ending" in result:
            curve = json.loads(result["ending"])["curve"]
            if curve and self.jobs.behind(trial.config["job"], curve[-1]):
                return self.STOP
        return self.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {}


def to_record(study: str, job: Job, ending: Mapping[str, Any]) -> TrialRecord:
    """The record of a job from how it ended."""
    return TrialRecord(
        key=job.key,
        study=study,
        phase=job.phase,
        forget=job.forget,
        method=job.method,
        seed=job.seed,
        knobs=dict(job.knobs),
        number=job.number,
        source=job.source,
        **ending,
    )
