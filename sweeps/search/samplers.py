"""Optuna's samplers as a study names them, seeded by cell and number so that a restart replays nothing."""

from __future__ import annotations

import optuna

from mu.keys import derive_seed
from sweeps.phases import Cell


def make_sampler(name: str, study: str, cell: Cell, number: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that draws configuration `number` of a cell; `name` is one of ``SAMPLERS``."""
    seed = derive_seed("sampler", study, *cell, number) % 2**32
    if name in ("random", "grid"):  # a grid leaves nothing to draw
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def advance(
    sampler: optuna.samplers.BaseSampler, study: optuna.Study, trial: optuna.trial.FrozenTrial
) -> optuna.samplers.BaseSampler:
    """Let a sampler draw the knobs that a trial has already, so that it draws the others as it would have."""
    for name, distribution in trial.distributions.items():
        sampler.sample_independent(study, trial, name, distribution)
    return sampler
