"""Networks by name, each a function of the input's shape and the number of classes; see ``mu.models.network.build``.

Sources: He et al. 2016 (ResNet), Simonyan & Zisserman 2015 (VGG) and Dosovitskiy et al. 2021 (ViT), all three from
torchvision; Springenberg et al. 2015 (All-CNN-C); Lee et al. 2021 (a vision transformer for small data sets).

ResNets and VGGs come in two forms. That for small images, the default, is what the papers on unlearning train on
CIFAR and Tiny ImageNet: a ResNet begins with a 3x3 convolution of stride 1 and no pooling, and a VGG ends with one
linear layer after an average over all locations. The `imagenet` form is torchvision's own, whose published weights
fit it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mu.vision import models as torchvision_models

Shape = Sequence[int]
"""The shape of one input: [C, H, W] of images; [L, V] of tokens, how many there are and of how many words."""
Factory = Callable[[Shape, int], nn.Module]
"""A function from the shape of one input and the number of classes to a network with freshly drawn weights."""


def _conv_block(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Build a convolution without bias, batch norm and ReLU; the image keeps its size at stride 1."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def small_cnn(shape: Shape, num_classes: int) -> nn.Module:
    """Build three 3x3 convolutions with batch norm, global average pooling, one linear layer: 0.1 M weights.

    The second convolution has stride 2, which on a CPU costs a third of pooling after it; images of 16
    pixels and more are halved before it, too.
    """
    return nn.Sequential(
        *_conv_block(shape[0], 32),
        HalveLarge(16),
        *_conv_block(32, 64, stride=2),
        *_conv_block(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def slim_vgg(shape: Shape, num_classes: int) -> nn.Module:
    """Build four 3x3 convolutions without batch norm, each before a max-pooling, and two linear layers: 0.08 M weights.

    It is for methods that cannot work with batch norm, on a CPU. Poolings round up, so that small images pass.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in (16, 32, 64, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
        channels = width
    hidden = [nn.Linear(channels, 128), nn.ReLU(inplace=True)]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, nn.Linear(128, num_classes)
    )
    _draw_convolutions(network)
    return network


class HalveLarge(nn.Module):
    """A max-pooling by two of images with at least `least` pixels on each side; it leaves others as they are."""

    def __init__(self, least: int):
        super().__init__()
        self.least = least

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.least:
            return images
        return F.max_pool2d(images, 2)


def resnet(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Build torchvision's ResNet with the stem for small images: 3x3 convolution, stride 1, no pooling."""
    network = getattr(torchvision_models(), name)(num_classes=num_classes)
    network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def imagenet_resnet(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Build torchvision's ResNet: 7x7 convolution of stride 2, then max-pooling of stride 2."""
    network = getattr(torchvision_models(), name)(num_classes=num_classes)
    if shape[0] != 3:
        network.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    return network


VGG_WIDTHS = {
    "vgg11": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "vgg16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
}
"""Channels of the convolutions between poolings: configurations A and D of the paper."""


def vgg(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Build VGG for small images: its convolutions, an average over what is left of the image, one linear layer.

    With `_bn` in the name batch norm follows each convolution. Weights are drawn as torchvision draws them and have
    its names, but for the head: `classifier.weight` and `classifier.bias`.
    """
    _at_least(name, shape, 32)
    base, _, normalized = name.partition("_")
    layers: list[nn.Module] = []
    channels = shape[0]
    for widths in VGG_WIDTHS[base]:
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if normalized else []
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(
        OrderedDict[str, nn.Module](
            features=nn.Sequential(*layers),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(channels, num_classes),
        )
    )
    _draw_convolutions(network)
    classifier = network.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    nn.init.normal_(classifier.weight, 0, 0.01)
    nn.init.zeros_(classifier.bias)
    return network


def _draw_convolutions(network: nn.Module) -> None:
    """Draw the weights of convolutions as torchvision's VGG does, and set their biases to zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def imagenet_vgg(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Build torchvision's VGG: an average over 7x7 places, then three linear layers with dropout, 124 M weights."""
    _at_least(name, shape, 32)
    network = getattr(torchvision_models(), name)(num_classes=num_classes)
    if shape[0] != 3:
        first = nn.Conv2d(shape[0], 64, 3, padding=1)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(first.bias)  # type: ignore[arg-type]
        network.features[0] = first
    return network


def allcnn(shape: Shape, num_classes: int) -> nn.Module:
    """Build All-CNN-C: convolutions of stride 2 in place of pooling, 1.4 M weights.

    Differs: batch norm after each convolution and no dropout, as in the literature on unlearning since Golatkar et
    al. 2020; and the last 1x1 convolution to the classes is a linear layer after the average over all locations, as
    it is there too, without the ReLU between the two.
    """
    return nn.Sequential(
        *_conv_block(shape[0], 96),
        *_conv_block(96, 96),
        *_conv_block(96, 96, stride=2),
        *_conv_block(96, 192),
        *_conv_block(192, 192),
        *_conv_block(192, 192, stride=2),
        *_conv_block(192, 192),
        *_conv_block(192, 192, size=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(192, num_classes),
    )


def vit(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Build torchvision's vision transformer for the images' own size; their side must be a multiple of its patches.

    Images of 32 pixels are four patches of 16: published weights and results need 224 pixels (`data.size`).
    """
    patch = int(name.rpartition("_")[2])
    _squares_of(name, shape, patch)
    network = getattr(torchvision_models(), name)(num_classes=num_classes, image_size=shape[-1])
    if shape[0] != 3:
        network.conv_proj = nn.Conv2d(shape[0], network.hidden_dim, patch, patch)
        nn.init.trunc_normal_(network.conv_proj.weight, std=1 / math.sqrt(shape[0] * patch**2))
        nn.init.zeros_(network.conv_proj.bias)
    return network


class SmallDataViT(nn.Module):
    """A vision transformer that learns from small data sets: shifted patches and attention to others only.

    Paper: Lee et al., Vision Transformer for Small-Size Datasets, arXiv:2112.13492.
    Reference: `aanna0701/SPT_LSA_ViT` 6371a8a (`models/`): 9 blocks, 12 heads of 16 features, 2.8 M weights for
        CIFAR; patches of 4 pixels, or of 8 for images of more than 32.
    Differs: positions and class token are drawn from N(0, 0.02^2), as in other transformers, not from N(0, 1).
    """

    def __init__(self, shape: Shape, num_classes: int, dim: int = 192, depth: int = 9):
        super().__init__()
        patch = 4 if shape[-1] <= 32 else 8
        _squares_of("small_data_vit", shape, patch)
        self.patches = ShiftedPatches(shape[0], patch, dim)
        tokens = (shape[-1] // patch) ** 2 + 1
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, tokens, dim))
        self.blocks = nn.Sequential(*(Block(dim, tokens, heads=12) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        for token in (self.class_token, self.positions):
            nn.init.normal_(token, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.head(self.norm(self.blocks(tokens + self.positions))[:, 0])


class ShiftedPatches(nn.Module):
    """Patches of an image and of four copies shifted diagonally by half a patch: [B, C, H, W] to [B, T, dim]."""

    def __init__(self, channels: int, patch: int, dim: int):
        super().__init__()
        self.patch = patch
        self.norm = nn.LayerNorm(5 * channels * patch**2)
        self.project = nn.Linear(5 * channels * patch**2, dim)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, [self.patch // 2] * 4)
        corners = [(0, 0), (0, self.patch), (self.patch, 0), (self.patch, self.patch)]
        shifted = [padded[..., y : y + height, x : x + width] for y, x in corners]
        stacked = torch.cat([images, *shifted], dim=1)
        pieces = F.unfold(stacked, self.patch, stride=self.patch).transpose(1, 2)
        return self.project(self.norm(pieces))


class Block(nn.Module):
    """Attention and a perceptron, each after layer norm and added to its input; either is skipped at random."""

    def __init__(self, dim: int, tokens: int, heads: int, skip: float = 0.1):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(dim), LocalAttention(dim, tokens, heads))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.skip = skip

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._skipped(self.attention(tokens))
        return tokens + self._skipped(self.perceptron(tokens))

    def _skipped(self, branch: Tensor) -> Tensor:
        """Zero a branch for one sample in ten in train mode, and scale the others to keep its mean."""
        if not self.training:
            return branch
        kept = torch.rand((len(branch), 1, 1), device=branch.device) >= self.skip
        return branch * (kept / (1 - self.skip))


class LocalAttention(nn.Module):
    """Self-attention in which no token attends to itself, and whose temperature each head learns."""

    others: Tensor

    def __init__(self, dim: int, tokens: int, heads: int):
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.scale = nn.Parameter(torch.empty(heads, 1, 1))
        self.register_buffer("others", ~torch.eye(tokens, dtype=torch.bool), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin at the usual temperature, one over the root of a head's features."""
        nn.init.constant_(self.scale, (self.project.in_features // self.heads) ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, dim = tokens.shape
        split = self.queries_keys_values(tokens).view(batch, count, 3, self.heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            queries * self.scale, keys, values, attn_mask=self.others, scale=1.0
        )
        return self.project(attended.transpose(1, 2).reshape(batch, count, dim))


def _at_least(name: str, shape: Shape, side: int) -> None:
    if len(shape) != 3 or min(shape[1:]) < side:
        raise ValueError(
            f"{name} needs images of at least {side} x {side} pixels, but the inputs are "
            f"{list(shape)}; set data.size, or choose another model"
        )


def _squares_of(name: str, shape: Shape, patch: int) -> None:
    if len(shape) != 3 or shape[1] != shape[2] or shape[2] % patch:
        raise ValueError(
            f"{name} needs square images whose side is a multiple of {patch} pixels, but the inputs "
            f"are {list(shape)}; set data.size, such as 224"
        )


class EmbeddingBag(nn.Module):
    """Mean of the embeddings of a text's words, and a perceptron with one hidden layer on it.

    Source: Joulin et al. 2017 (fastText), who have no hidden layer. It takes tokens int [B, L], of which 0 is padding.
    """

    def __init__(self, shape: Shape, num_classes: int, width: int = 64):
        super().__init__()
        self.embedding = nn.Embedding(shape[1], width, padding_idx=0)
        self.hidden = nn.Linear(width, width)
        self.activation = nn.ReLU()
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != 0).unsqueeze(-1)
        total = (self.embedding(tokens) * there).sum(-2)
        mean = total / there.sum(-2).clamp(min=1)
        logits: Tensor = self.classifier(self.activation(self.hidden(mean)))
        return logits


RESNETS = ("resnet18", "resnet34", "resnet50")
VGGS = ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn")
VITS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")

TOKEN_MODELS: dict[str, Factory] = {"embedding_bag": EmbeddingBag}
"""Networks that take tokens; all others take images."""
MODELS: dict[str, Factory] = {
    "small_cnn": small_cnn,
    "slim_vgg": slim_vgg,
    "allcnn": allcnn,
    **{name: partial(resnet, name) for name in RESNETS},
    **{name: partial(vgg, name) for name in VGGS},
    "small_data_vit": SmallDataViT,
    **{name: partial(vit, name) for name in VITS},
    **TOKEN_MODELS,
}
"""Every network in its usual form: for small images where there are two."""
IMAGENET_FORMS: dict[str, Factory] = {
    **{name: partial(imagenet_resnet, name) for name in RESNETS},
    **{name: partial(imagenet_vgg, name) for name in VGGS},
}
"""Networks that have another form, as torchvision builds them for ImageNet."""
