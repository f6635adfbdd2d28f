"""TMU: predict which forgotten samples a retrained model would get wrong, and unlearn those alone.

Paper: Towards Aligned Data Forgetting via Twin Machine Unlearning, ICLR 2025 submission, Eqs. 1 to 6.
Reference: none obtainable; the link to the code is lost.
Differs: the twin set is held out from training and never the reported test set, which the paper uses. Eq. 3 has no
    bound on the loss of hard samples, and without one the model is soon a wreck: `hard_loss_cap` stops the ascent at ln K,
    the loss of a uniform prediction; null is the paper. Retained batches guard the rest (`retain_weight`, 0 in the paper). Where it is silent: the twin trains with SGD at 0.01 until it
    knows D_tw as well as the original knows D_f, or the trial fails, as a twin that knows less takes nearly all of D_f
    for easy; five neighbours; an L-infinity attack of ten steps; the fresh network trains at 0.01 (a tenth of the
    fine-tuning rate would hardly train it); features are standardised, those of D_tw and of D_f each by their own
    statistics, since two models memorise at two scales; 50 epochs, as a loss near zero rises slowly at first;
    noise of level 3 has a standard deviation of 3/255 and is not clamped; Eq. 3 takes the mean of each subset
    (`reduction`). The classifier trains on the classes of D_f alone where 200 twin samples of them exist. Eq. 6 is read
    literally, the attacked prediction weighting the log of the clean one (`attack_feature="swapped"` is the other way
    round). Whole classes and sub-classes are refused: a retrained model gets all of them wrong, so there is nothing to predict.
Cost: twin and probe training, features of D_f and D_tw (2 to 4 passes over D) + epochs passes over D_f.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples, batches, concat
from mu.data.passes import Cycle
from mu.device import upload
from mu.evaluate import predict
from mu.knobs import Bounds, Count, CountOrZero, Fraction, Momentum, NonNegative, Positive
from mu.methods.boundary_shrink import sign_attack
from mu.models import eval_mode, logits_and_features, reinitialize
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Hyperparameters, Loss, fit, make_optimizer

NEEDS = ("retain", "forget", "twin", "original")
REQUESTS = ("random", "class_subset", "identities", "hardest", "worst_case", "indices")
MINIMUM_TWIN = 20
"""Fewest twin samples that a classifier can be trained on."""
FEW_HARD = 5
"""Hard samples below which there is next to nothing to unlearn."""
ENOUGH_OF_CLASS = 200
"""Twin samples of the forgotten classes from which the others are left out."""
CHUNK = 512
AttackFeature = Literal["literal", "swapped"]
Features = Literal["all", "distance", "attack", "curriculum"]
Reduction = Literal["subset_mean", "sample_mean"]
Mode = Literal["eval", "train"]
logger = logging.getLogger(__name__)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError when inputs are no images, or the twin set is too small to fit a classifier on."""
    split.need_images("adds noise to pixels and moves them along their gradients")
    if len(split.twin) < MINIMUM_TWIN:
        raise ValueError(
            f"tmu needs at least {MINIMUM_TWIN} held-out `twin` samples, "
            f"but there are {len(split.twin)}; raise data.twin"
        )


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 50,
    lr: Positive = 1e-3,
    noise_level: NonNegative = 3.0,
    clamp_noise: bool = False,
    threshold: Annotated[float, Bounds(0, 1)] = 0.5,
    reduction: Reduction = "subset_mean",
    hard_loss_cap: Positive | None = 1.0,
    retain_weight: NonNegative = 1.0,
    batch_size: Count = 64,
    momentum: Momentum = 0.9,
    weight_decay: NonNegative = 0.0,
    mode: Mode = "eval",
    features: Features = "all",
    twin_epochs: Count = 100,
    twin_lr: Positive = 0.01,
    twin_batch_size: Count = 128,
    twin_weight_decay: NonNegative = 5e-4,
    neighbors: Count = 5,
    same_class_pool: bool = False,
    attack_eps: Positive = 4.0,
    attack_step: Fraction = 0.25,
    attack_steps: Count = 10,
    attack_feature: AttackFeature = "literal",
    curriculum_epochs: CountOrZero = 2,
    curriculum_lr: Positive = 0.01,
    curriculum_fraction: Fraction = 0.3,
    classifier_epochs: Count = 100,
    classifier_lr: Positive = 0.01,
) -> Iterator[None]:
    """Raise hard samples' loss, lower easy ones' under noise; yield after each epoch. ``Settings`` and ``Steps`` say more."""
    settings = Settings(
        features=features,
        neighbors=neighbors,
        same_class_pool=same_class_pool,
        attack_eps=attack_eps / 255,
        attack_step=attack_step * attack_eps / 255,
        attack_steps=attack_steps,
        attack_feature=attack_feature,
        twin_epochs=twin_epochs,
        twin_lr=twin_lr,
        curriculum_epochs=curriculum_epochs,
        curriculum_lr=curriculum_lr,
        curriculum_fraction=curriculum_fraction,
        classifier_epochs=classifier_epochs,
        classifier_lr=classifier_lr,
        batch_size=twin_batch_size,
        momentum=momentum,
        weight_decay=twin_weight_decay,
    )
    hard = find_hard(model, split, settings, threshold)
    steps = Steps(noise_level, clamp_noise, reduction, hard_loss_cap, retain_weight, mode)
    sgd = Hyperparameters(epochs, batch_size, lr, momentum=momentum, weight_decay=weight_decay)
    yield from unlearn_hard(model, split, hard, generator, sgd, steps)


@dataclass(frozen=True)
class Steps:
    """The knobs of ``unlearn`` that define its steps.

    Args:
        noise_level: Standard deviation of the noise on easy samples, in 1/255 of the pixel range, drawn anew
            each time; 0 is Eq. 2.
        clamp_noise: Whether noisy pixels are clamped to [0, 1].
        reduction: `subset_mean` subtracts the mean loss of the hard from that of the easy; `sample_mean`
            weighs all samples alike.
        hard_loss_cap: Loss, in units of ln K, beyond which a hard sample is pushed no further.
        retain_weight: Weight of the loss of a retained batch of the same size; 0 is the paper, which has none.
        mode: Of batch norm and dropout in these steps on forgotten data alone.
    """

    noise_level: float
    clamp_noise: bool
    reduction: Reduction
    hard_loss_cap: float | None
    retain_weight: float
    mode: Mode


def find_hard(model: nn.Module, split: Split, settings: Settings, threshold: float) -> Tensor:
    """Return which forgotten samples a retrained model is expected to get wrong: bool [N]; show them as diagnostics.

    Args:
        threshold: Probability of being hard from which a sample counts as hard.

    Raises:
        ValueError: The twin set is too small, there are fewer retained samples than `neighbors`, or the twin does not
            learn its part.
    """
    check(model, split)
    if settings.neighbors > len(split.retain):
        raise ValueError(
            f"`neighbors` must be at most {len(split.retain)}, the retained samples, "
            f"but got {settings.neighbors}"
        )
    hardness = split.cached(
        ("tmu hardness", settings), lambda draws: predict_hardness(model, split, draws, settings)
    )
    hard = hardness >= threshold
    split.diagnostics.predicted_hard = hard
    count = int(hard.sum())
    logger.info("%d of %d forgotten samples are taken for hard", count, len(hard))
    if count < FEW_HARD:
        split.warn(
            f"takes {count} of {len(hard)} forgotten samples for hard, so that it unlearns next to nothing"
        )
    return hard


def unlearn_hard(
    model: nn.Module,
    split: Split,
    hard: Tensor,
    generator: torch.Generator,
    sgd: Hyperparameters,
    steps: Steps,
) -> Iterator[None]:
    """Pass over D_f with SGD, up the loss of the hard samples (bool [N]); yield after each epoch."""
    weights = signed_weights(hard, steps.reduction)
    cap = None if steps.hard_loss_cap is None else steps.hard_loss_cap * math.log(split.num_classes)
    stepper = make_optimizer(model, "sgd", sgd.lr, sgd.momentum, sgd.weight_decay)
    retain_batches = Cycle(len(split.retain), sgd.batch_size, generator, split.device)
    for _ in resumable(sgd.epochs, generator, model, stepper, retain_batches):
        model.train(steps.mode == "train")
        for index in batches(len(split.forget), sgd.batch_size, generator, split.device):
            inputs, labels = split.forget.batch(index)
            noise = upload(torch.randn(inputs.shape, generator=generator), split.device).to(inputs)
            noisy = perturb(inputs, noise, steps.noise_level, steps.clamp_noise)
            easy = ~hard[index].view(-1, *[1] * (inputs.ndim - 1))
            losses = F.cross_entropy(
                model(torch.where(easy, noisy, inputs)), labels, reduction="none"
            )
            loss = signed_loss(losses, weights[index], cap)
            if steps.retain_weight > 0:
                retained, own = split.retain.batch(next(retain_batches))
                loss = loss + steps.retain_weight * F.cross_entropy(model(retained), own)
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
        yield


def signed_weights(hard: Tensor, reduction: Reduction = "subset_mean") -> Tensor:
    """Return what the loss of each forgotten sample counts for, negative where it is to rise: float64 [N].

    The mean over D_f of loss times weight is L(easy) - L(hard) for `subset_mean`, and the same of any batch in
    expectation; `sample_mean` is minus one for the hard and one for the easy.
    """
    if reduction == "sample_mean":
        return torch.where(hard, -1.0, 1.0).double()
    count = hard.sum(dtype=torch.float64)
    return torch.where(hard, -len(hard) / count, len(hard) / (len(hard) - count))


def signed_loss(losses: Tensor, weights: Tensor, hard_loss_cap: float | None = None) -> Tensor:
    """Return Eq. 3, to be minimised: the mean of losses [B] times weights [B], hard losses clipped at the cap."""
    if hard_loss_cap is not None:
        losses = torch.where(weights < 0, losses.clamp(max=hard_loss_cap), losses)
    return (weights.to(losses) * losses).mean()


def perturb(inputs: Tensor, unit_noise: Tensor, level: float, clamp: bool = False) -> Tensor:
    """Return inputs in [0, 1] pixel units plus noise of standard deviation level / 255."""
    noisy = inputs + level / 255 * unit_noise
    return noisy.clamp(0, 1) if clamp else noisy


@dataclass(frozen=True)
class Settings:
    """The knobs of ``unlearn`` that define how it predicts hard samples, with sizes of the attack in [0, 1] pixel units.

    Args:
        features: Those the classifier sees; the paper compares all with each.
        neighbors: Nearest distances in penultimate activations, N.
        same_class_pool: Whether neighbours are of the sample's own class, where it has as many.
        attack_eps: Largest change of a pixel by the attack; the knob is in 1/255 of the pixel range.
        attack_step: Size of an attack step; the knob is its share of `attack_eps`.
        attack_steps: Steps of the attack.
        attack_feature: Which prediction weighs the log of the other; see ``attacked_entropy``.
        twin_epochs: Most passes of fine-tuning on D_tw that make the twin.
        twin_lr: Of the twin.
        curriculum_epochs: Passes of training the fresh network on D_f, D_tw and a share of D_r.
        curriculum_lr: Of the fresh network.
        curriculum_fraction: That share of D_r.
        classifier_epochs: Passes of training the classifier.
        classifier_lr: Of the classifier.
        batch_size: Of the twin, the fresh network and the classifier; the knob is `twin_batch_size`.
        momentum: Of the same three.
        weight_decay: Of the same three; the knob is `twin_weight_decay`.
    """

    features: Features
    neighbors: int
    same_class_pool: bool
    attack_eps: float
    attack_step: float
    attack_steps: int
    attack_feature: AttackFeature
    twin_epochs: int
    twin_lr: float
    curriculum_epochs: int
    curriculum_lr: float
    curriculum_fraction: float
    classifier_epochs: int
    classifier_lr: float
    batch_size: int
    momentum: float
    weight_decay: float


def predict_hardness(
    model: nn.Module, split: Split, generator: torch.Generator, settings: Settings
) -> Tensor:
    """Return the probability that a model trained without D_f misclassifies each of its samples: float32 [N].

    A classifier learns it from the twin problem: the twin is the model fine-tuned on D_tw, the model itself is
    what never saw D_tw, and D_r and D_f together are what the twin retains.
    """
    studied = of_forgotten_classes(split.twin, split.forget)
    twin = fine_tuned_twin(model, split, generator, settings)
    fresh = barely_trained(model, split, generator, settings)
    return classify(
        describe(twin, fresh, studied, (split.retain, split.forget), settings),
        misclassified(logits_of(model, studied), studied.labels),
        describe(model, fresh, split.forget, (split.retain,), settings),
        generator,
        settings,
    )


def fine_tuned_twin(
    model: nn.Module, split: Split, generator: torch.Generator, settings: Settings
) -> nn.Module:
    """Train a copy of the model on D_tw until it knows it as well as the model knows D_f.

    Raises:
        ValueError: It knows less after `twin_epochs`.
    """
    twin = copy.deepcopy(model)
    known, reached = accuracy(model, split.forget), 0.0
    for _ in _sgd(twin, split.twin, generator, settings.twin_epochs, settings.twin_lr, settings):
        reached = accuracy(twin, split.twin)
        if reached >= known:
            return twin
    raise ValueError(
        f"after {settings.twin_epochs} epochs the twin knows {reached:.1%} of its part, but the original {known:.1%} "
        "of the forgotten samples; raise `twin_epochs` or `twin_lr`"
    )


def barely_trained(
    model: nn.Module, split: Split, generator: torch.Generator, settings: Settings
) -> nn.Module:
    """Train a fresh network of the model's shape for an epoch or two on D_f, D_tw and a share of D_r."""
    fresh = copy.deepcopy(model)
    reinitialize(fresh, generator)
    share = round(settings.curriculum_fraction * len(split.retain))
    drawn = torch.randperm(len(split.retain), generator=generator)[:share].to(split.device)
    mixture = concat(split.forget, split.twin, split.retain.take(drawn))
    epochs, lr = settings.curriculum_epochs, settings.curriculum_lr
    for _ in _sgd(fresh, mixture, generator, epochs, lr, settings):
        pass
    return fresh


def _sgd(
    model: nn.Module,
    examples: Examples,
    generator: torch.Generator,
    epochs: int,
    lr: float,
    settings: Settings,
    loss: Loss = F.cross_entropy,
) -> Iterator[None]:
    return fit(
        model,
        examples,
        generator,
        Hyperparameters(
            epochs=epochs,
            batch_size=settings.batch_size,
            lr=lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        ),
        loss=loss,
    )


def describe(
    model: nn.Module,
    fresh: nn.Module,
    examples: Examples,
    pool: tuple[Examples, ...],
    settings: Settings,
) -> Tensor:
    """Return the features of examples that `model` was trained on: [N, F], of which `neighbors`, 1 and 1 per kind.

    Args:
        fresh: The barely trained network.
        pool: What else the model was trained on.
    """
    columns = []
    if settings.features in ("all", "distance"):
        pool_features = torch.cat([penultimate(model, part) for part in pool])
        pool_labels = torch.cat([part.labels for part in pool])
        columns.append(
            nearest_distances(
                penultimate(model, examples),
                pool_features,
                settings.neighbors,
                examples.labels[:, None] == pool_labels if settings.same_class_pool else None,
            )
        )
    if settings.features in ("all", "attack"):
        eps, step, steps = settings.attack_eps, settings.attack_step, settings.attack_steps
        attacked, clean = attack(model, examples, eps, step, steps)
        columns.append(attacked_entropy(attacked, clean, settings.attack_feature)[:, None])
    if settings.features in ("all", "curriculum"):
        logits = logits_of(fresh, examples)
        columns.append(F.cross_entropy(logits, examples.labels, reduction="none")[:, None])
    return torch.cat(columns, dim=1)


def of_forgotten_classes(twin: Examples, forget: Examples) -> Examples:
    """Return the twin samples of the classes that occur in D_f, if there are enough of them; else all."""
    index = torch.isin(twin.labels, forget.labels).nonzero()[:, 0]
    return twin.take(index) if len(index) >= ENOUGH_OF_CLASS else twin


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return generalization labels: bool [N], True ("hard") where the prediction is wrong."""
    return logits.argmax(1) != labels


def logits_of(model: nn.Module, examples: Examples) -> Tensor:
    """Return the logits [N, K] in eval mode, on the examples' device."""
    return torch.from_numpy(predict(model, examples)).to(examples.device)


def accuracy(model: nn.Module, examples: Examples) -> float:
    """Return the share of examples that the model, in eval mode, classifies rightly, in [0, 1]."""
    wrong = misclassified(logits_of(model, examples), examples.labels)
    return 1 - float(wrong.float().mean())


@torch.no_grad()
def penultimate(model: nn.Module, examples: Examples) -> Tensor:
    """Return the penultimate activations [N, D] in eval mode."""
    with eval_mode(model):
        return torch.cat(
            [
                logits_and_features(model, examples.batch(slice(start, start + CHUNK))[0])[1]
                for start in range(0, len(examples), CHUNK)
            ]
        )


def nearest_distances(
    features: Tensor, pool: Tensor, count: int, same_class: Tensor | None = None
) -> Tensor:
    """Return the smallest Euclidean distances (Eq. 4) from features [N, D] to a pool [P, D], ascending: [N, count].

    Args:
        same_class: bool [N, P], pairs to which the choice is limited in rows that have `count` of them.
    """
    nearest = []
    for start in range(0, len(features), CHUNK):
        rows = slice(start, start + CHUNK)
        distance = torch.cdist(features[rows], pool, compute_mode="donot_use_mm_for_euclid_dist")
        if same_class is not None:
            own = same_class[rows]
            left_out = ~own & (own.sum(1, keepdim=True) >= count)
            distance = distance.masked_fill(left_out, torch.inf)
        nearest.append(distance.topk(count, largest=False, sorted=True).values)
    return torch.cat(nearest)


def attack(
    model: nn.Module, examples: Examples, eps: float, step: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Return logits of attacked and of clean samples, each [N, K], in eval mode; sizes are in [0, 1] pixel units (Eq. 5)."""
    attacked, clean = [], []
    with eval_mode(model):
        for start in range(0, len(examples), CHUNK):
            inputs, labels = examples.batch(slice(start, start + CHUNK))
            moved = sign_attack(model, inputs, labels, bound=eps, step=step, steps=steps)
            with torch.no_grad():
                attacked.append(model(moved))
                clean.append(model(inputs))
    return torch.cat(attacked), torch.cat(clean)


def attacked_entropy(attacked: Tensor, clean: Tensor, form: AttackFeature = "literal") -> Tensor:
    """Return H(attacked, clean) of predictions (Eq. 6), [N], from logits [N, K]; `swapped` is H(clean, attacked)."""
    weighing, logged = (attacked, clean) if form == "literal" else (clean, attacked)
    return -(weighing.softmax(1) * logged.log_softmax(1)).sum(1)


def standardize(features: Tensor, like: Tensor) -> Tensor:
    """Return features [N, F] in standard deviations from the mean of others; constant ones are only centred."""
    std = like.std(0, unbiased=False)
    return (features - like.mean(0)) / torch.where(std > 0, std, 1)


def classify(
    features: Tensor, hard: Tensor, others: Tensor, generator: torch.Generator, settings: Settings
) -> Tensor:
    """Train a perceptron F-64-32-1 on features [N, F] and hard [N]; its probabilities for others [M, F]: [M].

    Each set is standardised by its own statistics: they are features of two models, at two scales.
    """
    with torch.device("meta"):  # layers draw from the global generator when built
        perceptron = nn.Sequential(
            nn.Linear(features.shape[1], 64),
            nn.ReLU(),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 1),
        )
    reinitialize(perceptron.to_empty(device=features.device), generator)
    for _ in _sgd(
        perceptron,
        Examples(standardize(features, features), hard.long()),
        generator,
        settings.classifier_epochs,
        settings.classifier_lr,
        settings,
        loss=lambda logits, labels: F.binary_cross_entropy_with_logits(
            logits[:, 0], labels.to(logits)
        ),
    ):
        pass
    with torch.no_grad():
        called_hard = perceptron(standardize(features, features))[:, 0] > 0
        probability = perceptron(standardize(others, others))[:, 0].sigmoid()
    logger.info(
        "%d of %d twin samples are hard; the classifier finds %d of them, and calls %d others hard",
        int(hard.sum()),
        len(hard),
        int((called_hard & hard).sum()),
        int((called_hard & ~hard).sum()),
    )
    return probability
