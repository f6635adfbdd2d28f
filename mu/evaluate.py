"""From a model to metrics: one pass per split gives arrays, everything after is arithmetic.

``score`` is for every trial and every epoch. ``costly_score`` fits support vector machines, and is for those whose
numbers are reported. ``compare`` adds what needs the retrained models. Whatever cannot be computed is NaN,
and ``unavailable`` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mu import attacks, closeness, metrics
from mu.attacks import MIN_FIT, SVC_INPUTS
from mu.data import Examples, stratified_choice
from mu.keys import derive_seed
from mu.models import eval_mode


@dataclass(frozen=True)
class Outputs:
    """What a model says about one set.

    Args:
        logits: float32 [N, K].
        labels: int64 [N].
        forgotten: bool [N], which held-out samples belong to the forgotten class or sub-class.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    forgotten: NDArray[np.bool_] | None = None

    @cached_property
    def entropies(self) -> NDArray[np.float64]:
        """Entropy of each prediction, nats [N]."""
        return metrics.entropy(self.logits)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Cross-entropy of each sample, nats [N]; all NaN where one is not finite, so that no half hides it."""
        losses = metrics.cross_entropy(self.logits, self.labels)
        return losses if np.isfinite(losses).all() else np.full(len(losses), np.nan)

    @property
    def whole_class(self) -> bool:
        """Whether some of these held-out samples belong to a forgotten class or sub-class."""
        return self.forgotten is not None and bool(self.forgotten.any())

    def part(self, mask: NDArray[np.bool_]) -> Outputs:
        """The samples where `mask` is true."""
        return Outputs(self.logits[mask], self.labels[mask])

    def without_forgotten(self) -> Outputs:
        """The samples of retained classes."""
        return self if self.forgotten is None else self.part(~self.forgotten)


@torch.inference_mode()
def predict(
    model: nn.Module, examples: Examples, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Logits [N, K] in eval mode without augmentation; leaves modes and random state as they were.

    Args:
        batch_size: None is 2048 on a GPU, and 256 on a CPU, where activations should stay in its cache.
    """
    size = batch_size or (256 if examples.device.type == "cpu" else 2048)
    with eval_mode(model):
        chunks = [
            model(examples.batch(slice(start, start + size))[0])
            for start in range(0, len(examples), size)
        ]
    return torch.cat(chunks).float().cpu().numpy()


def outputs(
    model: nn.Module, examples: Examples, forgotten: NDArray[np.bool_] | None = None
) -> Outputs:
    """Run one set through the model once."""
    return Outputs(predict(model, examples), examples.labels.cpu().numpy(), forgotten)


def few_scores(retain: Outputs, forget: Outputs, held_out: Outputs) -> dict[str, float]:
    """The accuracies and the entropy attack of one view: what a curve shows after every epoch."""
    values = {
        "acc_retain": metrics.accuracy(retain.logits, retain.labels),
        "acc_forget": metrics.accuracy(forget.logits, forget.labels),
        "acc_test": metrics.accuracy(held_out.logits, held_out.labels),
        "mia_lr_entropy": attacks.mia_lr_entropy(
            retain.entropies, held_out.entropies, forget.entropies
        ),
    }
    if held_out.forgotten is not None and held_out.whole_class:
        for name, mask in (
            ("acc_test_retain", ~held_out.forgotten),
            ("acc_test_forget", held_out.forgotten),
        ):
            values[name] = metrics.accuracy(held_out.logits[mask], held_out.labels[mask])
    return values


def score(retain: Outputs, forget: Outputs, held_out: Outputs) -> dict[str, float]:
    """The metrics of one view that need no retrained model and little time, under their canonical names.

    The population of the population attack is half of the held-out samples, a stratified choice that depends on
    their labels only; the other half are its non-members. Every other metric uses all held-out samples; the
    entropy and the population attack keep a forgotten class among them, as NatMU and JiT do.

    Args:
        retain: Outputs on the retained training samples.
        forget: Outputs on the forgotten training samples.
        held_out: Outputs on the view's held-out samples (`val` or `test`).

    Returns:
        Metric name to value; NaN where logits are not finite or samples too few (see `unavailable`).
        `acc_test_retain` and `acc_test_forget` appear only where a whole class or sub-class is forgotten.
    """
    values = few_scores(retain, forget, held_out)
    values["err_forget"] = 1 - values["acc_forget"]
    chosen = population_of(held_out.labels)
    population, others = held_out.losses[chosen], held_out.losses[~chosen]
    values |= attacks.mia_population(retain.losses, population, forget.losses)
    values["mia_population_auc"] = attacks.auc(-forget.losses, -others)
    values["loss_ks"] = closeness.loss_ks(forget.losses, held_out.losses)
    confusions = (metrics.confusion(part.logits, part.labels) for part in (forget, held_out))
    values["streisand_tv"] = closeness.streisand(*confusions)["streisand_tv"]
    return values


def costly_score(
    retain: Outputs, forget: Outputs, held_out: Outputs, generator_seed: int
) -> dict[str, float]:
    """The SVC attacks and the starting kit's attack of one view: a second on digits, most of a minute on CIFAR-10.

    Non-members are the held-out samples without a forgotten class or sub-class, as in UGradSL; NatMU and JiT,
    whose attack is in `score`, keep it. The SVC's members are as many retained samples.

    Differs: those are the first ones in the papers' code; here D_r is shuffled before, since data read from
    folders is sorted by class.

    Args:
        retain: Outputs on the retained training samples.
        forget: Outputs on the forgotten training samples.
        held_out: Outputs on the view's held-out samples.
        generator_seed: Of the order of D_r and the subsample of the larger set. Give the unlearned and the
            retrained models of a problem the same, so that they are attacked with the same samples.

    Returns:
        Metric name to value; NaN where logits are not finite or samples too few (see `unavailable`).
    """
    names = {f"mia_svc_{name}_nonmember": name for name in SVC_INPUTS}
    if not metrics.usable(retain.logits, forget.logits, held_out.logits):
        return dict.fromkeys([*names, "mia_acc_forget_test"], metrics.NAN)
    rng = np.random.default_rng(generator_seed)
    outside = held_out.without_forgotten()
    chosen = rng.permutation(len(retain.labels))[: len(outside.labels)]
    sets = [
        attacks.svc_features(part.logits, part.labels)
        for part in (Outputs(retain.logits[chosen], retain.labels[chosen]), outside, forget)
    ]
    values = {
        key: attacks.mia_svc_nonmember(*(found[name] for found in sets))
        for key, name in names.items()
    }
    values["mia_acc_forget_test"] = attacks.mia_acc_forget_test(forget.losses, outside.losses, rng)
    return values


def compare(
    values: Mapping[str, float],
    reference: Mapping[str, float],
    forget: Outputs,
    reference_logits: NDArray[np.float32],
    whole_class: bool,
) -> dict[str, float]:
    """The metrics of one view that need the retrained models.

    Args:
        values: `score`, and where it was run `costly_score`, of the unlearned model.
        reference: Mean of the same over the retrained models.
        forget: The unlearned model's outputs on D_f.
        reference_logits: A retrained model's logits on D_f.
        whole_class: Whether a whole class or sub-class is forgotten, which decides the lists of metrics.

    Returns:
        Closeness on D_f, and average gaps; those that need `costly_score` only where both sides have it.
    """
    test = closeness.entropy_wilcoxon(forget.logits, reference_logits)
    found = {
        "activation_distance": metrics.activation_distance(forget.logits, reference_logits),
        "delta_acc_forget": metrics.gap(values["acc_forget"], reference["acc_forget"]),
        "entropy_wilcoxon_p": test.p,
        "entropy_median_diff": test.median_difference,
        "avg_gap_natmu": metrics.mean_gap(values, reference, metrics.AVG_GAP_NATMU[whole_class]),
    }
    for name, needed, of in (
        ("avg_gap_ugradsl", metrics.AVG_GAP_UGRADSL[whole_class], metrics.mean_gap),
        ("avg_gap_ugradsl5", metrics.AVG_GAP_UGRADSL5[whole_class], metrics.mean_gap),
        ("mia_svc_gap4", metrics.SVC_GAP4, metrics.mean_gap),
        ("mia_svc_gap_max", metrics.SVC_GAP4, metrics.max_gap),
    ):
        if set(needed) <= set(values) & set(reference):
            found[name] = of(values, reference, needed)
    return found


def population_of(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which held-out samples serve as the population: half of each class, a function of the labels alone."""
    rng = np.random.default_rng(derive_seed("population"))
    mask = np.zeros(len(labels), bool)
    mask[stratified_choice(labels, len(labels) // 2, rng)] = True
    return mask


def unavailable(
    values: Mapping[str, float], retain: Outputs, forget: Outputs, held_out: Outputs
) -> dict[str, str]:
    """Why metrics of `score` or `costly_score` are NaN, by name; empty when all are numbers.

    Args:
        values: What either returned for these outputs.
        retain, forget, held_out: The outputs.
    """
    outside, kinds = held_out.without_forgotten(), {"D_r": retain, "D_f": forget}
    broken = [
        f"{name} has no samples" if len(part.labels) == 0 else f"outputs on {name} are not finite"
        for name, part in {**kinds, "the held-out set": held_out}.items()
        if not metrics.usable(part.logits)
    ]
    members = min(len(retain.labels), len(outside.labels))
    few = {
        "mia_svc": f"needs {MIN_FIT} members and non-members, but has {members} and {len(outside.labels)}",
        "mia_acc": f"needs {MIN_FIT} samples of D_f and held-out ones, but has {len(forget.labels)} and "
        f"{len(outside.labels)}",
        "mia_population": f"needs two held-out samples, but has {len(held_out.labels)}",
        "streisand": "no class has samples in D_f and among the held-out ones",
        "acc_test_retain": "all held-out samples belong to what is forgotten",
    }
    return {
        name: "; ".join(broken)
        or next(reason for start, reason in few.items() if name.startswith(start))
        for name, value in values.items()
        if np.isnan(value)
    }


def mean_of(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over runs that all have it."""
    names = set.intersection(*(set(run) for run in runs)) if runs else set()
    return {name: float(np.mean([run[name] for run in runs])) for name in sorted(names)}
