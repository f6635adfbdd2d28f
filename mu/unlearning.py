"""Unlearning and its evaluation on any ``nn.Module``, without a study: ``mu.unlearn`` and ``mu.evaluate_unlearning``.

Data are pairs of tensors, a ``Dataset`` or a ``DataLoader`` (see ``mu.data.pairs``). Inputs that are uint8 reach the model as
floats in [0, 1]; others reach it as they are.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mu import methods, metrics
from mu.data import Examples
from mu.data.augment import policy as augment_policy
from mu.data.pairs import Samples, check_apart, check_labels, examples_of
from mu.evaluate import Outputs, costly_score, outputs, score, unavailable
from mu.keys import derive_seed
from mu.memo import Memo
from mu.methods import Method
from mu.models import Normalize, eval_mode
from mu.relative import gaps
from mu.rng import generator, seeded
from mu.split import Split
from mu.training import Recipe


def unlearn(
    model: nn.Module,
    method: str | Method,
    *,
    forget: Samples,
    retain: Samples | None = None,
    twin: Samples | None = None,
    forget_class: int | None = None,
    seed: int = 0,
    training: Recipe | Mapping[str, Any] | None = None,
    **knobs: Any,
) -> nn.Module:
    """Return a copy of `model` that a method has made to forget; `model` itself stays as it is.

    The copy is on the model's device and in its modes. The process's random generators are left as they were.

    Args:
        model: A network that gives logits [B, K], trained on `retain` and `forget`.
        method: Name of a method, or one that ``mu.methods.load`` returned.
        forget: D_f, the samples to forget.
        retain: D_r, all other training samples; methods that need none may go without.
        twin: Labelled samples that the model was not trained on, for methods that need them.
        forget_class: Label of the class that D_f holds; None finds it where D_f is all of one class.
        seed: Of all that the method draws.
        training: The recipe that the model was trained by, for methods that augment as it did; none by default.
        knobs: Hyperparameters of the method; its authors' defaults stand for the others.

    Raises:
        ValueError: The method, a knob or the data does not fit; nothing has been done then.
    """
    loaded = method if isinstance(method, Method) else methods.load(method)
    values = loaded.check(knobs)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(
            "the model has no weight that needs a gradient, so nothing can be unlearned"
        )
    device = next(model.parameters()).device
    given = {"retain": retain, "forget": forget, "twin": twin}
    sets = {k: examples_of(v, k, device) for k, v in given.items() if v is not None}
    check_sets(model, sets)
    unlearned = copy.deepcopy(model)
    network, sets = _in_unit_range(unlearned, sets)
    kind, target = request_of(sets.get("retain"), sets["forget"], forget_class)
    split = Split(
        parts=sets,
        num_classes=count_outputs(network, sets["forget"]),
        forget_class=target,
        **_statistics(sets),
        augment=_augment(training),
        memo=Memo(f"seed {seed}"),
    )
    with seeded("unlearn", loaded.name, seed):
        check_method(loaded, network, split, kind)
        draws = generator("method", loaded.name, seed)
        for _ in loaded.unlearn(network, split.only(loaded.data), draws, **values):
            pass
    _finish(unlearned, model, loaded.name, split)
    return unlearned


def _finish(unlearned: nn.Module, model: nn.Module, name: str, split: Split) -> None:
    """Give a model the modes of another one, and tell of what may spoil it."""
    unlearned.zero_grad(set_to_none=True)
    modes = {n: module.training for n, module in model.named_modules()}
    for n, module in unlearned.named_modules():
        module.training = modes.get(n, model.training)
    broken = any(not torch.isfinite(weight).all() for weight in unlearned.parameters())
    texts = ["weights are not finite: it has diverged"] if broken else []
    for text in [*split.diagnostics.warnings, *texts]:
        warnings.warn(f"{name}: {text}", stacklevel=3)


def check_sets(model: nn.Module, sets: Mapping[str, Examples]) -> None:
    """Raise ValueError unless D_r and D_f are apart, and the model has an output for every label."""
    if "retain" in sets:
        check_apart(sets["retain"], sets["forget"])
    check_labels(sets, count_outputs(model, sets["forget"]))


def count_outputs(model: nn.Module, examples: Examples) -> int:
    """Return the number K of a model's outputs.

    Raises:
        ValueError: It fails on the inputs, or gives something else than logits [B, K].
    """
    inputs, _ = examples.batch(slice(0, 2))
    try:
        with torch.no_grad(), eval_mode(model):
            logits = model(inputs)
    except Exception as error:
        kind, text = type(error).__name__, str(error).partition("\n")[0]
        raise ValueError(
            f"the model fails on inputs {list(inputs.shape)}: {kind}: {text}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"the model must give logits [{len(inputs)}, classes] of inputs {list(inputs.shape)}, but "
            f"gives {shape}"
        )
    return logits.shape[1]


def request_of(
    retain: Examples | None, forget: Examples, forget_class: int | None = None
) -> tuple[str, int | None]:
    """Return the kind of a forget request, and the class that goes where it is one: `full_class`, `sub_class` or `indices`.

    Raises:
        ValueError: D_f holds samples of other classes than `forget_class`.
    """
    labels = forget.labels.unique().tolist()
    if forget_class is not None and labels != [forget_class]:
        raise ValueError(
            f"forget_class is {forget_class}, but forget holds the labels {labels[:5]}"
        )
    if len(labels) > 1 or (retain is None and forget_class is None):
        return "indices", None
    kept = retain is not None and bool((retain.labels == labels[0]).any())
    if not kept:
        return "full_class", labels[0]
    return ("indices", None) if forget_class is None else ("sub_class", forget_class)


def check_method(method: Method, model: nn.Module, split: Split, kind: str) -> None:
    """Raise ValueError when a method cannot work on a model and a split; the message says what it needs."""
    for part in method.data:
        if part not in split.parts or not len(split.parts[part]):
            raise ValueError(f"{method.name} needs {NEEDED[part]}")
    if kind not in method.requests:
        supported = f"it supports {', '.join(method.requests)}"
        if kind == "indices":
            raise ValueError(
                f"{method.name} needs a class that goes as a whole ({supported}), but forget is none that is known: it "
                "must hold one class, and retain no sample of it; without retain, name it with forget_class"
            )
        raise ValueError(f"{method.name} cannot forget a {kind.replace('_', ' ')}: {supported}")
    if refusal := method.refusal(model):
        raise ValueError(f"{method.name} {refusal}")
    if method.check_problem is not None:
        try:
            method.check_problem(model, split.only(method.data))
        except ValueError as error:
            raise ValueError(f"{method.name}: {error}") from error


NEEDED = {
    "retain": "retain, the training samples that stay",
    "forget": "forget, the samples to forget",
    "twin": "twin, labelled samples that the model was not trained on",
}


def _in_unit_range(
    network: nn.Module, sets: Mapping[str, Examples]
) -> tuple[nn.Module, dict[str, Examples]]:
    """Return a network and its data with images in [0, 1], which methods that blend or bound pixels expect.

    Images outside are scaled by the range of each channel, and the network scales them back.
    """
    first = sets["forget"].inputs
    if first.ndim != 4 or not first.is_floating_point():
        return network, dict(sets)
    low, high = (
        torch.stack([extreme(each.inputs, dim=(0, 2, 3)) for each in sets.values()])
        for extreme in (torch.amin, torch.amax)
    )
    low, high = low.amin(0), high.amax(0)
    if low.min() >= 0 and high.max() <= 1:
        return network, dict(sets)
    width = torch.where(high > low, high - low, torch.ones_like(high))
    scaled = {
        name: Examples((each.inputs - low.view(-1, 1, 1)) / width.view(-1, 1, 1), each.labels)
        for name, each in sets.items()
    }
    back = Normalize((-low / width).tolist(), (1 / width).tolist()).to(low.device)
    return nn.Sequential(back, network), scaled


def _statistics(sets: Mapping[str, Examples]) -> dict[str, tuple[float, ...]]:
    """Return mean and standard deviation of each channel of the training images; nothing for other inputs."""
    parts = [each for name, each in sets.items() if name != "twin"]
    if parts[0].inputs.ndim != 4:
        return {}
    count = sum(len(each) for each in parts)
    step = 1024
    sums, squares = torch.zeros(2, parts[0].input_shape[0], dtype=torch.float64).unbind()
    for each in parts:
        for start in range(0, len(each), step):
            pixels = each.batch(slice(start, start + step))[0].double().cpu()
            sums = sums + pixels.mean((2, 3)).sum(0)
            squares = squares + pixels.square().mean((2, 3)).sum(0)
    mean = sums / count
    variance = squares / count - mean.square()
    std = variance.clamp(min=1e-12).sqrt()
    return {"input_mean": tuple(mean.tolist()), "input_std": tuple(std.tolist())}


def _augment(training: Recipe | Mapping[str, Any] | None) -> Any:
    recipe = training if isinstance(training, Recipe) else Recipe(**(training or {}))
    return augment_policy(recipe.augment, recipe.pad)


def evaluate_unlearning(
    model: nn.Module,
    original: nn.Module,
    *,
    retain: Samples,
    forget: Samples,
    test: Samples,
    retrain: nn.Module | None = None,
    forget_class: int | None = None,
    attacks: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Return what can be measured of an unlearned model, by ``mu.metrics.METRICS``' names; accuracies are in [0, 1].

    Args:
        model: The unlearned model.
        original: The model before.
        retain, forget: The training samples that stay, and those to forget.
        test: Samples that no model was trained on.
        retrain: A model trained without `forget`.
        forget_class: As in ``unlearn``.
        attacks: Costly attacks that are run as well, of ``mu.evaluate.COSTLY``.

    Returns:
        Metrics under `unlearned` and `original`, and with a retrained model also under `retrain` and `gap`: the gap of each
        metric, the mean gaps, `activation_distance`, and `recovery`, 0 for doing nothing and 1 for retraining. What cannot be
        computed is left out.

    Raises:
        ValueError: As ``unlearn``.
    """
    models = {"unlearned": model, "original": original}
    models |= {"retrain": retrain} if retrain is not None else {}
    device = next(model.parameters()).device
    given = {"retain": retain, "forget": forget, "test": test}
    sets = {name: examples_of(each, name, device) for name, each in given.items()}
    for each in models.values():
        check_sets(each, sets)
    kind, target = request_of(sets["retain"], sets["forget"], forget_class)
    whole = kind == "full_class"
    # Held-out samples say their class, but not their sub-class.
    outside = sets["test"].labels.eq(target).cpu().numpy() if target is not None and whole else None
    seen: dict[str, Outputs] = {}
    values: dict[str, dict[str, float]] = {}
    for name, each in models.items():
        placed = (
            each if next(each.parameters()).device == device else copy.deepcopy(each).to(device)
        )
        parts = (outputs(placed, sets["retain"]), outputs(placed, sets["forget"]))
        held_out = outputs(placed, sets["test"], outside)
        seen[name] = parts[1]
        measured = score(*parts, held_out)
        if attacks:
            measured |= costly_score(*parts, held_out, derive_seed("attack"), attacks)
        missing = unavailable(measured, *parts, held_out)
        values[name] = {metric: v for metric, v in measured.items() if metric not in missing}
    if retrain is not None:
        values["gap"] = _gaps(values, seen, kind in ("full_class", "sub_class"))
    return values


def _gaps(
    values: Mapping[str, Mapping[str, float]], seen: Mapping[str, Outputs], whole_class: bool
) -> dict[str, float]:
    ours, theirs = values["unlearned"], values["retrain"]
    compared = {name: metrics.gap(ours[name], theirs[name]) for name in ours if name in theirs}
    compared |= gaps(ours, theirs, whole_class)
    start = gaps(values["original"], theirs, whole_class).get("avg_gap_natmu", 0.0)
    if start > 0 and "avg_gap_natmu" in compared:
        compared["recovery"] = 1 - compared["avg_gap_natmu"] / start
    compared["activation_distance"] = metrics.activation_distance(
        seen["unlearned"].logits, seen["retrain"].logits
    )
    return compared
