"""The trial of ``peers.py`` as others write it: ``python benchmarks/other_ways.py WAY FOLDER [NUMBER]``.

``peers.py`` starts these, and measures them from their start to their end. ``FOLDER`` holds the work: data and original
model (``work.npz``), settings and the knobs of every trial (``work.json``). The ways:

* ``script``: one trial in a process of its own, as published scripts do: a torchvision-style data set, which opens an image and
  transforms it at each access, and a ``DataLoader`` in the process.
* ``optuna``: all trials in one process, an objective function on tensors in memory.
* ``tune``: the same function as a trainable of Ray Tune, two at a time, with ``OptunaSearch`` and ``MLflowLoggerCallback``.

All of them train the same network (``mu.models``) with PyTorch's own AdamW, and call scikit-learn's attacks as the papers' code
does. Order and labels are drawn from the seed that our trial uses, so that equal knobs give equal values.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch.nn import functional as F

WATCHED = 1000
"""Retained samples whose accuracy is measured after every epoch."""
COMPARED = ("acc_test", "acc_forget", "mia_lr_entropy")
"""The metrics whose mean distance to the retrained model is minimised."""
PAD = 4
"""Pixels of zero padding before a crop."""


@dataclass(frozen=True)
class Work:
    """What every trial starts from.

    Args:
        arrays: Parts of the data (`train_inputs` uint8 [N, C, H, W], `train_labels`, ...), positions of D_r and D_f in the training
            part, the order in which D_r is attacked, and `weights.NAME` of the original model.
        settings: Epochs and batch size, whether images are cropped and flipped, the seed of the draws, image files by part, the
            retrained model's metrics, ranges to search, and the knobs of every trial.
        images: Images in [0, 1] of the training and the validation part, float [N, C, H, W], for trials in memory.
    """

    arrays: dict[str, Any]
    settings: dict[str, Any]
    images: dict[str, Any]

    def model(self) -> torch.nn.Module:
        """Build the original model."""
        from mu.models import build

        shape = self.arrays["train_inputs"].shape[1:]
        model = build("small_cnn", shape, 10, *self.arrays["stats"].tolist(), 0)
        named = {k: v for k, v in self.arrays.items() if k.startswith("weights.")}
        model.load_state_dict(
            {k.removeprefix("weights."): torch.tensor(v) for k, v in named.items()}
        )
        return model

    def relabelled(self, draws: torch.Generator) -> Any:
        """Return the training labels, int64 [N], with another class for every forgotten sample."""
        labels = torch.tensor(self.arrays["train_labels"])
        forget = torch.tensor(self.arrays["forget"])
        odds = torch.ones(len(forget), 10)
        odds[torch.arange(len(forget)), labels[forget]] = 0
        labels[forget] = torch.multinomial(odds, 1, generator=draws)[:, 0]
        return labels

    def watched(self) -> Any:
        """Return the positions of the retained samples that are looked at after every epoch."""
        retain = self.arrays["retain"]
        places = np.linspace(0, len(retain) - 1, min(WATCHED, len(retain)))
        return retain[places.astype(int)]


def read(folder: Path, parts: tuple[str, ...] = ()) -> Work:
    """Read the work of a folder, with the images of some parts as tensors."""
    with np.load(folder / "work.npz") as loaded:
        arrays = dict(loaded)
    images = {part: torch.tensor(arrays[f"{part}_inputs"]).float() / 255 for part in parts}
    return Work(arrays, json.loads((folder / "work.json").read_text()), images)


def values_of(work: Work, final: list[tuple[Any, Any]]) -> dict[str, float]:
    """Return the values of a trial from logits and labels of D_r, D_f and the validation set."""
    names = ("acc_retain", "acc_forget", "acc_test")
    values = {name: accuracy(*pair) for name, pair in zip(names, final)}
    values |= attacks(*zip(*final), work.arrays["order"])
    retrain = work.settings["retrain"]
    gaps = [abs(values[name] - retrain[name]) for name in COMPARED]
    return {**values, "avg_gap_natmu": sum(gaps) / len(gaps)}


def accuracy(logits: Any, labels: Any) -> float:
    return float((logits.argmax(1) == labels).mean())


def attacks(logits: Any, labels: Any, order: Any) -> dict[str, float]:
    """Run the attacks of the papers' code, scikit-learn's, on the outputs on D_r, D_f and the validation set."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    retain, forget, outside = (shown(*pair) for pair in zip(logits, labels))
    members = np.concatenate([retain["entropy"], outside["entropy"]])
    inside = np.repeat([1, 0], [len(retain["entropy"]), len(outside["entropy"])])
    fitted = LogisticRegression(C=2, class_weight="balanced", max_iter=1000, tol=1e-8).fit(
        members, inside
    )
    values = {"mia_lr_entropy": float(fitted.predict(forget["entropy"]).mean())}
    count = min(len(retain["conf"]), len(outside["conf"]))
    for name in retain:
        samples = np.concatenate([retain[name][order[:count]], outside[name]])
        known = np.repeat([1, 0], [count, len(outside[name])])
        machine = SVC(C=3, gamma="auto", kernel="rbf").fit(samples, known)
        values[f"mia_svc_{name}_nonmember"] = float(1 - machine.predict(forget[name]).mean())
    return values


def shown(logits: Any, labels: Any) -> dict[str, Any]:
    """Return what the attacks look at, each [N, 1], or the whole prediction [N, K]."""
    logits = logits.astype(np.float64)
    logp = logits - logits.max(1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(1, keepdims=True))
    p, rows = np.exp(logp), np.arange(len(labels))
    reverse = np.log(np.maximum(1 - p, 1e-30))
    own = p[rows, labels]
    modified = -(p * reverse).sum(1) + own * reverse[rows, labels] - (1 - own) * logp[rows, labels]
    return {
        "correctness": (logits.argmax(1) == labels).astype(float)[:, None],
        "conf": own[:, None],
        "entropy": -(p * logp).sum(1)[:, None],
        "m_entropy": modified[:, None],
        "prob": p,
    }


def optimizer_of(model: torch.nn.Module, knobs: dict[str, float]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=knobs["lr"], weight_decay=knobs["weight_decay"])


def in_memory(work: Work, knobs: dict[str, float]) -> list[tuple[Any, Any]]:
    """Run one trial on tensors in memory; return its final logits and labels (see ``values_of``)."""
    arrays, settings = work.arrays, work.settings
    draws = torch.Generator().manual_seed(settings["seed"])
    images, held_out = work.images["train"], work.images["val"]
    labels, relabelled = torch.tensor(arrays["train_labels"]), work.relabelled(draws)
    sets = {
        name: (images[arrays[name]], labels[arrays[name]].numpy()) for name in ("retain", "forget")
    }
    sets["val"] = (held_out, arrays["val_labels"])
    sets["watched"] = (images[work.watched()], labels[work.watched()].numpy())
    everything = torch.tensor(np.concatenate([arrays["retain"], arrays["forget"]]))
    model = work.model()
    optimizer = optimizer_of(model, knobs)
    for _ in range(settings["epochs"]):
        model.train()
        order = torch.randperm(len(everything), generator=draws)
        for batch in everything[order].split(settings["batch_size"]):
            inputs = images[batch]
            if settings["augment"]:
                inputs = crop_and_flip(inputs, draws)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), relabelled[batch]).backward()
            optimizer.step()
        for name in ("watched", "forget", "val"):
            accuracy(logits_of(model, sets[name][0]), sets[name][1])
    return [(logits_of(model, sets[k][0]), sets[k][1]) for k in ("retain", "forget", "val")]


def crop_and_flip(images: Any, draws: torch.Generator) -> Any:
    """Crop each image [B, C, H, W] at a random place after zero padding, and mirror half of them."""
    count, _, height, width = images.shape
    top, left = torch.randint(0, 2 * PAD + 1, (2, count), generator=draws)
    mirrored = torch.rand(count, generator=draws) < 0.5
    padded = F.pad(images, (PAD,) * 4)
    rows = top[:, None, None] + torch.arange(height)[:, None]
    columns = left[:, None, None] + torch.arange(width)
    cropped = padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
    return torch.where(mirrored[:, None, None, None], cropped.flip(-1), cropped)


@torch.no_grad()
def logits_of(model: torch.nn.Module, images: Any) -> Any:
    model.eval()
    return torch.cat([model(part) for part in images.split(256)]).numpy()


def script(folder: Path, number: int) -> None:
    """Run one trial in this process, as a published script does."""
    began = time.time()
    work = read(folder)
    torch.set_num_threads(1)
    torch.manual_seed(number)
    settings, knobs = work.settings, work.settings["trials"][number]
    draws = torch.Generator().manual_seed(settings["seed"])
    training, sets = data_sets(work, work.relabelled(draws).numpy())
    model = work.model()
    for _ in epochs(model, training, work, knobs, draws):
        for part in ("watched", "forget", "val"):
            accuracy(*answers(model, sets[part]))
    final = [answers(model, sets[name]) for name in ("retain", "forget", "val")]
    write(folder / f"script-{number}.json", [outcome(values_of(work, final), began)])


def data_sets(work: Work, labels: Any) -> tuple[Any, dict[str, Any]]:
    """Return the training set, with the labels given, and the sets to evaluate by name."""
    from torch.utils.data import ConcatDataset, Subset

    from mu.vision import datasets

    datasets()  # torchvision can be imported after this
    from torchvision import transforms as T

    arrays, settings = work.arrays, work.settings
    plain = transform = T.ToTensor()
    if settings["augment"]:
        side = arrays["train_inputs"].shape[-1]
        crop, flip = T.RandomCrop(side, padding=PAD), T.RandomHorizontalFlip()
        transform = T.Compose([crop, flip, T.ToTensor()])
    images = {
        part: settings["files"].get(part, arrays[f"{part}_inputs"]) for part in ("train", "val")
    }
    training = Images(images["train"], labels, transform)
    clean = Images(images["train"], arrays["train_labels"], plain)
    sets: dict[str, Any] = {
        name: Subset(clean, arrays[name].tolist()) for name in ("retain", "forget")
    }
    sets["val"] = Images(images["val"], arrays["val_labels"], plain)
    sets["watched"] = Subset(clean, work.watched().tolist())
    both = [Subset(training, arrays[k].tolist()) for k in ("retain", "forget")]
    return ConcatDataset(both), sets


def epochs(
    model: Any, training: Any, work: Work, knobs: dict[str, float], draws: torch.Generator
) -> Iterator[None]:
    """Train on all samples. Yields after each epoch."""
    from torch.utils.data import DataLoader

    optimizer = optimizer_of(model, knobs)
    for _ in range(work.settings["epochs"]):
        model.train()
        order = torch.randperm(len(training), generator=draws).tolist()
        for inputs, targets in DataLoader(training, work.settings["batch_size"], sampler=order):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        yield


@torch.no_grad()
def answers(model: Any, samples: Any) -> tuple[Any, Any]:
    """Return the model's logits [N, classes] on a data set, and its labels [N]."""
    from torch.utils.data import DataLoader

    model.eval()
    pairs = [(model(x).numpy(), y.numpy()) for x, y in DataLoader(samples, batch_size=256)]
    logits, labels = zip(*pairs)
    return np.concatenate(logits), np.concatenate(labels)


class Images:
    """As torchvision's ``ImageFolder`` (given file names) or ``CIFAR10`` (given an array): an image at each access."""

    def __init__(self, inputs: Any, labels: Any, transform: Callable[[Any], Any]):
        self.inputs, self.labels, self.transform = inputs, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = self.inputs[index]
        if isinstance(image, str):
            return self.transform(Image.open(image).convert("RGB")), int(self.labels[index])
        return self.transform(Image.fromarray(image.squeeze())), int(self.labels[index])


def with_optuna(folder: Path) -> None:
    """Run all trials one after the other in this process."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    work, outcomes = read(folder, ("train", "val")), []
    ranges = work.settings["ranges"]

    def objective(trial: optuna.Trial) -> float:
        began = time.time()
        knobs = {
            name: trial.suggest_float(name, low, high, log=log)
            for name, (low, high, log) in ranges.items()
        }
        final = in_memory(work, knobs)
        if not outcomes:
            flat = {f"{kind}{n}": a for n, p in enumerate(final) for kind, a in zip("zy", p)}
            np.savez(folder / "outputs.npz", **flat)
        values = values_of(work, final)
        outcomes.append(outcome(values, began))
        return values["avg_gap_natmu"]

    study = optuna.create_study(storage=f"sqlite:///{folder}/optuna-{torch.get_num_threads()}.db")
    for knobs in work.settings["trials"]:
        study.enqueue_trial(knobs)
    study.optimize(objective, n_trials=len(work.settings["trials"]))
    write(folder / "optuna.json", outcomes)


def with_tune(folder: Path) -> None:
    """Run all trials on Ray Tune, two at a time."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    work = read(folder, ("train", "val"))
    trials, ranges = work.settings["trials"], work.settings["ranges"]
    space = {
        name: (tune.loguniform if log else tune.uniform)(low, high)
        for name, (low, high, log) in ranges.items()
    }
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_parameters(trainable, work=work),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space, metric="avg_gap_natmu", mode="min", points_to_evaluate=trials
            ),
            num_samples=len(trials),
            max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(f"sqlite:///{folder}/tune.db", experiment_name="peers")
            ],
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    by_knobs = {json.dumps(each.config, sort_keys=True): each.metrics for each in results}
    write(
        folder / "tune.json",
        [by_knobs[json.dumps(knobs, sort_keys=True)]["outcome"] for knobs in trials],
    )
    ray.shutdown()


def trainable(config: dict[str, float], work: Any) -> None:
    """Run one trial, and report its values."""
    from ray import tune

    began = time.time()
    values = values_of(work, in_memory(work, config))
    tune.report({**values, "outcome": outcome(values, began)})


def outcome(values: dict[str, float], began: float) -> dict[str, Any]:
    """Return what ``peers.py`` reads of a trial: its values, and when it began and ended, seconds since the epoch."""
    return {"values": values, "began": began, "ended": time.time()}


def write(path: Path, outcomes: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("way", choices=("script", "optuna", "tune"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int, nargs="?", default=0, help="of a script's trial")
    given = parser.parse_args()
    if given.way == "script":
        script(given.folder, given.number)
    else:
        {"optuna": with_optuna, "tune": with_tune}[given.way](given.folder)


if __name__ == "__main__":
    main()
