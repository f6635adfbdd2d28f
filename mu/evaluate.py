"""From a model to metrics: one pass per split gives arrays, everything after is arithmetic.

``score`` is for every trial. ``costly_score`` fits support vector machines, and is for those whose numbers are
reported. ``compare`` adds what needs the retrained model's outputs, ``diagnostics_score`` what needs this model itself
and what the method shows of its work; ``mu.relative`` adds gaps. Whatever cannot be computed is NaN, and ``unavailable`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mu import metrics
from mu.data import Examples, stratified_choice
from mu.keys import derive_seed
from mu.memo import Diagnostics
from mu.metrics import attacks, closeness
from mu.metrics.attacks import CHUNKED_INPUTS, MIN_FIT, SVC_INPUTS
from mu.models import eval_mode

COSTLY = ("svc", "starting_kit", "svc_chunked", "svc_columns")
"""Groups of costly attacks: what `mia_svc_*` and `mia_acc_forget_test` need, Akbari et al.'s chunked attack, and the
modified entropy of the public code."""
TPR_AT = {"fpr1": 0.01, "fpr0.1": 0.001}
"""False positive rates at which the power of attacks with scores is recorded, by the end of the metric's name."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model on one set of samples.

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

    @cached_property
    def confusion(self) -> NDArray[np.float64]:
        """Counts of samples by true (row) and predicted class [K, K]."""
        return metrics.confusion(self.logits, self.labels)

    @property
    def whole_class(self) -> bool:
        """Whether some of these held-out samples belong to a forgotten class or sub-class."""
        return self.forgotten is not None and bool(self.forgotten.any())

    def part(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> Outputs:
        """Return the samples where `mask` is true, or at these positions."""
        return Outputs(self.logits[mask], self.labels[mask])

    def without_forgotten(self) -> Outputs:
        """Return the samples of retained classes."""
        return self if self.forgotten is None else self.part(~self.forgotten)


@torch.inference_mode()
def predict(
    model: nn.Module, examples: Examples, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Return logits [N, K] in eval mode without augmentation; leave modes and random state as they were.

    Args:
        batch_size: None is 2048 on a GPU, and at most 256 on a CPU, where activations should stay in its cache.
    """
    size = batch_size or 2048
    if batch_size is None and examples.device.type == "cpu":
        size = min(256, max(16, 2**16 // math.prod(examples.input_shape[1:])))
    predicted: Tensor | None = None
    with eval_mode(model):
        for start in range(0, len(examples), size):
            inputs = examples.batch(slice(start, start + size))[0]
            logits = model(inputs).float()
            if predicted is None:
                # One array for all: small ones between large ones would keep their memory from reuse.
                predicted = logits.new_empty((len(examples), *logits.shape[1:]))
            predicted[start : start + size] = logits
    assert predicted is not None, "a set without examples"
    return predicted.cpu().numpy()


def outputs(
    model: nn.Module, examples: Examples, forgotten: NDArray[np.bool_] | None = None
) -> Outputs:
    """Run one set through the model once."""
    return Outputs(predict(model, examples), examples.labels.cpu().numpy(), forgotten)


def few_scores(retain: Outputs, forget: Outputs, held_out: Outputs) -> dict[str, float]:
    """Return the accuracies and the entropy attack of one view: what a curve shows after every epoch."""
    values = {
        "acc_retain": metrics.accuracy(retain.logits, retain.labels),
        "acc_forget": metrics.accuracy(forget.logits, forget.labels),
        "acc_test": metrics.accuracy(held_out.logits, held_out.labels),
        **attacks.entropy_rates(retain.entropies, held_out.entropies, forget.entropies),
    }
    if held_out.forgotten is not None and held_out.whole_class:
        for name, mask in (
            ("acc_test_retain", ~held_out.forgotten),
            ("acc_test_forget", held_out.forgotten),
        ):
            values[name] = metrics.accuracy(held_out.logits[mask], held_out.labels[mask])
    return values


def score(retain: Outputs, forget: Outputs, held_out: Outputs) -> dict[str, float]:
    """Return the metrics of one view that need no retrained model and little time, under their canonical names.

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
    values |= _power("mia_population", -forget.losses, -others)
    values |= _power("mia_lr_entropy", -forget.entropies, -held_out.entropies)
    values["loss_ks"] = closeness.loss_ks(forget.losses, held_out.losses)
    values |= closeness.streisand(forget.confusion, held_out.confusion)
    values["label_ldp_empirical"] = closeness.label_ldp_empirical(forget.logits, forget.labels)
    return values


def _power(
    attack: str, members: NDArray[np.float64], nonmembers: NDArray[np.float64]
) -> dict[str, float]:
    """Return the AUC of an attack and its true positive rates at ``TPR_AT``; scores grow with membership."""
    rates = {
        f"{attack}_tpr_{name}": attacks.tpr_at_fpr(members, nonmembers, rate)
        for name, rate in TPR_AT.items()
    }
    return {f"{attack}_auc": attacks.auc(members, nonmembers), **rates}


def costly_score(
    retain: Outputs,
    forget: Outputs,
    held_out: Outputs,
    generator_seed: int,
    groups: Sequence[str] = ("svc", "starting_kit"),
) -> dict[str, float]:
    """Run the SVC attacks and the starting kit's attack on one view: a second on digits, most of a minute on CIFAR-10.

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
        groups: Some of ``COSTLY``. `svc_chunked` fits one machine for each part of D_r as long as the held-out set.

    Returns:
        Metric name to value; NaN where logits are not finite or samples too few (see `unavailable`).
    """
    finite = metrics.usable(retain.logits, forget.logits, held_out.logits)
    rng = np.random.default_rng(generator_seed)
    outside = held_out.without_forgotten()
    order = rng.permutation(len(retain.labels))
    members = retain.part(order[: len(outside.labels)])
    sets = (members, outside, forget)
    values: dict[str, float] = {}

    def attack(name: str, run: Callable[[], float]) -> None:
        values[name] = run() if finite else metrics.NAN

    if "svc" in groups:
        features = [attacks.svc_features(part.logits, part.labels) for part in sets]
        for name in SVC_INPUTS:
            inputs = [each[name] for each in features]
            attack(f"mia_svc_{name}_nonmember", partial(attacks.mia_svc_nonmember, *inputs))
    if "starting_kit" in groups:
        losses = forget.losses, outside.losses
        attack("mia_acc_forget_test", partial(attacks.mia_acc_forget_test, *losses, rng))
    if "svc_chunked" in groups:
        shuffled = (retain.part(order), outside, forget)
        features = [attacks.svc_features(part.logits, part.labels) for part in shuffled]
        for name in CHUNKED_INPUTS:
            inputs = [each[name] for each in features]
            attack(f"mia_svc_chunked_{name}_nonmember", partial(attacks.mia_akbari, *inputs))
    if "svc_columns" in groups:
        columns = [attacks.m_entropy(part.logits, part.labels, "columns")[:, None] for part in sets]
        name = "mia_svc_m_entropy_columns_nonmember"
        attack(name, partial(attacks.mia_svc_nonmember, *columns))
    return values


def compare(
    forget: Outputs,
    reference_logits: NDArray[np.float32] | None,
    untrained_logits: NDArray[np.float32],
) -> dict[str, float]:
    """Return the metrics that compare a model's outputs on D_f with those of others: the same for every view.

    Args:
        forget: The unlearned model's outputs on D_f.
        reference_logits: The retrained model's logits on D_f; None where there is no such model, which leaves out
            what compares with it.
        untrained_logits: Those of the network with initial weights.
    """
    if reference_logits is None:
        return {"zrf": closeness.zrf(forget.logits, untrained_logits)}
    test = closeness.entropy_wilcoxon(forget.logits, reference_logits)
    return {
        "activation_distance": metrics.activation_distance(forget.logits, reference_logits),
        "entropy_wilcoxon_p": test.p,
        "entropy_median_diff": test.median_difference,
        "zrf": closeness.zrf(forget.logits, untrained_logits),
    }


def diagnostics_score(
    model: nn.Module,
    retrained: nn.Module,
    diagnostics: Diagnostics,
    forget: Outputs,
    reference_logits: NDArray[np.float32],
) -> dict[str, float]:
    """Return the diagnostics of what a method showed of its work; leave out those it showed nothing for.

    Args:
        model: The unlearned model.
        retrained: A retrained model of the same problem.
        diagnostics: What the method showed.
        forget: The unlearned model's outputs on D_f.
        reference_logits: The retrained model's logits on D_f.

    Returns:
        Of `kl_naturalness`, `partial_forget_acc`, `partial_forget_acc_retrain`, `acc_gl` and `label_ldp_eps` those that the
        method has; NaN where outputs are not finite, or where the theorem of `label_ldp_eps` says nothing.
    """
    values: dict[str, float] = {}
    if diagnostics.instances is not None:
        predicted = metrics.log_softmax(predict(retrained, diagnostics.instances))
        targets = diagnostics.instances.labels.cpu().numpy()
        values["kl_naturalness"] = float(metrics.kl_naturalness(predicted, targets).mean())
    if diagnostics.partial is not None:
        bare = diagnostics.partial()
        labels = bare.labels.cpu().numpy()
        for name, of in (("", model), ("_retrain", retrained)):
            share = metrics.partial_forget_accuracy(predict(of, bare), labels)
            values[f"partial_forget_acc{name}"] = share
    if diagnostics.predicted_hard is not None:
        hard = diagnostics.predicted_hard.cpu().numpy()
        values["acc_gl"] = metrics.acc_gl(hard, reference_logits, forget.labels)
    if diagnostics.label_weights is not None:
        classes = forget.logits.shape[1]
        values["label_ldp_eps"] = float(
            closeness.label_ldp_eps(*diagnostics.label_weights, classes)
        )
    return values


def population_of(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which held-out samples serve as the population, bool [N]: half of each class, by the labels alone."""
    rng = np.random.default_rng(derive_seed("population"))
    mask = np.zeros(len(labels), bool)
    mask[stratified_choice(labels, len(labels) // 2, rng)] = True
    return mask


def unavailable(
    values: Mapping[str, float], retain: Outputs, forget: Outputs, held_out: Outputs
) -> dict[str, str]:
    """Return why metrics of `score` or `costly_score` are not finite, by name; empty when all are numbers.

    Every such metric gets a reason: broken outputs, else too few samples, else that its value is not finite.

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
    population = len(held_out.labels) - int(population_of(held_out.labels).sum())
    few = {
        **{
            f"{attack}_tpr_{name}": f"needs {round(1 / rate)} non-members, but has {count}"
            for attack, count in (
                ("mia_population", population),
                ("mia_lr_entropy", len(held_out.labels)),
            )
            for name, rate in TPR_AT.items()
        },
        "mia_svc_chunked": f"needs {MIN_FIT} held-out samples and as many of D_r as of them, but has "
        f"{len(outside.labels)} and {len(retain.labels)}",
        "mia_svc": f"needs {MIN_FIT} members and non-members, but has {members} and {len(outside.labels)}",
        "mia_acc": f"needs {MIN_FIT} samples of D_f and held-out ones, but has {len(forget.labels)} and "
        f"{len(outside.labels)}",
        "mia_population": f"needs two held-out samples, but has {len(held_out.labels)}",
        "streisand": "no class has samples in D_f and among the held-out ones",
        "acc_test_retain": "all held-out samples belong to what is forgotten",
    }
    reasons: dict[str, str] = {}
    for name, value in values.items():
        if not math.isfinite(value):
            too_few = [reason for prefix, reason in few.items() if name.startswith(prefix)]
            reasons[name] = "; ".join(broken) or (too_few or ["the value is not finite"])[0]
    return reasons
