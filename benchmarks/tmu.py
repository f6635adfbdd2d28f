"""What limits TMU: ``python benchmarks/tmu.py --cifar ZIP [--network small_cnn]``.

TMU with its defaults on 10 % of 5,000 images of CIFAR-10, drawn at random, once with the samples that its classifier takes for hard
and once with those that a retrained model does get wrong, which shows what a perfect classifier would change. For each seed are printed the
classifier's AUC in percent, how many samples are hard and are taken for hard, and how much of the way to retraining either goes at how many
points of test accuracy, with the accuracy on D_f, and how much of D_f the entropy attack takes for members; then the means over
the seeds with their 95 % intervals. A gap is that to the mean of the retrained models of all seeds, as in a study.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from search import interval  # which finds the packages beside this folder
from torch import Tensor, nn

from mu.data import Dataset, DataSpec, load
from mu.device import place
from mu.evaluate import outputs
from mu.forget import ForgetRequest
from mu.methods import load as load_method
from mu.methods import tmu
from mu.metrics.attacks import auc
from mu.problem import Problem, Weights, weights_of
from mu.relative import gaps, mean_of
from mu.rng import generator
from mu.training import Recipe
from reports.statistics.recovery import recovery

SEEDS = (1, 2, 3)
RATES = {"slim_vgg": 0.05, "small_cnn": 0.1}
"""Learning rates of the networks, as in the study ``cifar10_defaults``."""
Values = Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", required=True, metavar="ZIP", help="folder or .zip of images")
    parser.add_argument("--network", choices=sorted(RATES), default="slim_vgg")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    spec = DataSpec("image_folder", root=asked.cifar, subset=5000, test_subset=2000, twin=0.1)
    data = load(spec)
    problems = [problem(data, asked.network, seed) for seed in SEEDS]
    references = [[trained(p, role) for p in problems] for role in ("original", "retrain")]
    originals, retrained = ([scores(p, p.load(w)) for p, w in zip(problems, r)] for r in references)
    threshold = load_method("tmu").defaults()["threshold"]
    rows = []
    for number, one in enumerate(problems):
        original, retrain = (weights[number] for weights in references)
        truth = wrong(one, retrain)
        known, probability = unlearned(one, original, None)
        perfect, _ = unlearned(one, original, truth)
        taken = probability >= threshold
        row = {
            "seed": one.seed,
            "auc": 100 * auc(probability[truth], probability[~truth]),
            "hard": int(truth.sum()),
            "taken_for_hard": int(taken.sum()),
            "of_these_hard": int(truth[taken].sum()),
        }
        runs = {
            "": known,
            "_true_labels": perfect,
            "_original": originals[number],
            "_retrain": retrained[number],
        }
        for name, after in runs.items():
            row |= effect(after, originals, retrained, name, originals[number])
        rows.append(row)
        print(row, flush=True)
    table = pd.DataFrame(rows).set_index("seed")
    print(table.T.to_string(float_format="%.1f"))
    for column in table:
        print(f"{column}: {interval([float(value) for value in table[column]])}")


def problem(data: Dataset, network: str, seed: int) -> Problem:
    recipe = Recipe(epochs=30, lr=RATES[network], batch_size=64, schedule="onecycle")
    return Problem(data, network, recipe, ForgetRequest("random", fraction=0.1), seed)


def trained(one: Problem, role: str) -> Weights:
    model = one.build()
    for _ in one.train(role, model):  # type: ignore[arg-type]
        pass
    return weights_of(model)


def scores(one: Problem, model: nn.Module) -> Values:
    return one.evaluate(model, one.split(), ("test",)).scores["test"]


def wrong(one: Problem, weights: Weights) -> NDArray[np.bool_]:
    """Return which forgotten samples a model gets wrong: bool [N]."""
    found = outputs(one.load(weights), one.split().forget)
    return found.logits.argmax(1) != found.labels


def unlearned(
    one: Problem, original: Weights, hard: NDArray[np.bool_] | None
) -> tuple[Values, NDArray[np.float32]]:
    """Return the scores of TMU's model, and the probabilities of being hard that it went by: those given, or its own."""
    method = load_method("tmu")
    model = place(one.load(original).train(), "cpu")
    split = one.split().only(method.data)
    gone_by: list[Tensor] = []
    predict = tmu.predict_hardness

    def noted(*args: object) -> Tensor:
        gone_by.append(predict(*args) if hard is None else torch.from_numpy(hard).float())  # type: ignore[arg-type]
        return gone_by[0]

    with patch.object(tmu, "predict_hardness", noted):
        for _ in method.unlearn(model, split, generator("tmu", str(one.seed)), **method.defaults()):
            pass
    return scores(one, model), gone_by[0].numpy()


def effect(
    after: Values,
    originals: list[Values],
    retrained: list[Values],
    name: str,
    original: Values,
) -> dict[str, float]:
    """Return recovery against doing nothing on all seeds, and the test accuracy lost, in points."""
    target = mean_of(retrained)
    gap, nothing = (
        sum(gaps(run, target, False)["avg_gap_natmu"] for run in runs) / len(runs)
        for runs in ([after], originals)
    )
    return {
        f"recovery{name}": 100 * float(recovery(gap, nothing)),
        f"lost{name}": 100 * (original["acc_test"] - after["acc_test"]),
        f"acc_forget{name}": 100 * after["acc_forget"],
        f"attack{name}": 100 * after["mia_lr_entropy"],
    }


if __name__ == "__main__":
    main()
