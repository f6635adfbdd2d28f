"""Samplers of our own that draw a whole point at once, and need no state but the trials that have ended.

Optuna's CMA-ES keeps its state as a pickle in its storage, which whoever writes there could replace by code, and
its Sobol sampler counts draws there, so that a restart may leave a point out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cmaes
import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from sweeps.search.positions import position_of, value_at

Space = Mapping[str, BaseDistribution]
SIGMA = 1 / 6
"""First standard deviation of CMA-ES, as a share of each range."""


class _PointSampler(BaseSampler):
    """A sampler that draws a point of the unit cube for each trial; what it does not cover is drawn at random."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._random = RandomSampler(seed=seed)
        self._drawn: dict[str, float] | None = None

    def draw(self, study: Study) -> NDArray[np.float64]:
        """Return a number in [0, 1] for each knob of the space."""
        raise NotImplementedError

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Any
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if param_name not in self._space:
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        if self._drawn is None:
            self._drawn = dict(zip(self._space, self.draw(study).tolist()))
        return value_at(param_distribution, self._drawn[param_name])


class SobolSampler(_PointSampler):
    """The scrambled Sobol sequence of a cell: trial `number` has point `number`.

    Args:
        space: Every knob that is searched.
        seed: Of the scrambling, the same for all trials of a cell.
        number: Of the trial.
    """

    def __init__(self, space: Space, seed: int, number: int) -> None:
        super().__init__(space, seed)
        self._seed, self._number = seed, number

    def draw(self, study: Study) -> NDArray[np.float64]:
        sequence = qmc.Sobol(len(self._space), rng=self._seed)
        if self._number:
            sequence.fast_forward(self._number)
        return sequence.random(1)[0]


class CmaSampler(_PointSampler):
    """CMA-ES (Hansen and Ostermeier 2001), told anew all trials that have ended for each trial that it draws.

    It starts in the middle of all ranges. Trials are told in the order of their numbers, in groups of the size of a
    population. Choices are drawn at random.

    Args:
        space: The knobs that apply to every trial.
        cell_seed: The same for all trials of a cell.
        seed: That of the trial.
    """

    def __init__(self, space: Space, cell_seed: int, seed: int) -> None:
        numeric = {
            name: values
            for name, values in space.items()
            if not isinstance(values, CategoricalDistribution) and not values.single()
        }
        super().__init__(numeric, seed)
        self._cell_seed, self._seed = cell_seed, seed

    def draw(self, study: Study) -> NDArray[np.float64]:
        size = len(self._space)
        optimizer = cmaes.CMA(
            mean=np.full(size, 0.5),
            sigma=SIGMA,
            bounds=np.tile([0.0, 1.0], (size, 1)),
            seed=self._cell_seed,
            n_max_resampling=10 * size,
        )
        ended = [
            (self._point(trial), trial.values[0])
            for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if self._space.keys() <= trial.params.keys()
        ]
        whole = len(ended) - len(ended) % optimizer.population_size
        for start in range(0, whole, optimizer.population_size):
            optimizer.tell(ended[start : start + optimizer.population_size])
        optimizer.reseed_rng(self._seed)
        return optimizer.ask()

    def _point(self, trial: FrozenTrial) -> NDArray[np.float64]:
        return np.array([position_of(d, trial.params[name]) for name, d in self._space.items()])
