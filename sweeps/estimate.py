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


def seconds_per_sample(plan: Plan) -> float:
    """Seconds to train on one sample: a few steps of the study's recipe on its model, on one slot."""
    study = plan.study
    forget = next(iter(study.forget))
    problem: Problem = plan.problem(forget, study.report_seeds[0])
    device = "cuda" if study.resources.gpus and torch.cuda.is_available() else "cpu"
    part = plan.data.parts["train"]
    examples = part.examples()
    few = examples.take(torch.arange(min(SAMPLES, len(part))))
    few = type(few)(few.inputs.to(device), few.labels.to(device))
    model = place(problem.build(), device)
    recipe = replace(study.training, epochs=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(study.resources.cpus)))
    try:
        list(train(model, few, recipe, generator("estimate")))  # warm-up
        began = time.perf_counter()
        list(train(model, few, recipe, generator("estimate")))
        return (time.perf_counter() - began) / len(few)
    finally:
        torch.set_num_threads(threads)
