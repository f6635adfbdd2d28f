"""The samplers as a study names them, made anew for each trial and seeded by cell and number.

A sampler knows only what is in Optuna's storage, so that a restart replays nothing and forgets nothing.
"""

from __future__ import annotations

import warnings

import optuna
from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial

from mu.keys import derive_seed
from sweeps.phases import Cell
from sweeps.search.positions import distribution
from sweeps.study.methods import MethodConfig
from sweeps.study.search import Search


def startup_trials(trials: int) -> int:
    """Return how many trials of a cell are random before a model of their results draws the others."""
    return max(3, trials // 4)


def make_sampler(
    search: Search, config: MethodConfig, study: str, cell: Cell, number: int
) -> samplers.BaseSampler:
    """Make the sampler that draws configuration `number` of a cell."""
    seed = derive_seed("sampler", study, *cell, number) % 2**32
    startup = startup_trials(search.trials)
    if search.sampler == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`
            return samplers.TPESampler(
                n_startup_trials=startup,
                multivariate=True,
                group=True,  # knobs that apply to some trials only are modelled together
                constant_liar=True,  # trials that run count as bad, so that others keep away from them
                seed=seed,
            )
    if search.sampler == "gp":
        return samplers.GPSampler(
            n_startup_trials=startup, warn_independent_sampling=False, seed=seed
        )
    if search.sampler == "nsga2":
        return _Nsga2Sampler(population_size=startup, seed=seed)
    if search.sampler in ("cmaes", "qmc"):
        from sweeps.search.points import CmaSampler, SobolSampler  # which need a second for scipy

        same = derive_seed("sampler", study, *cell) % 2**32  # for all trials of the cell
        space = {span.knob: distribution(span) for span in config.ranges}
        if search.sampler == "qmc":
            return SobolSampler(space, same, number)
        always = {span.knob: space[span.knob] for span in config.ranges if not span.when}
        return CmaSampler(always, same, seed)
    return samplers.RandomSampler(seed=seed)  # a grid leaves nothing to draw


class _Nsga2Sampler(samplers.NSGAIISampler):
    """NSGA-II, to whose generations those trials belong as well whose knobs were given and not drawn."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        self.get_trial_generation(study, trial)  # which notes it with the trial


def resume(sampler: samplers.BaseSampler, study: optuna.Study, frozen: FrozenTrial) -> Trial:
    """Return a trial whose driver may have died between two knobs; it draws the others as it would have."""
    study.sampler = sampler
    for name in frozen.system_attrs:
        if (
            ":relative_params:" in name
        ):  # what it drew at once: it must not count itself as a trial that runs
            study._storage.set_trial_system_attr(frozen._trial_id, name, "")
    trial = Trial(study, frozen._trial_id)
    given = {**frozen.system_attrs.get("fixed_params", {}), **trial.relative_params}
    for name, values in frozen.distributions.items():
        if name not in given:
            sampler.sample_independent(study, frozen, name, values)
    return trial
