"""``--dry-run``: what a plan would run, and for how long, measured for a moment on this machine."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from mu.device import place
from mu.problem import Problem
from mu.rng import generator
from mu.training import train
from sweeps.plan import Plan
from sweeps.tracking.progress import duration

SAMPLES = 512
FEW = 8
"""Samples that warm up, and that a large network is measured with."""
PATIENCE_SECONDS = 2.0
"""Most that the warm-up may take for more to be measured."""


def print_plan(plan: Plan, console: Console) -> None:
    """Print what a plan would run, and about how long it takes."""
    wanted = plan.study
    console.print(f"{wanted.name}: {len(plan.cells)} cells (forget request x method)")
    cells = Table("method", *wanted.forget, "searched knobs", box=None, padding=(0, 2, 0, 0))
    for config in wanted.methods:
        spans = ", ".join(span.knob for span in config.ranges) or "none"
        trials = [
            str(wanted.trials(config.name)) if f in config.forget else "-" for f in wanted.forget
        ]
        cells.add_row(config.name, *trials, spans)
    console.print(cells)
    rate = seconds_per_sample(plan)
    phases = Table("phase", "trials", "estimate", box=None, padding=(0, 2, 0, 0))
    total = 0.0
    for phase, count in plan.counts.items():
        seconds = plan.samples[phase] * rate
        total += seconds
        phases.add_row(phase, str(count), duration(seconds))
    if plan.rankings:
        trained = len(plan.rankings) * wanted.training.epochs * len(plan.data.parts["train"])
        total += trained * rate
        phases.add_row("ranking", str(len(plan.rankings)), duration(trained * rate))
    phases.add_row("all", str(sum(plan.counts.values())), duration(total))
    console.print(phases)
    console.print(
        "Estimates are of compute on one slot of this machine, an epoch of a method counted as one "
        "pass over the training data; divide by the number of slots."
    )


def seconds_per_sample(plan: Plan) -> float:
    """Return the seconds to train on one sample: a few steps of the study's recipe on its model, on one slot."""
    study = plan.study
    forget = next(iter(study.forget))
    problem: Problem = plan.problem(forget, study.seeds.report[0])
    device = "cuda" if study.resources.trial.gpus and torch.cuda.is_available() else "cpu"
    examples = plan.data.parts["train"].examples()
    model = place(problem.build(), device)
    recipe = replace(study.training, epochs=1)

    def measured(count: int) -> float:
        part = examples.take(torch.arange(min(count, len(examples))))
        part = type(part)(part.inputs.to(device), part.labels.to(device))
        began = time.perf_counter()
        list(train(model, part, recipe, generator("estimate")))
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / len(part)

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(study.resources.trial.cpus)))
    try:
        rate = measured(FEW)
        if rate * FEW > PATIENCE_SECONDS:
            rate = measured(FEW)  # the first steps of a process also set things up
        if rate * FEW > PATIENCE_SECONDS:
            return rate
        measured(SAMPLES)
        return measured(SAMPLES)
    finally:
        torch.set_num_threads(threads)
