"""RUM: proxies of memorisation against numpy, and which method is run on which part, in which order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy_mlp
import pytest
import torch
from torch import nn

from mu.evaluate import predict
from mu.methods import finetune, rum, salun
from mu.problem import weights_of
from mu.rng import generator
from mu.split import Split

Call = tuple[str, Split, dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The methods that were run, with their splits and knobs; they do nothing but yield after each epoch."""
    noted: list[Call] = []

    def idle(name: str, lr: float) -> Any:
        def unlearn(
            model: nn.Module,
            split: Split,
            generator: torch.Generator,
            *,
            lr: float = lr,
            epochs: int = 7,
        ) -> Iterator[None]:
            noted.append((name, split, {"lr": lr, "epochs": epochs}))
            yield from [None] * epochs

        return unlearn

    monkeypatch.setattr(
        rum, "METHODS", {n: idle(n, 0.1) for n in ("finetune", "amnesiac", "salun")}
    )
    return noted


def test_divergence_is_the_mean_of_both_directions() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 3, (2, 6, 4))
    p, q = numpy_mlp.softmax(one), numpy_mlp.softmax(other)
    forth, back = (p * np.log(p / q)).sum(1), (q * np.log(q / p)).sum(1)
    result = rum.symmetric_divergence(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(result, (forth + back) / 2, rtol=0, atol=1e-12)


def test_unsureness_is_minus_the_log_of_the_labels_probability() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 3, (5, 4)), np.array([0, 3, 1, 1, 2])
    expected = -np.log(numpy_mlp.softmax(logits)[np.arange(5), labels])
    result = rum.unsureness(torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_probe_is_fine_tuned_on_retained_data_and_the_model_is_not(
    model: nn.Module, split: Split
) -> None:
    before = weights_of(model)
    original = predict(model, split.forget)
    scores = rum.moved(model, split, 3, 0.05)
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())
    probed = split.cached(("probe", 3, 0.05), lambda draws: pytest.fail("not computed before"))
    expected = rum.symmetric_divergence(torch.from_numpy(original), probed)
    assert torch.equal(scores, expected)
    assert float(scores.min()) > 0.0


def test_thirds_are_unlearned_from_the_least_memorised_to_the_most(
    model: nn.Module, split: Split, calls: list[Call]
) -> None:
    logits = predict(model, split.forget).astype(np.float64)
    labels = split.forget.labels.numpy()
    losses = -np.log(numpy_mlp.softmax(logits)[np.arange(len(labels)), labels])
    thirds = np.array_split(np.argsort(losses, kind="stable"), 3)
    steps = rum.unlearn(model, split, generator(0), proxy="confidence", lr_factor=3.0)
    assert len(list(steps)) == 10, "one after each epoch of the last third"
    assert [name for name, _, _ in calls] == ["finetune", "amnesiac", "salun"]
    for (_, part, knobs), rows in zip(calls, thirds):
        assert np.array_equal(part.forget.inputs, split.forget.inputs[rows])
        assert np.array_equal(part.forget.labels, labels[rows])
        assert len(part.retain) == len(split.retain)
        assert knobs == {"lr": pytest.approx(0.3), "epochs": 10}
        assert "twin" not in part.parts


def test_thirds_yet_to_come_may_count_as_retained(
    model: nn.Module, split: Split, calls: list[Call]
) -> None:
    for _ in rum.unlearn(model, split, generator(0), keep_later=True, epochs=2):
        pass
    sizes = [len(part.forget) for _, part, _ in calls]
    assert sum(sizes) == len(split.forget)
    assert [len(part.retain) - len(split.retain) for _, part, _ in calls] == [
        sizes[1] + sizes[2],
        sizes[2],
        0,
    ]
    added = calls[1][1].retain.inputs[len(split.retain) :]
    assert torch.equal(added, calls[2][1].forget.inputs)
    assert all(knobs["epochs"] == 2 for _, _, knobs in calls)


def test_a_third_may_be_left_alone(model: nn.Module, split: Split, calls: list[Call]) -> None:
    steps = rum.unlearn(model, split, generator(0), low="none", high="none")
    assert len(list(steps)) == 10
    assert [name for name, _, _ in calls] == ["amnesiac"]
    idle = rum.unlearn(model, split, generator(0), low="none", medium="none", high="none")
    assert len(list(idle)) == 10
    assert len(calls) == 1


def test_one_third_alone_is_its_method_on_these_samples(model: nn.Module, split: Split) -> None:
    alone = copy.deepcopy(model)
    for _ in rum.unlearn(
        model, split, generator(0), low="finetune", medium="none", high="none", epochs=2
    ):
        pass
    for _ in finetune.unlearn(alone, split, generator(0), epochs=2):
        pass
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), alone.parameters())
    )


def test_what_a_method_keeps_of_the_original_is_of_the_model_it_is_given(
    model: nn.Module, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    saliencies: list[torch.Tensor] = []
    saliency = salun.saliency

    def spy(*args: Any) -> torch.Tensor:
        saliencies.append(saliency(*args))
        return saliencies[-1]

    monkeypatch.setattr(salun, "saliency", spy)
    for _ in rum.unlearn(
        model, split, generator(0), low="salun", medium="salun", high="salun", epochs=1
    ):
        pass
    assert len(saliencies) == 3
    assert not torch.equal(saliencies[0], saliencies[1])


def test_fewer_samples_than_thirds(model: nn.Module, split: Split, calls: list[Call]) -> None:
    small = Split(
        {"retain": split.retain, "forget": split.forget.take(torch.arange(2))}, num_classes=4
    )
    assert len(list(rum.unlearn(model, small, generator(0), epochs=3))) == 3
    assert [len(part.forget) for _, part, _ in calls] == [1, 1]
