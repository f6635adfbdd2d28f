"""The references of a study as jobs: train what the store lacks, and score all on every problem."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu.keys import content_key
from mu.problem import Problem, Role, Weights
from mu.problem_names import kind_of, request_of, stand_in_name
from mu.record import TrialRecord
from mu.stand_ins import TunedTwin, rewind_epoch, rewind_key
from sweeps.errors import StudyError, SweepError
from sweeps.flow.ledger import Ledger
from sweeps.flow.reference_records import ROLES, ProblemName, ReferenceRecorder
from sweeps.plan import Job, Plan
from sweeps.state.store import Store
from sweeps.study.supplied import PLACES, SuppliedModel, SuppliedModels
from sweeps.workers import scored as scores
from sweeps.workers.scored import Scored

Put = Callable[[Any], Any]
"""Makes something available to workers, and returns where they find it."""


class References:
    """The references of one study: the jobs that make them, and what trials are compared with.

    Args:
        plan: The plan.
        ledger: Where records go.
        store: Where trained models and their scores are kept.
        put: Makes weights and scores available to workers.

    Attributes:
        scored: Forget request and seed to the key under which the store has the scores of both references.
        count: Number of jobs that were to be done when the run began.
    """

    def __init__(self, plan: Plan, ledger: Ledger, store: Store, put: Put):
        self.plan, self.study = plan, plan.study
        self.ledger = ledger
        self.store = store
        self.put = put
        self.recorder = ReferenceRecorder(plan, ledger)
        self._weights: dict[str, Any] = {}
        self.scored: dict[ProblemName, str] = {}
        self._compared: dict[tuple[str, str, int], Any] = {}
        self._ready: set[tuple[str, str]] = set()
        self._complete: set[str] = set()
        self._checking: set[str] = set()
        self._waiting: deque[Job] = deque()
        self._rewinds = self._kept_rewinds()
        trainings = self._missing()
        self._twins = [job for job in trainings if kind_of(job.forget) == "twin"]
        self._unscored = self._to_score()
        checks = self._checks()
        self._checking = {job.key for job in checks}
        self._waiting.extend([*checks, *(job for job in trainings if job not in self._twins)])
        self.count = self.left()
        self._queue_scorings()
        self._compare()

    def _missing(self) -> list[Job]:
        """Publish the weights that are there, and return the jobs that train the others, those of the search first."""
        jobs: dict[str, Job] = {}
        for forget, seed in self.plan.problem_names:
            problem = self.plan.problem(forget, seed)
            for role in self.plan.roles(forget, seed):
                key = problem.reference_key(role)
                if key in self._weights or key in jobs:
                    continue  # an original serves all requests of its seed
                arrays = load_reference(problem, role, self.study.supplied, self.store)
                if arrays is None:
                    jobs[key] = self._training_job(problem, forget, role)
                else:
                    self._publish(key, arrays, billed=0.0)
        return list(jobs.values())

    def _training_job(self, problem: Problem, forget: str, role: Role) -> Job:
        """Return the job that trains a reference; an original of which there are twins keeps a state of its training."""
        job = training_job(problem, forget, role)
        twins = stand_in_name(forget, "twin") in self.study.stand_ins
        kept = rewind_epoch(problem) if role == "original" and twins else 0
        return replace(job, rewind=kept)

    def _kept_rewinds(self) -> dict[str, Any]:
        """Publish the states of trainings that the store has, by the key of their original."""
        kept: dict[str, Any] = {}
        for name, seed in self.plan.problem_names:
            problem = self.plan.problem(request_of(name), seed)
            key = problem.reference_key("original")
            if kind_of(name) == "twin" and key not in kept:
                arrays = self.store.get(rewind_key(problem))
                if arrays is not None:
                    kept[key] = self.put(arrays["rewind"])
        return kept

    def _publish(self, key: str, arrays: Weights, billed: float) -> None:
        """Let workers read the weights of a reference."""
        self.recorder.seconds[key] = float(arrays["seconds"])
        if "samples" in arrays:
            self.recorder.samples[key] = int(arrays["samples"])
        self.recorder.billed[key] = billed
        self._weights[key] = self.put(without_facts(arrays))

    def _to_score(self) -> dict[ProblemName, Job]:
        """Note the scores that the store has, and return the jobs that make the others."""
        jobs: dict[ProblemName, Job] = {}
        for name in self.plan.problem_names:
            job = self._scoring_job(name, self.plan.roles(*name))
            if self.store.get(job.key) is None:  # absent, or damaged
                jobs[name] = job
            else:
                self.scored[name] = job.key
        return jobs

    def _scoring_job(
        self, name: ProblemName, roles: tuple[Role, ...] = ROLES, check: bool = False
    ) -> Job:
        """Return the job that scores the references of a problem; a check needs neither attacks nor outputs."""
        forget, seed = name
        views = self.plan.reference_views(seed)
        attacks = () if check else self.plan.attacks_on(seed)
        keep = self.plan.reference_keep(seed) and not check
        key = self.plan.problem(*name).key
        return Job(
            content_key("scores", scores.VERSION, key, views, attacks, roles, keep),
            phase="reference",
            forget=forget,
            method=" and ".join(roles),
            seed=seed,
            knobs={},
            views=views,
            attacks=attacks,
            keep=keep,
            work="score",
            roles=roles,
        )

    def _checks(self) -> list[Job]:
        """Return the jobs that score supplied models, before anything is trained."""
        jobs: dict[tuple[Role, str], Job] = {}
        for role, (name, job) in itertools.product(PLACES, self._unscored.items()):
            problem = self.plan.problem(*name)
            if role in problem.supplied:
                one = (role, problem.supplied[role])
                jobs.setdefault(one, self._scoring_job((job.forget, job.seed), (role,), check=True))
        return list(jobs.values())

    def next(self) -> Job | None:
        """Return the next job that can start."""
        if self._waiting and (not self._checking or self._waiting[0].key in self._checking):
            return self._waiting.popleft()
        for job in self._twins if not self._checking else ():
            if self._original_of(job) in self._weights:
                self._twins.remove(job)
                return job
        return None

    def left(self) -> int:
        """Return how many jobs are to be handed out."""
        return len(self._waiting) + len(self._twins) + len(self._unscored)

    def _original_of(self, twin: Job) -> str:
        """Return the key of the original into whose training a twin goes back."""
        return self.plan.problem(request_of(twin.forget), twin.seed).reference_key("original")

    def objects(self, job: Job) -> dict[str, Any]:
        """Return where workers find what a job needs, by name."""
        problem = self.plan.problem(job.forget, job.seed)
        if job.phase == "reference":
            roles: Sequence[Role] = job.roles if job.work == "score" else ()
            rewind = self._rewinds.get(self._original_of(job)) if kind_of(job.forget) else None
            models = {str(role): self._weights[problem.reference_key(role)] for role in roles}
            if job.work == "train" and isinstance(problem, TunedTwin):
                models["original"] = self._weights[self._original_of(job)]
            return models if rewind is None else {**models, "rewind": rewind}
        scores_there = self._compared[job.role, job.forget, job.seed]
        there = self.plan.roles(job.forget, job.seed)
        weights = {str(role): self._weights[problem.reference_key(role)] for role in there}
        return weights | {"scores": scores_there}

    def ended(self, job: Job, record: TrialRecord, outputs: dict[str, NDArray[Any]]) -> None:
        """Take what a job has put out.

        Raises:
            StudyError: A model that the study supplies is no better than guessing.
            SweepError: The job failed.
        """
        if not record.finished:
            raise SweepError(failure(job, record))
        self.ledger.compute["reference"] += record.time_total
        self.ledger.progress.ended("reference")
        if job.work == "train":
            rewind = outputs.pop("rewind", None)
            if rewind is not None:
                original = self.plan.problem(request_of(job.forget), job.seed)
                self.store.put(rewind_key(original), {"rewind": rewind})
                self._rewinds[original.reference_key("original")] = self.put(rewind)
            self.store.put(job.key, outputs)
            self._publish(job.key, outputs, billed=record.time_total)
            self._queue_scorings()
        elif job.key in self._checking:
            self._checking.discard(job.key)
            self._check(job, scores.from_arrays(outputs)[job.roles[0]])
        else:
            self.store.put(job.key, outputs)
            self.scored[job.forget, job.seed] = job.key
            self.recorder.billed_scoring[job.forget, job.seed] = record.time_total
            self._compare()

    def _queue_scorings(self) -> None:
        """Queue the scoring of every problem whose references are there, before further trainings."""
        for name in list(self._unscored):
            if self._has_weights(name):
                place = self._waiting.append if self._checking else self._waiting.appendleft
                place(self._unscored.pop(name))

    def scores(self, name: ProblemName) -> dict[Role, Scored]:
        """Read the scores of the references of a problem. Their outputs are in the store alone: the driver keeps none.

        Raises:
            SweepError: The store has lost them.
        """
        arrays = self.store.get(self.scored[name])
        if arrays is None:
            raise SweepError(
                f"{self.store.location}: has lost the scores of {name[0]} on seed {name[1]}; "
                "the same command makes them again"
            )
        return scores.from_arrays(arrays)

    def _check(self, job: Job, one: Scored) -> None:
        role = job.roles[0]
        checkpoint = self.study.supplied[role, job.forget, job.seed]
        classes = one.forget.logits.shape[1]
        refuse_guessing(checkpoint, role, job.seed, one.facts.accuracy, classes)

    def ready(self, role: str, forget: str) -> bool:
        """Return whether trials of a request may run on the seeds of a role."""
        if (role, forget) not in self._ready and all(
            (role, forget, seed) in self._compared and self._has_weights((forget, seed))
            for seed in self.plan.seeds.get(role, ())
        ):
            self._ready.add((role, forget))  # it is asked for every trial
        return (role, forget) in self._ready

    def _has_weights(self, name: ProblemName) -> bool:
        """Return whether workers can read the models of a problem."""
        problem, roles = self.plan.problem(*name), self.plan.roles(*name)
        return all(problem.reference_key(role) in self._weights for role in roles)

    def _compare(self) -> None:
        """Compare the references of every request that are all scored, and record them."""
        stand_ins = [("report", self.plan.seeds["report"], name) for name in self.study.stand_ins]
        own = itertools.product(self.plan.seeds.items(), self.study.forget)
        for role, seeds, forget in [*((*seeds, forget) for seeds, forget in own), *stand_ins]:
            if (role, forget, seeds[0]) in self._compared:
                continue
            if all((forget, seed) in self.scored for seed in seeds):
                group = {seed: self.scores((forget, seed)) for seed in seeds}
                for seed, reference in self.recorder.compare(role, forget, group).items():
                    self._compared[role, forget, seed] = self.put(reference)
        for forget in self.study.forget if self.study.oracle else ():
            names = [(forget, seed) for seed in self.plan.reported]
            if forget not in self._complete and all(name in self.scored for name in names):
                self._complete.add(forget)
                models = {name[1]: self.scores(name)["retrain"] for name in names}
                original = self.scores(names[0])["original"]
                self.recorder.record_further(forget, models, original)


def without_facts(arrays: Weights) -> Weights:
    """Return the weights among what a training has put out."""
    return {name: weight for name, weight in arrays.items() if name not in ("seconds", "samples")}


def training_job(problem: Problem, forget: str, role: Role) -> Job:
    """Return the job that trains a reference of a problem."""
    key = problem.reference_key(role)
    return Job(key, "reference", forget, role, problem.seed, knobs={}, work="train", roles=(role,))


def failure(job: Job, record: TrialRecord) -> str:
    """Return the line that says which work for references failed, and why."""
    what = {
        "train": f"the {job.method} model of seed {job.seed} cannot be trained",
        "score": f"the {job.method} models of seed {job.seed} cannot be scored on {job.forget}",
        "rank": f"the samples of {job.forget} cannot be ranked",
    }
    return f"{what[job.work]}: {record.reason.strip().splitlines()[-1]}"


def load_reference(
    problem: Problem, role: Role, supplied: SuppliedModels, store: Store
) -> Weights | None:
    """Return a reference that need not be trained, from its checkpoint or the store, with its `seconds` of training."""
    if role not in problem.supplied:
        return store.get(problem.reference_key(role))
    digest = problem.supplied[role]
    path = next(model.path for model in supplied.values() if model.digest == digest)
    return {**problem.read(path), "seconds": np.array(0.0)}


def refuse_guessing(
    checkpoint: SuppliedModel, role: Role, seed: int, accuracy: float, classes: int
) -> None:
    """Raise StudyError when a model is no better than guessing on held-out data of the study.

    Near is half of what guessing has, or a tenth of what is left to 1 where this is less.

    Args:
        accuracy: Mean accuracy over the classes that are not forgotten, which is 1 / K for any model that does not
            look at its input.
        classes: K.
    """
    chance = 1 / classes
    if accuracy < chance + min(0.5 * chance, 0.1 * (1 - chance)):
        raise StudyError(
            f"{checkpoint.path}: the {role} model of seed {seed} has an accuracy of {accuracy:.3f} on held-out "
            f"data (mean over classes), where guessing has {chance:.3f}: it was trained on other data or other "
            "classes, or on inputs prepared in another way (give the mean and std it was trained with in "
            "model.normalize)"
        )
