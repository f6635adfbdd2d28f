"""Ways to launch a training step: all of them train alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from toy import toy_problem

from mu import launch
from mu.device import place, upload
from mu.problem import weights_of
from mu.rng import generator
from mu.training import Hyperparameters, count_samples, fit


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    launch.set_launch("eager")
    launch._compiled.cache_clear()


def trained(mode: str, device: str = "cpu") -> tuple[dict[str, Any], int]:
    """Return the weights after three epochs whose last batch is smaller, and the samples that were counted."""
    launch.set_launch(mode)
    problem = toy_problem()
    model = place(problem.build(), device)
    counter, split = count_samples(model), problem.split(device)
    for _ in fit(
        model,
        split.retain,
        generator(0),
        Hyperparameters(epochs=3, batch_size=20, lr=0.05, weight_decay=5e-4, schedule="cosine"),
        augment=split.augment,
    ):
        model.eval()
    return weights_of(model), counter[0]


def test_compiled_steps_train_as_plain_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    compile_ = torch.compile

    def spy(function: Any, **options: Any) -> Any:
        compiled.append(function)
        return compile_(function, **options, backend="eager")

    monkeypatch.setattr(torch, "compile", spy)
    plain, seen = trained("eager")
    assert not compiled
    other, also_seen = trained("compile")
    assert compiled == [launch._forward]
    assert seen == also_seen == 3 * len(toy_problem().retain_index)
    for name, value in plain.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)


def test_without_a_gpu_nothing_is_recorded() -> None:
    plain, recorded = trained("eager"), trained("graph")
    assert plain[1] == recorded[1]
    assert all(np.array_equal(plain[0][name], value) for name, value in recorded[0].items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", ["graph", "compile"])
def test_recorded_steps_train_as_plain_ones_do(mode: str) -> None:
    (plain, seen), (recorded, also_seen) = trained("eager", "cuda"), trained(mode, "cuda")
    assert seen == also_seen
    for name, value in plain.items():
        np.testing.assert_allclose(recorded[name], value, rtol=0.02, atol=0.02)


def test_unknown_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="launch must be one of eager, graph, compile, but got"):
        launch.set_launch("fast")


def test_upload_to_the_cpu_is_the_tensor_itself() -> None:
    tensor = torch.zeros(2)
    assert upload(tensor, "cpu") is tensor
