"""SSD: importances, dampening, and what is said when there is nothing to dampen."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden, tanh_mlp
from torch import nn

from mu.data import Examples
from mu.gradients import unflatten
from mu.methods import ssd
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator
from mu.split import Split

NAMES = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


def golden_sets() -> tuple[Examples, Examples, Examples]:
    """Return D, D_r and D_f; the forgotten samples are the last of D."""
    z = golden("ssd")
    everything = Examples(torch.from_numpy(z["X"]), torch.from_numpy(z["Y"]))
    kept = len(everything) - int(z["n_forget"])
    index = torch.arange(len(everything))
    return everything, everything.take(index[:kept]), everything.take(index[kept:])


def flat(z: Any, prefix: str, row: int | None = None) -> np.ndarray:
    parts = [z[prefix + name] if row is None else z[prefix + name][row] for name in NAMES]
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize(
    ("expected", "part", "size"),
    [
        ("imp_D_code_", 0, "bs"),
        ("imp_Df_code_", 2, "bs_f"),
        ("imp_D_persample_", 0, None),
        ("imp_Df_persample_", 2, None),
    ],
)
def test_importances_of_code_and_paper(expected: str, part: int, size: str | None) -> None:
    z = golden("ssd")
    batch_size = 1 if size is None else int(z[size])
    total, count = ssd.squares(tanh_mlp(z), golden_sets()[part], batch_size)
    np.testing.assert_allclose(total / count, flat(z, expected), rtol=0, atol=1e-10)


def test_dampening_is_that_of_the_official_code() -> None:
    z = golden("ssd")
    of_network = [flat(z, ""), flat(z, "imp_D_code_"), flat(z, "imp_Df_code_")]
    made_up = [z["theta_syn"], z["oimp_syn"], z["fimp_syn"]]
    for row, (alpha, dampening) in enumerate(zip(z["alphas"].tolist(), z["lambdas"].tolist())):
        weights, selected = ssd.dampen(*map(torch.from_numpy, made_up), alpha, dampening)
        np.testing.assert_allclose(weights, z["damp_syn"][row], rtol=0, atol=1e-10)
        assert np.array_equal(selected, z["selected_syn"][row].astype(bool))
        weights, _ = ssd.dampen(*map(torch.from_numpy, of_network), alpha, dampening)
        np.testing.assert_allclose(weights, flat(z, "damp_net_", row), rtol=0, atol=1e-10)


def test_unlearning_by_single_samples_is_the_papers() -> None:
    z = golden("ssd")
    model = tanh_mlp(z)
    _, retain, forget = golden_sets()
    split = Split({"retain": retain, "forget": forget}, num_classes=len(z["fc2_bias"]))
    steps = ssd.unlearn(model, split, generator(0), alpha=1.1, dampening=0.7, batch_size=1)
    assert len(list(steps)) == 1
    before, everything, forgotten = (
        flat(z, prefix) for prefix in ("", "imp_D_persample_", "imp_Df_persample_")
    )
    chosen = forgotten > 1.1 * everything
    assert 0 < chosen.sum() < len(chosen)
    factor = np.minimum(0.7 * everything / forgotten, 1)
    after = np.concatenate([w.detach().numpy().ravel() for w in model.parameters()])
    np.testing.assert_allclose(after, np.where(chosen, before * factor, before), atol=1e-10)


def test_edges_of_the_rule() -> None:
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0])
    everything = torch.tensor([0.5, 0.0, 0.0, 0.3])
    forgotten = torch.tensor([1.0, 1.0, 0.0, 1.0])
    dampened, selected = ssd.dampen(weights, everything, forgotten, 2.0, 3.0)
    assert selected.tolist() == [False, True, False, True]  # equality does not select
    # No importance for D at all: gone. Dampening above the ratio of importances: nothing changes.
    torch.testing.assert_close(dampened, torch.tensor([1.0, 0.0, 1.0, 0.9]))
    dampened, _ = ssd.dampen(weights, everything, forgotten, 2.0, 4.0)
    assert dampened[3] == 1.0


@pytest.mark.parametrize(("batches", "size"), [("apart", 16), ("by_class", 16), ("mixed", 1)])
def test_warns_where_alpha_is_too_large_to_select_anything(
    model: nn.Module, split: Split, batches: ssd.Batches, size: int
) -> None:
    """Importance for D holds its share of that for D_f, a quarter here."""
    before = weights_of(model)
    alpha = (len(split.retain) + len(split.forget)) / len(split.forget)
    with pytest.warns(UserWarning, match="selected no weight"):
        for _ in ssd.unlearn(
            model, split, generator(0), alpha=alpha, batch_size=size, batches=batches
        ):
            pass
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())


def test_reports_how_many_weights_it_selected(
    model: nn.Module, split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, logger="mu.methods.ssd"):
        warnings.simplefilter("error")
        for _ in ssd.unlearn(model, split, generator(0), alpha=1.0, batch_size=16):
            pass
    total = sum(weight.numel() for weight in model.parameters())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(f"of {total} weights")
    assert 0 < int(line.split()[2]) < total


def test_batch_size_changes_what_alpha_means(
    problem: Problem, original: Weights, split: Split
) -> None:
    chosen = []
    for size in (1, 32):
        everything, forgotten = ssd.importances(
            problem.load(original), split, size, "mixed", generator(0)
        )
        chosen.append(int((forgotten > 2 * everything).sum()))
    assert chosen[0] != chosen[1]


def test_importances_leave_the_model_and_its_statistics_alone(
    model: nn.Module, split: Split
) -> None:
    before = weights_of(model)
    parts = ssd.importances(model.train(), split, 16, "mixed", generator(0))
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())
    assert [len(unflatten(part, model)) for part in parts] == [len(list(model.parameters()))] * 2
