"""Every network keeps what methods assume of one: its shapes, its head, its features, its last layers, its masks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import method_settings
import numpy as np
import pytest
import torch
from torch import nn
from toy import toy_problem

from mu import methods
from mu.data import Examples
from mu.evaluate import predict
from mu.gradients import at_once, one_by_one
from mu.methods.activation_prune import mask_activations
from mu.methods.boundary_expand import Widened
from mu.methods.cf_k import unlearn as cf_k
from mu.methods.eu_k import is_counted, last_layers
from mu.methods.unsir import NoiseSettings, error_noise
from mu.models import (
    ModelSpec,
    build,
    frozen_copy,
    head,
    logits_and_features,
    reinitialize,
    resolve,
)
from mu.models.architectures import (
    IMAGENET_FORMS,
    MODELS,
    TOKEN_MODELS,
    LocalAttention,
    ShiftedPatches,
    SmallDataViT,
)
from mu.problem import Problem, weights_of
from mu.rng import generator, seed_process
from mu.split import Split

LARGE = ("vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
"""Too large to run in a test; they are `vit_b_16` with more of the same."""
SMALL = sorted(set(MODELS) - set(LARGE) - set(TOKEN_MODELS) - {"toy_cnn"})
SIDES = {"small_cnn": 8, "slim_vgg": 8, "resnet18": 8, "resnet34": 8, "resnet50": 8, "allcnn": 8}
CLASSES = 5
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vit_b_16": 86_567_656,
    "vit_b_32": 88_224_232,
    "vit_l_16": 304_326_632,
    "vit_l_32": 306_535_400,
    "vit_h_14": 632_045_800,
}
"""Weights of torchvision's models for 1000 classes and 224 pixels, as its documentation lists them."""


def side(name: str) -> int:
    return SIDES.get(name, 32)


def fresh(name: str, channels: int = 3, seed: int = 0) -> nn.Module:
    stats = (0.5,) * channels
    return build(name, (channels, side(name), side(name)), CLASSES, stats, stats, seed)


@pytest.fixture(scope="module", params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def built(name: str) -> nn.Module:
    """Build the network of a name's tests once; they only read it."""
    return fresh(name)


@pytest.fixture
def model(built: nn.Module) -> nn.Module:
    """Return a copy of its own for each test."""
    return copy.deepcopy(built)


@pytest.fixture
def examples(name: str) -> Examples:
    images = torch.rand((6, 3, side(name), side(name)), generator=generator("images"))
    return Examples(images, torch.arange(6) % CLASSES)


def test_forward_gives_logits_and_backward_reaches_every_weight(
    model: nn.Module, examples: Examples
) -> None:
    with torch.no_grad():  # torchvision begins with the head of a transformer at zero
        head(model).weight.normal_(generator=generator("head"))
    logits = model.train()(examples.inputs)
    assert logits.shape == (6, CLASSES)
    nn.functional.cross_entropy(logits, examples.labels).backward()
    for weight_name, weight in model.named_parameters():
        assert weight.grad is not None, weight_name
        assert torch.isfinite(weight.grad).all(), weight_name
        assert weight.grad.abs().max() > 0, weight_name


def test_weights_depend_on_the_seed_alone(name: str, built: nn.Module) -> None:
    torch.manual_seed(5)
    same, first = weights_of(fresh(name)), weights_of(built)
    assert all((same[key] == first[key]).all() for key in first)


def test_outputs_in_eval_mode_are_the_same_alone_and_in_a_batch(
    model: nn.Module, examples: Examples
) -> None:
    model.eval()
    with torch.no_grad():
        head(model).weight.normal_(generator=generator("head"))
        together = model(examples.inputs)
        alone = torch.cat([model(image[None]) for image in examples.inputs])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_head_is_the_last_linear_layer_and_sees_the_features(
    model: nn.Module, examples: Examples
) -> None:
    assert head(model).out_features == CLASSES
    logits, features = logits_and_features(model.eval(), examples.inputs)
    assert features.shape == (6, head(model).in_features)
    torch.testing.assert_close(head(model)(features), logits)
    assert Widened(model, generator(0))(examples.inputs).shape == (6, CLASSES + 1)


def test_last_layers_begin_with_the_head_and_grow_by_one_layer_that_counts(
    model: nn.Module,
) -> None:
    layers = last_layers(model, 3)
    assert layers[0] is head(model)
    assert sum(map(is_counted, layers)) == 3
    assert last_layers(model, 2) == layers[: len(last_layers(model, 2))]
    every = {id(w) for layer in last_layers(model, 10**6) for w in layer.parameters(recurse=False)}
    assert every == {id(weight) for weight in model.parameters()}


def split_of(examples: Examples) -> Split:
    mean = std = (0.5,) * 3
    return Split({"retain": examples}, CLASSES, input_mean=mean, input_std=std)


def test_only_the_last_layers_are_fine_tuned(model: nn.Module, examples: Examples) -> None:
    before = weights_of(model)
    trained = {id(w) for layer in last_layers(model, 1) for w in layer.parameters(recurse=False)}
    options = {"epochs": 1, "k": 1, "frozen_statistics": True}
    for _ in cf_k(model, split_of(examples), generator(0), **options):  # type: ignore[arg-type]
        pass
    after = weights_of(model)
    for key, weight in model.named_parameters():
        assert (id(weight) in trained) == bool((after[key] != before[key]).any()), key


def test_redrawing_reaches_every_weight(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.data.fill_(77)
    reinitialize(model, generator(0))
    for key, weight in model.named_parameters():
        assert (weight != 77).all(), key
        assert weight.abs().max() < 10, key


def test_activations_can_be_masked_without_effect_until_pruned(
    model: nn.Module, examples: Examples
) -> None:
    model.eval()
    before = model(examples.inputs)
    assert mask_activations(model)
    assert torch.equal(model(examples.inputs), before)


def test_noise_can_be_made_to_raise_the_loss(model: nn.Module, examples: Examples) -> None:
    with torch.no_grad():
        head(model).weight.normal_(generator=generator("head"))
    images, labels = examples.batch(slice(2))
    settings = NoiseSettings(maximize=True, penalty=0.0, steps=1, lr=0.1, images_per_class=2)
    noise = error_noise(model, split_of(examples), images, labels, settings)
    assert (noise != images).any()
    assert torch.isfinite(noise).all()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention under vmap on a CPU
def test_gradients_of_single_samples_agree_in_both_ways(
    model: nn.Module, examples: Examples
) -> None:
    with torch.no_grad():
        head(model).weight.normal_(generator=generator("head"))
    model.eval()
    few = examples.take(torch.arange(2))

    def length(logits: torch.Tensor, label: torch.Tensor, pull: object) -> torch.Tensor:
        one_hot = nn.functional.one_hot(label, CLASSES)
        return pull(logits.softmax(0) - one_hot).norm()  # type: ignore[operator]

    expected = one_by_one(model, few.inputs, few.labels, length)
    stacked = at_once(model, few.inputs, few.labels, length)
    torch.testing.assert_close(stacked, expected, rtol=1e-3, atol=1e-5)


def test_copies_share_nothing_and_load_what_was_saved(model: nn.Module, examples: Examples) -> None:
    teacher, other = frozen_copy(model), copy.deepcopy(model).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
        for weight in other.parameters():
            weight.zero_()
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(other(examples.inputs), teacher(examples.inputs))


def test_grey_images_are_taken(name: str) -> None:
    model = fresh(name, channels=1).eval()
    assert model(torch.rand(2, 1, side(name), side(name))).shape == (2, CLASSES)


@pytest.fixture
def without_weights() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.usefixtures("without_weights")
def test_networks_for_imagenet_have_as_many_weights_as_published(name: str) -> None:
    network = {**MODELS, **IMAGENET_FORMS}[name]((3, 224, 224), 1000)
    assert sum(weight.numel() for weight in network.parameters()) == PUBLISHED[name]
    assert head(network).out_features == 1000
    grey = {**MODELS, **IMAGENET_FORMS}[name]((1, 224, 224), 1000)
    first = next(layer for layer in grey.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 1


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_the_form_for_imagenet_is_chosen_by_its_stem(name: str) -> None:
    usual, same, other = (
        resolve(ModelSpec(name, stem=stem)) for stem in (None, "small", "imagenet")
    )
    assert usual.key == same.key == name
    assert other.key != name
    assert other.factory is IMAGENET_FORMS[name]
    assert usual.factory is same.factory is MODELS[name]


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_a_vgg_refuses_images_that_its_poolings_would_use_up(name: str) -> None:
    for forms in (MODELS, IMAGENET_FORMS):
        with pytest.raises(
            ValueError, match=rf"{name} needs images of at least 32 .* are \[3, 28, 32\]"
        ):
            forms[name]((3, 28, 32), 10)


@pytest.mark.parametrize("name", ["vit_b_16", "small_data_vit"])
@pytest.mark.parametrize("shape", [(3, 30, 30), (3, 32, 64)])
def test_a_transformer_refuses_images_that_are_not_whole_patches(
    name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"{name} needs square images .* are \[3, {shape[1]}"):
        MODELS[name](shape, 10)


def test_weights_of_networks_in_use_stay_as_they_are() -> None:
    digests = {"small_cnn": "823eecb02c3f03ce", "resnet18": "8db4070ef0118476"}
    for name, digest in digests.items():
        model = build(name, (3, 32, 32), 10, (0.5,) * 3, (0.2,) * 3, 7)
        content = b"".join(value.tobytes() for value in weights_of(model).values())
        assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_shifted_patches_are_the_image_and_its_four_diagonal_neighbours() -> None:
    patches = ShiftedPatches(1, 4, 7)
    patches.norm = nn.Identity()  # type: ignore[assignment]
    patches.project = nn.Identity()  # type: ignore[assignment]
    images = torch.arange(64.0).view(1, 1, 8, 8) + 1
    pieces = patches(images).view(4, 5, 4, 4)
    assert torch.equal(pieces[0, 0], images[0, 0, :4, :4])
    assert torch.equal(pieces[3, 0], images[0, 0, 4:, 4:])
    down_right, down_left, up_right, up_left = pieces[0, 1:]
    assert torch.equal(down_right[2:, 2:], images[0, 0, :2, :2])
    assert (down_right[:2] == 0).all() and (down_right[:, :2] == 0).all()
    assert torch.equal(down_left[2:], images[0, 0, :2, 2:6])
    assert torch.equal(up_right[:, 2:], images[0, 0, 2:6, :2])
    assert torch.equal(up_left, images[0, 0, 2:6, 2:6])


def test_local_attention_is_the_softmax_over_other_tokens_at_the_learned_temperature() -> None:
    attention = LocalAttention(dim=6, tokens=4, heads=2)
    with torch.no_grad():
        attention.scale.copy_(torch.tensor([0.3, 2.0]).view(2, 1, 1))
    tokens = torch.rand(1, 4, 6, generator=generator("tokens"))
    queries, keys, values = (
        attention.queries_keys_values(tokens)[0].view(4, 3, 2, 3).permute(1, 2, 0, 3)
    )
    expected = torch.zeros(4, 6)
    for at in range(2):
        scores = queries[at] @ keys[at].T * attention.scale[at]
        scores.fill_diagonal_(-torch.inf)
        expected[:, 3 * at : 3 * at + 3] = scores.softmax(1) @ values[at]
    torch.testing.assert_close(attention(tokens)[0], attention.project(expected))


def test_a_skipped_branch_keeps_its_mean() -> None:
    torch.manual_seed(0)
    block = SmallDataViT((3, 8, 8), 2).blocks[0]
    branch = torch.ones(20_000, 1, 1)
    thinned = block.train()._skipped(branch)  # type: ignore[operator,union-attr]
    assert thinned.mean().item() == pytest.approx(1, abs=0.01)
    assert sorted(thinned.unique().tolist()) == pytest.approx([0, 1 / 0.9])
    assert torch.equal(block.eval()._skipped(branch), branch)  # type: ignore[operator,union-attr]


@pytest.fixture(scope="module")
def tiny_transformer() -> Iterator[Problem]:
    """Return the toy problem on a narrow `small_data_vit`, which has no batch norm and whose activations are tokens."""
    MODELS["toy_vit"] = partial(SmallDataViT, dim=24, depth=2)
    yield replace(toy_problem(), model="toy_vit")
    del MODELS["toy_vit"]


@pytest.mark.filterwarnings("ignore:SSD selected no weight")
@pytest.mark.parametrize("method_name", methods.names())
def test_every_method_runs_on_a_transformer(method_name: str, tiny_transformer: Problem) -> None:
    method = methods.load(method_name)
    request = toy_problem(method_settings.request_kind(method)).request
    problem = replace(tiny_transformer, request=request)
    model, split = problem.build(), problem.split().only(method.data)
    before = weights_of(model)
    if method.check_problem is not None:
        method.check_problem(model, split)
    seed_process("transformer", method_name)
    knobs = method_settings.short_knobs(method)
    assert sum(1 for _ in method.unlearn(model, split, generator(method_name), **knobs)) >= 1
    after = weights_of(model)
    assert any(key not in after or (after[key] != before[key]).any() for key in before)
    assert np.isfinite(predict(model, split.parts[method.data[0]])).all()
