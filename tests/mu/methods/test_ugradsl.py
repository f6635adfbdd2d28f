"""UGradSL: an epoch is one pass over the forgotten data, with as many retained samples."""

from __future__ import annotations

import torch
from golden_files import golden
from torch import nn

from mu.data import Examples
from mu.methods import ugradsl
from mu.rng import generator
from mu.split import Split
from mu.training import count_samples


def test_an_epoch_sees_forgotten_and_as_many_retained_samples(
    model: nn.Module, split: Split
) -> None:
    counter = count_samples(model)
    for epoch, _ in enumerate(ugradsl.unlearn(model, split, generator(0), epochs=3, batch_size=8)):
        assert counter[0] == 2 * len(split.forget) * (epoch + 1)


def test_steps_are_those_of_equation_8() -> None:
    """Batches of one golden step each: the retained set is as large as the forgotten one."""
    z = golden("b_ugradsl_loss")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10)).double()
    model.load_state_dict({"1.weight": torch.tensor(z["W0"]), "1.bias": torch.tensor(z["b0"])})
    retain, forget = (
        Examples(torch.tensor(z[f"X{part}"][0]), torch.tensor(z[f"Y{part}"][0])) for part in "rf"
    )
    split = Split({"retain": retain, "forget": forget}, num_classes=10)
    for _ in ugradsl.unlearn(
        model,
        split,
        generator(0),
        epochs=1,
        p=0.9,
        alpha=-0.4,
        lr=float(z["sgd_lr"]),
        momentum=float(z["sgd_momentum"]),
        weight_decay=float(z["sgd_wd"]),
    ):
        pass
    torch.testing.assert_close(
        model.state_dict()["1.weight"], torch.tensor(z["W_trace"][0]), rtol=1e-9, atol=1e-10
    )
