"""Trials per hour on one core, ours and the usual way: ``python benchmarks/cpu.py [--cifar ZIP]``.

Both ways do the same work from the same original model: Amnesiac (relabel the forgotten samples, train on all with
AdamW), after every epoch the accuracies of a sample of D_r, D_f and the validation set, at the end one pass over D_r,
D_f and the test set, the logistic attack on entropies and the five SVC attacks.

The usual way is a process for each trial that makes a torchvision-style data set (an image, or image file, per item, PIL and
transforms), reads it through a ``DataLoader`` and calls scikit-learn's attacks as the papers' code does. Ours is what
an actor of a sweep does: one process, trial after trial, through ``sweeps.workers.trial.run_trial``. Start and imports count
for both. The usual attacks are given the same logits as ours as well, to see that they agree.

Then, for each model, the share of a training step that sampling and augmentation take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

ROUNDS = 2
"""Both ways are timed in turns so many times, and the least is taken: other work on the machine only adds."""
STUDIES: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 5, "batch_size": 32, "lr": 1e-3, "augment": False, "usual": 4, "ours": 24},
    "cifar10_small": {
        "epochs": 3, "batch_size": 128, "lr": 1e-3, "augment": True, "usual": 1, "ours": 3,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cifar", help="CIFAR-10 as image folders or .zip; without it digits alone"
    )
    parser.add_argument("--repeats", type=float, default=1.0, help="multiplies the trials")
    parser.add_argument("--only", choices=("trials", "steps"))
    parser.add_argument("--study", choices=tuple(STUDIES), help="this one alone")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, study, folder, number = options.child
        {"ours": ours, "usual": usual}[way](study, Path(folder), int(number))
        return
    import sklearn
    import torch

    print(
        f"{time.strftime('%Y-%m-%d')}, {processor()}, one thread; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, numpy {np.__version__}\n",
        flush=True,
    )
    names = ["digits", *(["cifar10_small"] if options.cifar else [])]
    names = [name for name in names if options.study in (None, name)]
    if options.only != "steps":
        print(
            "| study | s a trial, ours (clock / CPU) | the usual way | ratio | test accuracy, ours | usual | forget accuracy, ours "
            "| usual | largest difference of an attack |\n|---|---|---|---|---|---|---|---|---|"
        )
        for name in names:
            print(row(name, options.cifar, options.repeats), flush=True)
    if options.only != "trials":
        print(
            "\n| study's data | model | step, ms | sampling, ms | augmentation, ms | both, share of the step |\n"
            "|---|---|---|---|---|---|"
        )
        for name in names:
            steps(name, options.cifar)


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(named)} x {named[0]}"


def spec(study: str, cifar: str | None) -> Any:
    from mu.data import DataSpec

    if study == "digits":
        return DataSpec("digits")
    return DataSpec("image_folder", root=cifar, subset=5000)


def recipe(study: str) -> Any:
    from mu.training import Recipe

    sizes = {"digits": (64, "none"), "cifar10_small": (128, "crop_flip")}
    size, augment = sizes[study]
    return Recipe(epochs=15, batch_size=size, augment=augment)


def problem_of(study: str, cifar: str | None) -> Any:
    from mu.data import load
    from mu.forget import ForgetRequest
    from mu.models import resolve
    from mu.problem import Problem

    request = ForgetRequest("random", fraction=0.1)
    return Problem(load(spec(study, cifar)), resolve("small_cnn"), recipe(study), request, 0)


def row(study: str, cifar: str | None, repeats: float) -> str:
    """One line of the table of trials."""
    from mu.device import place, prepare
    from mu.keys import derive_seed
    from mu.problem import weights_of

    settings = STUDIES[study]
    device = prepare(cpus=1, gpus=0)
    problem = problem_of(study, cifar)
    model = place(problem.build(), device)
    for _ in problem.train("original", model):
        pass
    counts = {way: max(1, round(repeats * settings[way])) for way in ("ours", "usual")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "weights.npz", **weights_of(model))
        parts = {
            f"{part}_{what}": getattr(problem.data.parts[part], what)
            for part in ("train", "val", "test")
            for what in ("inputs", "labels")
        }
        rng = np.random.default_rng(derive_seed("attack", problem.key, "test"))
        np.savez(
            folder / "data.npz",
            **parts,
            retain=problem.retain_index,
            forget=problem.forget_index,
            order=rng.permutation(len(problem.retain_index)),
            stats=np.array(problem.data.channel_stats),
        )
        names = {} if study == "digits" else write_files(problem.data, Path(cifar or ""), folder)
        (folder / "run.json").write_text(json.dumps({"cifar": cifar, "names": names}))
        mine, theirs, rounds = [], [], []
        for _ in range(ROUNDS):
            mine = [child("ours", study, folder, counts["ours"])]
            theirs = [child("usual", study, folder, number) for number in range(counts["usual"])]
            here = np.array(mine[0]["seconds"]) / counts["ours"]
            rounds.append((here, np.mean([one["seconds"] for one in theirs], 0)))
    times = dict(zip(("ours", "usual"), np.min(rounds, axis=0).tolist()))
    ratios = [there / here for here, there in zip(times["ours"], times["usual"])]
    attacks = mine[0]["attacks"]
    last = replace(problem, seed=mine[0]["seed"])
    same = repeat_attacks(last, weights_of(model), mine[0]["knobs"])
    apart = max(abs(attacks[key] - same[key]) for key in attacks)
    cells = [
        study,
        *(" / ".join(f"{part:.2f}" for part in times[way]) for way in times),
        f"**{ratios[0]:.1f} / {ratios[1]:.1f}**",
        *(spread(way, key) for key in ("test", "forget") for way in (mine, theirs)),
        f"{apart:.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def spread(processes: list[dict[str, Any]], key: str) -> str:
    """Mean and standard deviation over the trials of all processes, in percent."""
    values = 100 * np.concatenate([np.atleast_1d(one[key]) for one in processes])
    return f"{values.mean():.1f} ± {values.std(ddof=len(values) > 1):.1f}"


def write_files(data: Any, root: Path, folder: Path) -> dict[str, list[str]]:
    """The original image files of every part, written below a folder; their names."""
    from mu.data.decode import open_source

    source, known = open_source(root), {}
    for name in source.names:
        known[decoded(io.BytesIO(source.read(name))).tobytes()] = name
    names = {}
    for part in ("train", "val", "test"):
        found = [known[image.tobytes()] for image in data.parts[part].inputs.transpose(0, 2, 3, 1)]
        names[part] = [str(folder / name) for name in found]
        for name, path in zip(found, map(Path, names[part])):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(name))
    return names


def decoded(file: Any) -> Any:
    """An image file as an array."""
    from PIL import Image

    return np.asarray(Image.open(file).convert("RGB"))


def child(way: str, study: str, folder: Path, number: int) -> dict[str, Any]:
    """What a process of one way found, and its seconds from start to end: of the clock and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, "--child", way, study, str(folder), str(number)], check=True
    )
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads((folder / f"{way}.json").read_text()), "seconds": (clock, spent)}


def ours(study: str, folder: Path, trials: int) -> None:
    """Trials one after the other, as an actor of a sweep runs them."""
    from mu import methods
    from mu.device import place, prepare
    from sweeps.plan import Job
    from sweeps.workers.scores import ReferenceScores
    from sweeps.workers.trial import TrialContext, run_trial

    device = prepare(cpus=1, gpus=0)
    run = json.loads((folder / "run.json").read_text())
    problem, settings = problem_of(study, run["cifar"]), STUDIES[study]
    with np.load(folder / "weights.npz") as arrays:
        weights = dict(arrays)
    split, method = problem.split(), methods.load("amnesiac")
    before = problem.evaluate(place(problem.load(weights), device), split, ("val", "test"))
    # The original stands in for the retrained model: comparing with either is the same arithmetic.
    logits = before.forget.logits
    reference = ReferenceScores(before.scores, before.scores, logits, logits)
    keys = ("epochs", "batch_size", "lr", "augment")
    knobs = {**method.defaults(), **{key: settings[key] for key in keys}, "schedule": "constant"}
    job = Job(
        "", "confirm", "some", "amnesiac", 0, knobs, views=("test",), attacks=("svc",), keep=True
    )
    results = []
    for number in range(trials):
        problem = replace(problem, seed=number)  # other draws, from the same original
        split = problem.split()
        trial = run_trial(TrialContext(problem, split, method, reference), job, weights)
        while True:
            try:
                next(trial)
            except StopIteration as end:
                outcome = end.value
                break
        results.append(outcome.metrics["test"])
    scores = outcome.metrics["test"]
    wanted = [
        "mia_lr_entropy",
        *(k for k in scores if k.startswith("mia_svc_") and k.endswith("nonmember")),
    ]
    result = {
        "test": [one["acc_test"] for one in results],
        "forget": [one["acc_forget"] for one in results],
        "attacks": {key: scores[key] for key in wanted},
        "seed": problem.seed,
        "knobs": knobs,
    }
    (folder / "ours.json").write_text(json.dumps(result))


def repeat_attacks(problem: Any, weights: Any, knobs: Any) -> dict[str, float]:
    """The usual attacks on the outputs of the same trial's model."""
    from mu import methods
    from mu.device import place
    from mu.evaluate import predict
    from mu.keys import derive_seed
    from mu.rng import generator, seed_process

    method, split = methods.load("amnesiac"), problem.split()
    seed_process("trial", problem.key, method.name)
    model = place(problem.load(weights), "cpu")
    for _ in method.unlearn(
        model, split.only(method.data), generator("method", problem.key, method.name), **knobs
    ):
        pass
    test = problem.held_out("test")[0]
    logits = [predict(model, part) for part in (split.retain, split.forget, test)]
    labels = [part.labels.numpy() for part in (split.retain, split.forget, test)]
    rng = np.random.default_rng(derive_seed("attack", problem.key, "test"))
    return usual_attacks(logits, labels, rng.permutation(len(labels[0])))


def usual_attacks(logits: Any, labels: Any, order: Any) -> dict[str, float]:
    """The attacks of the papers' code: scikit-learn's, on the outputs on D_r, D_f and the test set."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    shown = []
    for z, y in zip(logits, labels):
        z = z.astype(np.float64)
        logp = z - z.max(1, keepdims=True)
        logp -= np.log(np.exp(logp).sum(1, keepdims=True))
        p, rows = np.exp(logp), np.arange(len(y))
        reverse = np.log(np.maximum(1 - p, 1e-30))
        modified = (
            -(p * reverse).sum(1) + p[rows, y] * reverse[rows, y] - (1 - p[rows, y]) * logp[rows, y]
        )
        shown.append(
            {
                "correctness": (z.argmax(1) == y).astype(float)[:, None],
                "conf": p[rows, y][:, None],
                "entropy": -(p * logp).sum(1)[:, None],
                "m_entropy": modified[:, None],
                "prob": p,
            }
        )
    retain, forget, test = shown
    members = np.concatenate([retain["entropy"], test["entropy"]])
    inside = np.repeat([1, 0], [len(retain["entropy"]), len(test["entropy"])])
    fitted = LogisticRegression(C=2, class_weight="balanced", max_iter=1000, tol=1e-8).fit(
        members, inside
    )
    values = {"mia_lr_entropy": float(fitted.predict(forget["entropy"]).mean())}
    count = min(len(retain["conf"]), len(test["conf"]))
    for name in retain:
        samples = np.concatenate([retain[name][order[:count]], test[name]])
        known = np.repeat([1, 0], [count, len(test[name])])
        attack = SVC(C=3, gamma="auto", kernel="rbf").fit(samples, known)
        values[f"mia_svc_{name}_nonmember"] = float(1 - attack.predict(forget[name]).mean())
    return values


def usual(study: str, folder: Path, number: int) -> None:
    """Run one trial in a process of its own, and write its result to ``usual.json``."""
    import torch

    from mu.models import build

    torch.set_num_threads(1)
    torch.manual_seed(number)
    settings = STUDIES[study]
    with np.load(folder / "data.npz") as arrays:
        data = dict(arrays)
    mean, std = data["stats"].tolist()
    model = build("small_cnn", data["train_inputs"].shape[1:], 10, mean, std, 0)
    with np.load(folder / "weights.npz") as arrays:
        model.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    names = json.loads((folder / "run.json").read_text())["names"]
    rng = np.random.default_rng(number)
    relabelled, sets = usual_sets(data, names, settings["augment"], rng)
    for _ in usual_epochs(model, relabelled, settings):
        for part in ("some", "forget", "val"):
            accuracy(*answers(model, sets[part]))
    final = [answers(model, sets[name]) for name in ("retain", "forget", "test")]
    result = {
        "test": accuracy(*final[2]),
        "forget": accuracy(*final[1]),
        "attacks": usual_attacks(*zip(*final), data["order"]),
    }
    (folder / "usual.json").write_text(json.dumps(result))


def usual_sets(
    data: dict[str, Any], names: dict[str, list[str]], augment: bool, rng: np.random.Generator
) -> tuple[Any, dict[str, Any]]:
    """Return the training set with other labels for the forgotten samples, and the sets to evaluate by name.

    Args:
        data: Arrays of ``data.npz``.
        names: Part of the data to its image files; a part that is not there is read from its array.
        augment: Whether training images are cropped and flipped.
        rng: Draws the other labels.
    """
    from torch.utils.data import ConcatDataset, Subset

    from mu.vision import datasets

    datasets()  # torchvision can be imported after this
    from torchvision import transforms as T

    plain = T.Compose([T.ToTensor()])
    side = data["train_inputs"].shape[-1]
    augmented = plain
    if augment:
        augmented = T.Compose(
            [T.RandomCrop(side, padding=4), T.RandomHorizontalFlip(), T.ToTensor()]
        )

    labels = data["train_labels"].copy()
    labels[data["forget"]] = (
        labels[data["forget"]] + rng.integers(1, 10, len(data["forget"]))
    ) % 10
    images = {part: names.get(part, data[f"{part}_inputs"]) for part in ("train", "val", "test")}
    training = Images(images["train"], labels, augmented)
    clean = Images(images["train"], data["train_labels"], plain)
    watched = np.linspace(0, len(data["retain"]) - 1, min(1000, len(data["retain"]))).astype(int)
    sets = {
        "retain": Subset(clean, data["retain"].tolist()),
        "forget": Subset(clean, data["forget"].tolist()),
        "val": Images(images["val"], data["val_labels"], plain),
        "test": Images(images["test"], data["test_labels"], plain),
        "some": Subset(clean, data["retain"][watched].tolist()),
    }
    return ConcatDataset([Subset(training, data[k].tolist()) for k in ("retain", "forget")]), sets


def usual_epochs(model: Any, training: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Train on all samples with AdamW. Yields after each epoch."""
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    loader = DataLoader(training, batch_size=settings["batch_size"], shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=0)
    for _ in range(settings["epochs"]):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        yield


def answers(model: Any, samples: Any) -> list[Any]:
    """Return the model's logits [N, classes] on a data set, and its labels [N]."""
    import torch
    from torch.utils.data import DataLoader

    model.eval()
    with torch.no_grad():
        pairs = [(model(x).numpy(), y.numpy()) for x, y in DataLoader(samples, batch_size=256)]
    return [np.concatenate(column) for column in zip(*pairs)]


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


def accuracy(logits: Any, labels: Any) -> float:
    return float((logits.argmax(1) == labels).mean())


def steps(study: str, cifar: str | None) -> None:
    """How a training step's time divides, for each model that is light enough for a CPU."""
    from mu.data import as_float, batches
    from mu.data.augment import policy
    from mu.device import place, prepare
    from mu.rng import generator

    device = prepare(cpus=1, gpus=0)
    problem = problem_of(study, cifar)
    examples = problem.split().retain
    augment, draws = policy("crop_flip"), generator("steps")
    size = problem.recipe.batch_size

    def timed(action: Callable[[], Any], least: float) -> float:
        """Milliseconds, the least of runs that take some seconds together."""
        action()
        took, until = [], time.perf_counter() + least
        while time.perf_counter() < until or len(took) < 3:
            began = time.perf_counter()
            action()
            took.append(1e3 * (time.perf_counter() - began))
        return min(took)

    def epoch() -> None:
        for index in batches(len(examples), size, draws):
            examples.take(index)

    per_epoch = sum(1 for _ in batches(len(examples), size))
    drawn = examples.take(next(batches(len(examples), size, draws)))
    sampling = timed(epoch, 1.0) / per_epoch + timed(lambda: as_float(drawn.inputs), 0.3)
    augmentation = timed(lambda: augment(drawn.inputs, draws), 1.0)
    from mu.models import build

    for name in ("small_cnn", "allcnn", "resnet18"):
        mean, std = problem.data.channel_stats
        model = place(build(name, problem.data.input_shape, 10, mean, std, 0), device)
        step = step_of(model, as_float(drawn.inputs), drawn.labels)
        whole = timed(step, 2.0) + sampling + augmentation
        share = 100 * (sampling + augmentation) / whole
        print(
            f"| {study}, batches of {size} | {name} | {whole:.2f} | {sampling:.3f} | {augmentation:.3f} | "
            f"{share:.1f} % |",
            flush=True,
        )


def step_of(model: Any, inputs: Any, labels: Any) -> Callable[[], None]:
    """A training step on one batch."""
    from torch.nn import functional as F

    from mu.training import make_optimizer

    stepper = make_optimizer(model, "sgd", 0.1, 0.9, 5e-4)

    def step() -> None:
        stepper.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs), labels).backward()
        stepper.step()

    return step


if __name__ == "__main__":
    main()
