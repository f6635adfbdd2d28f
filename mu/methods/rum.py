"""RUM: part forgotten samples by how much they were memorised, and unlearn each part by a method of its own, in order.

Paper: Zhao et al., What makes unlearning hard and what to do about it, NeurIPS 2024 (arXiv:2406.01257); proxies of
    memorisation: Zhao and Triantafillou (arXiv:2410.16516).
Reference: `kairanzhao/RUM` fe2df07 (`main_rum_proxy.py`, `heldout_retrain.py`), 5cb6e78
    (`memorization_proxy/learning_events.py`).
Differs: their held-out retraining fine-tunes a copy on the test set and takes the symmetric KL divergence of its
    answers from the original's; this one fine-tunes it on D_r, which leaves D_f out too (`proxy="divergence"`).
    Their confidence is the mean over the original's training, which a method does not see: this one is the
    original's own. Parts are thirds of D_f; theirs are the two ends and the middle of all of D, 1,000 samples each.
    Later parts are left out of the retained data, as their first paper's code does for entanglement; for
    memorisation it keeps them (`keep_later`), which teaches a class that is to go. Their example has NegGrad+
    three times, which random digits do not notice; the default goes from the mildest method to the strongest.
    A trial that goes on elsewhere runs its earlier thirds again.
Cost: of the three methods + probe_epochs passes over D_r.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import concat
from mu.evaluate import predict
from mu.knobs import Count, Positive
from mu.memo import Memo
from mu.methods import amnesiac, finetune, l1_sparse, neggrad_plus, salun, scrub
from mu.methods.badteacher import original_logits
from mu.snapshot import resumable
from mu.split import Split
from mu.training import Hyperparameters, fit

NEEDS = ("retain", "forget", "original")
Unlearn = Callable[..., Iterator[None]]
Chosen = Literal["none", "finetune", "l1_sparse", "neggrad_plus", "scrub", "amnesiac", "salun"]
METHODS: dict[str, Unlearn] = {
    "finetune": finetune.unlearn,
    "l1_sparse": l1_sparse.unlearn,
    "neggrad_plus": neggrad_plus.unlearn,
    "scrub": scrub.unlearn,
    "amnesiac": amnesiac.unlearn,
    "salun": salun.unlearn,
}


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 10,
    low: Chosen = "finetune",
    medium: Chosen = "amnesiac",
    high: Chosen = "salun",
    lr_factor: Positive = 1.0,
    proxy: Literal["divergence", "confidence"] = "divergence",
    probe_epochs: Count = 5,
    probe_lr: Positive = 0.02,
    keep_later: bool = False,
) -> Iterator[None]:
    """Unlearn the least memorised third first and the most memorised last; yield after each epoch of the last.

    Args:
        epochs: Of the method of each third. Before the last third's the model is not what it is to be.
        low, medium, high: The method for each third, with its other defaults; `none` leaves a third alone.
        lr_factor: Multiplies the default learning rate of every method.
        proxy: Of memorisation: how far answers move in fine-tuning on D_r, or how unsure the original is of the label.
        probe_epochs: Epochs of that fine-tuning.
        probe_lr: Its learning rate.
        keep_later: Whether thirds yet to be unlearned count as retained data meanwhile.
    """
    if proxy == "divergence":
        score = moved(model, split, probe_epochs, probe_lr)
    else:
        score = unsureness(original_logits(model, split, "forget"), split.forget.labels)
    thirds = score.argsort(stable=True).tensor_split(3)
    plan = [n for n, name in enumerate((low, medium, high)) if name != "none" and len(thirds[n])]
    for number in plan:
        retain = split.retain
        if keep_later and number < 2:
            retain = concat(retain, split.forget.rows(torch.cat(thirds[number + 1 :])))
        part = replace(
            split,
            parts={"retain": retain, "forget": split.forget.rows(thirds[number])},
            # What methods keep of "the original" holds for one third and the model as it then is.
            memo=Memo(f"{split.memo.seed}, third {number}"),
        )
        part.memo.start(split.memo.counter)
        method = METHODS[(low, medium, high)[number]]
        lr = signature(method).parameters["lr"].default * lr_factor
        for _ in method(model, part, generator, epochs=epochs, lr=lr):
            if number == plan[-1]:
                yield
    if not plan:
        for _ in resumable(epochs, generator, model):
            yield


def moved(model: nn.Module, split: Split, epochs: int, lr: float) -> Tensor:
    """Return how far the answers to D_f move when a copy is fine-tuned on D_r: symmetric KL divergence, float64 [N]."""

    def compute(draws: torch.Generator) -> Tensor:
        probe = copy.deepcopy(model)
        plan = Hyperparameters(epochs=epochs, batch_size=128, lr=lr, weight_decay=5e-4)
        for _ in fit(probe, split.retain, draws, plan):
            pass
        return torch.from_numpy(predict(probe, split.forget)).to(split.device)

    original = original_logits(model, split, "forget")
    return symmetric_divergence(original, split.cached(("probe", epochs, lr), compute))


def symmetric_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean of KL(p || q) and KL(q || p) of each row, in nats, from logits [N, K]: float64 [N]."""
    p, q = (logits.double().log_softmax(1) for logits in (one, other))
    return ((p.exp() - q.exp()) * (p - q)).sum(1) / 2


def unsureness(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-probability of each label [N], in nats, from logits [N, K]: float64 [N]."""
    return F.cross_entropy(logits.double(), labels, reduction="none")
