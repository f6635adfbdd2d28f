"""NatMU-NRI: instances are masked forgotten images and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn

from mu.data import Examples, as_float
from mu.methods import natmu, natmu_nri
from mu.rng import generator
from mu.split import Split
from mu.training import fit


def test_instances_are_those_of_equation_a3() -> None:
    z = golden("natmu_hybrid")
    forget = torch.from_numpy(z["forget8"])
    masks = natmu.weight_masks(forget.shape[-2:], float(z["delta_paper"]))
    np.testing.assert_allclose(natmu_nri.masked(forget, masks), z["nri_paper"], rtol=0, atol=1e-12)


def test_instances_with_the_codes_masks_are_the_codes_to_one_grey_level() -> None:
    z = golden("natmu_hybrid")
    forget = as_float(torch.from_numpy(z["forget_u8"]))
    masks = natmu.weight_masks(forget.shape[-2:], float(z["delta_code"]), "code")
    made = natmu_nri.masked(forget, masks).mul(255).round().numpy()
    assert np.abs(made - z["nri_code_u8"].astype(float)).max() <= 1


def test_trains_on_masked_images_with_the_labels_that_natmu_gives(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Examples] = []

    def spy(model: nn.Module, examples: Examples, *args: Any, **kwargs: Any) -> Iterator[None]:
        trained.append(examples)
        return fit(model, examples, *args, **kwargs)

    monkeypatch.setattr(natmu, "fit", spy)
    for method in (natmu, natmu_nri):
        for _ in method.unlearn(model, split, generator(0), epochs=1):
            pass
    blended, bare = trained
    assert torch.equal(bare.labels, blended.labels)
    kept = len(split.retain)
    assert torch.equal(bare.inputs[:kept], split.retain.inputs)
    masks = natmu.weight_masks(split.forget.inputs.shape[-2:], 0.0)
    images = natmu_nri.masked(as_float(split.forget.inputs), masks) * 255
    assert (bare.inputs[kept:].float() - images).abs().max() <= 0.51
    assert (bare.inputs[kept:, :, :, 0] == 0)[::4].all()  # the first mask hides the left edge
