"""NatMU-RL: whole forgotten images with four wrong labels each, which is NatMU with masks of ones."""

from __future__ import annotations

import numpy as np
import torch
from golden_files import golden
from torch import nn

from mu.methods import natmu, natmu_rl
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator
from mu.split import Split


def test_instances_are_those_of_section_4_3() -> None:
    z = golden("natmu_hybrid")
    made = natmu_rl.repeated(torch.from_numpy(z["forget8"]))
    assert np.array_equal(made, z["rl_paper"])


def test_is_natmu_with_masks_of_ones_to_the_bit(
    problem: Problem, original: Weights, split: Split
) -> None:
    models: list[nn.Module] = []
    for unlearn, knobs in ((natmu_rl.unlearn, {}), (natmu.unlearn, {"delta": 1.0})):
        models.append(problem.load(original))
        for _ in unlearn(models[-1], split, generator(0), epochs=2, **knobs):
            pass
    one, other = map(weights_of, models)
    assert all(np.array_equal(one[name], other[name]) for name in one)
