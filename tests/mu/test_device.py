"""How models are laid out where they are placed, and what that must not change."""

from __future__ import annotations

import copy
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from mu.device import place
from mu.models import Model, build


class Views(nn.Module):
    """Calls `view` on what a convolution gives, which works on the usual layout alone."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16 * 16, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).view(-1, 4 * 16 * 16))


def fresh(network: Model | str, channels: int = 3) -> nn.Sequential:
    return build(network, (channels, 16, 16), 5, (0.5,) * channels, (0.5,) * channels, seed=0)


def channels_last(model: nn.Module) -> list[bool]:
    """Return whether each convolution whose weights can tell is laid out channels_last."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
    return [not weight.is_contiguous() for weight in weights]


def test_convolutions_of_colour_images_are_channels_last_and_compute_the_same() -> None:
    model, images = fresh("small_cnn"), torch.rand(16, 3, 16, 16)
    usual = copy.deepcopy(model)
    assert all(channels_last(place(model, "cpu")))
    gradients = []
    for each in (model, usual):
        logits = each(images)
        logits.square().sum().backward()
        gradients.append([logits, *(weight.grad for weight in each.parameters())])
    for one, other in zip(*gradients):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 8)])
def test_those_of_grey_and_of_tiny_images_stay_as_they_are(shape: tuple[int, ...]) -> None:
    means = (0.5,) * shape[0]
    model = build("small_cnn", shape, 5, means, means, seed=0)
    assert not any(channels_last(place(model, "cpu")))


def test_a_network_that_calls_view_keeps_the_layout_it_needs() -> None:
    network = Model("views", lambda shape, classes: Views(shape[0], classes))
    model = place(fresh(network), "cpu")
    assert not any(channels_last(model))
    model(torch.rand(2, 3, 16, 16)).sum().backward()


def test_finding_that_out_leaves_a_network_trainable_and_its_statistics_alone() -> None:
    def factory(shape: object, classes: int) -> nn.Module:
        return fresh("small_cnn")[-1]

    model = fresh(Model("same", factory))
    assert not any(channels_last(model))
    for value, expected in zip(
        model.state_dict().values(), fresh("small_cnn").state_dict().values()
    ):
        assert torch.equal(value, expected)
    assert all(channels_last(place(model, "cpu")))
    model(torch.rand(4, 3, 16, 16)).sum().backward()


FREED = """
import resource

import torch

from mu.device import keep_freed_memory, watch_memory


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for part in [torch.ones(2**20) for _ in range(20)]:  # 80 MiB
        part.add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


keep_freed_memory()
first = faults()
kept = min(faults() for _ in range(3))
watch_memory("cpu")
print(first, kept, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_before_the_next_trial() -> None:
    """In a process of its own: what a heap gives back depends on all that it ever held."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    first, kept, after = map(int, done.stdout.split())
    pages = 80 * 2**20 / resource.getpagesize()
    assert first > pages / 2
    assert kept < pages / 10
    assert after > pages / 2
