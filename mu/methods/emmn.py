"""EMMN: fine-tune on noise that maximises the forgotten class's error and minimises the others'. Zero-shot.

Paper: Chundawat et al., Zero-Shot Machine Unlearning, TIFS 2023 (arXiv:2201.05629), section on error
    minimisation-maximisation noise.
Reference: `jwf40/Information-Theoretic-Unlearning` c967614, the only code there is.
Differs: the code's loader takes the number of channels for the number of noise images and so drops one of
    four; here all are used. Noise is made with the model in eval mode. Rounds of an epoch are shuffled one
    after the other, not all together. `mode` chooses what batch norm does while training on noise, which in
    train mode, as in the code, moves its statistics from images to noise. No data is read: `forget` is
    declared for the shape of an input alone.
Cost: noise steps on one batch per class + epochs passes over the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from mu.data import Examples
from mu.knobs import Count, CountOrZero, NonNegative, Positive
from mu.methods.unsir import NoiseSettings, error_noise, to_pixels
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer, one_pass

NEEDS = ("forget",)
REQUESTS = ("full_class",)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("learns images of noise")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 2,
    lr: Positive = 1e-4,
    batch_size: Count = 4,
    rounds: Count = 80,
    noise_images: Count = 4,
    maximize_steps: CountOrZero = 25,
    minimize_steps: CountOrZero = 30,
    noise_lr: Positive = 0.1,
    noise_penalty: NonNegative = 0.1,
    mode: Literal["train", "eval"] = "train",
) -> Iterator[None]:
    """Make noise for every class, then train on it with Adam; yield after each epoch.

    Args:
        rounds: Passes over the noise in an epoch.
        noise_images: Noise images of each class.
        maximize_steps: Adam steps, at rate `noise_lr`, for the noise of the forgotten class.
        minimize_steps: The same for the noise of the other classes.
        noise_penalty: Weight of the mean squared norm of the forgotten class's noise, in normalised units.
        mode: Of batch norm and dropout while training on noise.
    """
    examples = noise_examples(
        model,
        split,
        generator,
        images=noise_images,
        maximize_steps=maximize_steps,
        minimize_steps=minimize_steps,
        lr=noise_lr,
        penalty=noise_penalty,
    )
    stepper = make_optimizer(model, "adam", lr)
    for _ in resumable(epochs, generator, model, stepper):
        model.train(mode == "train")
        for _ in range(rounds):
            one_pass(model, stepper, examples, generator, batch_size)
        yield


def noise_examples(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    images: int,
    maximize_steps: int,
    minimize_steps: int,
    lr: float,
    penalty: float,
) -> Examples:
    """Return `images` noise images of each class, as pixels, labelled with it; only the minimised ones go unpenalised."""
    assert split.forget_class is not None
    template = split.forget.labels
    shape = (images * split.num_classes, *split.input_shape)
    start = torch.randn(shape, generator=generator).to(template.device)
    labels = torch.arange(split.num_classes, device=template.device).repeat_interleave(images)
    forgotten = labels == split.forget_class

    def make(chosen: Tensor, maximize: bool, steps: int) -> Tensor:
        return error_noise(
            model,
            split,
            start[chosen],
            labels[chosen],
            NoiseSettings(
                maximize=maximize,
                penalty=penalty if maximize else 0.0,
                steps=steps,
                lr=lr,
                images_per_class=images,
            ),
        )

    noise = start.clone()
    noise[forgotten] = make(forgotten, True, maximize_steps)
    noise[~forgotten] = make(~forgotten, False, minimize_steps)
    return Examples(to_pixels(noise, split), labels)
