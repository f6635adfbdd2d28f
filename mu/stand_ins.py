"""Problems that stand in for one whose retrained model nobody has: rules that choose knobs read them.

- ``twin``: held-out samples D_t, as many of each class as D_f has, are learned by a model that goes back to a late
  checkpoint of the original and trains the rest with D_t included. D_t is then forgotten from that model. The reference
  of this problem is the original itself, which never saw D_t, so that every metric is exact without any retraining.
  A supplied original has no training to go back to, and is fine-tuned until it knows D_t as well as D_f.
- ``epochs``: the same problem with a recipe of a tenth of the epochs, for a cheap retrained model.
- ``data``: the same problem on a quarter of D_r, likewise.
- ``model``: the same problem with a smaller network, likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from mu.data import Dataset, Examples, as_float, batches, concat, stratified_choice
from mu.data.augment import policy as augment_policy
from mu.device import place, upload
from mu.evaluate import outputs
from mu.keys import content_key, derive_seed
from mu.launch import gradients
from mu.memo import Memo
from mu.models import Model
from mu.problem import Problem, ProblemSpec, Role
from mu.problem_names import DATA, EPOCHS, REWIND
from mu.rng import generator, seed_process
from mu.snapshot import Snapshot, resumable
from mu.split import Split
from mu.training import make_optimizer, train

TWIN_VERSION = 1
"""Raise when a change here changes the model that has learned D_t."""
SLOWER, MOST_EPOCHS = 10, 100
"""A twin is fine-tuned with a tenth of the recipe's learning rate, and for at most so many epochs."""
ROLES: Mapping[str, tuple[Role, ...]] = {
    "twin": ("original", "retrain"),
    "epochs": ("retrain",),
    "data": ("retrain",),
    "model": ("retrain",),
}
"""Kind of stand-in to the references that it needs."""


def rewind_epoch(problem: Problem) -> int:
    """Return after how many epochs of the original's training its twin's begins, at least 1 and less than all."""
    return max(1, min(problem.recipe.epochs - 1, math.floor(REWIND * problem.recipe.epochs)))


def rewind_key(problem: Problem) -> str:
    """Return the content key of the state of the original's training at ``rewind_epoch``."""
    return content_key("rewind", problem.reference_key("original"), rewind_epoch(problem))


def state_after(problem: Problem, device: str = "cpu") -> bytes:
    """Train the original up to ``rewind_epoch`` and return the state of its training there, as a snapshot.

    It is what the whole training passes through; the store may have the original and not this state.
    """
    snapshot, model = Snapshot(), place(problem.build(), device)
    steps = snapshot.follow(problem.train("original", model, device))
    for _ in islice(steps, rewind_epoch(problem)):
        pass
    state = snapshot.save()
    steps.close()
    return state


def stand_in(problem: Problem, kind: str, network: str = "") -> Problem:
    """Return a stand-in of a problem. Raises ValueError where the kind does not fit the problem; see ``check_twin``.

    Args:
        network: The smaller network of the kind `model`.
    """
    parts = (problem.data, problem.model, problem.recipe, problem.request, problem.seed)
    if kind == "twin":
        check_twin(problem)
        if "original" in problem.supplied:
            return TunedTwin(*parts, problem.chosen, given=problem.supplied)
        return Twin(*parts, problem.chosen, problem.supplied)
    if kind == "epochs":
        epochs = max(1, round(EPOCHS * problem.recipe.epochs))
        return replace(problem, recipe=replace(problem.recipe, epochs=epochs), supplied={})
    if kind == "model":
        return OtherModel(problem.data, network, *parts[2:], problem.chosen)
    return LessData(*parts, problem.chosen)


def check_twin(problem: Problem) -> None:
    """Raise ValueError unless a twin of the problem can be made from data that is held out.

    A whole class has no twin, as a model that knows the class has seen all of it.
    """
    if problem.request.whole_class:
        raise ValueError(
            "a whole class has no twin: no held-out sample stands for a class that a model does not know"
        )
    if "original" not in problem.supplied and problem.recipe.epochs < 2:
        raise ValueError("a twin goes back into the original's training, which has one epoch")
    wanted, there = _class_counts(problem)
    short = np.flatnonzero(wanted > there)
    if len(short):
        label = short[0]
        raise ValueError(
            f"the twin needs {wanted[label]} held-out samples of class {problem.data.classes[label]!r}, as D_f has, "
            f"but data.twin holds out {there[label]}; raise data.twin, or forget fewer"
        )


def _class_counts(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of samples of each class in D_f, and in the `twin` part."""
    parts, classes = problem.data.parts, len(problem.data.classes)
    wanted = np.bincount(parts["train"].labels[problem.forget_index], minlength=classes)
    return wanted, np.bincount(parts["twin"].labels, minlength=classes)


def samples_trained_on(problem: Problem) -> int:
    """Return how many samples the training passes over of a retrained model, or of a model that has learned a twin."""
    epochs, samples = problem.recipe.epochs, len(problem.retain_index)
    if isinstance(problem, Twin):
        epochs, samples = epochs - rewind_epoch(problem.real), samples + len(problem.forget_index)
    return epochs * samples


@dataclass(frozen=True)
class StandInSpec:
    """A stand-in without its data and its network.

    Args:
        spec: Of the problem that it stands for.
        kind: Which stand-in of it.
        network: As in ``stand_in``.
    """

    spec: ProblemSpec
    kind: str
    network: str = ""

    def on(self, data: Dataset, model: Model | str) -> Problem:
        """Build the stand-in on data and a network that are already here."""
        return stand_in(self.spec.on(data, model), self.kind, self.network)


class Twin(Problem):
    """D_t forgotten from a model that has learned D and D_t; `retrain` is the original of the problem it stands for.

    Attributes:
        made: How that model came to know D_t, as records say it.
    """

    made = "rewound"

    @cached_property
    def real(self) -> Problem:
        """The problem that it stands for."""
        parts = (self.data, self.model, self.recipe, self.request, self.seed)
        return Problem(*parts, self.chosen, self.supplied)

    @property
    def spec(self) -> StandInSpec:  # type: ignore[override]
        return StandInSpec(self.real.spec, "twin")

    @cached_property
    def forget_index(self) -> NDArray[np.int64]:
        """Sorted positions of D_t in the `twin` part."""
        wanted, _ = _class_counts(self.real)
        labels = self.data.parts["twin"].labels
        seed = derive_seed("twin", self.real.forget_index.tolist(), self.data.fingerprint)
        rng = np.random.default_rng(seed)
        picks = [
            rng.permutation(np.flatnonzero(labels == label))[:count]
            for label, count in enumerate(wanted)
        ]
        return np.sort(np.concatenate(picks))

    @cached_property
    def retain_index(self) -> NDArray[np.int64]:
        """Sorted positions in the training part of what is kept: all of it."""
        return np.arange(len(self.data.parts["train"]))

    def reference_key(self, role: Role) -> str:
        original = self.real.reference_key("original")
        if role == "retrain":
            return original
        chosen = self.forget_index.tolist()
        return content_key("twin", TWIN_VERSION, original, rewind_epoch(self.real), chosen)

    def train(self, role: Role, model: nn.Module, device: str = "cpu") -> Iterator[None]:
        """Train on D and D_t, with the randomness of the original's training.

        A caller goes on from the state of that training at ``rewind_epoch``.
        """
        assert role == "original", "the twin's retrained model is the original"
        examples = concat(self.data.parts["train"].examples(device), self._learned(device))
        key = self.real.reference_key("original")
        seed_process("train", key)
        yield from train(model, examples, self.recipe, generator("order", "original", key))

    def split(self, device: str = "cpu") -> Split:
        held_out = self.data.parts["twin"].examples(device)
        rest = np.setdiff1d(np.arange(len(held_out)), self.forget_index)
        parts = {
            "retain": self.data.parts["train"].examples(device),
            "forget": self._learned(device),
            "twin": held_out.rows(upload(torch.from_numpy(rest), device)),
        }
        return replace(self.real.split(device), parts=parts, memo=Memo(self.key))

    def _learned(self, device: str) -> Examples:
        """Return D_t on a device."""
        rows = upload(torch.from_numpy(self.forget_index), device)
        return self.data.parts["twin"].examples(device).take(rows)


@dataclass(frozen=True)
class TunedTwin(Twin):
    """A twin of a problem whose original is supplied: it is fine-tuned until it knows D_t as the original knows D_f.

    Args:
        given: Digest of the checkpoint of each supplied model of the problem that it stands for.
    """

    made = "fine-tuned"
    given: Mapping[Role, str] = field(default_factory=dict)

    @cached_property
    def real(self) -> Problem:
        """The problem that it stands for."""
        parts = (self.data, self.model, self.recipe, self.request, self.seed)
        return Problem(*parts, self.chosen, self.given)

    def reference_key(self, role: Role) -> str:
        original = self.real.reference_key("original")
        if role == "retrain":
            return original
        samples = self.real.forget_index.tolist(), self.forget_index.tolist()
        return content_key("tuned twin", TWIN_VERSION, original, self.recipe, self.seed, *samples)

    @property
    def samples_an_epoch(self) -> int:
        """How many samples an epoch passes over: D_t, and as many of D."""
        return 2 * len(self.forget_index)

    def train(self, role: Role, model: nn.Module, device: str = "cpu") -> Iterator[None]:
        """Fine-tune the original until its mean loss on D_t is at most that of the original on D_f; yield after each epoch.

        An epoch is one pass over D_t and as many samples of D, which are drawn anew for each. After the last one the loop
        begins another, and ends there, so that a training that goes on from its last epoch ends as well.

        Args:
            model: The original.

        Raises:
            ValueError: That loss is not reached in ``MOST_EPOCHS`` epochs.
        """
        assert role == "original", "the twin's retrained model is the original"
        everything, learned = self.data.parts["train"].examples(device), self._learned(device)
        rows = upload(torch.from_numpy(self.real.forget_index), device)
        wanted, given = _mean_loss(model, everything.take(rows)), self.recipe
        key = self.reference_key("original")
        seed_process("train", key)
        order = generator("order", "original", key)
        augment = augment_policy(given.augment, given.pad)
        options = (given.optimizer, given.lr / SLOWER, given.momentum, given.weight_decay)
        stepper, differentiate = make_optimizer(model, *options), gradients(model, F.cross_entropy)
        for epoch in resumable(MOST_EPOCHS + 1, order, model, stepper):
            reached = _mean_loss(model, learned)
            if epoch and reached <= wanted:
                return
            if epoch == MOST_EPOCHS:
                raise ValueError(
                    f"the twin does not learn its samples in {MOST_EPOCHS} epochs: their mean loss is {reached:.3g}, and that "
                    f"of the samples to forget is {wanted:.3g} by the supplied original; leave out the rules that need a twin"
                )
            drawn = torch.randperm(len(everything), generator=order)[: len(learned)]
            mixed = concat(learned, everything.take(upload(drawn, device)))
            model.train()
            for index in batches(len(mixed), given.batch_size, order, mixed.device):
                chosen = mixed.take(index)
                inputs = augment(chosen.inputs, order) if augment else chosen.inputs
                differentiate(as_float(inputs), chosen.labels)
                stepper.step()
            yield


def _mean_loss(model: nn.Module, examples: Examples) -> float:
    """Return the mean cross-entropy of some examples in eval mode, nats."""
    return float(outputs(model, examples).losses.mean())


class LessData(Problem):
    """The same request on a share of D_r, stratified by class."""

    @property
    def spec(self) -> StandInSpec:  # type: ignore[override]
        parts = (self.recipe, self.request, self.seed, self.chosen, self.supplied)
        return StandInSpec(ProblemSpec(*parts), "data")

    @cached_property
    def retain_index(self) -> NDArray[np.int64]:
        """Sorted positions of the share of D_r in the training part."""
        rest = np.setdiff1d(np.arange(len(self.data.parts["train"])), self.forget_index)
        fine = self.data.parts["train"].fine[rest]
        rng = np.random.default_rng(derive_seed("share", rest.tolist(), self.data.fingerprint))
        return rest[stratified_choice(fine, round(DATA * len(rest)), rng)]


class OtherModel(Problem):
    """The same request with another network."""

    @property
    def spec(self) -> StandInSpec:  # type: ignore[override]
        parts = (self.recipe, self.request, self.seed, self.chosen, self.supplied)
        return StandInSpec(ProblemSpec(*parts), "model", str(self.model))
