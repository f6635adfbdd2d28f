"""Activation pruning: the golden masks, and that they stay in the model through copies, files and modes."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn
from torch.nn import functional as F

from mu.methods import activation_prune
from mu.methods.activation_prune import MaskedActivation, keep_mask, mask_activations, prune
from mu.problem import Problem, Weights
from mu.rng import generator
from mu.split import Split
from mu.vision import models as torchvision_models


def arrays(name: str) -> Tensor:
    return torch.from_numpy(golden("b_activation_prune")[name])


def mask_of(layer: nn.Module) -> Tensor:
    (mask,) = layer.buffers()
    return mask


@pytest.mark.parametrize("row", range(6))
def test_masks_and_outputs_are_the_golden_ones(row: int) -> None:
    z = golden("b_activation_prune")
    layer = MaskedActivation(nn.ReLU())
    quantiles = [float(z["q"][row])]
    output = prune(layer, [layer], arrays("pre_act_forget1"), quantiles)
    torch.testing.assert_close(output, arrays("out_forget1")[row], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(mask_of(layer), z["mask_after_batch1"][row].astype(bool))
    prune(layer, [layer], arrays("pre_act_forget2"), quantiles)
    np.testing.assert_array_equal(mask_of(layer), z["mask_after_batch2"][row].astype(bool))
    for training in (True, False):
        output = layer.train(training)(arrays("pre_act_retain"))
        torch.testing.assert_close(output, arrays("out_retain_after")[row], rtol=0, atol=1e-6)
    mean = arrays("mean_act_forget1")
    for over, key in (("all", "mask_global_variant"), ("locations", "mask_per_channel_variant")):
        mask = keep_mask(mean, quantiles[0], over)  # type: ignore[arg-type]
        np.testing.assert_array_equal(mask, z[key][row].astype(bool), err_msg=over)


def test_vectors_and_tokens_are_pruned_by_feature() -> None:
    features = torch.arange(10.0)[None]
    assert (~keep_mask(features, 0.8)).nonzero()[:, 1].tolist() == [8, 9]
    tokens = torch.stack([torch.arange(10.0), torch.arange(10.0, 0, -1)])[None]
    assert (~keep_mask(tokens, 0.8)).nonzero()[:, 1:].tolist() == [[0, 8], [0, 9], [1, 0], [1, 1]]
    assert keep_mask(tokens, 0.5, "locations").shape == tokens.shape


@pytest.fixture
def pruned(model: nn.Module, split: Split) -> nn.Module:
    """Return the very model that was passed in, after a short run that prunes much."""
    for _ in activation_prune.unlearn(model, split, generator(0), epochs=2, q_deep=0.7):
        pass
    return model.eval()


def test_masks_act_on_the_model_passed_in(pruned: nn.Module, split: Split) -> None:
    inputs = split.forget.batch(slice(None))[0]
    masked = pruned(inputs)
    for module in pruned.modules():
        if isinstance(module, MaskedActivation):
            assert not mask_of(module).all()
            module.reset()
    assert not torch.allclose(pruned(inputs), masked)


def test_masks_survive_copies(pruned: nn.Module, split: Split) -> None:
    inputs = split.forget.batch(slice(None))[0]
    twin = copy.deepcopy(pruned)
    assert torch.equal(twin(inputs), pruned(inputs))
    file = io.BytesIO()
    torch.save(pruned, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(inputs), pruned(inputs))
    for module in twin.modules():
        if isinstance(module, MaskedActivation):
            module.reset()
    assert not torch.equal(twin(inputs), pruned(inputs)), "a copy shares its masks"


def test_masks_go_with_the_state_and_are_missed_without(
    pruned: nn.Module, problem: Problem, split: Split
) -> None:
    inputs = split.forget.batch(slice(None))[0]
    fresh = problem.build()
    with pytest.raises(RuntimeError, match="mask_"):
        fresh.load_state_dict(pruned.state_dict())
    activation_prune.restore(fresh, pruned.state_dict())
    assert torch.equal(fresh.eval()(inputs), pruned(inputs))


def test_pruning_reads_no_gradient_and_moves_no_statistic(model: nn.Module, split: Split) -> None:
    layers = mask_activations(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune(model.train(), layers, split.forget.batch(slice(None))[0], [0.9] * len(layers))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(module.training for module in model.modules())


def test_retained_training_moves_no_mask(pruned: nn.Module, split: Split) -> None:
    before = {n: value.clone() for n, value in pruned.state_dict().items() if "mask_" in n}
    inputs, labels = split.retain.batch(slice(None))
    F.cross_entropy(pruned.train()(inputs), labels).backward()
    after = pruned.state_dict()
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_layer_called_twice_has_one_mask_for_both_calls() -> None:
    torch.manual_seed(0)
    network = torchvision_models().resnet18(num_classes=4)
    layers = mask_activations(network)
    assert len(layers) == 9
    prune(network, layers, torch.rand(4, 3, 32, 32), [0.9] * 9)
    assert all(len(list(layer.buffers())) == 1 for layer in layers)
    block = network.layer4[0]
    seen: list[Tensor] = []
    hook = block.relu.register_forward_hook(lambda module, args, output: seen.append(output))
    network.eval()(torch.rand(2, 3, 32, 32))
    hook.remove()
    assert len(seen) == 2
    for output in seen:
        assert not output[:, ~mask_of(block.relu)[0]].any()


def test_outputs_of_another_shape_have_a_mask_of_their_own() -> None:
    torch.manual_seed(0)
    network = torchvision_models().resnet50(num_classes=4)
    layers = mask_activations(network)
    prune(network, layers, torch.rand(2, 3, 32, 32), [0.9] * len(layers))
    assert network.eval()(torch.rand(2, 3, 32, 32)).isfinite().all()
    assert max(len(list(layer.buffers())) for layer in layers) > 1


def test_one_object_in_several_places_is_wrapped_once() -> None:
    relu = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Linear(4, 4), relu, nn.Sequential(nn.Linear(4, 4), relu), nn.Tanh())
    layers = mask_activations(network)
    assert [type(layer.activation) for layer in layers] == [nn.ReLU, nn.Tanh]
    assert network[1] is network[2][1]
    assert mask_activations(network) == layers, "wrapping twice must change nothing"


def test_refuses_a_model_without_activation_layers(split: Split) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ValueError, match="has none"):
        next(activation_prune.unlearn(linear, split, generator(0)))


def test_quantiles_fall_with_depth_in_order_of_registration(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[list[float]] = []

    def watch(model: nn.Module, layers: object, inputs: Tensor, q: list[float], over: str) -> None:
        used.append(q)

    monkeypatch.setattr(activation_prune, "prune", watch)
    for _ in activation_prune.unlearn(model, split, generator(0), q_shallow=0.9, q_deep=0.5):
        pass
    assert used == [pytest.approx([0.9, 0.7, 0.5])] * 2  # one batch in each of two epochs


@pytest.mark.parametrize(
    ("epochs", "prune_epochs", "expected"),
    [(4, 2, {0, 2}), (20, 2, {0, 2}), (4, 3, {0, 1, 2}), (4, 4, {0, 1, 2, 3}), (2, 4, {0, 1})],
)
def test_every_second_epoch_prunes_where_there_are_enough(
    epochs: int, prune_epochs: int, expected: set[int]
) -> None:
    assert activation_prune.pruning_epochs(epochs, prune_epochs) == expected


@pytest.mark.parametrize(
    ("interleave", "expected"), [("even", "FRRRRFRRRR"), ("code", "RFFRRRRRRR")]
)
def test_order_of_batches(interleave: activation_prune.Interleave, expected: str) -> None:
    order = activation_prune.turns(8, 2, interleave)
    assert "".join("F" if turn else "R" for turn in order) == expected


@pytest.mark.parametrize("interleave", ["even", "code"])
@pytest.mark.parametrize(("retain", "forget"), [(7, 3), (3, 7), (1, 1), (5, 0), (10, 9)])
def test_all_batches_are_taken(
    retain: int, forget: int, interleave: activation_prune.Interleave
) -> None:
    order = list(activation_prune.turns(retain, forget, interleave))
    assert (order.count(False), order.count(True)) == (retain, forget)


def test_masks_are_lifted_after_an_epoch_that_does_not_prune(
    problem: Problem, original: Weights, split: Split
) -> None:
    model = problem.load(original)
    epochs = activation_prune.unlearn(
        model, split, generator(0), epochs=2, prune_epochs=1, reset_mask=True
    )
    masks = [sum("mask_" in name for name in model.state_dict()) for _ in epochs]
    assert masks == [3, 0]
