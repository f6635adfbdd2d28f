"""What training costs on this machine, measured for a moment, for ``--dry-run``."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from mu.device import place
from mu.problem import Problem
from mu.rng import generator
from mu.training import train
from sweeps.plan import Plan

SAMPLES = 512
FEW = 8
"""Samples that warm up, and that a large network is measured with."""
PATIENCE_SECONDS = 2.0
"""Most that the warm-up may take for more to be measured."""


def seconds_per_sample(plan: Plan) -> float:
    """Seconds to train on one sample: a few steps of the study's recipe on its model, on one slot."""
    study = plan.study
    forget = next(iter(study.forget))
    problem: Problem = plan.problem(forget, study.report_seeds[0])
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
