"""Soft-Relabeling: the golden labels and losses, from the original's logits, and a first phase that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mu.evaluate import predict
from mu.methods import soft_relabel
from mu.rng import generator
from mu.split import Split

TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def golden_labels(tau: float = 1.0, others_only: bool = False) -> NDArray[np.float64]:
    z = golden("b_soft_relabel")
    own = torch.from_numpy(z["y_forget"])[:, None] == torch.from_numpy(z["y_retain"])
    return soft_relabel.soft_labels(
        torch.from_numpy(z["logits_forget"]),
        torch.from_numpy(z["logits_retain"]),
        F.one_hot(torch.from_numpy(z["y_retain"]), int(z["K"])).double(),
        tau,
        same_class=own if others_only else None,
    ).numpy()


def test_labels_are_the_golden_ones() -> None:
    z = golden("b_soft_relabel")
    np.testing.assert_allclose(golden_labels(), z["targets_forget"], **TIGHT)
    np.testing.assert_allclose(golden_labels(tau=0.5), z["targets_forget_tau05"], **TIGHT)
    np.testing.assert_allclose(
        golden_labels(others_only=True), z["targets_forget_other_classes_only"], **TIGHT
    )
    # The released code masks with 1e5 in float32 and so is right to three digits.
    released = z["targets_batch_official_f32"][len(z["y_retain"]) :]
    np.testing.assert_allclose(golden_labels(), released, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("smoothing", "key"), [(0.0, ""), (0.1, "_ls01")])
def test_loss_of_a_mixed_batch_is_the_golden_one(smoothing: float, key: str) -> None:
    z = golden("b_soft_relabel")
    onehot = F.one_hot(torch.from_numpy(z["y_retain"]), int(z["K"])).double()
    targets = torch.cat([onehot, torch.from_numpy(golden_labels())])
    np.testing.assert_allclose(targets, z["targets_batch"], **TIGHT)
    logits = torch.from_numpy(z["model_logits"])
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(float(z[f"loss_batch_mean{key}"]), rel=1e-9)


def test_a_row_without_other_classes_keeps_its_own() -> None:
    logits = torch.zeros(1, 3)
    same = torch.ones(1, 2, dtype=torch.bool)
    labels = soft_relabel.soft_labels(
        logits, torch.zeros(2, 3), F.one_hot(torch.tensor([1, 1]), 3).float(), same_class=same
    )
    assert labels.tolist() == [[0, 1, 0]]


@pytest.fixture
def first_phase_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: Any, **knobs: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(soft_relabel, "fit", nothing)


@pytest.mark.usefixtures("first_phase_only")
def test_first_phase_moves_weights_and_not_only_statistics(model: nn.Module, split: Split) -> None:
    """The released phase steps a deep copy of the optimizer, which owns other weights."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    forget = split.forget.batch(slice(None))
    model.eval()
    loss = float(F.cross_entropy(model(forget[0]), forget[1]).detach())
    for _ in soft_relabel.unlearn(model, split, generator(0), relabel_epochs=20, relabel_lr=1e-3):
        pass
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert float(F.cross_entropy(model.eval()(forget[0]), forget[1]).detach()) > loss + 0.5


@pytest.mark.usefixtures("first_phase_only")
def test_labels_come_from_the_original_in_eval_mode_at_every_pass(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: predict(model, getattr(split, name)) for name in ("forget", "retain")}
    used: list[tuple[Tensor, Tensor]] = []
    inner = soft_relabel.soft_labels

    def watch(forget: Tensor, retain: Tensor, *rest: Any, **knobs: Any) -> Tensor:
        used.append((forget, retain))
        labels = inner(forget, retain, *rest, **knobs)
        torch.testing.assert_close(labels.sum(1), torch.ones(len(forget)))
        return labels

    monkeypatch.setattr(soft_relabel, "soft_labels", watch)
    model.train()
    for _ in soft_relabel.unlearn(
        model, split, generator(0), relabel_epochs=3, relabel_lr=0.1, retain_batch=40
    ):
        pass
    assert len(used) == 3
    for forget, retain in used:
        assert sorted(forget[:, 0].tolist()) == sorted(wanted["forget"][:, 0].tolist())
        assert set(retain[:, 0].tolist()) <= set(wanted["retain"][:, 0].tolist())
    # 3 batches of 40 go through the 96 retained samples once before any comes again
    assert len({row for _, retain in used for row in retain[:, 0].tolist()}) == len(split.retain)
