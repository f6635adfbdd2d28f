"""What bounds a trial on one core: ``python benchmarks/cpu.py [--cifar ZIP] [--save]``.

For each model that is light enough: how long a training step takes, what of it sampling and augmenting a batch take, and its GFLOP/s as a share of what
a matrix product reaches in the same process. Operations are those of convolutions and matrix products, forward and backward.
Each is the fastest of several runs, since other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import least_milliseconds, peak_gflops, processor
from mu.data import DataSpec, as_float, batches, load
from mu.data.augment import policy
from mu.device import place, prepare
from mu.forget import ForgetRequest
from mu.models import build, resolve
from mu.problem import Problem
from mu.rng import generator
from mu.training import Recipe, make_optimizer

MODELS = ("small_cnn", "allcnn", "resnet18")
SIZES = {"digits": (64, "none"), "cifar10_small": (128, "crop_flip")}
"""Batch size and augmentation."""


@dataclass(frozen=True)
class Step:
    """A training step of a model.

    Args:
        milliseconds: Of the whole step, sampling and augmentation included.
        sampling, augmentation: Milliseconds of these.
        gflops: Operations of a step, in thousand millions.
    """

    milliseconds: float
    sampling: float
    augmentation: float
    gflops: float

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return 1e3 * self.gflops / self.milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar", help="CIFAR-10 as image folders or .zip; else digits alone")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    given = parser.parse_args()
    prepare(cpus=1, gpus=0)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, one thread; {versions}\n")
    print(
        "| data | model | step, ms | sampling, ms | augmentation, ms | both | GFLOP a step | GFLOP/s | peak | share |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    measured = []
    for name in ["digits", *(["cifar10_small"] if given.cifar else [])]:
        problem = problem_of(name, given.cifar)
        for model in given.models:
            step, peak = beside_peak(problem, model)
            print(row(name, model, step, peak), flush=True)
            measured += summary(name, model, step, peak)
    if given.save:
        figures.save(measured, processor())


def problem_of(name: str, cifar: str | None) -> Problem:
    """Return a problem on the data."""
    spec = DataSpec("digits")
    if name != "digits":
        spec = DataSpec("image_folder", root=cifar, subset=5000)
    size, augment = SIZES[name]
    recipe = Recipe(epochs=15, batch_size=size, augment=augment)
    request = ForgetRequest("random", fraction=0.1)
    return Problem(load(spec), resolve("small_cnn"), recipe, request, 0)


def beside_peak(problem: Problem, name: str) -> tuple[Step, float]:
    """Time a step of a model; return it and the GFLOP/s of a matrix product, measured before and after it."""
    before, step = peak_gflops(), measure(problem, name)
    return step, max(before, peak_gflops())


def measure(problem: Problem, name: str) -> Step:
    """Time a step of a model and its parts."""
    examples, draws = problem.split().retain, generator("steps")
    augment, size = policy("crop_flip"), problem.recipe.batch_size

    def epoch() -> None:
        for index in batches(len(examples), size, draws):
            examples.take(index)

    per_epoch = sum(1 for _ in batches(len(examples), size))
    drawn = examples.take(next(batches(len(examples), size, draws)))
    inputs = as_float(drawn.inputs)
    mean, std = problem.data.channel_stats
    model = place(build(name, problem.data.input_shape, 10, mean, std, 0), "cpu")
    step = step_of(model, inputs, drawn.labels)
    with FlopCounterMode(display=False) as counter:
        step()
    sampling = least_milliseconds(epoch, 1.0) / per_epoch
    sampling += least_milliseconds(lambda: as_float(drawn.inputs), 0.3)
    augmentation = 0.0
    if problem.recipe.augment != "none":
        augmentation = least_milliseconds(lambda: augment(drawn.inputs, draws), 1.0)
    whole = least_milliseconds(step, 2.0) + sampling + augmentation
    return Step(whole, sampling, augmentation, counter.get_total_flops() / 1e9)


def step_of(model: Any, inputs: Any, labels: Any) -> Callable[[], None]:
    """Return a training step on one batch."""
    stepper = make_optimizer(model, "sgd", 0.1, 0.9, 5e-4)

    def step() -> None:
        stepper.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs), labels).backward()
        stepper.step()

    return step


def row(name: str, model: str, step: Step, peak: float) -> str:
    """Return a line of the table."""
    both = 100 * (step.sampling + step.augmentation) / step.milliseconds
    return (
        f"| {name}, batches of {SIZES[name][0]} | {model} | {step.milliseconds:.2f} | {step.sampling:.3f} | "
        f"{step.augmentation:.3f} | {both:.1f} % | {step.gflops:.2f} | {step.rate:.0f} | {peak:.0f} | "
        f"{100 * step.rate / peak:.0f} % |"
    )


def summary(name: str, model: str, step: Step, peak: float) -> list[Figure]:
    """Return the figures of one model."""
    both = 100 * (step.sampling + step.augmentation) / step.milliseconds
    share = 100 * step.rate / peak
    return [
        Figure(
            "cpu",
            f"{name}, {model}: GFLOP/s of a step as a share of the matrix-product peak",
            f"{share:.0f} % ({step.rate:.0f} of {peak:.0f} GFLOP/s)",
            target="at least 60",
        ),
        Figure(
            "cpu",
            f"{name}, {model}: share of a step that is sampling and augmentation",
            f"{both:.1f} %",
            target="at most 5",
        ),
    ]


if __name__ == "__main__":
    main()
