"""NatMU: masks, selection and hybrids against the paper and the code, and what its training sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn
from toy import toy_problem, toy_reference

from mu.data import Examples
from mu.evaluate import predict
from mu.methods import natmu, natmu_nri, natmu_rl
from mu.models import head
from mu.rng import generator
from mu.split import Split


@pytest.mark.parametrize("size", [8, 32, 64])
@pytest.mark.parametrize(("variant", "tolerance"), [("paper", 1e-12), ("code", 1e-6)])
def test_masks(size: int, variant: str, tolerance: float) -> None:
    z = golden("natmu_masks")
    for delta, expected in zip(z["deltas"], z[f"{variant}_{size}"]):
        masks = natmu.weight_masks(torch.Size((size, size)), float(delta), variant)
        np.testing.assert_allclose(masks, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_mask_profile_is_that_of_equation_a1(size: int) -> None:
    masks = natmu.weight_masks(torch.Size((size, size)), 0.0)
    np.testing.assert_allclose(masks[0][0], golden("natmu_masks")[f"paper_profile_{size}"])


def test_masks_of_delta_one_keep_the_forgotten_image_whole_and_of_minus_one_drop_it() -> None:
    assert (natmu.weight_masks(torch.Size((8, 8)), 1.0) == 1).all()
    assert (natmu.weight_masks(torch.Size((8, 8)), -1.0) == 0).all()


def test_hybrids_are_those_of_equation_2() -> None:
    z = golden("natmu_hybrid")
    forget, retain = torch.from_numpy(z["forget8"]), torch.from_numpy(z["retain8"])
    masks = natmu.weight_masks(forget.shape[-2:], float(z["delta_paper"]))
    for expected, background, share in (
        ("hybrid_paper", retain, masks),
        ("nri_paper", torch.zeros_like(retain), masks),
        ("rl_paper", retain, torch.ones_like(masks)),
    ):
        made = natmu.hybrids(forget, background, share)
        np.testing.assert_allclose(made, z[expected], rtol=0, atol=1e-12)


def test_hybrids_are_those_of_the_code_to_one_grey_level() -> None:
    z = golden("natmu_hybrid")
    forget, retain = (
        torch.from_numpy(z[f"{name}_u8"]).float() / 255 for name in ("forget", "retain")
    )
    masks = natmu.weight_masks(forget.shape[-2:], float(z["delta_code"]), "code")
    for expected, background in (("hybrid", retain), ("nri", torch.zeros_like(retain))):
        made = natmu.hybrids(forget, background, masks) * 255
        assert np.abs(made.numpy() - z[f"{expected}_code_u8"]).max() <= 1 + 1e-3


def test_likeliest_wrong_classes_are_chosen_and_one_unused_image_of_each() -> None:
    z = golden("natmu_hybrid")
    ranking = natmu.rank_classes(torch.from_numpy(z["logits"]), torch.from_numpy(z["y_forget"]))
    assert np.array_equal(ranking[:, : natmu.PATCHES], z["top_labels"])
    retain_labels = torch.from_numpy(z["retain_labels"])
    for index in (
        natmu.select_retain(ranking, retain_labels),
        torch.from_numpy(z["chosen_retain_idx"]),
    ):
        assert np.array_equal(retain_labels[index], z["top_labels"].ravel())
        assert len(index.unique()) == len(index)


def test_selection_walks_down_the_ranking_where_a_class_runs_out() -> None:
    z = golden("natmu_depletion")
    ranking = natmu.rank_classes(torch.from_numpy(z["logits"]), torch.from_numpy(z["y_forget"]))
    index = natmu.select_retain(ranking, torch.from_numpy(z["retain_labels"]))
    assert np.array_equal(index, z["idx"])
    assert np.array_equal(z["retain_labels"][index], z["labels"])


def test_own_class_ranks_last_even_where_probabilities_underflow() -> None:
    logits = torch.tensor([[1000.0, 0.0, -1.0, 1.0]])
    assert natmu.rank_classes(logits, torch.tensor([0])).tolist() == [[3, 1, 2, 0]]


def test_images_are_used_again_only_when_none_is_left() -> None:
    ranking = torch.tensor([[1, 2, 0], [1, 2, 0]])
    retain_labels = torch.tensor([1, 2, 1, 2, 1])
    index = natmu.select_retain(ranking, retain_labels)
    assert len(index) == 2 * natmu.PATCHES
    assert sorted(index[:5].tolist()) == [0, 1, 2, 3, 4]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `fit` is called with once the method has run; the training itself is left out."""
    seen: dict[str, Any] = {}

    def spy(model: nn.Module, examples: Examples, *_: Any, **kwargs: Any) -> Iterator[None]:
        seen.update(kwargs, examples=examples, head=head(model).weight.detach().clone())
        yield

    monkeypatch.setattr(natmu, "fit", spy)
    return seen


def test_training_sees_retained_images_and_four_hybrids_of_each_forgotten_one(
    model: nn.Module, split: Split, trained: dict[str, Any]
) -> None:
    list(natmu.unlearn(model, split, generator(0), delta=-1.0))
    examples, kept = trained["examples"], len(split.retain)
    assert len(examples) == kept + 4 * len(split.forget)
    assert torch.equal(examples.inputs[:kept], split.retain.inputs)
    assert torch.equal(examples.labels[:kept], split.retain.labels)
    own = split.forget.labels.repeat_interleave(4)
    assert (examples.labels[kept:] != own).all()
    # With delta = -1 a hybrid is its retained image, so these show whose label each one carries.
    for image, label in zip(examples.inputs[kept:], examples.labels[kept:]):
        match = (split.retain.inputs == image).flatten(1).all(1)
        assert match.any()
        assert split.retain.labels[match].tolist() == [int(label)]


def test_no_retained_image_is_used_twice(trained: dict[str, Any]) -> None:
    small = toy_problem("class_subset")
    model, split = small.load(toy_reference("original")), small.split()
    list(natmu.unlearn(model, split, generator(0), delta=-1.0))
    used = trained["examples"].inputs[len(split.retain) :].flatten(1)
    assert len(used) == 4 * len(split.forget)
    assert len(used.unique(dim=0)) == len(used)


def test_hybrids_are_never_augmented(
    model: nn.Module, split: Split, trained: dict[str, Any]
) -> None:
    list(natmu.unlearn(model, split, generator(0), pad=3))
    kept = len(split.retain)
    assert trained["augmentable"][:kept].all()
    assert not trained["augmentable"][kept:].any()
    assert trained["augment"] == replace(split.augment, pad=3)


def test_recipe_without_augmentation_gets_none(
    model: nn.Module, split: Split, trained: dict[str, Any]
) -> None:
    plain = replace(split, augment=type(split.augment)())
    list(natmu.unlearn(model, plain, generator(0), pad=3))
    assert trained["augment"] is None


def test_selection_sees_the_original_in_eval_mode_before_its_head_is_redrawn(
    model: nn.Module, split: Split, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict(model.eval(), split.forget)
    before = head(model).weight.detach().clone()
    ranked: list[np.ndarray] = []
    rank = natmu.rank_classes
    monkeypatch.setattr(
        natmu,
        "rank_classes",
        lambda logits, labels: ranked.append(logits.numpy()) or rank(logits, labels),
    )
    list(natmu.unlearn(model.train(), split, generator(0), reinit_head=True))
    np.testing.assert_array_equal(ranked, [expected])
    assert (trained["head"] != before).all()


@pytest.mark.parametrize("method", [natmu, natmu_nri, natmu_rl])
@pytest.mark.parametrize(
    ("kind", "redrawn"),
    [("full_class", True), ("sub_class", True), ("random", False), ("class_subset", False)],
)
def test_head_is_redrawn_where_a_class_goes_as_a_whole_unless_a_knob_decides(
    method: ModuleType, kind: str, redrawn: bool, trained: dict[str, Any]
) -> None:
    problem = toy_problem(kind)
    for knobs, expected in (
        ({}, redrawn),
        ({"reinit_head": True}, True),
        ({"reinit_head": False}, False),
    ):
        model = problem.load(toy_reference("original"))
        before = head(model).weight.detach().clone()
        list(method.unlearn(model, problem.split(), generator(0), **knobs))
        assert bool((trained["head"] != before).all()) is expected
        assert torch.equal(trained["head"], before) is not expected


def test_every_trial_of_a_problem_uses_the_same_retained_images(
    problem: Any, original: Any, trained: dict[str, Any]
) -> None:
    labels = []
    for seed in (0, 1):
        model, split = problem.load(original), problem.split()
        list(natmu.unlearn(model, split, generator(seed), delta=-1.0))
        labels.append(trained["examples"].inputs)
    assert torch.equal(*labels)
