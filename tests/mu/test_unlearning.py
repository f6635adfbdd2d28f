"""``mu.unlearn`` and ``mu.evaluate_unlearning`` on models and data of one's own."""

from __future__ import annotations

import copy
import random
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from method_settings import short_knobs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from toy import toy_data, toy_problem, toy_reference

import mu
from mu.data import Examples
from mu.data.pairs import check_apart, examples_of
from mu.methods import load, names
from mu.training import Recipe

Pair = tuple[Tensor, Tensor]


class Plain(nn.Module):
    """A network as users write it: no Sequential, and its normalisation is in its data."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.act2(self.conv2(self.act1(self.conv1(images))))
        return self.fc(self.pool(features).flatten(1))


def normalized(part: str) -> Pair:
    """A part of the toy data as floats of about zero mean, as torchvision's recipes give them."""
    samples = toy_data().parts[part]
    return torch.tensor(samples.inputs).float() / 127.5 - 1, torch.tensor(samples.labels)


@cache
def trained() -> Plain:
    """A plain network that was trained for a moment."""
    torch.manual_seed(0)
    model, (inputs, labels) = Plain(), normalized("train")
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def sets(kind: str = "class") -> dict[str, Pair]:
    """D_r and D_f: a class that goes as a whole, or some samples of each class."""
    inputs, labels = normalized("train")
    gone = labels == 1 if kind == "class" else torch.arange(len(labels)) % 5 == 0
    return {"retain": (inputs[~gone], labels[~gone]), "forget": (inputs[gone], labels[gone])}


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.state_dict().values()]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other)))


def finetuned(**changes: Any) -> nn.Module:
    return mu.unlearn(trained(), "finetune", **{**sets(), "epochs": 2, "lr": 0.1, **changes})


@pytest.mark.parametrize("name", names())
def test_every_method_works_on_a_plain_network(name: str) -> None:
    method = load(name)
    kind = "class" if "full_class" in method.requests else "some"
    model, before = trained(), weights(trained())
    given: dict[str, Any] = sets(kind)
    if "twin" in method.needs:
        given["twin"] = normalized("twin")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unlearned = mu.unlearn(model, name, **given, **short_knobs(method))
    assert isinstance(unlearned, Plain) and not unlearned.training
    assert unlearned(normalized("test")[0]).shape == (len(toy_data().parts["test"]), 4)
    state = unlearned.state_dict()
    assert any(not torch.equal(state[key], b) for key, b in zip(model.state_dict(), before))
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before))
    assert all(weight.grad is None for weight in unlearned.parameters())


def test_a_method_that_needs_no_retained_data_goes_without() -> None:
    forget = sets()["forget"]
    assert not same(mu.unlearn(trained(), "ga", forget=forget, epochs=1, lr=0.1), trained())
    unlearned = mu.unlearn(
        trained(), "gkt", forget=forget, forget_class=1, **short_knobs(load("gkt"))
    )
    assert not same(unlearned, trained())


def test_tensors_arrays_data_sets_and_loaders_give_the_same_model() -> None:
    given = sets()
    wanted = finetuned()
    data = {name: TensorDataset(*pair) for name, pair in given.items()}
    loaders = {name: DataLoader(each, batch_size=7) for name, each in data.items()}
    arrays = {name: tuple(np.asarray(each) for each in pair) for name, pair in given.items()}
    everything = TensorDataset(*normalized("train"))
    gone = normalized("train")[1] == 1
    parts = {
        name: Subset(everything, mask.nonzero().flatten().tolist())
        for name, mask in (("retain", ~gone), ("forget", gone))
    }
    for other in (data, loaders, arrays, parts):
        assert same(finetuned(**other), wanted)


def test_the_seed_decides_and_the_process_keeps_its_own_random_numbers() -> None:
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    one = finetuned()
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(state[0], after[0]) and state[1:] == after[1:]
    assert same(one, finetuned()) and not same(one, finetuned(seed=1))


def test_the_recipe_of_the_model_augments_what_the_method_trains_on() -> None:
    plain = finetuned(augment=True)
    as_trained = finetuned(augment=True, training={"augment": "crop_flip", "pad": 2})
    assert not same(plain, as_trained)
    recipe = Recipe(augment="crop_flip", pad=2)
    assert same(as_trained, finetuned(augment=True, training=recipe))


def test_modes_gradients_and_frozen_weights_stay() -> None:
    model = copy.deepcopy(trained()).train()
    model.conv1.eval().requires_grad_(False)
    unlearned = mu.unlearn(model, "finetune", **sets(), epochs=1)
    assert isinstance(unlearned, Plain) and unlearned.training and not unlearned.conv1.training
    assert not unlearned.conv1.weight.requires_grad
    assert torch.equal(unlearned.conv1.weight, model.conv1.weight)
    assert not torch.equal(unlearned.fc.weight, model.fc.weight)


def test_images_outside_of_the_unit_range_are_what_the_model_sees() -> None:
    # boundary_shrink bounds pixels to [0, 1]. The same network on the same images in [0, 1] must get the same weights.
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(trained())

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images * 2 - 1)

    unit = {name: ((inputs + 1) / 2, labels) for name, (inputs, labels) in sets().items()}
    reach = torch.tensor([[[[-1.0]], [[-1.0]], [[-1.0]]], [[[1.0]], [[1.0]], [[1.0]]]])
    wide = {**sets()}
    inputs = wide["retain"][0].clone()
    inputs[:2, :, :1, :1] = reach  # the range of each channel is then [-1, 1]
    wide["retain"] = inputs, wide["retain"][1]
    unit["retain"] = (inputs + 1) / 2, unit["retain"][1]
    knobs = {"epochs": 2, "lr": 0.05}
    outside = mu.unlearn(trained(), "boundary_shrink", **wide, **knobs)
    inside = mu.unlearn(Inside(), "boundary_shrink", **unit, **knobs)
    for a, b in zip(weights(outside), weights(inside)):
        assert torch.allclose(a, b, atol=1e-4)
    assert not same(outside, trained())


def test_evaluation_says_how_far_a_model_is_from_retraining() -> None:
    torch.manual_seed(1)
    given = {**sets(), "test": normalized("test")}
    retrain = mu.unlearn(Plain(), "finetune", **sets(), epochs=20, lr=0.5)
    seen = mu.evaluate_unlearning(finetuned(), trained(), **given, retrain=retrain)
    assert set(seen) == {"unlearned", "original", "retrain", "gap"}
    inputs, labels = given["forget"]
    share = float((finetuned()(inputs).argmax(1) == labels).float().mean())
    assert seen["unlearned"]["acc_forget"] == pytest.approx(share)
    gap = abs(seen["unlearned"]["acc_forget"] - seen["retrain"]["acc_forget"])
    assert seen["gap"]["acc_forget"] == pytest.approx(gap)
    assert "acc_test_retain" in seen["original"] and "avg_gap_natmu" in seen["gap"]
    nothing = mu.evaluate_unlearning(trained(), trained(), **given, retrain=retrain)
    gold = mu.evaluate_unlearning(retrain, trained(), **given, retrain=retrain)
    assert nothing["gap"]["recovery"] == 0
    assert gold["gap"]["recovery"] == 1 and gold["gap"]["activation_distance"] == 0
    alone = mu.evaluate_unlearning(finetuned(), trained(), **given)
    assert set(alone) == {"unlearned", "original"} and alone["unlearned"] == seen["unlearned"]


def test_the_numbers_are_those_that_a_study_records() -> None:
    problem = toy_problem("full_class")
    model = problem.load(toy_reference("original"))
    recorded = problem.evaluate(model, problem.split(), ("test",)).scores["test"]
    part, test = problem.data.parts["train"], problem.data.parts["test"]
    given = {
        name: (part.inputs[index], part.labels[index])
        for name, index in (("retain", problem.retain_index), ("forget", problem.forget_index))
    }
    own = mu.evaluate_unlearning(model, model, **given, test=(test.inputs, test.labels))
    assert own["unlearned"] == pytest.approx(recorded, nan_ok=True)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("finetun", {}, "unknown method 'finetun'"),
        ("finetune", {"alfa": 1}, "unknown knob `alfa`; finetune has .*epochs.*lr"),
        ("finetune", {"lr": -1}, "knob `lr` must be a float > 0"),
        ("finetune", {"retain": None}, "finetune needs retain, the training samples that stay"),
        (
            "tmu",
            {"kind": "some"},
            "tmu needs twin, labelled samples that the model was not trained on",
        ),
        ("gkt", {"kind": "some"}, "gkt needs a class that goes as a whole .*forget_class"),
        ("gkt", {"retain": None}, "without retain, name it with forget_class"),
        ("tmu", {"twin": normalized("twin")}, "tmu cannot forget a full class: it supports random"),
        ("ga", {"forget_class": 2}, r"forget_class is 2, but forget holds the labels \[1\]"),
        ("ga", {"forget": (torch.empty(0, 3, 8, 8), torch.empty(0).long())}, "forget: is empty"),
        (
            "ga",
            {"forget": TensorDataset(torch.empty(0, 3, 8, 8), torch.empty(0))},
            "forget: is empty",
        ),
        ("ga", {"forget": torch.zeros(3)}, "forget: must be .*but is Tensor"),
        ("ga", {"forget": TensorDataset(torch.zeros(3, 2))}, "forget: must give pairs"),
        ("ga", {"forget": (torch.zeros(3, 3, 8, 8), torch.zeros(2).long())}, "forget: 2 labels"),
        (
            "ga",
            {"forget": (torch.zeros(3, 3, 8, 8), torch.zeros(3))},
            "labels must be whole numbers",
        ),
        ("ga", {"forget": (torch.zeros(3, 3, 8, 8), torch.full((3,), -1))}, "not be negative"),
        (
            "ga",
            {"forget": (torch.full((3, 3, 8, 8), torch.nan), torch.ones(3).long())},
            "not finite",
        ),
        ("ga", {"forget": (torch.zeros(3, 1, 4), torch.ones(3).long())}, "inputs differ in shape"),
        (
            "ga",
            {"forget": (torch.zeros(3, 3, 8, 8), torch.full((3,), 7))},
            "gives 4 outputs.*up to 7",
        ),
    ],
)
def test_bad_input_is_one_clear_error(method: str, changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = sets(changes.get("kind", "class"))
    given |= {name: value for name, value in changes.items() if name != "kind"}
    before = weights(trained())
    with pytest.raises(ValueError, match=words):
        mu.unlearn(trained(), method, **given)
    assert all(torch.equal(a, b) for a, b in zip(weights(trained()), before))


def test_models_that_give_no_logits_are_refused() -> None:
    class Twice(Plain):
        def forward(self, images: Tensor) -> Any:
            return super().forward(images), None

    with pytest.raises(ValueError, match=r"must give logits \[2, classes\].*gives tuple"):
        mu.unlearn(Twice(), "ga", **sets())
    with pytest.raises(ValueError, match=r"fails on inputs \[2, 3, 8, 8\]: RuntimeError"):
        mu.unlearn(nn.Sequential(nn.Linear(3, 4), nn.Flatten(9)), "ga", **sets())
    with pytest.raises(ValueError, match="no weight that needs a gradient"):
        mu.unlearn(copy.deepcopy(trained()).requires_grad_(False), "ga", **sets())


def test_overlap_is_refused_and_a_few_copies_are_told() -> None:
    inputs, labels = normalized("train")
    with pytest.raises(ValueError, match=r"32 of the 32 samples of forget.*are in retain as well"):
        mu.unlearn(trained(), "finetune", retain=(inputs, labels), forget=sets()["forget"])
    given = {name: Examples(*pair) for name, pair in sets("some").items()}
    one = Examples(given["forget"].inputs[:1], given["forget"].labels[:1])
    copied = Examples(
        torch.cat([given["retain"].inputs, one.inputs]),
        torch.cat([given["retain"].labels, one.labels]),
    )
    with pytest.warns(UserWarning, match="1 of the 26 samples of forget, such as number 0"):
        check_apart(copied, given["forget"])


def test_inputs_of_half_precision_and_tokens_are_taken() -> None:
    inputs, labels = torch.randn(40, 12), torch.arange(40) % 4
    half = inputs.bfloat16()
    model = nn.Linear(12, 4).bfloat16()
    given = {"retain": (half[8:], labels[8:]), "forget": (half[:8], labels[:8])}
    assert not same(mu.unlearn(model, "finetune", **given, epochs=1, lr=0.1), model)
    words = nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(30, 4))
    tokens = torch.randint(0, 9, (40, 5))
    given = {"retain": (tokens[8:], labels[8:]), "forget": (tokens[:8], labels[:8])}
    assert not same(mu.unlearn(words, "neggrad_plus", **given, epochs=1, lr=0.1), words)


def test_a_loader_that_leaves_samples_out_is_refused() -> None:
    loader = DataLoader(TensorDataset(*normalized("train")), batch_size=7, drop_last=True)
    with pytest.raises(ValueError, match="forget: drop_last leaves samples out"):
        examples_of(loader, "forget")


def test_a_model_that_diverges_is_told() -> None:
    with pytest.warns(UserWarning, match="ga: weights are not finite: it has diverged"):
        mu.unlearn(trained(), "ga", **sets(), epochs=30, lr=1e6)


def test_the_package_has_these_names_alone() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'unlern'"):
        mu.unlern  # noqa: B018
