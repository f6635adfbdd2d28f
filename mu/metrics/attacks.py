"""Membership inference on one model's per-sample arrays. Numpy; scikit-learn only inside what needs it.

Two directions: `mia_lr_entropy` and the population attack give the share of D_f called *member*, the SVC
attacks the share called *non-member*. The best value of either is the retrained model's.

An attack that has fewer samples than it needs, or meets a value that is not finite, is NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu.metrics.basic import NAN, entropy, log_softmax, usable
from mu.metrics.logistic import fit_logistic

Array = NDArray[np.float64]

FPRS = (0.01, 0.05, 0.1, 0.25, 0.5)
"""False positive rates at which the population attack is recorded."""

MIN_FIT = 10
"""Samples of either kind that the SVC and cross-validated attacks need at least."""

SVC_INPUTS = ("correctness", "conf", "entropy", "m_entropy", "prob")
"""What the SVC attacks look at, as in the keys ``mia_svc_<input>_nonmember``."""

CHUNKED_INPUTS = ("correctness", "conf", "entropy", "prob")
"""What Akbari et al.'s attacks look at, as in ``mia_svc_chunked_<input>_nonmember``."""


def mia_lr_entropy(retain: ArrayLike, held_out: ArrayLike, forget: ArrayLike) -> float:
    """Return the share of forgotten samples that an attack on output entropy calls members (NatMU App. C, JiT).

    The attack is fitted on all retained (members) and all held-out entropies, the forgotten class included;
    the best value is the retrained model's, not 0. It is NaN when any entropy is not finite or a set is empty.

    Args:
        retain: Entropies on D_r, nats [N].
        held_out: Entropies on the view's held-out samples, [M].
        forget: Entropies on D_f, [L].
    """
    return entropy_rates(retain, held_out, forget)["mia_lr_entropy"]


def entropy_rates(retain: ArrayLike, held_out: ArrayLike, forget: ArrayLike) -> dict[str, float]:
    """Return what share of each set the attack of ``mia_lr_entropy`` calls members, by name of the metric.

    The rate on held-out samples is what the attack says of data that a model has not seen, and the fair target for the
    rate on D_f: it lies above one half where members and others overlap.

    Args:
        retain, held_out, forget: As in ``mia_lr_entropy``.
    """
    sets = {"": forget, "_held_out": held_out, "_retain": retain}
    if not usable(retain, held_out, forget):
        return {f"mia_lr_entropy{name}": NAN for name in sets}
    attack = fit_logistic(retain, held_out)
    return {
        f"mia_lr_entropy{name}": float(attack.members(entropies).mean())
        for name, entropies in sets.items()
    }


def m_entropy(logits: ArrayLike, labels: ArrayLike, variant: str = "rows") -> Array:
    """Return the modified entropy of each sample, nats [N]: small for confident *and* right (Song & Mittal 2021).

    Args:
        logits: [N, K].
        labels: int [N].
        variant: `rows`, the published formula -(1-p_y) ln p_y - sum over k != y of p_k ln(1-p_k).
            For comparison `columns`, as in Unlearn-Sparse and SalUn: ln p for ln(1-p), and 1-p in the whole
            column of any label of the batch, so that it depends on the other samples; and `natmu`: ln p for
            ln(1-p), but row by row.
    """
    logp, y = log_softmax(logits), np.asarray(labels, np.int64)
    p, rows = np.exp(logp), np.arange(len(y))
    if variant == "rows":
        # 1 - p_k of the largest class is the sum of the others, by their logarithms: nothing cancels near 1.
        top = (rows, logp.argmax(axis=1))
        others = logp.copy()
        others[top] = -np.inf
        largest = others.max(axis=1)
        weight, logs = p.copy(), np.log1p(-np.minimum(p, 0.5))
        logs[top] = largest + np.log(np.exp(others - largest[:, None]).sum(axis=1))
        weight[rows, y] = np.exp(logs[rows, y])
        logs[rows, y] = logp[rows, y]
    elif variant in ("columns", "natmu"):
        weight, logs = p.copy(), np.maximum(logp, np.log(1e-30))
        own = (slice(None), np.unique(y)) if variant == "columns" else (rows, y)
        weight[own] = 1 - p[own]
    else:
        raise ValueError(f"variant must be rows, columns or natmu, but got {variant!r}")
    return -np.where(weight == 0, 0.0, weight * np.where(weight == 0, 0.0, logs)).sum(axis=1)


def svc_features(logits: ArrayLike, labels: ArrayLike) -> dict[str, Array]:
    """Return what each SVC attack looks at, by ``SVC_INPUTS``: [N, 1], or the whole softmax vector [N, K]."""
    z, logp = np.asarray(logits), log_softmax(logits)
    p, right = np.exp(logp), z.argmax(axis=1) == np.asarray(labels)
    correctness = np.where(np.isnan(logp).any(axis=1), np.nan, right)
    confidence = p[np.arange(len(p)), np.asarray(labels, np.int64)]
    columns = (correctness, confidence, entropy(z), m_entropy(z, labels))
    return {
        **{name: column[:, None] for name, column in zip(SVC_INPUTS, columns)},
        "prob": p,
    }


def svc_members(members: ArrayLike, nonmembers: ArrayLike, queries: ArrayLike) -> Array:
    """Return which queries an SVC (C = 3, rbf, gamma = 1 / features) calls members: 1 or 0, [L].

    Where at most half of the samples are distinct, equal ones are fitted as one with their summed weight. That has the
    same optimum, and makes inputs with few values, such as correctness, instant.

    Args:
        members: Samples of the training set, [N, features].
        nonmembers: Samples the model was not trained on, [M, features].
        queries: Samples to call, [L, features].
    """
    from sklearn.svm import SVC

    sides = [np.asarray(side, np.float64) for side in (members, nonmembers)]
    counts = np.ones(sum(len(side) for side in sides))
    distinct = [np.unique(side, axis=0, return_counts=True) for side in sides]
    if sum(len(rows) for rows, _ in distinct) <= len(counts) / 2:
        sides = [rows for rows, _ in distinct]
        counts = np.concatenate([repeats for _, repeats in distinct])
    labels = np.repeat([1, 0], [len(side) for side in sides])
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate(sides), labels, sample_weight=counts)
    return machine.predict(np.asarray(queries, np.float64)).astype(np.float64)


def mia_svc_nonmember(retain: ArrayLike, held_out: ArrayLike, forget: ArrayLike) -> float:
    """Return the share of D_f that an SVC calls *non-member* (Jia et al.'s forget efficacy; UGradSL's MIA_Score).

    Args:
        retain: One of the ``svc_features`` on D_r, [N, features]; the first M samples are the members.
        held_out: The same on samples not trained on, [M, features]; UGradSL leaves out a forgotten class.
        forget: The same on D_f, [L, features].
    """
    members, outside = np.asarray(retain)[: len(np.asarray(held_out))], np.asarray(held_out)
    if min(len(members), len(outside)) < MIN_FIT or not usable(members, outside, forget):
        return NAN
    return float(1 - svc_members(members, outside, forget).mean())


def mia_akbari(retain: ArrayLike, held_out: ArrayLike, forget: ArrayLike) -> float:
    """Return ``mia_svc_nonmember`` averaged over D_r cut into chunks as long as the held-out set (Akbari et al.).

    Differs: their code fails on correctness and entropy, which it treats as two-dimensional; here they are.
    """
    members, size = np.asarray(retain), len(np.asarray(held_out))
    starts = range(0, len(members) - size + 1, size) if size else range(0)
    rates = [mia_svc_nonmember(members[i : i + size], held_out, forget) for i in starts]
    return float(np.mean(rates)) if rates else NAN


def starting_kit_scores(forget: ArrayLike, held_out: ArrayLike) -> Array:
    """Return the accuracy of telling D_f from held-out samples by their loss in ten stratified splits, [10].

    It is `simple_mia` of the NeurIPS 2023 starting kit: a logistic regression, with a tenth of the samples for testing.

    Args:
        forget: Losses on D_f, [N].
        held_out: Losses on held-out samples, as many, [N].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    losses = np.concatenate([np.asarray(held_out, np.float64), np.asarray(forget, np.float64)])
    members = np.repeat([0, 1], [len(np.asarray(held_out)), len(np.asarray(forget))])
    folds = StratifiedShuffleSplit(n_splits=10, random_state=0)
    return cross_val_score(
        LogisticRegression(), losses[:, None], members, cv=folds, scoring="accuracy"
    )


def mia_acc_forget_test(
    forget: ArrayLike, held_out: ArrayLike, generator: np.random.Generator
) -> float:
    """Return the mean accuracy of `starting_kit_scores` on equally many samples of both sets (UGradSL's Add. MIA).

    Chance is 0.5. The larger set is subsampled first: with unbalanced sets, calling all samples by the larger set's name
    would already do better than chance.

    Args:
        forget: Losses on D_f, nats [N].
        held_out: Losses on held-out samples, [M]; without a forgotten class.
        generator: Draws the subsample.
    """
    sets = [np.asarray(losses, np.float64) for losses in (forget, held_out)]
    count = min(len(losses) for losses in sets)
    if count < MIN_FIT or not usable(*sets):
        return NAN
    inside, outside = (
        losses if len(losses) == count else generator.choice(losses, count, replace=False)
        for losses in sets
    )
    return float(starting_kit_scores(inside, outside).mean())


def attack_accuracy(called_inside: ArrayLike, called_outside: ArrayLike) -> float:
    """Return (TP + TN) / all samples, from which members and non-members an attack calls members."""
    inside, outside = np.asarray(called_inside, bool), np.asarray(called_outside, bool)
    right = inside.sum() + (~outside).sum()
    return float(right / (len(inside) + len(outside))) if len(inside) + len(outside) else NAN


def loss_thresholds(
    losses: ArrayLike, rates: ArrayLike, method: Literal["linear", "lower"] = "linear"
) -> Array:
    """Return thresholds [A, ...] below which a loss is called a member's, one for each false positive rate.

    They are Privacy Meter's: quantiles along the last axis; rate 0 is threshold 0, and rate 1 is 1000.

    Args:
        losses: Losses of samples that are not members: of the population, [n] (attack P), or of every sample
            under models trained without it, [N, models] (attack R).
        rates: False positive rates in [0, 1], [A].
        method: `linear` or `lower`, as of ``numpy.quantile``.
    """
    alphas, values = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    quantiles = np.quantile(values, alphas, axis=-1, method=method)
    at = alphas.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(at <= 0, 0.0, np.where(at >= 1, 1000.0, quantiles))


def best_threshold(members: ArrayLike, nonmembers: ArrayLike) -> tuple[float, float]:
    """Return the threshold with the best balanced accuracy of "member where loss < threshold", and that accuracy.

    Candidates lie midway between neighbouring losses of either set, and the first of equals is taken. Both are NaN
    where all losses are equal, or one is not finite.
    """
    if not usable(members, nonmembers):
        return NAN, NAN
    inside, outside = np.sort(np.ravel(members)), np.sort(np.ravel(nonmembers))
    values = np.unique(np.concatenate([inside, outside]))
    if len(values) < 2:
        return NAN, NAN
    low, high = values[:-1], values[1:]
    middle = low + (high - low) / 2
    middle = np.where(middle > low, middle, high)  # of neighbouring floats it is one of them
    true_positives, false_positives = (
        np.searchsorted(side, middle).astype(np.int64) for side in (inside, outside)
    )
    # The same order as that of the balanced accuracies, but in whole numbers: rounding parts no equals.
    best = int((true_positives * len(outside) - false_positives * len(inside)).argmax())
    sensitivity = true_positives[best] / len(inside)
    specificity = 1 - false_positives[best] / len(outside)
    return float(middle[best]), float((sensitivity + specificity) / 2)


def mia_population(retain: ArrayLike, population: ArrayLike, forget: ArrayLike) -> dict[str, float]:
    """Return the share of D_f whose loss lies strictly below thresholds on the population's (Ye et al.'s attack P).

    `mia_population_asr` uses the threshold that best parts D_r from the population, the others quantiles of
    the population's losses, so that they err on that share of it. Where that threshold does not exist,
    because all losses are equal, none is below it. The paper prints lower as better; 0 means D_f was destroyed.

    Args:
        retain: Losses on D_r, nats [N].
        population: Losses on held-out samples that serve as the population, [M].
        forget: Losses on D_f, [L].
    """
    names = [f"mia_population_asr_fpr{round(100 * rate)}" for rate in FPRS]
    if not usable(retain, population, forget):
        return dict.fromkeys(["mia_population_asr", *names], NAN)
    losses = np.asarray(forget, np.float64)
    thresholds = [best_threshold(retain, population)[0], *loss_thresholds(population, FPRS)]
    rates = [float((losses < threshold).mean()) for threshold in thresholds]
    return dict(zip(["mia_population_asr", *names], rates))


def auc(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """Return the chance that a member scores above a non-member, ties counting half, in [0, 1]; 0.5 is no signal.

    Scores grow with membership: give negative losses. It is NaN when a set is empty or a score is not finite.
    """
    if not usable(members, nonmembers):
        return NAN
    scores, others = np.sort(np.ravel(members)), np.sort(np.ravel(nonmembers))
    below, up_to = (np.searchsorted(others, scores, side) for side in ("left", "right"))
    return float((below.mean() + up_to.mean()) / 2 / len(others))


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float) -> float:
    """Return the largest share of members above a threshold that at most `fpr` of the non-members exceed.

    Scores grow with membership. It is NaN with fewer than 1 / fpr non-members, which cannot resolve the rate, when
    there are no members, or when a score is not finite.
    """
    scores, others = np.ravel(np.asarray(members)), np.sort(np.ravel(np.asarray(nonmembers)))
    allowed = int(np.floor(fpr * len(others) * (1 + 1e-12)))
    if allowed < 1 or not usable(scores, others):
        return NAN
    if allowed >= len(others):
        return 1.0
    return float((scores > others[-allowed - 1]).mean())
