"""``Problem``: data x model x training recipe x forget request x seed, with its split and references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mu.data import Dataset, Examples
from mu.data.augment import policy as augment_policy
from mu.device import pays_on_cpu, upload
from mu.evaluate import Outputs, costly_score, outputs, score, unavailable
from mu.forget import ForgetRequest, members, select
from mu.keys import content_key, derive_seed
from mu.memo import Memo
from mu.models import Model, Normalization, build, checkpoints, resolve
from mu.models.precision import at_precision
from mu.rng import generator, seed_process
from mu.split import Split
from mu.training import Recipe, train

TRAINING_VERSION, CHANNELS_LAST_VERSION = 2, 3
"""Raise when a change to models or training changes the weights that the same inputs give; the latter is of images that
a CPU convolves in channels_last."""

Role = Literal["original", "retrain"]
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a problem, and the outputs they are of.

    Args:
        scores: View to metric to value; metrics that could not be computed are absent.
        unavailable: ``view/metric`` to the reason why it is absent.
        forget: Outputs on D_f.
        held_out: View to outputs on its held-out samples.
        retain: Outputs on D_r.
    """

    scores: dict[str, dict[str, float]]
    unavailable: dict[str, str]
    forget: Outputs
    held_out: dict[str, Outputs]
    retain: Outputs

    @property
    def confusions(self) -> dict[str, NDArray[np.float64]]:
        """Counts [K, K] by true and predicted class, of `retain`, `forget` and every view."""
        sets = {"retain": self.retain, "forget": self.forget, **self.held_out}
        return {name: part.confusion for name, part in sets.items()}


@dataclass(frozen=True)
class ProblemSpec:
    """A problem without its data and its network: small enough to travel with every piece of work.

    Args:
        recipe, request, seed, chosen, supplied: As in ``Problem``.
    """

    recipe: Recipe
    request: ForgetRequest
    seed: int
    chosen: NDArray[np.int64] | None
    supplied: Mapping[Role, str]

    def on(self, data: Dataset, model: Model | str) -> Problem:
        """Build the problem on data and a network that are already here."""
        return Problem(
            data, model, self.recipe, self.request, self.seed, self.chosen, self.supplied
        )


@dataclass(frozen=True)
class Problem:
    """One forget request on one trained model.

    Args:
        data: The data set.
        model: The network, or the name of one.
        recipe: How `original` and `retrain` are trained.
        request: What must be forgotten.
        seed: Of initial weights and of the order of samples; does not change what is forgotten.
        chosen: Positions of D_f in the training part, for requests that need more than the data to know them (a
            ranking, a file); None selects them by the request.
        supplied: Digest of the checkpoint of each reference that is not trained here.
    """

    data: Dataset
    model: Model | str
    recipe: Recipe
    request: ForgetRequest
    seed: int
    chosen: NDArray[np.int64] | None = field(default=None, compare=False)
    supplied: Mapping[Role, str] = field(default_factory=dict)

    @property
    def spec(self) -> ProblemSpec:
        """Everything but the data and the network."""
        return ProblemSpec(self.recipe, self.request, self.seed, self.chosen, self.supplied)

    @cached_property
    def network(self) -> Model:
        """The network of original and retrained model."""
        return resolve(self.model) if isinstance(self.model, str) else self.model

    @property
    def normalization(self) -> Normalization:
        """What the network does to the images first."""
        return self.network.normalize or Normalization(*self.data.channel_stats)

    @cached_property
    def forget_index(self) -> NDArray[np.int64]:
        """Sorted positions of D_f in the training part."""
        return select(self.request, self.data) if self.chosen is None else self.chosen

    @cached_property
    def retain_index(self) -> NDArray[np.int64]:
        """Sorted positions of D_r in the training part."""
        return np.setdiff1d(np.arange(len(self.data.parts["train"])), self.forget_index)

    @cached_property
    def _retained_key(self) -> str:
        """Content key of D_r. It takes 30 ms for 45,000 samples, and every job of a study asks for it."""
        return content_key(self.retain_index.tolist())

    def reference_key(self, role: Role) -> str:
        """Return the content key of a reference's weights: all that affects them. An original serves every request."""
        if role in self.supplied:
            supplied = self.supplied[role]
            return content_key("supplied", self.data.fingerprint, self.network.key, supplied)
        retained = None if role == "original" else self._retained_key
        faster = pays_on_cpu(self.data.input_shape)
        version = CHANNELS_LAST_VERSION if faster else TRAINING_VERSION
        return content_key(
            "reference",
            version,
            self.data.fingerprint,
            self.network.key,
            self.recipe,
            self.seed,
            retained,
        )

    @cached_property
    def key(self) -> str:
        """Content key of the problem: of its models, and of what they are scored on."""
        whole = self.request.whole_class and not self.request.splits_held_out
        models = self.reference_key("original"), self.reference_key("retrain")
        return content_key(*models, *(["whole"] if whole else []))

    def build(self) -> nn.Sequential:
        """Build the network with initial weights, the same for `original` and `retrain` of a seed."""
        return self._build(self.network)

    def _build(self, network: Model) -> nn.Sequential:
        model = build(
            network,
            self.data.network_shape,
            len(self.data.classes),
            self.normalization.mean,
            self.normalization.std,
            derive_seed("init", self.network.key, self.seed),
        )
        return at_precision(model, self.recipe.precision)

    def load(self, weights: Weights) -> nn.Module:
        """Return the network with the given weights, which are copied."""
        model = self._build(replace(self.network, pretrained=None))  # all are replaced here
        model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        return model

    def read(self, path: Path) -> Weights:
        """Read the weights of a trained model from a checkpoint of the network, whose normalisation is no part of it.

        Raises:
            ValueError: It cannot be read, or does not fit; see ``mu.models.checkpoints``.
        """
        model = self.build()
        network = model[-1]
        network.load_state_dict(checkpoints.fit(checkpoints.read(path), network, str(path)))
        return weights_of(model)

    def train(self, role: Role, model: nn.Module, device: str = "cpu") -> Iterator[None]:
        """Train a freshly built `model` on D (`original`) or D_r (`retrain`); yield after each epoch.

        It seeds the process's global generators, which dropout draws from.
        """
        examples = self.data.parts["train"].examples(device)
        if role == "retrain":
            examples = examples.rows(upload(torch.from_numpy(self.retain_index), device))
        key = self.reference_key(role)
        seed_process("train", key)
        order = generator("order", role, key)
        yield from train(model, examples, self.recipe, order)

    def split(self, device: str = "cpu") -> Split:
        """Return what methods are handed, before it is narrowed to what each declares."""
        part, target = self.data.parts["train"], None
        everything = part.examples(device)
        if self.request.whole_class:
            target = int(part.labels[self.forget_index[0]])
        parts = {
            "retain": everything.rows(upload(torch.from_numpy(self.retain_index), device)),
            "forget": everything.rows(upload(torch.from_numpy(self.forget_index), device)),
            "twin": self.data.parts["twin"].examples(device),
        }
        return Split(
            parts=parts,
            num_classes=len(self.data.classes),
            forget_class=target,
            input_mean=self.normalization.mean,
            input_std=self.normalization.std,
            augment=augment_policy(self.recipe.augment, self.recipe.pad),
            memo=Memo(self.key),
        )

    def held_out(self, view: str, device: str = "cpu") -> tuple[Examples, NDArray[np.bool_] | None]:
        """Return the held-out samples of a view (`val` or `test`), and which belong to a forgotten class."""
        split = self.request.splits_held_out
        forgotten = members(self.request, self.data, view) if split else None
        return self.data.parts[view].examples(device), forgotten

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        views: tuple[str, ...],
        device: str = "cpu",
        attacks: Sequence[str] = (),
        known: Mapping[str, Outputs] = MappingProxyType({}),
    ) -> Evaluation:
        """Compute the metrics of every view that need no retrained model. Each set passes through the model once.

        Args:
            attacks: Groups of costly attacks that are run as well, of ``mu.evaluate.COSTLY``.
            known: Outputs of this model that are there already: of `retain`, of `forget`, or of a view.
        """
        retain = known.get("retain") or outputs(model, split.retain)
        forget = known.get("forget") or outputs(model, split.forget)
        held_out = {
            view: known.get(view) or outputs(model, *self.held_out(view, device)) for view in views
        }
        scores: dict[str, dict[str, float]] = {}
        reasons: dict[str, str] = {}
        for view, outside in held_out.items():
            values = score(retain, forget, outside)
            if attacks:
                seed = derive_seed("attack", self.key, view)
                values |= costly_score(retain, forget, outside, seed, attacks)
            missing = unavailable(values, retain, forget, outside)
            reasons |= {f"{view}/{name}": reason for name, reason in missing.items()}
            scores[view] = {name: v for name, v in values.items() if name not in missing}
        return Evaluation(scores, reasons, forget, held_out, retain)


def weights_of(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return a copy of a model's weights and buffers as arrays, cheap to send and share."""
    return {name: value.cpu().numpy().copy() for name, value in model.state_dict().items()}
