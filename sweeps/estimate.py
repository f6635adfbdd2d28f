"""``--dry-run``: what a study would run, and for how long by a training step that is measured on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from mu.device import place
from mu.problem import Problem
from mu.rng import generator
from mu.training import train
from sweeps.plan import Plan
from sweeps.plan.outline import Outline
from sweeps.study.study import Study
from sweeps.tracking.progress import duration

SAMPLES = 512
"""Samples that a quick network is measured with."""
FEW = 8
"""Samples that warm up."""
PATIENCE_SECONDS = 2.0
"""Most that the warm-up may take, or SAMPLES, for more to be measured."""
STEP_SECONDS = 20.0
"""Most that the measured step may take; of a slower network it has fewer samples than a batch."""


def print_outline(outline: Outline, console: Console) -> None:
    """Print what a study would run, without any estimate."""
    _print_cells(outline, console)
    _print_phases(outline, {}, console)


def print_plan(plan: Plan, console: Console) -> None:
    """Print what a plan would run, and how long this machine would take where it can hold the trials."""
    _print_cells(plan, console)
    reason = not_here(plan.study)
    if reason:
        _print_phases(plan, {}, console)
        console.print(f"No estimate: {reason}. A dry run on a machine that has this measures one.")
        return
    rate = seconds_per_sample(plan)
    seconds = {phase: samples * rate for phase, samples in plan.samples.items()}
    if plan.rankings:
        passes = len(plan.rankings) * plan.study.training.epochs
        seconds["ranking"] = passes * len(plan.data.parts["train"]) * rate
    _print_phases(plan, seconds, console)
    console.print(_basis(plan.study, sum(seconds.values()), rate), highlight=False)


def _print_cells(outline: Outline, console: Console) -> None:
    wanted = outline.study
    console.print(f"{wanted.name}: {len(outline.cells)} cells (forget request x method)")
    cells = Table("method", *wanted.forget, "searched knobs", box=None, padding=(0, 2, 0, 0))
    for config in wanted.methods:
        spans = ", ".join(span.knob for span in config.ranges) or "none"
        trials = [
            str(wanted.trials(config.name)) if f in config.forget else "-" for f in wanted.forget
        ]
        cells.add_row(config.name, *trials, spans)
    console.print(cells)


def _print_phases(outline: Outline, seconds: Mapping[str, float], console: Console) -> None:
    """Print the trials of each phase, and how long they take where this is known."""
    counts, one = dict(outline.counts), f"on one {_unit(outline.study)}"
    ranked = sum(request.ranked for request in outline.study.forget.values())
    total = sum(counts.values())
    if ranked:
        counts["ranking"] = ranked
    heads = ("phase", "trials", *([one] if seconds else []))
    phases = Table(*heads, box=None, padding=(0, 2, 0, 0))
    for phase, count in counts.items():
        phases.add_row(phase, str(count), *([duration(seconds[phase])] if seconds else []))
    phases.add_row("all", str(total), *([duration(sum(seconds.values()))] if seconds else []))
    console.print(phases)
    further = len(outline.study.further_retrains) * len(outline.study.forget)
    if further:
        share = further / outline.trained if outline.trained else 0.0
        text = f"{further} of the {outline.trained} trainings are of retrained models beyond the report seeds (seeds.retrain)"
        cost = f", {duration(share * seconds['reference'])} {one}" if seconds else ""
        console.print(text + cost, highlight=False, soft_wrap=True)


def machine() -> dict[str, int]:
    """Return how many CPU cores and GPUs this machine has."""
    return {"cpus": os.cpu_count() or 1, "gpus": torch.cuda.device_count()}


def not_here(study: Study) -> str:
    """Return what trials need and this machine lacks, so that nothing can be measured; empty when they fit."""
    there = machine()
    for name, asked in study.resources.trial.amounts.items():
        if asked > there.get(name, 0):
            return f"a trial needs {asked:g} {name}, and this machine has {there.get(name, 0)}"
    return ""


def slots_here(study: Study) -> tuple[int, str]:
    """Return how many times the measured rate this machine works, and in words what does: its slots, or its GPUs.

    Trials that share a GPU share its rate, which was measured on a whole one.
    """
    resources = study.resources
    if resources.gpus:
        count = torch.cuda.device_count() // max(1, int(resources.gpus))
        kind, name = f"x {max(1, int(resources.gpus))} GPU", torch.cuda.get_device_name()
        words = f"{count} {kind} ({name})"
    else:
        count = int((os.cpu_count() or 1) / resources.cpus) if resources.cpus else 1
        words = f"{count} slots of {resources.cpus:g} CPU"
    if resources.concurrent is not None and resources.concurrent < count:
        return resources.concurrent, f"{resources.concurrent} of {words} (resources.concurrent)"
    return count, words


def _unit(study: Study) -> str:
    """What the measured rate is of."""
    return "GPU" if study.resources.gpus else "slot"


def _basis(study: Study, seconds: float, rate: float) -> str:
    """Say what this machine takes for all of it, and what the figures rest on."""
    count, words = slots_here(study)
    return (
        f"About {duration(seconds)} on one {_unit(study)}, {duration(seconds / count)} on the {words} of this machine. By a "
        f"training step of the study's own network and batch ({rate:.3g} s a sample), an epoch of a method counted "
        "as one pass over the training data. Scoring and attacks come on top; another machine is measured by a dry "
        "run on it."
    )


def seconds_per_sample(plan: Plan) -> float:
    """Return the seconds to train on one sample, by steps of the study's recipe and batch on its model, on one slot."""
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
        if rate * SAMPLES <= PATIENCE_SECONDS:
            measured(SAMPLES)
            return measured(SAMPLES)
        affordable = min(study.training.batch_size, int(STEP_SECONDS / rate))
        return measured(affordable) if affordable > FEW else rate
    finally:
        torch.set_num_threads(threads)
