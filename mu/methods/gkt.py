"""GKT: distil the model into a fresh one on generated images that it does not see as the forgotten class. Zero-shot.

Paper: Chundawat et al., Zero-Shot Machine Unlearning, TIFS 2023 (arXiv:2201.05629), gated knowledge transfer;
    generator and losses after Micaelli and Storkey, NeurIPS 2019, and Zagoruyko and Komodakis, ICLR 2017.
Reference: `ayushkumartarun/zero-shot-unlearning` e888197; `jwf40/Information-Theoretic-Unlearning` c967614.
Differs: learning rates are constant; the notebook halves them when losses on its test images stall, which no
    method here may see. A batch that the filter leaves with fewer than two images is passed over, and its
    latent vectors with it; the notebook retries, and rewinds the generator after a hundred failures. The
    teacher is in eval mode (the notebook leaves it as found), student and generator in train mode. Attention
    is compared at activation layers that give maps. The generator's size follows the input's. JiT's copy
    starts the student from the trained model and redraws its convolutions alone; here the whole of it is
    fresh. No data is read: `forget` is declared for the shape of an input alone.
Cost: rounds x epochs batches, each 1 generator and 10 student steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.device import upload
from mu.knobs import Count, CountOrZero, NonNegative, Positive, UnitInterval
from mu.methods.activation_prune import ACTIVATIONS
from mu.methods.unsir import to_pixels
from mu.models import frozen_copy, reinitialize
from mu.snapshot import resumable
from mu.split import Split
from mu.training import make_optimizer

NEEDS = ("forget", "original")
REQUESTS = ("full_class",)
IMPAIRS_FIRST = True
FEWEST = 2
"""Images that batch norm can train on at least."""
logger = logging.getLogger(__name__)


def check(model: nn.Module, split: Split) -> None:
    """Raise ValueError unless inputs are images."""
    split.need_images("generates images")


def unlearn(
    model: nn.Module,
    split: Split,
    generator: torch.Generator,
    *,
    epochs: Count = 4,
    rounds: Count = 1000,
    generator_steps: CountOrZero = 1,
    student_steps: Count = 10,
    lr: Positive = 1e-3,
    generator_lr: Positive = 1e-3,
    epsilon: UnitInterval = 0.01,
    beta: NonNegative = 250.0,
    temperature: Positive = 1.0,
    clip_norm: Positive | None = 5.0,
    batch_size: Count = 256,
    latent_size: Count = 128,
    generator_width: Count = 128,
) -> Iterator[None]:
    """Redraw the model and train it as the student of its former self; yield after each epoch.

    Args:
        rounds: Batches of latent vectors in an epoch.
        generator_steps: Steps of the generator, away from the student's agreement, in a round.
        student_steps: Steps of the student, towards the teacher, in a round.
        lr: Of the student.
        epsilon: Largest probability of the forgotten class, by the teacher, of an image that is used; 1 uses
            all.
        beta: Weight of the difference of attention maps; 0 leaves it out.
        temperature: Of both softmaxes.
        clip_norm: Largest norm of a step's whole gradient; None does not clip.
        batch_size: Images before the filter.
        generator_width: Channels of the generator's first layers.
    """
    teacher = frozen_copy(model)
    reinitialize(model, generator)
    with torch.device("meta"):  # layers draw from the global generator when built
        painter = image_generator(latent_size, generator_width, split.input_shape)
    reinitialize(painter.to_empty(device=split.device), generator)
    transfer = Transfer(teacher, painter, split, epsilon, beta, temperature, clip_norm)
    student_stepper = make_optimizer(model, "adam", lr)
    painter_stepper = make_optimizer(painter, "adam", generator_lr)
    for _ in resumable(epochs, generator, model, painter, student_stepper, painter_stepper):
        model.train()
        painter.train()
        passed_over = 0
        for _ in range(rounds):
            drawn = torch.randn((batch_size, latent_size), generator=generator)
            latent = upload(drawn, split.device)
            transfer.train_painter(model, painter_stepper, latent, generator_steps)
            passed_over += not transfer.train_student(model, student_stepper, latent, student_steps)
        logger.info("the filter left nothing in %d of %d rounds", passed_over, rounds)
        yield


@dataclass(frozen=True)
class Transfer:
    """The two networks around the student, and the knobs of ``unlearn`` that their losses need."""

    teacher: nn.Module
    painter: nn.Module
    split: Split
    epsilon: float
    beta: float
    temperature: float
    clip_norm: float | None

    def train_painter(
        self, student: nn.Module, stepper: torch.optim.Optimizer, latent: Tensor, steps: int
    ) -> None:
        """Step the painter away from agreement of student and teacher on its images of `latent` [B, Z]."""
        for _ in range(steps):
            images, wanted = self.passing_images(latent)
            if len(images) < FEWEST:
                break
            loss = -divergence(student(images), wanted, self.temperature)
            clipped_step(stepper, self.painter, loss, self.clip_norm)

    def train_student(
        self, student: nn.Module, stepper: torch.optim.Optimizer, latent: Tensor, steps: int
    ) -> bool:
        """Step the student towards the teacher on images of `latent` [B, Z].

        Returns:
            Whether there were images to train on.
        """
        with torch.no_grad():
            images, _ = self.passing_images(latent)
            if len(images) < FEWEST:
                return False
            wanted, wanted_maps = logits_and_attention(self.teacher, images)
        for _ in range(steps):
            logits, maps = logits_and_attention(student, images)
            loss = divergence(logits, wanted, self.temperature)
            loss = loss + self.beta * attention_difference(maps, wanted_maps)
            clipped_step(stepper, student, loss, self.clip_norm)
        return True

    def passing_images(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Paint images of `latent` [B, Z]; return those that pass the filter, and the teacher's logits on them."""
        assert self.split.forget_class is not None
        images = to_pixels(self.painter(latent), self.split)
        wanted = self.teacher(images)
        kept = gate(wanted, self.split.forget_class, self.epsilon)
        return images[kept], wanted[kept]


def clipped_step(
    stepper: torch.optim.Optimizer, network: nn.Module, loss: Tensor, clip_norm: float | None
) -> None:
    """Step a network down a loss; scale the whole gradient to a norm of at most `clip_norm` before."""
    stepper.zero_grad(set_to_none=True)
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    stepper.step()


def gate(teacher_logits: Tensor, forget_class: int, epsilon: float) -> Tensor:
    """Return which samples pass: those that the teacher gives the class at most `epsilon` probability: bool [B]."""
    return teacher_logits.detach().softmax(1)[:, forget_class] <= epsilon


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) over logits [B, K], as a mean over all B * K terms; no temperature factor."""
    target = (teacher / temperature).softmax(1)
    total = F.kl_div((student / temperature).log_softmax(1), target, reduction="sum")
    return total / student.numel()


def attention(activation: Tensor) -> Tensor:
    """Return the mean square over channels at each location, normalised to length one: [B, C, H, W] -> [B, H * W]."""
    return F.normalize(activation.square().mean(1).flatten(1))


def attention_difference(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor | float:
    """Return the mean squared difference of attention maps [B, H * W], summed over layers."""
    return sum(F.mse_loss(ours, theirs) for ours, theirs in zip(student, teacher))


def logits_and_attention(model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run one forward pass; return logits, and the attention map of each call of an activation layer that gives maps."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4:
            maps.append(attention(output.to(torch.promote_types(output.dtype, torch.float))))

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, ACTIVATIONS):
                hooks.callback(module.register_forward_hook(keep).remove)
        logits = model(inputs)
    return logits, maps


def image_generator(latent_size: int, width: int, shape: Sequence[int]) -> nn.Module:
    """Build a network from latents [B, Z] to normalised images [B, C, H, W], upsampled twice from a quarter of the size."""
    channels, height, width_in_pixels = shape
    start = (-(-height // 4), -(-width_in_pixels // 4))
    return nn.Sequential(
        nn.Linear(latent_size, width * start[0] * start[1]),
        nn.Unflatten(1, (width, *start)),
        nn.BatchNorm2d(width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Upsample(size=(height, width_in_pixels)),
        nn.Conv2d(width, max(1, width // 2), 3, padding=1),
        nn.BatchNorm2d(max(1, width // 2)),
        nn.LeakyReLU(0.2),
        nn.Conv2d(max(1, width // 2), channels, 3, padding=1),
        nn.BatchNorm2d(channels),
    )
