"""One trial: a method runs on a problem, is timed, evaluated and scored. No Ray: tests call it directly."""

from __future__ import annotations

import json
import math
import platform
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mu import metrics
from mu.device import peak_memory, place
from mu.evaluate import compare, diagnostics_score, few_scores, outputs
from mu.methods import Method
from mu.problem import Evaluation, Problem, Weights
from mu.rng import generator, seed_process
from mu.snapshot import Snapshot
from mu.split import Split
from mu.training import count_samples
from sweeps.plan import Job
from sweeps.workers import memory

CURVE_RETAIN = 1000
"""Most retained samples used for the per-epoch curve; final metrics always use all of them."""
COLLAPSED = 1.5
"""A model is destroyed when its accuracy on held-out data it should keep is below this multiple of chance..."""
PATIENCE = 2
"""...at this many evaluations in a row, unless the method impairs first and repairs later."""

KNOWN = ("curve", "time_unlearn", "samples_seen")
"""What an outcome holds between epochs."""

CurvePoint = dict[str, float]


@dataclass(frozen=True)
class ReferenceScores:
    """What a trial is compared with.

    Args:
        retrain: View to the retrained models' mean metrics.
        original: View to the original model's metrics on this problem.
        retrain_logits: The retrained model's outputs on D_f, float32 [N, K].
        untrained_logits: Those of the network with initial weights.
    """

    retrain: Mapping[str, Mapping[str, float]]
    original: Mapping[str, Mapping[str, float]]
    retrain_logits: NDArray[np.float32]
    untrained_logits: NDArray[np.float32]


@dataclass
class Outcome:
    """How a trial ended; the fields of a record that the worker knows."""

    status: str = "finished"
    reason: str = ""
    cause: str = ""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    time_unlearn: float = 0.0
    samples_seen: int = 0
    confusions: dict[str, list[list[int]]] = field(default_factory=dict)
    device_memory: float = 0.0
    host_memory: float = 0.0
    kept: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Logits on D_f and on the test samples, for the audit; no part of the record."""


class RunningTrial:
    """A trial between two epochs.

    Args:
        saved: What ``save`` gave; nothing is a trial that has not begun.

    Attributes:
        outcome: What is known so far of how it will end: curve, time, samples.
        snapshot: Where the method is.
    """

    def __init__(self, saved: Mapping[str, NDArray[np.uint8]] | None = None):
        method, known = (saved[name].tobytes() if saved else b"" for name in ("method", "known"))
        self.outcome = Outcome(**json.loads(known)) if known else Outcome()
        self.snapshot = Snapshot(method)

    def save(self) -> dict[str, NDArray[np.uint8]]:
        """All that another process needs to go on; nothing when the method is in no loop that can be resumed."""
        method = self.snapshot.save()
        known = json.dumps({name: getattr(self.outcome, name) for name in KNOWN}).encode()
        parts = {"method": method, "known": known}
        return {k: np.frombuffer(v, np.uint8) for k, v in parts.items()} if method else {}


def run_trial(
    problem: Problem,
    split: Split,
    method: Method,
    job: Job,
    weights: Weights,
    reference: ReferenceScores,
    early_stop: str = "collapse",
    device: str = "cpu",
    own_list: Sequence[str] = (),
    retrained: Callable[[], Weights] | None = None,
    begun: RunningTrial | None = None,
) -> Generator[RunningTrial, None, Outcome]:
    """Run a job; yields where it is after each epoch, and returns how it ended.

    Exceptions are caught and make it `failed`: they are results, and are not retried. The method's randomness
    depends on problem and method alone, so that trials of a cell differ by their knobs only.

    Args:
        split: The problem's split on `device`; shared by trials, so that they share its ``cached`` results.
        weights: The original model.
        own_list: Metrics of the objective `mean_gap`, if that is the study's.
        retrained: Fetches the retrained model, for the diagnostics of a finalist; None leaves them out.
        begun: Where to go on; None is the beginning.
    """
    begun = begun or RunningTrial()
    outcome = begun.outcome
    memory.watch(device)
    try:
        yield from _steps(
            begun,
            problem,
            split,
            method,
            job,
            weights,
            reference,
            early_stop,
            device,
            own_list,
            retrained,
        )
    except Exception as error:
        outcome.status, outcome.cause, outcome.reason = "failed", "exception", _traceback(error)
        if memory.ran_out(error):
            outcome.cause = "memory"
            outcome.reason += memory.advice(error, device)
    outcome.device_memory, outcome.host_memory = peak_memory(device), memory.peak()
    return outcome


def _steps(
    begun: RunningTrial,
    problem: Problem,
    split: Split,
    method: Method,
    job: Job,
    weights: Weights,
    reference: ReferenceScores,
    early_stop: str,
    device: str,
    own_list: Sequence[str],
    retrained: Callable[[], Weights] | None,
) -> Iterator[RunningTrial]:
    """The work of ``run_trial``, noted in `begun` as it goes."""
    outcome, snapshot = begun.outcome, begun.snapshot
    seed_process("trial", problem.key, method.name)
    draws = generator("method", problem.key, method.name)
    model = place(problem.load(weights), device)
    counter = count_samples(model)
    split.memo.start(counter)
    watch = _Watch(problem, split, reference, device)
    if not outcome.curve:
        outcome.curve.append(watch.start())
    steps = method.unlearn(model, split.only(method.data), draws, **job.knobs)
    followed = snapshot.follow(steps)
    clock, began, ended = 0.0, 0.0, False

    def resume() -> None:
        """What led here again was billed when it was done first."""
        nonlocal clock, began
        clock = outcome.time_unlearn - split.memo.seconds
        counter[0] = outcome.samples_seen - split.memo.samples
        began = time.perf_counter()

    snapshot.resumed = resume
    while True:
        began = time.perf_counter()
        try:
            next(followed)
        except StopIteration:
            ended = True
        finally:
            _synchronize(device)
            clock += time.perf_counter() - began
            outcome.time_unlearn = clock + split.memo.seconds
            outcome.samples_seen = counter[0] + split.memo.samples
        if ended:
            break
        point = watch.point(model, len(outcome.curve), outcome.time_unlearn)
        outcome.curve.append(point)
        if not math.isfinite(point["acc_test"]):
            outcome.status = "diverged"
            outcome.reason = f"outputs are not finite after epoch {int(point['epoch'])}"
            break
        if early_stop != "none" and not method.impairs_first and _collapsed(outcome.curve, split):
            kept = _kept(point)
            outcome.status = "stopped"
            outcome.reason = f"collapsed: held-out accuracy {kept:.3f} is near chance"
            break
        yield begun
    followed.close()
    if outcome.status != "finished":
        return
    found = problem.evaluate(model, split, job.views, device, job.attacks)
    parts = (found.retain, found.forget, *found.held_out.values())
    if not all(np.isfinite(part.logits).all() for part in parts):
        outcome.status, outcome.reason = "diverged", "outputs are not finite"
        return
    outcome.metrics = complete(found, reference, problem.request.whole_class, own_list)
    outcome.unavailable = dict(found.unavailable)
    if "test" in job.views:
        outcome.confusions = sparse(found.confusions)
    if job.attacks and retrained is not None:
        gold = place(problem.load(retrained()), device)
        diagnostics = split.memo.diagnostics
        shown = diagnostics_score(model, gold, diagnostics, found.forget, reference.retrain_logits)
        _add(outcome, shown)
    if job.keep:
        outcome.kept = answers(found)


def _add(outcome: Outcome, shown: Mapping[str, float]) -> None:
    """Add what is the same for every view."""
    for view, values in outcome.metrics.items():
        for name, value in shown.items():
            if math.isfinite(value):
                values[name] = value
            else:
                outcome.unavailable[f"{view}/{name}"] = (
                    "the theorem does not hold for these weights and this smoothing rate"
                    if name == "label_ldp_eps"
                    else "outputs on what the method trained on are not finite"
                )


def sparse(confusions: Mapping[str, NDArray[np.float64]]) -> dict[str, list[list[int]]]:
    """Each confusion matrix as its cells that are not zero: [true class, predicted class, samples]."""
    return {
        name: [[int(y), int(p), int(counts[y, p])] for y, p in np.argwhere(counts > 0)]
        for name, counts in confusions.items()
    }


def complete(
    found: Evaluation, reference: ReferenceScores, whole_class: bool, own_list: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Each view's metrics with those that need the retrained model.

    Args:
        own_list: Metrics whose mean gap is `mean_gap`; none leaves it out.
    """
    full = {}
    for view, values in found.scores.items():
        retrain = reference.retrain[view]
        full[view] = {
            **values,
            **compare(
                values,
                retrain,
                found.forget,
                reference.retrain_logits,
                reference.untrained_logits,
                whole_class,
            ),
        }
        if own_list:
            full[view]["mean_gap"] = metrics.mean_gap(values, retrain, own_list)
    return full


def answers(found: Evaluation) -> dict[str, NDArray[np.float32]]:
    """The outputs that the audit attacks."""
    return {"forget": found.forget.logits, "held_out": found.held_out["test"].logits}


def _kept(point: CurvePoint) -> float:
    """Accuracy on held-out data that the model should keep."""
    return point.get("acc_test_retain", point["acc_test"])


def _collapsed(curve: Sequence[CurvePoint], split: Split) -> bool:
    """Whether the last evaluations all were near chance; the one before the first epoch does not count."""
    last = curve[1:][-PATIENCE:]
    near_chance = COLLAPSED / split.num_classes
    return len(last) == PATIENCE and all(_kept(point) < near_chance for point in last)


class _Watch:
    """Evaluates a model on the `val` view between epochs; never billed to the method."""

    def __init__(self, problem: Problem, split: Split, reference: ReferenceScores, device: str):
        count = len(split.retain)
        sample = torch.linspace(0, count - 1, min(count, CURVE_RETAIN), device=split.device).long()
        self.retain = split.retain.take(sample)
        self.forget = split.forget
        self.held_out = problem.held_out("val", device)
        self.names = metrics.AVG_GAP_NATMU[problem.request.whole_class]
        self.reference = reference

    def start(self) -> CurvePoint:
        """The point before the first epoch: the original model, already scored."""
        return self._point(0, 0.0, self.reference.original["val"])

    def point(self, model: torch.nn.Module, epoch: int, seconds: float) -> CurvePoint:
        retain, forget = outputs(model, self.retain), outputs(model, self.forget)
        scores = few_scores(retain, forget, outputs(model, *self.held_out))
        return self._point(epoch, seconds, scores)

    def _point(self, epoch: int, seconds: float, scores: Mapping[str, float]) -> CurvePoint:
        kept = ("acc_retain", "acc_forget", "acc_test", "acc_test_retain")
        return {
            "epoch": epoch,
            "seconds": seconds,
            **{name: scores[name] for name in kept if name in scores},
            "avg_gap_natmu": metrics.mean_gap(scores, self.reference.retrain["val"], self.names),
        }


def environment(device: str) -> dict[str, str]:
    """Where a trial ran."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "host": platform.node(),
        "device": f"{device} ({name})",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
