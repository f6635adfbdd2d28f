"""UGradSL+: smoothed labels, the loss and its steps, adaptive smoothing, and the directions of all of them."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import Tensor, nn
from torch.nn import functional as F

from mu.data import Examples
from mu.evaluate import predict
from mu.methods import ugradsl, ugradsl_plus
from mu.methods.ugradsl_plus import adaptive_alpha, smoothed_labels, ugradsl_loss
from mu.metrics import log_softmax
from mu.problem import Problem, Weights, weights_of
from mu.rng import generator
from mu.split import Split
from mu.training import count_samples

TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def test_labels_are_those_of_equation_6() -> None:
    z = golden("b_gls_labels")
    classes, labels = int(z["K"]), torch.from_numpy(z["y"])
    for alpha, expected in zip(z["alphas"], z["labels"]):
        rate = torch.full((len(labels),), float(alpha), dtype=torch.float64)
        np.testing.assert_allclose(smoothed_labels(labels, classes, rate), expected, **TIGHT)
    each = smoothed_labels(labels, classes, torch.from_numpy(z["alpha_vector"]))
    np.testing.assert_allclose(each, z["labels_vector"], **TIGHT)
    few = torch.from_numpy(z["y3"])
    rate = torch.full((len(few),), float(z["alpha3"]), dtype=torch.float64)
    np.testing.assert_allclose(smoothed_labels(few, int(z["K3"]), rate), z["labels3"], **TIGHT)


def test_label_smoothing_losses_and_gradients() -> None:
    z = golden("b_gls_labels")
    labels = torch.from_numpy(z["y"])
    nothing = torch.zeros_like(torch.from_numpy(z["logits"]))
    for alpha, losses, mean, gradients in zip(
        z["alphas"],
        z["loss_per_sample"],
        z["loss_mean_official"],
        z["grad_logits_per_sample"],
    ):
        logits = torch.from_numpy(z["logits"]).requires_grad_()
        rate = torch.full((len(labels),), float(alpha), dtype=torch.float64)
        # p = 0 leaves the ascent alone: the negated smoothed cross-entropy.
        total = ugradsl_loss(nothing, labels, logits, labels, 0.0, rate, "sum")
        total.backward()
        assert -float(total.detach()) == pytest.approx(losses.sum(), rel=1e-9)
        np.testing.assert_allclose(-logits.grad, gradients, **TIGHT)
        average = ugradsl_loss(nothing, labels, logits, labels, 0.0, rate, "mean")
        assert -float(average.detach()) == pytest.approx(float(mean), rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_is_equation_8(reduction: Any) -> None:
    z = golden("b_ugradsl_loss")
    arrays = [torch.from_numpy(z[name]) for name in ("logits_r", "y_r", "logits_f", "y_f")]
    for i, p in enumerate(z["p"]):
        for j, alpha in enumerate(z["alphas"]):
            rate = torch.full((len(arrays[3]),), float(alpha), dtype=torch.float64)
            loss = ugradsl_loss(*arrays, float(p), rate, reduction)
            assert float(loss) == pytest.approx(
                float(z[f"loss_{reduction}"][i, j]), rel=1e-9, abs=1e-10
            )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_the_loss(reduction: Any) -> None:
    z = golden("b_ugradsl_loss")
    retain, forget = (torch.from_numpy(z[f"logits_{part}"]).requires_grad_() for part in "rf")
    labels = [torch.from_numpy(z[f"y_{part}"]) for part in "rf"]
    rate = torch.full((len(forget),), -0.4, dtype=torch.float64)
    ugradsl_loss(retain, labels[0], forget, labels[1], 0.9, rate, reduction).backward()
    np.testing.assert_allclose(retain.grad, z[f"grad_r_{reduction}_p09_am04"], **TIGHT)
    np.testing.assert_allclose(forget.grad, z[f"grad_f_{reduction}_p09_am04"], **TIGHT)


def test_every_sample_may_have_its_own_alpha() -> None:
    z = golden("b_ugradsl_loss")
    retain = torch.from_numpy(z["logits_r"])
    forget = torch.from_numpy(z["logits_f"]).requires_grad_()
    labels = [torch.from_numpy(z[f"y_{part}"]) for part in "rf"]
    rate = torch.from_numpy(z["alpha_vector"])
    loss = ugradsl_loss(retain, labels[0], forget, labels[1], 0.9, rate)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(z["loss_mean_p09_alphavec"]), rel=1e-9)
    np.testing.assert_allclose(forget.grad, z["grad_f_mean_p09_alphavec"], **TIGHT)


def test_an_epoch_takes_the_steps_of_the_golden_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    z = golden("b_ugradsl_loss")
    monkeypatch.setattr(torch, "randperm", lambda count, generator: torch.arange(count))
    losses: list[float] = []
    weights: list[Tensor] = []
    model = nn.Linear(*reversed(z["W0"].shape)).double()
    model.load_state_dict({"weight": torch.from_numpy(z["W0"]), "bias": torch.from_numpy(z["b0"])})

    def spy(*args: Any) -> Tensor:
        loss = ugradsl_loss(*args)
        losses.append(float(loss.detach()))
        weights.append(model.weight.detach().clone())
        return loss

    monkeypatch.setattr(ugradsl_plus, "ugradsl_loss", spy)
    parts = {
        part: Examples(
            torch.from_numpy(z[f"X{part[0]}"]).flatten(0, 1),
            torch.from_numpy(z[f"Y{part[0]}"]).flatten(),
        )
        for part in ("retain", "forget")
    }
    yields = ugradsl_plus.unlearn(
        model,
        Split(parts, num_classes=len(z["b0"])),
        generator(0),
        epochs=1,
        p=float(z["step_p"]),
        alpha=float(z["step_alpha"]),
        lr=float(z["sgd_lr"]),
        momentum=float(z["sgd_momentum"]),
        weight_decay=float(z["sgd_wd"]),
        batch_size=z["Xr"].shape[1],
    )
    assert len(list(yields)) == 1
    # The rate is a float32 number in training: 1e-7 is its rounding, far below any error of substance.
    np.testing.assert_allclose(losses, z["loss_trace"], rtol=1e-7)
    after = torch.stack([*weights[1:], model.weight.detach()])
    np.testing.assert_allclose(after, z["W_trace"], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(model.bias.detach(), z["b_final"], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_adaptive_alpha_is_the_share_of_retained_neighbours(distance: Any) -> None:
    z = golden("b_adaptive_alpha")
    forget, retain = torch.from_numpy(z["feat_f"]), torch.from_numpy(z["feat_r"])
    name = {"cosine": "cos", "euclidean": "euc"}[distance]
    for row, beta in enumerate(z["betas"]):
        alpha = {
            sign: adaptive_alpha(forget, retain, float(beta), distance, sign).numpy()
            for sign in ("negative", "literal", "complement")
        }
        share = z[f"alpha_abs_{name}"][row]
        np.testing.assert_allclose(alpha["literal"], share, **TIGHT)
        np.testing.assert_allclose(alpha["negative"], -share, **TIGHT)
        np.testing.assert_allclose(alpha["complement"], share - 1, **TIGHT)
        if distance == "cosine":
            np.testing.assert_allclose(alpha["negative"], z["alpha_signed_cos"][row], **TIGHT)
            np.testing.assert_allclose(alpha["complement"], z["alpha_complement_cos"][row], **TIGHT)


def test_beta_is_the_median_of_all_pairs_by_default() -> None:
    z = golden("b_adaptive_alpha")
    forget, retain = torch.from_numpy(z["feat_f"]), torch.from_numpy(z["feat_r"])
    by_default = adaptive_alpha(forget, retain, sign="literal").numpy()
    np.testing.assert_allclose(by_default, z["alpha_abs_median_avg"], **TIGHT)


def test_neighbours_are_strictly_nearer_than_beta() -> None:
    """Orthogonal features are exactly 0.5 apart."""
    forget, retain = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert adaptive_alpha(forget, retain, 0.5, sign="literal").tolist() == [0.0]
    assert adaptive_alpha(forget, retain, 0.51, sign="literal").tolist() == [1.0]


def test_neighbours_are_counted_for_each_forgotten_sample() -> None:
    """The snippet printed in the paper counts over the other axis; unequal sizes tell them apart."""
    z = golden("b_adaptive_alpha")
    forget, retain = torch.from_numpy(z["feat_f"]), torch.from_numpy(z["feat_r"])
    beta = float(z["betas"][3])
    alpha = adaptive_alpha(forget[:3], retain, beta, sign="literal").numpy()
    np.testing.assert_allclose(alpha, z["alpha_abs_cos"][3][:3], **TIGHT)
    assert not np.allclose(z["alpha_paper_snippet_dim0"][3], z["alpha_abs_cos"][3])


def unlearned(model: nn.Module, split: Split, **knobs: Any) -> tuple[float, float]:
    """Return the cross-entropy on retained and on forgotten data after unlearning."""
    for _ in ugradsl_plus.unlearn(
        model, split, generator(0), batch_size=16, **{"epochs": 2, **knobs}
    ):
        pass
    losses = []
    for part in (split.retain, split.forget):
        logp = log_softmax(predict(model, part))
        losses.append(float(-logp[np.arange(len(part)), part.labels.numpy()].mean()))
    return losses[0], losses[1]


@pytest.mark.parametrize("method", [ugradsl, ugradsl_plus])
@pytest.mark.parametrize(("norm", "moved"), [("retain", False), ("both", True)])
def test_forgotten_batches_move_no_running_statistics_unless_asked(
    method: ModuleType, norm: str, moved: bool, problem: Problem, original: Weights, split: Split
) -> None:
    """At a rate of nothing the statistics are those of the batches: black forgotten images show whether they count."""
    black = Examples(torch.zeros_like(split.forget.inputs), split.forget.labels)
    kept: list[dict[str, np.ndarray]] = []
    for forget in (split.forget, black):
        model = problem.load(original)
        parts = {"retain": split.retain, "forget": forget}
        for _ in method.unlearn(
            model,
            Split(parts, num_classes=split.num_classes),
            generator(0),
            epochs=1,
            batch_size=16,
            lr=1e-30,
            weight_decay=0.0,
            norm=norm,
        ):
            pass
        kept.append({n: v for n, v in weights_of(model).items() if "running" in n})
        assert all(
            layer.track_running_stats
            for layer in model.modules()
            if isinstance(layer, nn.BatchNorm2d)
        )
    assert kept[0]
    for name, statistics in kept[0].items():
        assert np.array_equal(statistics, kept[1][name]) is not moved, name
        assert not np.array_equal(statistics, original[name]), name


def test_forgotten_batches_are_normalised_by_themselves(model: nn.Module, split: Split) -> None:
    images = split.forget.batch(slice(0, 16))[0]
    with torch.no_grad():
        expected = model.train()(images)
        with ugradsl_plus.statistics_kept(model):
            torch.testing.assert_close(model(images), expected)
        assert not torch.allclose(model.eval()(images), expected)


def test_forget_loss_rises_far_more_than_retain_loss(model: nn.Module, split: Split) -> None:
    untouched = unlearned(model, split, lr=1e-30, weight_decay=0.0)
    retain, forget = unlearned(model, split, epochs=4)
    assert forget - untouched[1] > max(1, 2 * (retain - untouched[0]))


def test_smaller_p_forgets_more(problem: Any, original: Any, split: Split) -> None:
    losses = [unlearned(problem.load(original), split, p=p)[1] for p in (0.99, 0.9, 0.8)]
    assert losses == sorted(losses)


def test_negative_alpha_ascends_harder_on_the_own_class_and_descends_on_the_others() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    label, nothing = torch.tensor([0]), torch.zeros(1, 4)
    steps = []
    for alpha in (0.0, -0.4):
        loss = ugradsl_loss(nothing, label, logits, label, 0.9, torch.tensor([alpha]))
        (gradient,) = torch.autograd.grad(loss, logits)
        steps.append(-gradient[0])
    plain, negative = steps
    assert negative[0] < plain[0] < 0
    assert (negative[1:] > plain[1:]).all() and (plain[1:] > 0).all()


def test_no_gradient_flows_through_adaptive_alpha() -> None:
    features = torch.randn(4, 3, generator=generator(0), requires_grad=True)
    assert not adaptive_alpha(features, features).requires_grad


def test_an_epoch_is_one_pass_over_the_retained_data(model: nn.Module, split: Split) -> None:
    counter = count_samples(model)
    for _ in ugradsl_plus.unlearn(model, split, generator(0), epochs=1, batch_size=16):
        pass
    assert counter[0] == 2 * len(split.retain)


def test_an_epoch_reads_all_retained_data_however_few_samples_are_forgotten(
    model: nn.Module, split: Split
) -> None:
    few = replace(split, parts={**split.parts, "forget": split.forget.take(torch.arange(3))})
    counter = count_samples(model)
    for _ in ugradsl_plus.unlearn(model, few, generator(0), epochs=1, batch_size=16):
        pass
    assert counter[0] == 2 * len(split.retain)


def test_loss_of_alpha_zero_is_plain_ascent() -> None:
    draws = generator(1)
    retain, forget = torch.randn(2, 5, 3, generator=draws, dtype=torch.float64)
    labels = torch.randint(0, 3, (5,), generator=draws)
    zero = torch.zeros(5, dtype=torch.float64)
    loss = ugradsl_loss(retain, labels, forget, labels, 0.7, zero)
    plain = 0.7 * F.cross_entropy(retain, labels) - 0.3 * F.cross_entropy(forget, labels)
    torch.testing.assert_close(loss, plain)
